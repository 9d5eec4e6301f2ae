"""What is fetched from elsewhere is what the lock says, once; without it the book still builds."""

import base64
import hashlib
import io
import json
import logging
import tarfile
from types import SimpleNamespace

import browser
import pytest

import assets
import offline

NOWHERE = "http://127.0.0.1:9"


def archive_of(files: dict[str, str]) -> bytes:
    """An archive as npm makes it: all in the folder "package"."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry on this machine with one package; returns the arguments of ``fetch``."""
    archive = archive_of({"a.js": "alert(1)", "fonts/b.woff": "b", "README": "no"})
    folder = tmp_path / "registry" / "toy" / "-"
    folder.mkdir(parents=True)
    (folder / "toy-1.0.0.tgz").write_bytes(archive)
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    entry = {"version": "1.0.0", "integrity": f"sha512-{digest}", "files": ["a.js", "fonts/"]}
    lock = tmp_path / "lock.json"
    lock.write_text(json.dumps({"toy": entry}))
    with browser.served(tmp_path / "registry") as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        yield {"package": "toy", "lock": lock, "cache": tmp_path / "cache"}


def test_fetched_once_and_no_more_than_wanted(registry, monkeypatch):
    folder = assets.fetch(**registry)
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert found == ["toy/a.js", "toy/fonts/b.woff"]
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", NOWHERE)
    assert assets.fetch(**registry) == folder


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"integrity": "sha512-AAAA"}, "the lock says"),
        ({"version": "2.0.0"}, "cannot be fetched"),
        ({"files": ["gone.js"]}, "has no gone.js"),
    ],
)
def test_what_differs_from_the_lock_is_refused(registry, change, complaint):
    entry = json.loads(registry["lock"].read_text())["toy"]
    registry["lock"].write_text(json.dumps({"toy": {**entry, **change}}))
    with pytest.raises(assets.AssetError, match=complaint):
        assets.fetch(**registry)
    assert not list(registry["cache"].glob("*"))


def test_without_a_network_the_build_says_so_and_goes_on(monkeypatch, tmp_path, caplog):
    """The pages then name MathJax where it lies in the network."""
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", NOWHERE)
    monkeypatch.setattr(offline.assets, "CACHE", tmp_path)
    monkeypatch.setattr(offline, "logger", logging.getLogger("offline"))
    config = SimpleNamespace(html_static_path=[], mathjax_path="https://cdn.example/mathjax.js")
    with caplog.at_level(logging.INFO):
        offline.use_local_mathjax(None, config)
    assert config.mathjax_path == "https://cdn.example/mathjax.js"
    assert config.html_static_path == []
    assert "MATHJAX IS MISSING" in caplog.text and NOWHERE in caplog.text

"""Fetch scripts and fonts that others wrote, as ``book/assets.lock.json`` names them.

The lock has the exact version of each package of the npm registry, the SHA-512 of its archive and
the files to keep of it. What was fetched stays in ``.cache/assets`` and is not fetched again. To
take a newer version, write it there with what ``npm view PACKAGE@VERSION dist.integrity`` says.
``NPM_CONFIG_REGISTRY`` names another registry, as it does for npm.

``python book/_tools/assets.py`` fetches all; the build fetches what the pages need by itself.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "book" / "assets.lock.json"
CACHE = ROOT / ".cache" / "assets"
REGISTRY = "https://registry.npmjs.org"
SECONDS = 60  # to wait for the registry


class AssetError(Exception):
    """An asset cannot be had; the text says why."""


def download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            return response.read()
    except (OSError, HTTPException) as error:
        raise AssetError(f"{url} cannot be fetched: {error}") from error


def verify(archive: bytes, integrity: str, source: str) -> None:
    """Raise where the archive is not, byte for byte, the one that was locked."""
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if f"sha512-{digest}" != integrity:
        raise AssetError(f"{source} has the hash sha512-{digest}, and the lock says {integrity}")


def unpack(archive: bytes, wanted: list[str], folder: Path) -> None:
    """Write the wanted files of an npm archive; an entry that ends in "/" wants a whole folder."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {info.name.partition("/")[2]: info for info in tar if info.isfile()}
        for entry in wanted:
            names = [n for n in files if n == entry or (entry[-1] == "/" and n.startswith(entry))]
            if not names:
                raise AssetError(f"the archive has no {entry}")
            for name in names:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(files[name]).read())


def fetch(package: str, lock: Path = LOCK, cache: Path | None = None) -> Path:
    """A folder that holds the folder ``package``, from the cache or else from the registry."""
    entry = json.loads(lock.read_text(encoding="utf-8"))[package]
    # A change of the entry is another folder.
    name = hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:12]
    cache = cache or CACHE
    folder = cache / f"{package}-{entry['version']}-{name}"
    if folder.is_dir():
        return folder
    registry = os.environ.get("NPM_CONFIG_REGISTRY", REGISTRY).rstrip("/")
    url = f"{registry}/{package}/-/{package}-{entry['version']}.tgz"
    archive = download(url)
    verify(archive, entry["integrity"], url)
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=cache))
    try:
        unpack(archive, entry["files"], partial / package)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was quicker
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def main() -> int:
    for package in json.loads(LOCK.read_text(encoding="utf-8")):
        try:
            print(f"{package}: {fetch(package).relative_to(ROOT)}")
        except AssetError as error:
            print(f"{package}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What all tests share: one thread, datasets of their own, data of a real maze, the built book."""

import shutil
import subprocess
import sys
from pathlib import Path

import browser
import pytest

import live_figures

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums keep their order, and nothing waits for a busy second core."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory):
    """A folder for Minari datasets, in place of the person's own."""
    return tmp_path_factory.mktemp("minari")


@pytest.fixture(autouse=True, scope="module")
def own_datasets(datasets_root):
    """Set for each module, and taken back: the notebooks run after this with the usual folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets_root))
        yield


@pytest.fixture(scope="session")
def umaze():
    from mbta_helpers.mazes import get_maze

    return get_maze("pointmaze-umaze")


@pytest.fixture(scope="session")
def played(umaze):
    """Some 3000 steps of play in the small maze."""
    from mbta_helpers import datasets

    return datasets.play(umaze, 3000, seed=3)


@pytest.fixture(scope="session")
def stored(played, umaze, datasets_root):
    """The id of a Minari dataset that `collect` wrote, with the transitions of `played`."""
    from mbta_helpers import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets_root))
        return datasets.collect(umaze, 3000, seed=3, dataset_id="tests/umaze-v0")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, played):
    """A folder with a finished run of a few updates: good for nothing but tests."""
    from samples import tiny_config

    from mbta_helpers.training import Trainer

    out = tmp_path_factory.mktemp("runs") / "umaze"
    Trainer(tiny_config(), played, seed=0).run(out)
    return out


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The folder with the HTML, built from the working tree with all warnings as errors."""
    out = tmp_path_factory.mktemp("book")
    builder = Path(sys.executable).with_name("jupyter-book")
    command = [builder, "build", "-W", "-n", "--keep-going", ".", "--path-output", out]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    report = run.stdout + run.stderr
    warnings = [line for line in report.splitlines() if "WARNING" in line or "ERROR" in line]
    assert run.returncode == 0, "\n".join(warnings or report.splitlines()[-40:])
    return out / "_build" / "html"


@pytest.fixture(scope="module")
def chromium():
    """A browser; for one module, because Playwright's event loop would disturb the notebooks."""
    with browser.chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def reader(chromium, built):
    """Somebody who reads the built book in a browser, without a network."""
    browser.asset("mathjax")
    with browser.served(built) as address:
        yield browser.Reader(chromium, address)


@pytest.fixture(scope="module")
def compute(chromium):
    """Run JavaScript with a figure's module: `m` is the module, `given` what is passed in."""
    from mbta_helpers.widgets import bundle

    tab = chromium.new_page()

    def run(module: str, script: str, **given):
        source = f"""async ({{ text, given }}) => {{
            const url = URL.createObjectURL(new Blob([text], {{ type: "text/javascript" }}));
            const m = await import(url);
            {script}
        }}"""
        return tab.evaluate(source, {"text": bundle.module(module), "given": given})

    yield run
    tab.close()


@pytest.fixture(scope="module")
def stage(request, tmp_path_factory):
    """A folder with a page for each figure of the module's KINDS, and the folder's address.

    The pages are as the extension writes them, with little else on them.
    """
    folder = tmp_path_factory.mktemp("stage")
    static = folder / "_static"
    live_figures.write_assets(static / "live")
    shutil.copy(ROOT / "book" / "_static" / "live.js", static)
    for name, make in request.module.KINDS.items():
        data, metadata = make()._repr_mimebundle_()
        picture = f"data:image/png;base64,{data['image/png']}"
        (folder / f"{name}.html").write_text(
            '<!doctype html><html data-theme="light"><meta charset="utf-8">'
            '<link rel="stylesheet" href="_static/live/live.css">'
            '<meta name="viewport" content="width=device-width"><p>Some text.</p>'
            + live_figures.opening(metadata["image/png"]["live"])
            + f'<img alt="{data["text/plain"]}" src="{picture}"></div>'
            '<script src="_static/live.js"></script></html>',
            encoding="utf-8",
        )
    with browser.served(folder) as address:
        yield folder, address


@pytest.fixture
def show(chromium, stage):
    """Open a figure's page, from the server or from the file; the tab is closed at the end."""
    contexts = []

    def open_page(name: str, file=False, before=None, **options):
        context = chromium.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        tab = context.new_page()
        tab.errors = []
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        if before:
            before(tab)
        folder, address = stage
        tab.goto(f"file://{folder}/{name}.html" if file else f"{address}{name}.html")
        return tab

    yield open_page
    for context in contexts:
        context.close()

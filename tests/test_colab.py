"""Chapters as Colab runs them: no repository, no pins, only their own install cell.

Colab has PyTorch and the usual packages; the wheel of this project brings the rest. Each chapter
gets an empty folder and an environment of its own, in which the packages that Colab has are hard
links to those of the tests: nothing large is fetched or copied.
"""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from zipfile import ZipFile

import browser
import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sync_badges

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mbta_helpers"
PREINSTALLED = ["torch", "numpy", "matplotlib", "ipywidgets", "ipykernel", "nbclient", "pip"]
QUICK = {"01_problem_and_data", "02_elbo", "09_options"}
CHAPTERS = [
    pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else pytest.mark.everything)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
]
RUN = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3").execute()
"""


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def closure(names: list[str]) -> dict[str, object]:
    """The distributions of these names and of all that they need, as far as they are here."""
    found, waiting = {}, list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return found


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def preinstall(site: Path) -> None:
    """Fill the packages of an environment with what Colab has."""
    for package in closure(PREINSTALLED).values():
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            source = package.locate_file(top)
            if source.is_dir():
                shutil.copytree(source, site / top, copy_function=link, dirs_exist_ok=True)
            elif not (site / top).exists():
                link(source, site / top)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The package as the install cell gets it, built from the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    built = run(*pip, copy)
    if built.returncode:
        browser.missing(f"NO WHEEL, so chapters are NOT run as on Colab: {built.stderr[-500:]}")
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_all_that_chapters_load(wheel):
    """Code, parameters, pictures, scripts of the widgets."""
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    assert wanted <= set(ZipFile(wheel).namelist())


@pytest.mark.parametrize("path", CHAPTERS)
def test_chapter_runs_with_its_own_install_cell(path, wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    preinstall(next(environment.glob("lib/python3*/site-packages")))
    python = environment / "bin" / "python"

    notebook = nbformat.read(path, as_version=4)
    url, branch = sync_badges.repository(ROOT)
    install = next(cell for cell in notebook.cells if cell.cell_type == "code")
    install.source = install.source.replace(f"git+{url}@{branch}", str(wheel))
    assert str(wheel) in install.source
    empty = tmp_path / "empty"
    empty.mkdir()
    nbformat.write(notebook, tmp_path / path.name)

    known = {**os.environ, "MINARI_DATASETS_PATH": str(tmp_path / "minari")}
    foreign = re.compile("PYTHON|JUPYTER|PIP_CONSTRAINT")
    known = {name: value for name, value in known.items() if not foreign.match(name)}
    absent = run(python, "-c", "import mbta_helpers", cwd=empty, env=known)
    assert "ModuleNotFoundError" in absent.stderr
    done = run(python, "-c", RUN, tmp_path / path.name, cwd=empty, env=known)
    assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(environment)

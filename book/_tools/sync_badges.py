"""Write the badge line and the install cell of every chapter from the address in ``_config.yml``.

``python book/_tools/sync_badges.py`` rewrites the notebooks that differ; with ``--check`` it only
names them and exits with 1. The badge line is the paragraph after the title in the first Markdown
cell; the install cell is the first code cell, and the cell after it prints the versions.
"""

import argparse
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[2]
BADGE_START = "[![Open in Colab]"
INSTALL_START = "# Install the package where it is missing"
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"


def repository(root: Path = ROOT) -> tuple[str, str]:
    """The address of the repository and its branch."""
    entry = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return entry["url"].rstrip("/"), entry["branch"]


def badge_line(url: str, branch: str, name: str) -> str:
    """Links that open the chapter in Colab and that download it."""
    slug = url.removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{slug}/blob/{branch}/notebooks/{name}"
    raw = f"https://raw.githubusercontent.com/{slug}/{branch}/notebooks/{name}"
    return f"{BADGE_START}({BADGE_IMAGE})]({colab}) · [Download this notebook]({raw})"


def install_source(url: str, branch: str) -> str:
    """The first code cell: alone, because of the magic in it."""
    return (
        f"{INSTALL_START} (on Colab); where it is installed, this cell does nothing.\n"
        "import importlib.util\n"
        "\n"
        'if importlib.util.find_spec("mbta_helpers") is None:\n'
        f"    %pip install -q git+{url}@{branch}"
    )


def with_badges(source: str, line: str) -> str:
    """The first Markdown cell with its badge line replaced, or put in after the title."""
    lines = source.split("\n")
    for i, text in enumerate(lines):
        if text.startswith(BADGE_START):
            return "\n".join([*lines[:i], line, *lines[i + 1 :]])
    return "\n".join([lines[0], "", line, *lines[1:]])


def synchronise(notebook, name: str, url: str, branch: str) -> list[str]:
    """Mend ``notebook`` in place; the list says what was different."""
    changes = []
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        raise SystemExit(
            f"{name}: the first cell has to be Markdown that starts with the title, '# ...'"
        )
    wanted = with_badges(first.source, badge_line(url, branch, name))
    if wanted != first.source:
        first.source = wanted
        changes.append("badges")
    index = next((i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"), None)
    wanted = install_source(url, branch)
    if index is None or not notebook.cells[index].source.startswith(INSTALL_START):
        cell = nbformat.v4.new_code_cell(wanted, id="install")
        notebook.cells.insert(1 if index is None else index, cell)
        changes.append("install cell (new: execute the notebook again)")
    elif notebook.cells[index].source != wanted:
        notebook.cells[index].source = wanted
        changes.append("install cell")
    return changes


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with 1 if needed"
    )
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    options = parser.parse_args(arguments)
    url, branch = repository()
    different = 0
    for path in options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        changes = synchronise(notebook, path.name, url, branch)
        if not changes:
            continue
        different += 1
        print(f"{path.name}: {', '.join(changes)}")
        if not options.check:
            nbformat.write(notebook, path)
    return int(options.check and different > 0)


if __name__ == "__main__":
    sys.exit(main())

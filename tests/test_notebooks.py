"""What every chapter must be, besides running: nbval executes the cells, this reads the files.

Each check is a function from a notebook to a list of problems. A check is first shown a notebook
with a fault, so that it cannot pass by seeing nothing.
"""

import ast
import copy
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

import execute
import last_run
import live_figures
import output_alt
import sync_badges

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGE = ROOT / "mbta_helpers"
SCREEN = 60  # lines that a code cell may have
SIZE = 3_000_000  # bytes that a notebook may have
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SHOWS = {"print", "display", "show"}
DECLARATION = re.compile(r"# mbta_helpers/([\w/]+)\.py\s*$")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


# -- reading ----------------------------------------------------------------------------------


def code_cells(notebook) -> list:
    """The code cells that hold anything."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def markdown(notebook) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tags(cell) -> list[str]:
    return cell.metadata.get("tags", [])


def tree_of(source: str) -> ast.Module:
    """The syntax tree of a cell, magics replaced by ``pass``."""
    lines = (re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in source.split("\n"))
    return ast.parse("\n".join(lines))


def without_code(text: str) -> str:
    """Markdown with code blocks, code spans and mathematics taken out."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.S | re.M)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
    return re.sub(r"`[^`\n]*`|\$[^$\n]*\$", "", text)


def outside_definitions(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs when the cell runs, as far as the syntax tells."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*DEFINITIONS, ast.Lambda)):
            continue
        yield child
        yield from outside_definitions(child)


def shows_something(source: str) -> bool:
    """Whether a cell ends in an expression, or calls something that displays."""
    tree = tree_of(source)
    if not tree.body:
        return False
    if isinstance(tree.body[-1], ast.Expr):
        return True
    for node in outside_definitions(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
            if name in SHOWS:
                return True
    return False


def comparable(node: ast.stmt) -> str:
    """The syntax tree of a definition as text, docstrings left out."""
    node = copy.deepcopy(node)
    for part in ast.walk(node):
        if isinstance(part, DEFINITIONS) and ast.get_docstring(part, clean=False) is not None:
            part.body = part.body[1:] or [ast.Pass()]
    return ast.dump(node)


def named(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Top-level functions, classes and constants by name."""
    names = {}
    for node in body:
        if isinstance(node, DEFINITIONS):
            names[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            if isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return names


def package_definitions(package: Path) -> dict[str, str]:
    """Names of the public functions and classes of the package, with the module that has each."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
                found[node.name] = path.relative_to(package).as_posix()
    return found


# -- checks -----------------------------------------------------------------------------------


def execution_problems(notebook, path=None) -> Iterator[str]:
    """Counts 1 … n in order, outputs where there should be some, no errors, nothing on stderr."""
    for expected, cell in enumerate(code_cells(notebook), start=1):
        start = cell.source[:60]
        if cell.execution_count != expected:
            yield f"execution count {cell.execution_count}, not {expected}: {start!r}"
        silent = "no-output" in tags(cell)
        if shows_something(cell.source) and not cell.outputs and not silent:
            yield f"no output: {start!r}"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"ends in {output.ename}: {start!r}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"writes to the error stream: {start!r}"
        last = cell.source.rstrip().split("\n")[-1]
        if last.endswith(";") and not last.lstrip().startswith("#"):
            yield f"a trailing ';' hides an output that nbval still compares: {start!r}"


def prose_problems(notebook, path=None) -> Iterator[str]:
    """Plain Markdown only: what is MyST shows as raw text on Colab."""
    text = markdown(notebook)
    for pattern, name in (
        (r"^\s*(```+|~~~+|:::+)\s*\{", "directive"),
        (r"(?<![`$])\{[a-zA-Z][\w:+-]*\}`[^`\n]+`", "role"),
        (r"^\([\w:-]+\)=\s*$", "target"),
        (r"\$\$\s*\([\w:-]+\)\s*$", "equation label"),
        (r"^\+\+\+", "block break"),
    ):
        for match in re.finditer(pattern, text, flags=re.M):
            yield f"MyST {name}: {text[match.start() : match.start() + 40]!r}"
    if not notebook.cells[0].source.startswith("# "):
        yield "the first cell does not start with the title"
    if len(re.findall(r"^# ", without_code(text), flags=re.M)) != 1:
        yield "there has to be exactly one title"


def skeleton_problems(notebook, path=None) -> Iterator[str]:
    """The parts that a reader finds in each chapter."""
    text = markdown(notebook).lower()
    for part in ("check", "pitfall", "exercise", "<details", "summary", "further reading"):
        if part not in text.replace("<summary>", "").replace("</summary>", ""):
            yield f"no {part!r} in the text"
    interactive = (
        WIDGET_VIEW in output.get("data", {}) or live_figures.about(output)
        for cell in code_cells(notebook)
        for output in cell.outputs
    )
    if not any(interactive):
        yield "no interactive figure"


def alternative_text_problems(notebook, path=None) -> Iterator[str]:
    """Every picture says what it shows."""
    text = markdown(notebook)
    for match in re.finditer(r"!\[(\s*)\]\([^)]*\)", text):
        yield f"picture without text: {match.group(0)[:60]}"
    pieces = [text]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            pieces.append("".join(data.get("text/html", "")))
            for mime in data:
                if not mime.startswith("image/"):
                    continue
                alt = output.metadata.get(mime, {}).get("alt", "")
                if len(alt.split()) < 4:
                    yield f"figure with the text {alt!r}: {cell.source[:60]!r}"
    for piece in pieces:
        for tag in re.findall(r"<img\b[^>]*>", piece):
            if not re.search(r"\balt\s*=\s*(\"[^\"]*\w|'[^']*\w)", tag):
                yield f"picture without text: {tag[:60]}"


def link_problems(notebook, path: Path) -> Iterator[str]:
    """Links to other files of the book lead to files that exist."""
    text = without_code(markdown(notebook))
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text)
    targets += re.findall(r"(?:href|src)\s*=\s*[\"']([^\"']+)", text)
    for target in targets:
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        name = target.partition("#")[0]
        if not os.path.exists(os.path.normpath(path.parent / name)):
            yield f"broken link: {target}"


def tidiness_problems(notebook, path: Path) -> Iterator[str]:
    """Short cells, no traces of the machine, no state that a viewer cannot use."""
    for cell in code_cells(notebook):
        lines = cell.source.count("\n") + 1
        if lines > SCREEN:
            yield f"a cell of {lines} lines: {cell.source[:60]!r}"
        for output in cell.outputs:
            shown = output.get("text", "") + "".join(
                str(value)
                for mime, value in output.get("data", {}).items()
                if mime.startswith("text/")
            )
            if re.search(r"(^|[\s'\"])/(home|root|Users|tmp|work|mnt)/", shown):
                yield f"an output names a folder of a machine: {cell.source[:60]!r}"
    if "widgets" in notebook.metadata:
        yield "widget state in the metadata"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not 'python3'"
    if path.exists() and path.stat().st_size > SIZE:
        yield f"{path.stat().st_size:,} bytes, more than {SIZE:,}"


def badge_problems(notebook, path: Path) -> Iterator[str]:
    """Badges and install cell carry the address of _config.yml; versions are printed next."""
    url, branch = sync_badges.repository(ROOT)
    yield from sync_badges.synchronise(copy.deepcopy(notebook), path.name, url, branch)
    cells = code_cells(notebook)
    if len(cells) < 2 or "version" not in cells[1].source:
        yield "the second code cell does not print the versions"
    elif "nbval-ignore-output" not in tags(cells[1]):
        yield "the cell with the versions is not tagged nbval-ignore-output"


def source_problems(notebook, path=None, package: Path = PACKAGE) -> Iterator[str]:
    """What a cell shows as the package's source is the package's source."""
    known = package_definitions(package)
    for cell in code_cells(notebook):
        declared = DECLARATION.match(cell.source.split("\n")[0])
        shown = named(tree_of(cell.source).body)
        if not declared:
            for name, node in shown.items():
                if isinstance(node, DEFINITIONS) and name in known:
                    yield f"{name} is also in mbta_helpers/{known[name]}: declare it or rename it"
            continue
        module = package / f"{declared.group(1)}.py"
        if not module.exists():
            yield f"there is no {module.name}"
            continue
        originals = named(ast.parse(module.read_text(encoding="utf-8")).body)
        if not shown:
            yield f"declares {module.name} and defines nothing"
        for name, node in shown.items():
            if name not in originals:
                yield f"{module.name} has no {name}"
            elif comparable(node) != comparable(originals[name]):
                yield f"{name} differs from {module.name}"


CHECKS = [
    execution_problems,
    prose_problems,
    skeleton_problems,
    alternative_text_problems,
    link_problems,
    tidiness_problems,
    badge_problems,
    source_problems,
]


# -- the chapters -----------------------------------------------------------------------------


def test_there_are_chapters():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_format_is_valid(path):
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter(path, check):
    assert list(check(nbformat.read(path, as_version=4), path)) == []


# -- the checks themselves --------------------------------------------------------------------

PICTURE = {"image/png": "AAAA", "text/plain": "a line that rises"}


@pytest.fixture
def chapter():
    """A notebook in which every check finds nothing."""
    url, branch = sync_badges.repository(ROOT)
    new = nbformat.v4
    text = (
        "## Check\n\n## Pitfall\n\n## Exercises\n\n<details><summary>Solution</summary>\n\nFour."
        "\n\n</details>\n\n## Summary\n\n## Further reading\n\n"
        "[Notation](../book/notation.md), $x_{i}$ and `{not}` a role."
    )
    notebook = new.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        cells=[
            new.new_markdown_cell("# 0. A chapter"),
            new.new_code_cell(sync_badges.install_source(url, branch)),
            new.new_code_cell("version = 1\nversion", metadata={"tags": ["nbval-ignore-output"]}),
            new.new_markdown_cell(text),
            new.new_code_cell("figure = 1\nplots.show(figure, alt='a line that rises')"),
            new.new_code_cell("# mbta_helpers/rooms.py\ndef double(x):\n    return 2 * x"),
            new.new_code_cell("slider"),
        ],
    )
    sync_badges.synchronise(notebook, "00_chapter.ipynb", url, branch)
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
    cells = code_cells(notebook)
    cells[1].outputs = [new.new_output("execute_result", {"text/plain": "1"}, execution_count=2)]
    alt = {"image/png": {"alt": "a line that rises"}}
    cells[2].outputs = [new.new_output("display_data", PICTURE, metadata=alt)]
    cells[4].outputs = [new.new_output("display_data", {WIDGET_VIEW: {"model_id": "0"}})]
    return notebook


@pytest.fixture
def rooms(tmp_path):
    """A package of one module."""
    source = 'def double(x):\n    """Twice x."""\n    return 2 * x\n'
    (tmp_path / "rooms.py").write_text(source, encoding="utf-8")
    return tmp_path


HERE = ROOT / "notebooks" / "00_chapter.ipynb"


@pytest.mark.parametrize("check", CHECKS[:-1], ids=lambda check: check.__name__)
def test_check_accepts_a_good_chapter(chapter, check):
    assert list(check(chapter, HERE)) == []


def test_source_check_accepts_the_package_source(chapter, rooms):
    assert list(source_problems(chapter, package=rooms)) == []


@pytest.mark.parametrize(
    ("cell", "source"),
    [
        (5, "# mbta_helpers/rooms.py\ndef double(x):\n    return 3 * x"),
        (5, "# mbta_helpers/rooms.py\ndef triple(x):\n    return 3 * x"),
        (5, "# mbta_helpers/halls.py\ndef double(x):\n    return 2 * x"),
        (5, "# mbta_helpers/rooms.py\nprint(1)"),
        (5, "def double(x):\n    return 2 * x"),
    ],
)
def test_source_check_finds(chapter, rooms, cell, source):
    chapter.cells[cell].source = source
    assert list(source_problems(chapter, package=rooms))


def set_source(index, source):
    def change(notebook):
        notebook.cells[index].source = source

    return change


def add_text(text):
    def change(notebook):
        notebook.cells[3].source += "\n\n" + text

    return change


def change_code(index, **values):
    def change(notebook):
        code_cells(notebook)[index].update(values)

    return change


ERROR = nbformat.v4.new_output("error", ename="ValueError", evalue="", traceback=[])
STDERR = nbformat.v4.new_output("stream", name="stderr", text="warning")
FOLDER = nbformat.v4.new_output("stream", name="stdout", text="in /home/me/book")


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        (execution_problems, change_code(2, execution_count=None)),
        (execution_problems, change_code(2, execution_count=7)),
        (execution_problems, change_code(2, outputs=[])),
        (execution_problems, change_code(2, source="for i in range(3):\n    print(i)", outputs=[])),
        (execution_problems, change_code(3, outputs=[ERROR])),
        (execution_problems, change_code(3, outputs=[STDERR])),
        (execution_problems, change_code(4, source="slider;")),
        (prose_problems, add_text("```{note}\nMind.\n```")),
        (prose_problems, add_text(":::{note}\nMind.\n:::")),
        (prose_problems, add_text("See {cite}`freed2023`.")),
        (prose_problems, add_text("(here)=")),
        (prose_problems, add_text("$$ a $$ (eq-a)")),
        (prose_problems, add_text("# A second title")),
        (prose_problems, set_source(0, "No title")),
        (skeleton_problems, set_source(3, "## Check")),
        (skeleton_problems, change_code(4, outputs=[])),
        (alternative_text_problems, add_text("![](a.png)")),
        (alternative_text_problems, add_text('<img src="a.png">')),
        (alternative_text_problems, add_text('<img src="a.png" alt="">')),
        (
            alternative_text_problems,
            change_code(2, outputs=[nbformat.v4.new_output("display_data", PICTURE)]),
        ),
        (link_problems, add_text("[next](99_missing.ipynb)")),
        (link_problems, add_text('<a href="../book/missing.md">x</a>')),
        (tidiness_problems, change_code(3, source="x = 1\n" * 61)),
        (tidiness_problems, change_code(3, outputs=[FOLDER])),
        (tidiness_problems, lambda notebook: notebook.metadata.update(widgets={})),
        (badge_problems, set_source(0, "# 0. A chapter")),
        (badge_problems, change_code(0, source="%pip install torch==1.0")),
        (badge_problems, change_code(1, metadata={})),
    ],
)
def test_check_finds(chapter, check, fault):
    fault(chapter)
    assert list(check(chapter, HERE))


# -- the tools that write notebooks and pages -------------------------------------------------


def test_badges_are_written_once(chapter):
    url, branch = sync_badges.repository(ROOT)
    bare = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 1. Title\n\nText.")])
    assert sync_badges.synchronise(bare, "01_a.ipynb", url, branch)
    assert sync_badges.synchronise(bare, "01_a.ipynb", url, branch) == []
    assert bare.cells[0].source.startswith("# 1. Title\n\n[![Open in Colab]")
    assert bare.cells[0].source.endswith("\n\nText.")
    assert url in bare.cells[1].source
    assert sync_badges.synchronise(chapter, "00_chapter.ipynb", url, branch) == []
    assert sync_badges.synchronise(chapter, "00_chapter.ipynb", url, "other") != []


def test_an_executed_notebook_settles(chapter):
    """What changes from run to run goes; what a reader sees stays."""
    stream = nbformat.v4.new_output
    pieces = [("stdout", "a"), ("stderr", "50%"), ("stdout", "b")]
    cells = code_cells(chapter)
    cells[3].outputs = [stream("stream", name=name, text=text) for name, text in pieces]
    cells[3].metadata["execution"] = {"iopub.execute_input": "now"}
    cells[3].execution_count = 40
    chapter.metadata["widgets"] = {"state": {}}
    execute.settle(chapter)
    assert [(output.name, output.text) for output in cells[3].outputs] == [("stdout", "ab")]
    assert cells[3].execution_count == 4
    assert "execution" not in cells[3].metadata
    assert "widgets" not in chapter.metadata
    once = copy.deepcopy(chapter)
    execute.settle(chapter)
    assert chapter == once


def test_a_run_leaves_a_record_of_itself(tmp_path):
    """It is written, it survives the file, and it is not taken for the record of another run."""
    path = tmp_path / "00_run.ipynb"
    cell = nbformat.v4.new_code_cell("print('one\\ntwo')")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    assert last_run.sentence(nbformat.read(path, as_version=4)) == ""
    execute.execute(path, timeout=60)
    notebook = nbformat.read(path, as_version=4)
    said = last_run.sentence(notebook)
    assert re.search(r"ran on \d{4}-\d\d-\d\d, in \d+ s, with Python 3\.\d+.* torch \d", said)
    assert re.search(r"on .+, \d+ cores?\.$", said)
    assert platform.node() not in said
    notebook.cells[0].outputs[0].text = "three"
    assert last_run.sentence(notebook) == ""


def test_alternative_texts_are_found_by_content(chapter):
    texts = output_alt.alternative_texts(chapter)
    assert list(texts.values()) == ["a line that rises"]

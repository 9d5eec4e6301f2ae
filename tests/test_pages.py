"""The built book: a warning fails the build, and what the builder does not see is looked at here.

Each check is a function from a page to a list of problems. The end of the file shows each check a
page with a fault, so that it cannot pass by seeing nothing.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import browser
import pytest
import yaml
from bs4 import BeautifulSoup
from bs4.element import NavigableString

ROOT = Path(__file__).resolve().parents[1]
WEIGHT = 1_500_000  # bytes of a page and its pictures, without what all pages share
PLACEHOLDER = 600  # characters of text below which a page is a placeholder
CODE = ("pre", "code", "script", "style")


def pages_in_contents() -> list[str]:
    """The pages of the table of contents, the front page first."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [entry["file"] for part in contents["parts"] for entry in part["chapters"]]
    return [contents["root"], *chapters]


PAGES = pages_in_contents()


@cache
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(path: Path) -> frozenset[str]:
    """What a link into this page may point to."""
    tags = page(path).find_all(True)
    return frozenset(str(tag[key]) for tag in tags for key in ("id", "name") if tag.get(key))


def article(soup: BeautifulSoup):
    return soup.find("article") or soup


def prose(soup: BeautifulSoup) -> str:
    """The text of the article without code and without mathematics."""
    parts = []
    for text in article(soup).find_all(string=True):
        if type(text) is not NavigableString:
            continue
        inside = any(
            parent.name in CODE or "math" in parent.get("class", []) for parent in text.parents
        )
        if not inside:
            parts.append(str(text))
    return "".join(parts)


# -- checks -----------------------------------------------------------------------------------


def target_of(path: Path, link: str) -> tuple[Path, str] | None:
    """The file and the anchor of a link within the book; None where it leads elsewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    name = unquote(parts.path)
    file = path if not name else Path(os.path.normpath(path.parent / name))
    return (file / "index.html" if file.is_dir() else file), unquote(parts.fragment)


def link_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """Every internal link leads to a file, and its anchor is there."""
    for tag in soup.find_all("a", href=True):
        target = target_of(path, tag["href"])
        if target is None:
            continue
        file, anchor = target
        if not file.exists():
            yield f"broken link: {tag['href']}"
        elif anchor and file.suffix == ".html" and anchor not in anchors(file):
            yield f"no such anchor: {tag['href']}"


def picture_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """Every picture exists and says in words what it shows."""
    for tag in soup.find_all("img"):
        source = tag.get("src", "")
        target = None if source.startswith("data:") else target_of(path, source)
        if target and not target[0].exists():
            yield f"missing picture: {source}"
    for tag in article(soup).find_all("img"):
        text = tag.get("alt", "").strip()
        if not text or re.search(r"\.(png|svg|jpe?g|gif)$", text):
            yield f"picture without text: {tag.get('src', '')[:60]}"


def resource_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """Style sheets and scripts of the page exist."""
    for tag in soup.find_all(["link", "script"]):
        source = tag.get("src") or tag.get("href")
        if not source or "canonical" in tag.get("rel", []):
            continue
        target = target_of(path, source)
        if target and not target[0].exists():
            yield f"missing file: {source}"


def text_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """No markup is left in the text, nothing is unresolved, nothing is missing."""
    text = prose(soup)
    for pattern, name in (
        (r"(```|:::)+\s*\{", "directive"),
        (r"\{[a-zA-Z][\w:+-]*\}`", "role"),
        (r"^\([\w:-]+\)=\s*$", "target"),
        (r"\$[^\s$][^$\n]*\$|\$\$", "mathematics"),
        (r"\\(frac|mathbb|mathcal|begin|tag|omega|psi|phi|theta)\b", "mathematics"),
        (r"\[\?\]|\?\?", "reference"),
        (r"\*\*\w[^*\n]*\*\*", "emphasis"),
    ):
        for match in re.finditer(pattern, text, flags=re.M):
            start = max(match.start() - 20, 0)
            yield f"raw {name}: {text[start : match.end() + 20]!r}"
    if len(re.sub(r"\s+", " ", article(soup).get_text()).strip()) < PLACEHOLDER:
        yield "a placeholder"


def title_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """One heading of the first level, and a title."""
    if not (soup.title and soup.title.get_text().strip()):
        yield "no title"
    count = len(article(soup).find_all("h1"))
    if count != 1:
        yield f"{count} headings of the first level"


def output_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """No output of a cell is an error."""
    for tag in soup.select(".cell_output .traceback, .cell_output .stderr, .problematic"):
        yield f"an error on the page: {tag.get_text()[:80]!r}"
    for tag in soup.select(".cell_output"):
        if "Traceback (most recent call last)" in tag.get_text():
            yield f"a traceback on the page: {tag.get_text()[:80]!r}"


def weight_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """The page and its own pictures come quickly through a slow line."""
    sources = {tag["src"] for tag in soup.select("img[src]")}
    targets = {target_of(path, source) for source in sources if not source.startswith("data:")}
    own = {target[0] for target in targets if target and "_static" not in target[0].parts}
    weight = sum(file.stat().st_size for file in {path, *own} if file.exists())
    if weight > WEIGHT:
        yield f"{weight:,} bytes, more than {WEIGHT:,}"


CHECKS = [
    link_problems,
    picture_problems,
    resource_problems,
    text_problems,
    title_problems,
    output_problems,
    weight_problems,
]


def foreign_problems(path: Path, soup: BeautifulSoup) -> Iterator[str]:
    """Whatever a browser fetches by itself is a file of the book; a link waits for a click."""
    for tag in soup.find_all(src=True) + soup.find_all("link", href=True):
        source = tag.get("src") or tag["href"]
        if "canonical" not in tag.get("rel", []) and re.match(r"(https?:)?//", source):
            yield f"fetched from elsewhere: {source}"
    for tag in soup.find_all(["script", "style"]):
        for source in re.findall(r"https?://[^\s\"')]+\.(?:m?js|css|woff2?)\b", tag.string or ""):
            yield f"a script or a style names {source}"


# -- the book ---------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PAGES)
def test_page(built, name, check):
    path = built / f"{name}.html"
    assert path.exists()
    assert list(check(path, page(path))) == []


@pytest.mark.parametrize("name", PAGES)
def test_page_fetches_nothing_from_elsewhere(built, name):
    browser.asset("mathjax")
    path = built / f"{name}.html"
    assert list(foreign_problems(path, page(path))) == []


def test_every_chapter_is_in_the_contents():
    notebooks = [f"notebooks/{path.stem}" for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    pages = [f"book/{path.stem}" for path in sorted((ROOT / "book").glob("*.md"))]
    assert [name for name in PAGES if name.startswith("notebooks/")] == notebooks
    assert sorted(name for name in PAGES if name.startswith("book/")) == pages


def test_mathematics_is_set(built):
    """The page on notation is full of it: without a loader it would be raw text."""
    soup = page(built / "book" / "notation.html")
    assert len(soup.select(".math")) > 50
    assert any("mathjax" in str(tag.get("src", "")).lower() for tag in soup.find_all("script"))


def test_style_sheet_is_used(built):
    soup = page(built / "book" / "index.html")
    assert any("mbta.css" in tag.get("href", "") for tag in soup.find_all("link"))


def test_citations_are_in_the_bibliography(built):
    """Every key that a page cites has an entry, and every entry is on the page of references."""
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^@\w+\{([\w-]+),", bibliography, flags=re.M)
    assert len(entries) == len(set(entries))
    for path in (ROOT / "book").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        cited = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        unknown = {key.strip() for keys in cited for key in keys.split(",")} - set(entries)
        assert not unknown, path.name
    listed = page(built / "book" / "references.html").select(".citation")
    assert len(listed) == len(entries)


def test_terms_are_sorted(built):
    terms = [
        re.sub(r"#$", "", tag.get_text()).strip()
        for tag in page(built / "book" / "glossary.html").select("dl.glossary > dt")
    ]
    assert len(terms) >= 30
    assert terms == sorted(terms, key=str.lower)


# -- the checks themselves --------------------------------------------------------------------

GOOD = f"""<html><head><title>A page</title><link rel="stylesheet" href="good.css"></head>
<body><article><h1 id="top">A page</h1><p>{"Some words to read. " * 40}</p>
<a href="#top">up</a> <a href="page.html#top">here</a> <a href="https://example.org">away</a>
<img src="good.png" alt="a line that rises"><pre>{{cite}}`x` $x$</pre>
<span class="math">\\(\\frac 1 2\\)</span></article></body></html>"""


@pytest.fixture
def site(tmp_path):
    (tmp_path / "good.png").write_bytes(b"")
    (tmp_path / "good.css").write_text("", encoding="utf-8")

    def write(html: str) -> Path:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        page.cache_clear()
        anchors.cache_clear()
        return path

    return write


@pytest.mark.parametrize("check", [*CHECKS, foreign_problems], ids=lambda check: check.__name__)
def test_check_accepts_a_good_page(site, check):
    path = site(GOOD)
    assert list(check(path, page(path))) == []


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (link_problems, "page.html#top", "gone.html"),
        (link_problems, "page.html#top", "page.html#gone"),
        (link_problems, '"#top"', '"#gone"'),
        (picture_problems, "good.png", "gone.png"),
        (picture_problems, ' alt="a line that rises"', ""),
        (picture_problems, "a line that rises", " "),
        (picture_problems, "a line that rises", "images/good.png"),
        (resource_problems, "good.css", "gone.css"),
        (text_problems, "to read. Some", "{cite}`freed2023` Some"),
        (text_problems, "to read. Some", "```{note} Some"),
        (text_problems, "to read. Some", "see [?] Some"),
        (text_problems, "to read. Some", "if $x > 0$ Some"),
        (text_problems, "to read. Some", "if **bold** Some"),
        (text_problems, "Some words to read. ", ""),
        (title_problems, "<title>A page</title>", ""),
        (title_problems, "</h1>", "</h1><h1>Another</h1>"),
        (weight_problems, "</body>", " " * WEIGHT + "</body>"),
        (foreign_problems, "good.css", "https://example.org/good.css"),
        (foreign_problems, "good.png", "//example.org/good.png"),
        (foreign_problems, "<p>", '<script>const URL = "https://example.org/a.js"</script><p>'),
        (output_problems, "<p>", '<div class="cell_output"><div class="traceback">x</div></div>'),
    ],
)
def test_check_finds(site, check, old, new):
    assert old in GOOD
    path = site(GOOD.replace(old, new))
    assert list(check(path, page(path)))

"""The built book in a real browser: what a reader sees and can do, without a network.

Each check is a function from an open page to a list of problems, as in test_pages.py. Pictures of
the main pages are left in _build/screenshots for a person to look at.
"""

import re
from collections.abc import Iterator

import browser
import pytest
from test_pages import PAGES, ROOT

MAIN = ["book/index", "book/notation", "book/results", "notebooks/10_option_critic"]
CHAPTER = "notebooks/02_elbo"

UNTYPESET = """() => [...document.querySelectorAll('.math')]
    .filter(math => !math.querySelector('mjx-container')).map(math => math.textContent)"""
ERRORS = """() => [...document.querySelectorAll('mjx-merror, [data-mjx-error]')]
    .map(math => math.getAttribute('data-mjx-error') || math.textContent)"""
BROKEN = """() => [...document.images].filter(image => image.complete && !image.naturalWidth)
    .map(image => image.src)"""
UNNAMED = """() => [...document.querySelectorAll('article :is(img, svg, canvas, [role=img])')]
    .filter(figure => !figure.closest('mjx-container, [aria-hidden=true]'))
    .filter(figure => !figure.closest('[alt]:not([alt=""]), [aria-label], [aria-labelledby]')
                      && !figure.querySelector(':scope > title'))
    .map(figure => figure.outerHTML.slice(0, 80))"""
# What reaches over the edge of the window although nothing around it scrolls.
STICKING_OUT = """() => {
    const scrolls = node => ['auto', 'scroll'].includes(getComputedStyle(node).overflowX)
        || node.tagName !== 'ARTICLE' && scrolls(node.parentElement);
    const wide = [...document.querySelectorAll('article *:not(mjx-container *)')]
        .filter(node => node.getBoundingClientRect().right > innerWidth + 1 && !scrolls(node))
        .map(node => node.outerHTML.slice(0, 80));
    return document.documentElement.scrollWidth > innerWidth ? ['the page', ...wide] : wide;
}"""
BACKGROUND = "node => getComputedStyle(node).backgroundColor"
TOP = "id => document.getElementById(id).getBoundingClientRect().top"


def noise_problems(page, complaints) -> Iterator[str]:
    """An error in the console, a failed request, a request to elsewhere."""
    yield from complaints


def mathematics_problems(page, complaints=()) -> Iterator[str]:
    """Every formula is typeset, none with an error."""
    yield from (f"not typeset: {text}" for text in page.evaluate(UNTYPESET))
    yield from (f"an error in a formula: {text}" for text in page.evaluate(ERRORS))


def figure_problems(page, complaints=()) -> Iterator[str]:
    """Every figure is there and says in words what it shows."""
    yield from (f"a broken picture: {source}" for source in page.evaluate(BROKEN))
    yield from (f"a figure without words: {figure}" for figure in page.evaluate(UNNAMED))


def width_problems(page, complaints=()) -> Iterator[str]:
    """On a phone nothing pushes the page sideways."""
    size = page.viewport_size
    page.set_viewport_size({**size, "width": browser.PHONE})
    yield from (f"too wide for a phone: {node}" for node in page.evaluate(STICKING_OUT))
    page.set_viewport_size(size)


CHECKS = [noise_problems, mathematics_problems, figure_problems, width_problems]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PAGES)
def test_page(reader, name, check):
    page = reader.open(name)
    assert list(check(page, reader.complaints)) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", MAIN)
def test_page_is_accessible(reader, name, theme):
    assert browser.violations(reader.open(name, theme=theme)) == []


@pytest.mark.parametrize("way", ["light", "dark", "phone"])
@pytest.mark.parametrize("name", MAIN)
def test_picture_of(reader, name, way):
    theme, width = {"phone": ("light", browser.PHONE)}.get(way, (way, browser.DESK))
    path = ROOT / "_build" / "screenshots" / f"{name.replace('/', '-')}-{way}.png"
    reader.open(name, theme=theme, width=width).screenshot(path=path, full_page=True)
    assert path.stat().st_size > 10_000


# -- what a reader does -----------------------------------------------------------------------


def test_dark_mode_can_be_switched(reader):
    page = reader.open(CHAPTER)
    themes = set()
    for _ in range(3):  # light, dark and the system's
        page.locator(".theme-switch-button:visible").click()
        themes.add(page.locator("html").get_attribute("data-theme"))
    assert themes == {"light", "dark"}


def test_figures_are_legible_in_the_dark(reader):
    """They are drawn in black on white or on nothing, so white has to be under them."""
    page = reader.open(CHAPTER, theme="dark")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    figures = page.locator("article .cell_output img")
    grounds = figures.evaluate_all(f"images => images.map({BACKGROUND})")
    assert grounds and set(grounds) == {"rgb(255, 255, 255)"}


def test_search_finds_a_word(reader):
    page = reader.open("book/index")
    page.keyboard.press("Control+k")
    page.keyboard.type("semi-Markov")
    page.keyboard.press("Enter")
    found = page.locator("#search-results li a").first
    found.wait_for()
    found.click()
    page.wait_for_url(lambda url: "search" not in url)
    assert "semi-markov" in page.locator("article").inner_text().lower()


def test_next_and_previous_lead_there_and_back(reader):
    page = reader.open(PAGES[1])
    page.locator("a.right-next").click()
    page.wait_for_url(f"**/{PAGES[2]}.html")
    page.locator("a.left-prev").click()
    page.wait_for_url(f"**/{PAGES[1]}.html")


@pytest.mark.parametrize("name", [CHAPTER, "notebooks/04_em_training"])
def test_the_number_of_an_equation_leads_to_it(reader, name):
    """In the same chapter and in another."""
    page = reader.open(name)
    link = page.locator("article p a[href*='02_elbo.html#eq-2-'], article p a[href^='#eq-2-']").last
    number = link.inner_text().strip("()")
    link.click()
    page.wait_for_url(f"**/{CHAPTER}.html#eq-*")
    page.evaluate(browser.SETTLED)
    anchor = page.url.partition("#")[2]
    assert number in page.locator(f"#{anchor} mjx-container").inner_text()
    assert 0 <= page.evaluate(TOP, anchor) < page.viewport_size["height"]


def test_code_can_be_copied(reader):
    page = reader.open(CHAPTER)
    cells = page.locator(".cell_input div.highlight")
    assert cells.locator("button.copybtn").count() == cells.count() > 0
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cells.nth(1).hover()
    cells.nth(1).locator("button.copybtn").click()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.strip() == cells.nth(1).locator("pre").inner_text().strip()


def test_without_scripts_the_page_still_reads(reader):
    page = reader.open(CHAPTER, scripts=False)
    text = page.locator("article").inner_text()
    assert len(text) > 5000
    assert re.search(r"\\\(.*\\\)", text)  # formulas as TeX
    pictures = page.locator("article .cell_output img")
    assert pictures.count() > 0
    assert list(figure_problems(page)) == []


@pytest.mark.parametrize("name", ["book/notation", CHAPTER])
def test_pages_work_from_a_folder(chromium, built, name):
    """Opened as a file, without any server."""
    browser.asset("mathjax")
    reader = browser.Reader(chromium, f"{built.as_uri()}/")
    page = reader.open(name)
    assert [problem for check in CHECKS for problem in check(page, reader.complaints)] == []
    page.context.close()


# -- the checks themselves --------------------------------------------------------------------

GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title></head>
<body><main><article><h1>A page</h1><p>Text <span class="math"><mjx-container>x</mjx-container>
</span></p><img alt="a dot" width="8" height="8" src="data:image/gif;base64,
R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="></article></main></body></html>"""


@pytest.fixture(scope="module")
def site(chromium, tmp_path_factory):
    """Complaints and problems of a page that is given as text."""
    folder = tmp_path_factory.mktemp("site")
    with browser.served(folder) as address:
        reader = browser.Reader(chromium, address)

        def look(html: str, check) -> list[str]:
            (folder / "page.html").write_text(html, encoding="utf-8")
            return list(check(reader.open("page", again=True), reader.complaints))

        yield look


def access_problems(page, complaints=()) -> Iterator[str]:
    yield from browser.violations(page)


@pytest.mark.parametrize("check", [*CHECKS, access_problems], ids=lambda check: check.__name__)
def test_check_accepts_a_good_page(site, check):
    assert site(GOOD, check) == []


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (noise_problems, "<p>", "<p><script>console.error('no')</script>"),
        (noise_problems, "<p>", "<p><script>null.x</script>"),
        (noise_problems, "<p>", "<p><script src='gone.js'></script>"),
        (noise_problems, "<p>", "<p><script src='https://example.org/a.js'></script>"),
        (noise_problems, "<p>", "<p><img alt='a dot' src='http://127.0.0.1:9/a.png'>"),
        (mathematics_problems, "<mjx-container>x</mjx-container>", r"\(x\)"),
        (mathematics_problems, ">x<", "><mjx-merror>x</mjx-merror><"),
        (figure_problems, 'alt="a dot"', ""),
        (figure_problems, 'alt="a dot"', 'alt=""'),
        (figure_problems, "<p>", "<p><canvas></canvas>"),
        (figure_problems, "R0lGOD", "R0lXXX"),
        (width_problems, "<p>", "<p style='width: 500px'>"),
        (access_problems, "<p>", "<p style='color: #aaa'>"),
        (access_problems, "<p>", "<p><button></button>"),
    ],
)
def test_check_finds(site, check, old, new):
    assert old in GOOD
    assert site(GOOD.replace(old, new), check)

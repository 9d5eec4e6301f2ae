"""A browser that reads the built book as a reader does, cut off from the rest of the world.

The tests use the fixture ``reader`` of conftest.py::

    def test_a_figure_moves(reader):
        page = reader.open("notebooks/05_seeing_skills")  # a page of Playwright, typeset
        page.get_by_label("skill").fill("3")
        assert reader.complaints == []

Playwright drives the Chromium of the system: it needs no driver beside the browser, and it sees
each request and each line of the console.
"""

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import assets

CANDIDATES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
HOW = (
    "NO BROWSER: the pages are NOT tested in one. As root, "
    "`apt-get install --no-install-recommends chromium` gets it (or install Google Chrome)."
)
DESK = 1280  # pixels
PHONE = 390
SETTLED = (
    "() => Promise.all([window.MathJax?.startup?.promise, document.fonts.ready]).then(() => 1)"
)
SECONDS = 90  # to wait for a page on a busy machine


def missing(reason: str) -> None:
    """Skip, loudly; fail where CI=true says that everything has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def find_browser() -> str:
    found = next(filter(None, map(shutil.which, CANDIDATES)), None)
    return found or missing(HOW)


def asset(package: str) -> Path:
    """The folder of a package of book/assets.lock.json."""
    try:
        return assets.fetch(package) / package
    except assets.AssetError as error:
        return missing(f"NO NETWORK, so the pages are NOT tested in a browser: {error}")


def violations(page) -> list[str]:
    """What axe-core finds serious or critical on an open page, which is left empty after it.

    Formulas are MathJax's, with a text of its own for screen readers; a thousand of them take long.
    """
    page.evaluate("() => document.querySelectorAll('mjx-container').forEach(node => node.remove())")
    page.evaluate((asset("axe-core") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run({resultTypes: ['violations']})")["violations"]
    page.goto("about:blank")
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:120]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address, on this machine, of a folder of pages."""
    handler = functools.partial(Silent, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Reader:
    """Opens pages of one address; what leads elsewhere is blocked and noted.

    complaints: what console, scripts and network complained of on the page that was opened last.
    """

    def __init__(self, browser, address: str):
        self.browser = browser
        self.address = address
        self.complaints: list[str] = []
        self.tabs: dict[tuple, tuple] = {}  # by the way to read, a page and its complaints

    def open(self, name: str, theme="light", width=DESK, scripts=True, again=False):
        """The page ``name`` ("book/index") in a tab kept for this way to read it.

        A tab that shows the page already is left as it is, unless ``again`` says to load it.
        """
        tab, self.complaints = self.tab(theme, width, scripts)
        url = f"{self.address}{name}.html"
        if again or tab.url != url:
            self.complaints.clear()
            tab.goto(url)
            if scripts:
                tab.evaluate(SETTLED)
        return tab

    def tab(self, theme: str, width: int, scripts: bool):
        way = (theme, width, scripts)
        if way not in self.tabs:
            context = self.browser.new_context(
                color_scheme=theme,
                viewport={"width": width, "height": 800},
                java_script_enabled=scripts,
                reduced_motion="reduce",
            )
            context.set_default_timeout(1000 * SECONDS)
            tab = context.new_page()
            self.tabs[way] = tab, self.listen(tab)
        return self.tabs[way]

    def listen(self, tab) -> list[str]:
        """The list that fills with complaints of this tab; requests to elsewhere are blocked."""
        heard = []

        def route(route) -> None:
            if route.request.url.startswith((self.address, "data:", "blob:")):
                return route.continue_()
            heard.append(f"elsewhere: {route.request.url}")
            return route.abort("blockedbyclient")

        def console(message) -> None:
            if message.type == "error":
                heard.append(f"console: {message.text}")

        def response(response) -> None:
            if response.status >= 400:
                heard.append(f"{response.status}: {response.url}")

        tab.route("**/*", route)
        tab.on("console", console)
        tab.on("response", response)
        tab.on("pageerror", lambda error: heard.append(f"script: {error}"))
        tab.on("requestfailed", lambda request: heard.append(f"lost: {request.url}"))
        return heard


@contextmanager
def chromium() -> Iterator[object]:
    """A headless browser of Playwright."""
    path = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        try:
            yield browser
        finally:
            browser.close()

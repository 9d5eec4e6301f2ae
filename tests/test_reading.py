"""The built book in a real browser: what a reader sees, hears and can do, without a network.

Each check is a function from an open page to a list of problems, as in test_pages.py.
"""

from collections.abc import Iterator

import pytest
from test_pages import PAGES

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


CHECKS = [noise_problems, mathematics_problems, figure_problems]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", PAGES)
def test_page(reader, name, check):
    assert list(check(reader.open(name), reader.complaints)) == []

"""Keep the built pages on the reader's machine: no page fetches anything from elsewhere.

MathJax comes from the cache of ``assets.py`` and lies beside the pages. Where it cannot be had, the
build says so and the pages fetch it from the network when they are read. Thebe, which would start
code on a server of others, is taken out: no page offers it. A picture from elsewhere (the badge of
Colab) becomes the words that stand for it.
"""

from docutils import nodes
from sphinx.util import logging

import assets

logger = logging.getLogger(__name__)

MATHJAX = "mathjax/es5/tex-chtml-full.js"


def use_local_mathjax(app, config) -> None:
    try:
        folder = assets.fetch("mathjax")
    except assets.AssetError as error:
        # No warning: it would fail a build that a reader without a network asked for.
        logger.info(
            "MATHJAX IS MISSING: %s\nThe pages are built without it. Formulas are typeset only "
            "where the reader's browser can reach the network; build again with a network.",
            error,
        )
        return
    config.html_static_path.append(str(folder))
    config.mathjax_path = MATHJAX


def remove_thebe(app, pagename, templatename, context, doctree) -> None:
    """Take sphinx-thebe's scripts and style out of a page; Jupyter Book loads them twice."""
    for key, attribute in (("script_files", "body"), ("css_files", None)):
        context[key] = [
            file
            for file in context.get(key, [])
            if "thebe" not in str(getattr(file, "filename", file)).lower()
            and "thebe" not in str(getattr(file, "attributes", {}).get(attribute, "")).lower()
        ]


def name_foreign_pictures(app, doctree: nodes.document) -> None:
    for image in list(doctree.findall(nodes.image)):
        if image["uri"].startswith(("http:", "https:")):
            image.replace_self(nodes.Text(image.get("alt") or image["uri"]))


def setup(app) -> dict:
    app.connect("config-inited", use_local_mathjax)
    app.connect("html-page-context", remove_thebe, priority=900)
    app.connect("doctree-read", name_foreign_pictures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

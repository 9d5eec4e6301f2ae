"""Give the figures of notebooks their alternative text on the built page.

A notebook keeps the text where Jupyter keeps it, in the metadata of the output:
``{"image/png": {"alt": "..."}}``. myst-nb copies only width and height from there. It names the
picture after the SHA-256 of its bytes, so the text can be found again by that name. A figure
without a text is a warning, which fails the build.
"""

import base64
import hashlib
import json
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)

RASTER = ("image/png", "image/jpeg", "image/gif")


def alternative_texts(notebook: dict) -> dict[str, str]:
    """The text of each picture that a cell has put out, by the SHA-256 of its bytes."""
    texts = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            metadata = output.get("metadata", {})
            for mime, data in output.get("data", {}).items():
                if mime in RASTER:
                    content = base64.b64decode("".join(data))
                elif mime == "image/svg+xml":
                    content = "".join(data).encode()
                else:
                    continue
                text = metadata.get(mime, {}).get("alt", "")
                texts[hashlib.sha256(content).hexdigest()] = " ".join(text.split())
    return texts


def describe_outputs(app, doctree: nodes.document) -> None:
    """Set the ``alt`` of every picture in a cell's output."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    texts = alternative_texts(json.loads(path.read_text(encoding="utf-8")))
    for image in doctree.findall(nodes.image):
        name = Path(image["uri"]).stem
        if name not in texts:
            continue
        if texts[name]:
            image["alt"] = texts[name]
        else:
            logger.warning("a figure has no alternative text", location=image)


def setup(app) -> dict:
    app.connect("doctree-read", describe_outputs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

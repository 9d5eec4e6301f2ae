"""Say at the end of each chapter when it last ran, in how long, with what and on what machine.

``execute.py`` writes the record. A chapter without one, or whose outputs are no longer those of the
recorded run, says nothing.
"""

from pathlib import Path

import nbformat
from docutils import nodes

import execute


def sentence(notebook) -> str:
    """The record in words, or nothing where there is none that fits the outputs."""
    run = notebook.metadata.get(execute.RECORD)
    if not run or run["outputs"] != execute.digest(notebook):
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (
        f"This chapter last ran on {run['date']}, in {run['seconds']} s, with {versions}, "
        f"on {run['machine']}."
    )


def append_sentence(app, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    text = sentence(nbformat.read(path, as_version=4))
    if text:
        doctree.next_node(nodes.section).append(nodes.paragraph("", text, classes=["mbta-run"]))


def setup(app) -> dict:
    app.connect("doctree-read", append_sentence)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

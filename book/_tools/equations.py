r"""Make the numbers of equations links.

Chapters number an equation with ``\tag{2.1}`` and refer to it as "(2.1)", which reads well wherever
notebooks are shown. On the built page the equation gets an anchor and each such number, in any
chapter, a link to it. Numbers in brackets that no equation has stay as they are.
"""

import re

from docutils import nodes

TAG = re.compile(r"\\tag\{(\d+\.\d+[a-z]?)\}")
NUMBER = re.compile(r"(\(\d+\.\d+[a-z]?\))")
NOT_PROSE = (nodes.FixedTextElement, nodes.literal, nodes.math, nodes.reference, nodes.title)


def anchor_equations(app, doctree: nodes.document) -> None:
    """Give each numbered equation an anchor, known to the whole book by its number."""
    known = app.env.get_domain("std").anonlabels
    for block in doctree.findall(nodes.math_block):
        found = TAG.search(block.astext())
        if not found:
            continue
        anchor = "eq-" + found[1].replace(".", "-")
        block["ids"].append(anchor)
        known[f"eq-{found[1]}"] = app.env.docname, anchor
        # Sphinx would put several lines into "split", where MathJax allows no number.
        block["nowrap"] = True
        text = nodes.Text(rf"\[{block.astext()}\]")
        block.clear()
        block.append(text)


def is_prose(node: nodes.Node) -> bool:
    while node is not None and not isinstance(node, NOT_PROSE):
        node = node.parent
    return node is None


def link_numbers(app, doctree: nodes.document, docname: str) -> None:
    """Turn "(2.1)" into a link wherever prose names an equation of the book."""
    known = app.env.get_domain("std").anonlabels
    for text in list(doctree.findall(nodes.Text)):
        if not NUMBER.search(text) or not is_prose(text):
            continue
        pieces = []
        for piece in NUMBER.split(text):
            where = known.get(f"eq-{piece[1:-1]}")
            if where:
                uri = f"{app.builder.get_relative_uri(docname, where[0])}#{where[1]}"
                pieces.append(nodes.reference("", piece, internal=True, refuri=uri))
            else:
                pieces.append(nodes.Text(piece))
        text.parent.replace(text, pieces)


def setup(app) -> dict:
    app.connect("doctree-read", anchor_equations)
    app.connect("doctree-resolved", link_numbers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Let the figures that compute in the browser do so on the built page.

A notebook keeps such a figure as a picture; its text stands in the picture's metadata, and beside
it the name of its module and its state (mbta_helpers/widgets/live.py). Here the picture is put
into an element that carries both, and `_static/live.js` starts the module in its place.
Modules and weights are files of their own, so a page that shows a figure twice loads them once.
"""

import base64
import hashlib
import importlib.util
import json
import zlib
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]


def _bundle():
    """mbta_helpers/widgets/bundle.py by its path: the package's requirements may be missing."""
    path = ROOT / "mbta_helpers" / "widgets" / "bundle.py"
    spec = importlib.util.spec_from_file_location("mbta_bundle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bundle = _bundle()


def about(output: dict) -> dict:
    """Module and state of the live figure that an output is, nothing if it is none."""
    return output.get("metadata", {}).get("image/png", {}).get("live", {})


def live_outputs(notebook: dict) -> dict[str, dict]:
    """Module and state of each live figure, by the SHA-256 of its still picture."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if about(output):
                picture = base64.b64decode("".join(output["data"]["image/png"]))
                found[hashlib.sha256(picture).hexdigest()] = about(output)
    return found


def opening(figure: dict) -> str:
    """The start of the element that the loader looks for; the still picture and its end follow."""
    state = json.dumps(figure["state"], separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div class="mbta-figure" data-module="{escape(figure["module"])}">'
        f'<script type="application/json">{state}</script>'
    )


def wrap(image: nodes.image, figure: dict) -> None:
    """Put a picture into the element that the loader looks for."""
    place = image.parent.index(image)
    image.parent.insert(place, nodes.raw("", opening(figure), format="html"))
    image.parent.insert(place + 2, nodes.raw("", "</div>", format="html"))


def enliven(app, doctree: nodes.document) -> None:
    """Wrap the still pictures of a chapter's live figures, and remember their modules."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    figures = live_outputs(json.loads(path.read_text(encoding="utf-8")))
    for image in list(doctree.findall(nodes.image)):
        figure = figures.get(Path(image["uri"]).stem)
        if figure:
            wrap(image, figure)
            app.env.metadata[app.env.docname]["mbta_live"] = True


class LiveFigure(SphinxDirective):
    """A chapter's live figure on another page, with a caption.

    ``{live-figure} PATH`` with the option ``module`` takes the first figure of that module out of
    the notebook at PATH, which is relative to the page.
    """

    required_arguments = 1
    option_spec = {"module": directives.unchanged_required}  # noqa: RUF012
    has_content = True

    def run(self) -> list[nodes.Node]:
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        notebook = json.loads(Path(path).read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            for output in cell.get("outputs", []):
                if about(output).get("module") == self.options["module"]:
                    return self.figure(output)
        raise self.error(f"{path} has no live figure of the module {self.options['module']!r}.")

    def figure(self, output: dict) -> list[nodes.Node]:
        self.env.metadata[self.env.docname]["mbta_live"] = True
        picture = "".join(output["data"]["image/png"]).replace("\n", "")
        text = escape(output["metadata"]["image/png"]["alt"])
        image = f'<img alt="{text}" src="data:image/png;base64,{picture}">'
        raw = nodes.raw("", f"{opening(about(output))}{image}</div>", format="html")
        return [raw, *self.parse_content_to_nodes()]


def add_loader(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Give pages with live figures, and only these, the loader and the style sheet."""
    if app.env.metadata.get(pagename, {}).get("mbta_live"):
        app.add_js_file("live.js", loading_method="defer")
        app.add_css_file("live/live.css")


def script(name: str, text: str) -> str:
    """A classic script that hands a text over to the loader, with a sum to check it by."""
    check = zlib.adler32(text.encode())
    return f"mbtaLive.give({json.dumps(name)}, {json.dumps(text)}, {check});\n"


def write_assets(folder: Path) -> None:
    """Write modules, weights and the style sheet of all figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "live.css").write_text(bundle.style(), encoding="utf-8")
    for name in bundle.figures():
        text = script(name, bundle.module(name))
        (folder / f"{name}.js").write_text(text, encoding="utf-8")
    for name in bundle.MAZES:
        weights = base64.b64encode(bundle.half_weights(name)).decode()
        (folder / f"{name}.js").write_text(script(name, weights), encoding="utf-8")


def finish(app, error) -> None:
    """The files that the loader asks for, below `_static/live`."""
    if not error and app.builder.format == "html":
        write_assets(Path(app.outdir) / "_static" / "live")


def setup(app) -> dict:
    app.add_directive("live-figure", LiveFigure)
    app.connect("doctree-read", enliven)
    app.connect("html-page-context", add_loader)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

"""Bundles: the JavaScript of a live figure, and the weights of a maze, as they are sent.

Nothing but the standard library is imported, since the book is built without the package's
requirements: book/_tools/live_figures.py loads this file by its path.
"""

import json
import re
import struct
from pathlib import Path

HERE = Path(__file__).parent
PARAMETERS = HERE.parent / "parameters"
MAZES = ("pointmaze-medium", "pointmaze-large")  # those whose weights a page may load
IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.M)

EXPLORED = ("pointmaze-medium",)  # those whose outcomes' ellipses are drawn

# What planning and walking read: no posterior, and of the policy only the mean.
NEEDED = re.compile(r"normaliser|world_model|prior|support|policy\.(trunk|heads\.mean_head)")
ELLIPSES = "world_model.heads.std_head"  # planning needs no more than the mean
EXACT = "normaliser"  # these few numbers stay float32


def figures() -> list[str]:
    """The names of the modules that are figures: those with something to render."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in HERE.glob("*.js")}
    return sorted(name for name, text in texts.items() if "export default" in text)


def module(name: str) -> str:
    """One ECMAScript module: a figure's file, with the files that it imports put before it."""
    parts: dict[str, str] = {}

    def add(name: str) -> None:
        text = (HERE / f"{name}.js").read_text(encoding="utf-8")
        for other in IMPORT.findall(text):
            if other not in parts:
                add(other)
        parts[name] = IMPORT.sub("", text)

    add(name)
    return "\n".join(parts.values())


def style() -> str:
    """The style sheet of all live figures."""
    return (HERE / "live.css").read_text(encoding="utf-8")


def half_weights(maze: str) -> bytes:
    """The shipped weights that planning in a maze needs, as a safetensors file of float16.

    A quarter of the shipped file's size: without the posterior, and with half the bits.
    """
    content = (PARAMETERS / maze / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    entries, data = {}, b""
    for name in sorted(header):
        if not NEEDED.match(name) or (name.startswith(ELLIPSES) and maze not in EXPLORED):
            continue
        begin, end = header[name]["data_offsets"]
        numbers, kind = body[begin:end], "F32"
        if not name.startswith(EXACT):
            count = (end - begin) // 4
            numbers = struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", numbers))
            kind = "F16"
        offsets = [len(data), len(data) + len(numbers)]
        entries[name] = {"dtype": kind, "shape": header[name]["shape"], "data_offsets": offsets}
        data += numbers
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data

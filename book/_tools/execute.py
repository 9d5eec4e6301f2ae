"""Execute chapters from the top and write their outputs back.

``python book/_tools/execute.py [NOTEBOOK ...]``, by default all. What makes two runs differ
although nothing has changed is left out: timing metadata, warnings and progress bars on the error
stream, the identifiers of widgets. A cell that fails stops the run, and the file stays as it was.

When, in how long, with which versions and on what machine a chapter ran is written into its
metadata, together with a digest of the outputs, so that it is not taken for the record of another
run. ``last_run.py`` puts it on the page.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
RECORD = "mbta_run"  # the key of the metadata
PACKAGES = ("torch", "numpy", "gymnasium", "matplotlib")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def coalesce(outputs: list) -> list:
    """Neighbouring pieces of standard output as one; the error stream dropped."""
    kept = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def settle(notebook) -> None:
    """Take out of an executed notebook what would change at the next run."""
    notebook.metadata.pop("widgets", None)
    language = notebook.metadata.get("language_info", {})
    notebook.metadata["language_info"] = {"name": language.get("name", "python")}
    count = 0
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        cell.outputs = coalesce(cell.outputs)
        if cell.source.strip():
            count += 1
            cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
            data = output.get("data", {})
            if "live" in output.get("metadata", {}).get("image/png", {}):
                data.pop(WIDGET_VIEW, None)  # its picture, not a viewer's "model not found"
            view = data.get(WIDGET_VIEW)
            if view:
                view["model_id"] = f"{number:032x}"


def machine() -> str:
    """The model of the processor and the number of cores; nothing that names this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    cores = os.cpu_count()
    return f"{model}, {cores} core{'s' if cores != 1 else ''}"


def digest(notebook) -> str:
    """A fingerprint of all outputs."""
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(outputs, sort_keys=True).encode()).hexdigest()[:16]


def record(notebook, seconds: float) -> None:
    """Write into the metadata of a notebook that it has just run."""
    notebook.metadata[RECORD] = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "outputs": digest(notebook),
        "seconds": round(seconds),
        "versions": {
            "Python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def execute(path: Path, timeout: int) -> float:
    """Run one notebook in its own folder and write it back; returns the seconds that it took."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    started = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - started
    settle(notebook)
    record(notebook, seconds)
    partial = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, partial)
    os.replace(partial, path)
    return seconds


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    parser.add_argument("--timeout", type=int, default=300, help="seconds a cell may take")
    options = parser.parse_args(arguments)
    for path in options.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        seconds = execute(path, options.timeout)
        print(f"{path.name}: {seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

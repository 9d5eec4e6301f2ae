"""The whole book, built from nothing: all pages, with every warning an error."""

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 90.0


def test_the_whole_book(report, tmp_path):
    builder = Path(sys.executable).with_name("jupyter-book")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [builder, "build", "-W", "-n", "--keep-going", ".", "--path-output", tmp_path]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    pages = len(list((tmp_path / "_build" / "html").rglob("*.html")))
    report(f"the book: {pages} pages in {seconds:.0f} s of processor time, limit {SECONDS:.0f}")
    assert seconds <= SECONDS

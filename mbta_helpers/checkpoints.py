"""Checkpoints: tensors in one safetensors file, with what made them in its header.

A file holds named tensors and a JSON header: the format's number, a kind, a configuration, the
provenance, and a SHA-256 over all of these and the tensors, so that a file cut short or altered
is told apart from a whole one. It is written beside its target and then moved there: the old file
stays until the new one is complete. Nothing is ever unpickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mbta_helpers.errors import UserError, require

FORMAT = 2  # format 1 has a checksum over the tensors alone


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, the header's configuration and provenance."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    provenance: dict[str, Any]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error}). Nothing was changed.") from error
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error}). What was there before is unchanged."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for, then hold a file against other processes that lock it, to read and rewrite it.

    The lock ends with the block or the process, and nothing is left beside the file.
    """
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    with (Path(tempfile.gettempdir()) / f"mbta-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def save_checkpoint(
    path: Path, kind: str, tensors: dict[str, Tensor], config: dict, provenance: dict
) -> None:
    """Write a checkpoint, whole or not at all. Raises UserError if it cannot be written."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "format": FORMAT,
        "kind": kind,
        "config": config,
        "provenance": provenance,
    }
    header["sha256"] = _digest(tensors, header)
    content = save(tensors, metadata={"mbta": json.dumps(header)})
    with replacing(path) as partial:
        partial.write_bytes(content)


def load_checkpoint(path: Path, kind: str) -> Checkpoint:
    """Read a checkpoint; UserError says what is wrong with a file that is not a whole one."""
    require(
        path.is_file(), f"There is no file {path}. Give the path of one that this package wrote."
    )
    again = "Train again, or restore the file from a copy."
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("mbta", "null"))
            require(
                isinstance(header, dict) and type(header.get("format")) is int,
                f"{path} is a safetensors file, but not one that this package wrote.",
            )
            require(
                header["format"] <= FORMAT,
                f"{path} has format {header['format']}; this version of mbta_helpers reads up to "
                f"{FORMAT}. Update the package: pip install -U mbta_helpers.",
            )
            require(
                {"kind", "config", "provenance", "sha256"} <= header.keys(),
                f"{path} is a safetensors file, but not one that this package wrote.",
            )
            require(
                header["kind"] == kind,
                f"{path} holds a {header['kind']}, where a {kind} is needed.",
            )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}). {again}") from error
    sealed = header if header["format"] > 1 else {}
    require(
        header["sha256"] == _digest(tensors, sealed),
        f"{path} was altered after it was written: its checksum does not fit. {again}",
    )
    return Checkpoint(tensors, header["config"], header["provenance"])


def _digest(tensors: dict[str, Tensor], header: dict) -> str:
    content = hashlib.sha256()
    entries = {name: value for name, value in header.items() if name != "sha256"}
    content.update(json.dumps(entries, sort_keys=True).encode() if entries else b"")
    for name in sorted(tensors):
        tensor = tensors[name]
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


@torch.no_grad()
def restore(own: dict[str, Tensor], tensors: dict[str, Tensor], where: str) -> None:
    """Copy stored tensors over a model's own; UserError where names or dimensions differ."""
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    require(
        not missing and not extra,
        f"{where} does not fit the networks: missing {missing or 'nothing'}, extra "
        f"{extra or 'nothing'}.",
    )
    for name, tensor in tensors.items():
        require(
            own[name].shape == tensor.shape,
            f"{where} is of other dimensions: {name} is {tuple(tensor.shape)}, but "
            f"{tuple(own[name].shape)} is needed. Train again with this configuration.",
        )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)

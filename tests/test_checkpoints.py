"""Checkpoints: whole or not at all, and refused where anything about them is wrong."""

import ast
import errno
import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import small_model

from mbta_helpers import checkpoints
from mbta_helpers.checkpoints import (
    FORMAT,
    load_checkpoint,
    replacing,
    restore,
    save_checkpoint,
    write_text,
)
from mbta_helpers.errors import UserError

PACKAGE = Path(checkpoints.__file__).parent
TENSORS = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "steps": torch.tensor(7),
    "state": torch.arange(16, dtype=torch.uint8),
}
CONFIG = {"window_length": 30, "rate": 0.001, "name": "σ"}
PROVENANCE = {"command": "mbta train", "seed": 3}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, "model", TENSORS, CONFIG, PROVENANCE)
    return path


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a folder with their content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_was_saved_is_loaded(written):
    checkpoint = load_checkpoint(written, "model")
    assert checkpoint.config == CONFIG and checkpoint.provenance == PROVENANCE
    assert checkpoint.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.tensors[name], tensor)
        assert checkpoint.tensors[name].dtype == tensor.dtype
    assert list(everything(written.parent)) == ["model.safetensors"]


def test_tensors_may_be_views_and_need_gradients(tmp_path):
    tensor = torch.arange(12.0).reshape(3, 4).T.requires_grad_()
    save_checkpoint(tmp_path / "a", "model", {"a": tensor}, {}, {})
    assert torch.equal(load_checkpoint(tmp_path / "a", "model").tensors["a"], tensor)


def test_saving_makes_the_folder(tmp_path):
    save_checkpoint(tmp_path / "new" / "folder" / "a", "model", TENSORS, {}, {})
    assert load_checkpoint(tmp_path / "new" / "folder" / "a", "model")


# -- damage -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_cut_short_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "model"
    save_checkpoint(path, "model", TENSORS, CONFIG, PROVENANCE)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(UserError, match=r"truncated or damaged"):
        load_checkpoint(path, "model")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_changed_number_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "model"
    save_checkpoint(path, "model", TENSORS, CONFIG, PROVENANCE)
    content = bytearray(path.read_bytes())
    size = sum(tensor.nbytes for tensor in TENSORS.values())
    place = data.draw(st.integers(len(content) - size, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(UserError, match="altered after it was written"):
        load_checkpoint(path, "model")


def with_header(path: Path, **changes) -> None:
    """Write a header with other entries over tensors that stay; None takes an entry out."""
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["mbta"]) | changes
    header = {name: value for name, value in header.items() if value is not None}
    content = safetensors.torch.save(dict(TENSORS), metadata={"mbta": json.dumps(header)})
    path.write_bytes(content)


def test_a_newer_format_asks_for_a_newer_package(written):
    with_header(written, format=FORMAT + 1)
    with pytest.raises(UserError, match=f"has format {FORMAT + 1}.*Update the package"):
        load_checkpoint(written, "model")


def test_the_first_format_is_read(written):
    """Its checksum is that of names, types, shapes and bytes of the tensors, in order."""
    content = hashlib.sha256()
    for name, tensor in sorted(TENSORS.items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.numpy().tobytes())
    with_header(written, format=1, sha256=content.hexdigest())
    assert torch.equal(load_checkpoint(written, "model").tensors["weights"], TENSORS["weights"])


def test_another_kind_is_refused(written):
    with pytest.raises(UserError, match="holds a model, where a training state is needed"):
        load_checkpoint(written, "training state")


@pytest.mark.parametrize("entry", ["format", "kind", "sha256", "config", "provenance"])
def test_a_header_without_an_entry_is_refused(written, entry):
    with_header(written, **{entry: None})
    with pytest.raises(UserError, match="not one that this package"):
        load_checkpoint(written, "model")


@pytest.mark.parametrize("number", ["2", [1], True, 1.5])
def test_a_format_that_is_no_whole_number_is_refused(written, number):
    with_header(written, format=number)
    with pytest.raises(UserError, match="not one that this package"):
        load_checkpoint(written, "model")


@pytest.mark.parametrize(
    "change",
    [
        {"config": CONFIG | {"window_length": 29}},
        {"provenance": PROVENANCE | {"seed": 4}},
        {"sha256": "0" * 64},
        {"note": "new"},
    ],
)
def test_a_changed_header_is_noticed(written, change):
    with_header(written)
    assert load_checkpoint(written, "model"), "rewriting the same header changes nothing"
    with_header(written, **change)
    with pytest.raises(UserError, match="altered after it was written"):
        load_checkpoint(written, "model")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other"
    with pytest.raises(UserError, match="There is no file"):
        load_checkpoint(path, "model")
    with pytest.raises(UserError, match="There is no file"):
        load_checkpoint(tmp_path, "model")
    path.write_bytes(safetensors.torch.save(dict(TENSORS)))
    with pytest.raises(UserError, match="not one that this package wrote"):
        load_checkpoint(path, "model")
    path.write_bytes(safetensors.torch.save(dict(TENSORS), metadata={"mbta": "{"}))
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path, "model")
    torch.save(TENSORS, path)
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path, "model")


# -- into a model -----------------------------------------------------------------------------


def test_restore_copies_every_tensor():
    here, there = small_model(seed=1), small_model(seed=2)
    restore(there.stored_tensors(), here.stored_tensors(), "file")
    for name, tensor in here.state_dict().items():
        assert torch.equal(there.state_dict()[name], tensor)


def test_restore_refuses_what_does_not_fit():
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = "policy.trunk.fc1.weight"
    tensors = model.stored_tensors()
    tensors.pop(name)
    with pytest.raises(UserError, match=rf"missing \['{name}'\], extra nothing"):
        restore(model.stored_tensors(), tensors, "file")
    with pytest.raises(UserError, match=r"extra \['more'\]"):
        restore(model.stored_tensors(), model.stored_tensors() | {"more": torch.zeros(1)}, "file")
    wider = small_model(skill_dim=9).stored_tensors()
    with pytest.raises(UserError, match="of other dimensions"):
        restore(model.stored_tensors(), wider, "file")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), "a refused file changed the model"


# -- writing ----------------------------------------------------------------------------------


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_then_full(path, content, *_, **__):
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    full_disk()


@pytest.mark.parametrize("fault", ["write", "sync", "move", "temporary"])
def test_a_full_disk_leaves_the_old_file(written, monkeypatch, fault):
    before = everything(written.parent)
    if fault == "write":
        monkeypatch.setattr(Path, "write_bytes", half_then_full)
    elif fault == "sync":
        monkeypatch.setattr(checkpoints.os, "fsync", full_disk)
    elif fault == "move":
        monkeypatch.setattr(Path, "replace", full_disk)
    else:
        monkeypatch.setattr(checkpoints.tempfile, "mkstemp", full_disk)
    with pytest.raises(UserError, match=r"No space left on device.*(unchanged|Nothing was)"):
        save_checkpoint(written, "model", {"weights": torch.zeros(99)}, {}, {})
    monkeypatch.undo()
    assert everything(written.parent) == before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_write_leaves_the_old_file(written, stop):
    before = everything(written.parent)
    with pytest.raises(stop), replacing(written) as partial:
        partial.write_bytes(b"half")
        raise stop
    assert everything(written.parent) == before


def test_a_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("a")
    write_text(tmp_path / "own", "ä")
    assert (tmp_path / "own").read_text(encoding="utf-8") == "ä"
    assert (tmp_path / "own").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("a")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "file" / "inside", "b")


# -- nothing is unpickled ---------------------------------------------------------------------

PICKLING = {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}


def unpicklers(source: str) -> list[str]:
    """Imports and calls that could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in PICKLING]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in {("torch", "load"), ("torch", "save")}:
                found.append(f"torch.{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found.append("allow_pickle")
        elif isinstance(node, ast.Name) and node.id in {"eval", "exec"}:
            found.append(node.id)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_nothing_is_unpickled(path):
    assert unpicklers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "eval('1')",
    ],
)
def test_the_search_for_unpicklers_finds(source):
    assert unpicklers(source)

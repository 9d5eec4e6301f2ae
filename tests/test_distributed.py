"""Several processes under torchrun train what one process trains."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from samples import store_episodes, tiny_config
from test_command_line import episodes
from torch import nn

import mbta_helpers
from mbta_helpers import datasets, distributed
from mbta_helpers.checkpoints import load_checkpoint
from mbta_helpers.distributed import Processes, launched
from mbta_helpers.errors import UserError
from mbta_helpers.presets import PRESETS
from mbta_helpers.training import METRICS, MODEL, TRAINING_STATE, Trainer

TESTS = Path(__file__).resolve().parent
DATASET = "tests/shared-v0"
ATOL = 1e-5  # an update moves a parameter by up to 2e-3
TRAIN = ["train", "--preset", "pointmaze-umaze", "--seed", "4"]
OUT = ["--out", "run"]


@pytest.fixture(scope="module")
def transitions():
    """A stored dataset: the processes read it, and so does the run they are compared with."""
    store_episodes(DATASET, episodes(count=10, length=45))
    return datasets.load(DATASET)


def torchrun(folder, *arguments, **variables) -> subprocess.Popen:
    """Two processes on one machine; the package is the one that this test has loaded."""
    package = Path(mbta_helpers.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + [str(argument) for argument in arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(launcher: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, standard output and error stream; processes that hang are ended."""
    try:
        out, err = launcher.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        launcher.terminate()
        raise
    return launcher.returncode, out, err


def tensors(out, file=TRAINING_STATE, kind="training state") -> dict[str, torch.Tensor]:
    return load_checkpoint(out / file, kind).tensors


def metrics_of(out) -> list[dict]:
    lines = (out / METRICS).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_state(alone, shared):
    """Parameters, both moments of each optimiser, and the generator."""
    one, two = tensors(alone), tensors(shared)
    assert one.keys() == two.keys() and torch.equal(one["generator"], two["generator"])
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=1e-4, atol=ATOL), name


def assert_same_run(alone, shared):
    """The state, the model that was made of it, and the metrics of the whole batch."""
    assert_same_state(alone, shared)
    model, state = tensors(shared, MODEL, "skill model"), tensors(shared)
    assert all(torch.equal(value, state[f"model/{name}"]) for name, value in model.items())
    for ours, theirs in zip(metrics_of(alone), metrics_of(shared), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-4)


# -- under torchrun ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path, monkeypatch):
    """Through both phases, on a dataset that rank 0 collects; it alone writes, and prints once."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    (tmp_path / "here").mkdir()
    code, out, err = ended(torchrun(tmp_path / "here", TESTS / "launched.py", *TRAIN, *OUT))
    assert code == 0, err
    assert "collected by 0" in err and "collected by 1" not in err
    # Its start, printed once a bar; its end is printed once or twice, as time has passed.
    assert err.count("training:   0%") == 1 and out.count("held out, nats a window") == 1
    made = {path.name for path in (tmp_path / "here").rglob("*")}
    assert made == {"run", METRICS, MODEL, TRAINING_STATE}
    transitions = datasets.load_or_collect("pointmaze-umaze")
    Trainer(tiny_config(settle_actions=24), transitions, seed=4).run(tmp_path / "alone")
    assert_same_run(tmp_path / "alone", tmp_path / "here" / "run")


@pytest.mark.slow
def test_a_run_stopped_and_resumed_by_two_processes_equals_one(transitions, tmp_path):
    """Ctrl-C reaches one process within an update: all stop after that update, and go on."""
    train = [TESTS / "launched.py", *TRAIN, "--dataset", DATASET, "--method", "em"]
    code, _, err = ended(torchrun(tmp_path, *train, *OUT, MBTA_SIGNAL="1:12"))
    assert code != 0
    assert err.count("Stopped after 13 updates. Go on with --resume run") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {METRICS, TRAINING_STATE}
    code, _, err = ended(torchrun(tmp_path, *train, "--resume", "run"))
    assert code == 0, err
    Trainer(tiny_config(method="em", settle_actions=24), transitions, seed=4).run(
        tmp_path / "alone"
    )
    assert_same_run(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slow
def test_an_interrupt_of_the_launcher_leaves_a_checkpoint(transitions, tmp_path):
    """The command of the book, and Ctrl-C as a terminal sends it: to torchrun, which passes it on.

    What is stored is what one process has after as many updates.
    """
    launcher = torchrun(tmp_path, "-m", "mbta_helpers", *TRAIN, *OUT, "--dataset", DATASET)
    while launcher.poll() is None and not (tmp_path / "run" / METRICS).exists():
        time.sleep(0.1)
    launcher.send_signal(signal.SIGINT)
    code, _, err = ended(launcher)
    assert code != 0 and err.count("Go on with --resume run") == 1, err
    provenance = load_checkpoint(tmp_path / "run" / TRAINING_STATE, "training state").provenance
    trainer = Trainer(PRESETS["pointmaze-umaze"].training, transitions, seed=4)
    while trainer.update < provenance["update"]:
        trainer.step()
    trainer.save_state(tmp_path / "alone")
    assert_same_state(tmp_path / "alone", tmp_path / "run")


@pytest.mark.slow
def test_a_process_that_breaks_down_ends_the_run(transitions, tmp_path):
    """The other one waits for it in an exchange, and is ended."""
    train = [TESTS / "launched.py", *TRAIN, *OUT, "--dataset", DATASET]
    code, _, err = ended(torchrun(tmp_path, *train, MBTA_FAIL="1:12"))
    assert code == 1 and "broken down" in err
    assert not (tmp_path / "run" / MODEL).exists()


# -- shares -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_shares_make_up_the_batch(count):
    batch = torch.arange(12)
    shares = [batch[Processes(rank, count).rows(12)] for rank in range(count)]
    assert torch.equal(torch.cat(shares), batch)
    assert {len(share) for share in shares} == {12 // count}


@pytest.mark.parametrize(
    ("changes", "size"), [({}, 16), ({"batch_size": 12, "settle_batch": 32}, 32)]
)
def test_a_batch_that_cannot_be_shared_out_is_refused(transitions, changes, size):
    with pytest.raises(UserError, match=rf"batch of {size} .* a number of processes that divides"):
        Trainer(tiny_config(**changes), transitions, processes=Processes(0, 3))


def test_a_batch_that_is_never_drawn_need_not_be_shared_out(transitions):
    config = tiny_config(batch_size=12, settle_batch=32, settle_updates=0)
    with pytest.raises(ValueError, match="process group"):  # it comes as far as DDP
        Trainer(config, transitions, processes=Processes(0, 3))


# -- alone ------------------------------------------------------------------------------------


def test_one_process_needs_no_group(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with launched(torch.device("cpu")) as processes, processes.first_alone():
        assert processes == Processes(0, 1, torch.device("cpu"))
        assert not torch.distributed.is_initialized()
        assert isinstance(processes.averaging([nn.Parameter(torch.ones(1))]), nn.Identity)
        assert processes.mean({"a": 0.1}) == {"a": 0.1}
        assert processes.any(True) and not processes.any(False) and processes.agree("x")
        processes.wait()


# -- GPUs, without one ------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs as far as `launched` sees; what it asked for."""
    asked = SimpleNamespace()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(asked, "device", device))
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda backend, **_: setattr(asked, "by", backend)
    )
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 5)
    monkeypatch.setenv("WORLD_SIZE", "8")
    return asked


def test_each_process_takes_the_gpu_of_its_number_on_its_machine(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with launched(torch.device("cuda")) as processes:
        assert processes == Processes(5, 8, torch.device("cuda:1"))
    assert gpus.device == torch.device("cuda:1") and gpus.by == "nccl"


def test_more_processes_than_gpus_are_refused(gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    match = r"no GPU for process 3 .* has 2\. Start torchrun with --nproc-per-node 2"
    with pytest.raises(UserError, match=match), launched(torch.device("cuda")):
        pass

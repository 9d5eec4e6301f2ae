"""Training: schedules, what each phase moves, and runs that are stopped and go on."""

import copy
import importlib.metadata
import json
import math
import signal

import numpy as np
import pytest
import torch
from samples import SKILL, numbered_transitions, tiny_config

from mbta_helpers import precision, training
from mbta_helpers.checkpoints import load_checkpoint, save_checkpoint
from mbta_helpers.datasets import Transitions
from mbta_helpers.errors import UserError
from mbta_helpers.objectives import Terms, e_step_loss, m_step_loss, one_pass_loss
from mbta_helpers.training import (
    METRICS,
    MODEL,
    TRAINING_STATE,
    SettledWindows,
    Trainer,
    load_model,
    one_cycle,
    resolve_device,
)

LENGTHS = [7, 12, 9, 20, 6, 11, 15, 8, 10, 13]


@pytest.fixture(scope="module")
def data():
    return numbered_transitions(LENGTHS)


def parameters(trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(one: dict, two: dict) -> bool:
    assert one.keys() == two.keys()
    return all(torch.equal(one[name], two[name]) for name in one)


# -- schedules --------------------------------------------------------------------------------


def test_one_cycle_rises_in_a_line_and_falls_as_a_cosine():
    assert one_cycle(0.0) == pytest.approx(0.04)
    assert one_cycle(0.05) == pytest.approx(0.52)
    assert one_cycle(0.1) == pytest.approx(1.0)
    assert one_cycle(0.55) == pytest.approx(0.5)
    assert one_cycle(1.0) == pytest.approx(0.0, abs=1e-12)
    for progress in np.linspace(0.11, 0.99, 9):
        by_hand = math.cos(math.pi / 2 * (progress - 0.1) / 0.9) ** 2
        assert one_cycle(progress) == pytest.approx(by_hand)


def test_learning_rate_runs_through_a_cycle_in_each_phase(data):
    trainer = Trainer(tiny_config(updates=10, settle_updates=20), data)
    rates = []
    for update in range(30):
        trainer.update = update
        rates.append(trainer.learning_rate())
    assert rates[:10] == pytest.approx([2e-3 * one_cycle(k / 10) for k in range(10)])
    assert rates[10:] == pytest.approx([2e-3 * one_cycle(k / 20) for k in range(20)])
    constant = Trainer(tiny_config(schedule="constant"), data)
    constant.update = 17
    assert constant.learning_rate() == 2e-3


def test_beta_warms_up_in_a_line(data):
    trainer = Trainer(tiny_config(beta=0.8, beta_warmup=4), data)
    betas = []
    for update in range(6):
        trainer.update = update
        betas.append(trainer.beta())
    assert betas == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert Trainer(tiny_config(beta=0.8, beta_warmup=0), data).beta() == 0.8


# -- data -------------------------------------------------------------------------------------


def test_no_state_is_on_both_sides_of_the_split(data):
    trainer = Trainer(tiny_config(), data, seed=3)
    rows = [
        set((windows.state_index[:, None] + torch.arange(6)).flatten().tolist())
        for windows in (trainer.windows, trainer.held_out)
    ]
    assert rows[0] and rows[1] and not rows[0] & rows[1]
    count = sum(max(length - 5 + 1, 0) for length in LENGTHS)
    assert len(trainer.windows) + len(trainer.held_out) == count


def test_normaliser_knows_the_training_split_only(data):
    """Numbers beyond all bounds in the held-out episodes change nothing."""
    trainer = Trainer(tiny_config(), data, seed=3)
    held_out = trainer.held_out.state_index[:, None] + torch.arange(6)
    states = data.states.copy()
    states[held_out.flatten().unique()] = 1e6
    other = Transitions(states, data.actions, data.lengths, data.goals)
    changed = Trainer(tiny_config(), other, seed=3)
    assert changed.held_out.gather(torch.tensor([0])).states.min() == 1e6
    for name, tensor in trainer.model.normaliser.state_dict().items():
        assert torch.equal(tensor, changed.model.normaliser.state_dict()[name]), name
    assert not torch.equal(trainer.model.normaliser.mean, torch.zeros(4))


def test_a_seed_decides_everything_and_touches_no_global_state(data):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = Trainer(tiny_config(), data, seed=5)
    one.run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two, other = Trainer(tiny_config(), data, seed=5), Trainer(tiny_config(), data, seed=6)
    two.run()
    assert same(parameters(one), parameters(two))
    assert not same(parameters(two), parameters(other))


# -- one update -------------------------------------------------------------------------------


def adam(groups, rate):
    return [torch.optim.Adam(group, lr=rate) for group in groups]


@pytest.mark.parametrize("method", ["one-pass", "em"])
def test_updates_equal_the_algorithm_written_out(data, method):
    """Three updates with the same draws; in EM the M-step sees the posterior after its E-step."""
    config = tiny_config(method=method, grad_clip=0.5, beta_warmup=2, schedule="constant")
    trainer = Trainer(config, data, seed=1)
    model = copy.deepcopy(trainer.model)
    generator = torch.Generator()
    generator.set_state(trainer.generator.get_state())
    phi, rest = list(model.posterior.parameters()), model.generative_parameters()
    groups = [[*phi, *rest]] if method == "one-pass" else [phi, rest]
    optimisers = adam(groups, 2e-3)
    for update in range(3):
        metrics = trainer.step()
        beta = 0.3 * min(1, (update + 1) / 2)
        batch = trainer.windows.sample(16, generator)
        noise = torch.randn((16, SKILL), generator=generator)
        for number, optimiser in enumerate(optimisers):
            optimiser.zero_grad()
            if method == "one-pass":
                loss, terms = one_pass_loss(model, batch, noise, beta)
            elif number == 0:
                loss = e_step_loss(model, batch, noise, beta)
            else:
                loss, terms = m_step_loss(model, batch, noise, beta)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(groups[number], 0.5)
            optimiser.step()
        assert metrics["update"] == update + 1 and metrics["beta"] == pytest.approx(beta)
        assert metrics["kl"] == pytest.approx(terms.kl.mean().item())
        assert metrics["elbo"] == pytest.approx(terms.elbo().mean().item())
    for name, tensor in model.state_dict().items():
        assert torch.allclose(trainer.model.state_dict()[name], tensor, atol=1e-6), name


@pytest.mark.parametrize("method", ["one-pass", "em"])
def test_settling_leaves_posterior_and_policy_alone(data, method):
    trainer = Trainer(tiny_config(method=method), data)
    while not trainer.settling:
        trainer.step()
    before = parameters(trainer)
    for _ in range(3):
        metrics = trainer.step()
    after = parameters(trainer)
    assert {"update", "learning_rate", "state", "kl"} <= metrics.keys()
    for name in before:
        moved = not torch.equal(before[name], after[name])
        assert moved == name.startswith(("world_model.", "prior.", "support.")) or (
            ".normaliser." in name and not moved
        ), name


@torch.no_grad()
def test_settled_windows_hold_the_posterior_of_their_own_window(data):
    trainer = Trainer(tiny_config(), data)
    settled = SettledWindows(trainer.model, trainer.windows, chunk=7)
    first, last, q = settled.sample(500, torch.Generator().manual_seed(0))
    batch = trainer.windows.gather(torch.arange(len(trainer.windows)))
    posterior = trainer.model.posterior(batch.before, batch.actions)
    for row in range(0, 500, 25):
        number = (batch.first == first[row]).all(1).nonzero().item()
        assert torch.equal(last[row], batch.last[number])
        assert torch.allclose(q.loc[row], posterior.loc[number], atol=1e-6)
        assert torch.allclose(q.scale[row], posterior.scale[number], atol=1e-6)


@torch.no_grad()
def test_settled_steps_come_from_the_windows_of_their_posterior(data):
    trainer = Trainer(tiny_config(), data)
    settled = SettledWindows(trainer.model, trainer.windows)
    states, actions, q = settled.sample_steps(2000, torch.Generator().manual_seed(0))
    batch = trainer.windows.gather(torch.arange(len(trainer.windows)))
    posterior = trainer.model.posterior(batch.before, batch.actions)
    seen = set()
    for row in range(0, 2000, 40):
        number = (posterior.loc - q.loc[row]).abs().sum(1).argmin()
        assert torch.allclose(q.scale[row], posterior.scale[number], atol=1e-6)
        step = (batch.before[number] == states[row]).all(1).nonzero().item()
        assert torch.equal(actions[row], batch.actions[number, step])
        seen.add(step)
    assert seen == set(range(5)), "every step of a window should come up"


def test_the_policy_settles_where_it_is_asked_to(played):
    """It improves with q fixed, and q stays what it was."""
    config = tiny_config(updates=40, settle_updates=150, settle_actions=64, hidden=32)
    trainer = Trainer(config, played)
    while trainer.update < config.updates:
        trainer.step()
    before, first = parameters(trainer), trainer.test()
    metrics = trainer.step()
    assert {"action", "state", "kl", "support"} <= metrics.keys()
    trainer.run()
    after = parameters(trainer)
    for name in before:
        if name.startswith("posterior."):
            assert torch.equal(before[name], after[name])
    assert not torch.equal(before["policy.trunk.fc1.weight"], after["policy.trunk.fc1.weight"])
    assert trainer.test()["action"] > first["action"] + 0.5


@pytest.mark.parametrize("method", ["one-pass", "em"])
def test_training_raises_the_elbo_of_held_out_episodes(played, method):
    trainer = Trainer(tiny_config(method=method, updates=150, hidden=32), played)
    before = trainer.test()
    trainer.run()
    after = trainer.test()
    assert after["elbo"] > before["elbo"] + 5
    assert after["state"] > before["state"] and after["action"] > before["action"]


def test_testing_does_not_disturb_the_run(data):
    one, two = Trainer(tiny_config(), data), Trainer(tiny_config(), data)
    for _ in range(4):
        one.step()
        two.step()
        assert two.test() == two.test()
    assert same(parameters(one), parameters(two))


def test_bfloat16_is_near_float32(data, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda kind: True)
    metrics = [
        Trainer(tiny_config(precision=name), data).step() for name in ("float32", "bfloat16")
    ]
    for name in ("action", "state", "kl", "elbo"):
        assert metrics[1][name] == pytest.approx(metrics[0][name], rel=0.05, abs=0.2)
    assert metrics[0] != metrics[1]


def test_a_loss_that_is_not_finite_stops_the_run(data, tmp_path, monkeypatch):
    trainer = Trainer(tiny_config(), data)

    def broken(model, batch, noise, beta):
        loss, terms = one_pass_loss(model, batch, noise, beta)
        return loss, Terms(terms.action, terms.state * math.nan, terms.kl)

    monkeypatch.setattr(training, "one_pass_loss", broken)
    with pytest.raises(UserError, match=r"not finite at update 1\. Use a smaller learning rate"):
        trainer.run(tmp_path / "run")
    assert not (tmp_path / "run" / MODEL).exists()


# -- stopping and going on --------------------------------------------------------------------


def metrics_of(out) -> list[dict]:
    lines = (out / METRICS).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """For each method a whole run: its parameters and its metrics."""
    runs = {}
    for method in ("one-pass", "em"):
        out = tmp_path_factory.mktemp("whole") / method
        trainer = Trainer(tiny_config(method=method), data, seed=4)
        trainer.run(out)
        runs[method] = parameters(trainer), metrics_of(out), trainer.test()
    return runs


def interrupt_before(trainer, update):
    """Ctrl-C between two updates."""
    step = trainer.step

    def hooked():
        if trainer.update == update:
            raise KeyboardInterrupt
        return step()

    trainer.step = hooked


def interrupt_within(trainer, update):
    """Ctrl-C in the middle of an update: the draws are made, the parameters have moved."""
    descend = trainer._descend

    def hooked(*given):
        descend(*given)
        if trainer.update == update:
            signal.raise_signal(signal.SIGINT)

    trainer._descend = hooked


def stopped(trainer, out):
    with pytest.raises(KeyboardInterrupt):
        trainer.run(out)
    assert (out / TRAINING_STATE).exists() and not (out / MODEL).exists()


@pytest.mark.parametrize("update", [0, 3, 13, 24, 31])  # updates 24 to 39 settle
@pytest.mark.parametrize("method", ["one-pass", "em"])
def test_a_resumed_run_equals_one_that_was_not_stopped(
    data, uninterrupted, tmp_path, method, update
):
    config, out = tiny_config(method=method), tmp_path / "run"
    trainer = Trainer(config, data, seed=4)
    interrupt_before(trainer, update)
    stopped(trainer, out)
    resumed = Trainer(config, data, seed=4)
    resumed.load_state(out)
    assert resumed.update == update
    resumed.run(out)
    whole, metrics, test = uninterrupted[method]
    assert same(parameters(resumed), whole)
    assert metrics_of(out) == metrics
    assert [m["update"] for m in resumed.history] == [m["update"] for m in metrics]
    assert resumed.test() == test


@pytest.mark.parametrize("update", [7, 30])
@pytest.mark.parametrize("method", ["one-pass", "em"])
def test_an_interrupt_within_an_update_loses_nothing(data, uninterrupted, tmp_path, method, update):
    config, out = tiny_config(method=method), tmp_path / "run"
    trainer = Trainer(config, data, seed=4)
    interrupt_within(trainer, update)
    stopped(trainer, out)
    resumed = Trainer(config, data, seed=4)
    resumed.load_state(out)
    resumed.run(out)
    whole, metrics, _ = uninterrupted[method]
    assert same(parameters(resumed), whole)
    assert metrics_of(out) == metrics


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    data, uninterrupted, tmp_path, monkeypatch
):
    """Nothing was saved at the end, and the metrics are ahead of the checkpoint."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 8)
    out = tmp_path / "run"
    trainer = Trainer(tiny_config(), data, seed=4)
    trainer.step = lambda step=trainer.step: step() if trainer.update < 23 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.run(out, command="mbta train")
    with (out / METRICS).open("a") as file:
        file.write('{"update": 2')  # cut in the middle of a line
    resumed = Trainer(tiny_config(), data, seed=4)
    resumed.load_state(out)
    assert resumed.update == 16
    resumed.run(out, command="mbta train --resume run")
    assert same(parameters(resumed), uninterrupted["one-pass"][0])
    assert metrics_of(out) == uninterrupted["one-pass"][1]
    made_by = load_checkpoint(out / training.MODEL, "skill model").provenance["command"]
    assert made_by == "mbta train", "the command that can make it again"


def test_metrics_of_a_run_that_left_no_checkpoint_are_not_gone_on_with(data, tmp_path):
    out = tmp_path / "run"
    crashing = Trainer(tiny_config(), data, seed=4)
    crashing.step = lambda step=crashing.step: step() if crashing.update < 20 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        crashing.run(out)
    assert (out / METRICS).exists() and not (out / TRAINING_STATE).exists()
    whole = Trainer(tiny_config(), data, seed=5)
    whole.run(out)
    lines = (out / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == json.loads(json.dumps(whole.history))


def test_a_run_that_is_finished_stays_as_it_is(data, uninterrupted, tmp_path):
    out = tmp_path / "run"
    Trainer(tiny_config(), data, seed=4).run(out)
    again = Trainer(tiny_config(), data, seed=4)
    again.load_state(out)
    again.run(out)
    assert same(parameters(again), uninterrupted["one-pass"][0])


def test_only_the_same_run_is_resumed(data, tmp_path):
    out = tmp_path / "run"
    trainer = Trainer(tiny_config(), data, seed=4)
    interrupt_before(trainer, 12)
    stopped(trainer, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for other, message in (
        (Trainer(tiny_config(beta=0.4), data, seed=4), "another configuration or seed"),
        (Trainer(tiny_config(hidden=8), data, seed=4), "another configuration or seed"),
        (Trainer(tiny_config(), data, seed=5), "another configuration or seed"),
        (Trainer(tiny_config(), numbered_transitions([*LENGTHS, 9]), seed=4), "other data"),
    ):
        with pytest.raises(UserError, match=message):
            other.load_state(out)
    with pytest.raises(UserError, match="There is no file"):
        Trainer(tiny_config(), data).load_state(tmp_path / "nothing")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# -- the trained model ------------------------------------------------------------------------


def test_a_trained_model_is_loaded_with_what_made_it(data, tmp_path):
    trainer = Trainer(tiny_config(), data, seed=4)
    trainer.run(tmp_path / "run", command="mbta train")
    loaded = load_model(tmp_path / "run")
    assert same(dict(loaded.model.state_dict()), parameters(trainer))
    assert loaded.config.networks(4, 2) == trainer.config.networks(4, 2)
    assert loaded.config.window_length == 5
    assert loaded.provenance["command"] == "mbta train"
    assert loaded.provenance["seed"] == 4 and loaded.provenance["data"] == data.digest()
    assert loaded.provenance["versions"]["torch"] == importlib.metadata.version("torch")
    assert not loaded.model.training


@pytest.mark.parametrize(("has", "used"), [(True, "bfloat16"), (False, "float32")])
def test_a_model_says_in_which_precision_it_was_trained(data, tmp_path, monkeypatch, has, used):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda kind: has)
    Trainer(tiny_config(precision="bfloat16"), data).run(tmp_path / "run")
    loaded = load_model(tmp_path / "run")
    assert loaded.config.precision == "bfloat16" and loaded.provenance["precision"] == used


def test_metrics_are_lines_of_json(data, tmp_path):
    Trainer(tiny_config(), data).run(tmp_path / "run")
    metrics = metrics_of(tmp_path / "run")
    assert [m["update"] for m in metrics] == [10, 20, 30, 40]
    assert all(math.isfinite(value) for m in metrics for value in m.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"skill_dim": 9}, "of other dimensions"),
        ({"gru_layers": 2}, "missing"),
        ({"no_such_setting": 1}, "not understood"),
        ({"method": "magic"}, "method is one-pass or em"),
    ],
)
def test_a_model_of_another_configuration_is_refused(trained, tmp_path, change, message):
    checkpoint = load_checkpoint(trained / MODEL, "skill model")
    config = checkpoint.config | {"training": checkpoint.config["training"] | change}
    save_checkpoint(tmp_path / MODEL, "skill model", checkpoint.tensors, config, {})
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)


def test_a_training_state_is_no_model(trained, tmp_path):
    (tmp_path / MODEL).write_bytes((trained / TRAINING_STATE).read_bytes())
    with pytest.raises(UserError, match="holds a training state, where a skill model is needed"):
        load_model(tmp_path)


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window_length": 0}, "window_length"),
        ({"updates": 0}, "updates"),
        ({"batch_size": 0}, "batch_size"),
        ({"stride": 0}, "stride"),
        ({"beta": -0.1}, "beta"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"method": "two-pass"}, "method is one-pass or em, not 'two-pass'"),
        ({"precision": "float16"}, "precision is float32 or bfloat16"),
        ({"schedule": "cosine"}, "schedule"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        tiny_config(**wrong)


@pytest.mark.parametrize("wrong", [{"skill_dim": 0}, {"hidden": 0}, {"held_out": 0.0}])
def test_what_does_not_fit_the_data_is_refused(data, wrong):
    with pytest.raises(UserError):
        Trainer(tiny_config(**wrong), data)


def test_episodes_shorter_than_a_window_are_refused(data):
    with pytest.raises(UserError, match="No episode is as long as a window"):
        Trainer(tiny_config(window_length=21), data)


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"sees no CUDA device here. Use --device cpu"):
        resolve_device("cuda")
    with pytest.raises(UserError, match="cpu or cuda, not 'tpu'"):
        resolve_device("tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["one-pass", "em"])
def test_cuda_trains_as_the_processor_does(data, method):
    runs = [Trainer(tiny_config(method=method), data, 4, name) for name in ("cpu", "cuda")]
    for trainer in runs:
        trainer.run()
    for name in ("action", "state", "kl"):
        one, two = (trainer.test()[name] for trainer in runs)
        assert one == pytest.approx(two, rel=0.02, abs=0.05)

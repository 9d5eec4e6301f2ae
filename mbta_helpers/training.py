"""Training: EM on the ELBO, with history, checkpoints and exact resumption.

Two phases. First EM: every update improves the posterior, the policy, the world model and the
prior. Then settling: the posterior and the policy stay as they are, and the M-step of the world
model and the prior goes on alone. These two are what planning rolls out, over and over, from
states that they predicted themselves. They cost little, so large batches are cheap.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal
from tqdm.auto import tqdm

from mbta_helpers.checkpoints import load_checkpoint, replacing, restore, save_checkpoint
from mbta_helpers.datasets import Transitions, versions
from mbta_helpers.distributed import Processes
from mbta_helpers.errors import UserError, require
from mbta_helpers.networks import NetworkConfig, SkillModel
from mbta_helpers.objectives import (
    Terms,
    e_step_loss,
    elbo_terms,
    gaussian_kl,
    m_step_loss,
    one_pass_loss,
    support_loss,
)
from mbta_helpers.precision import PRECISIONS, autocast, used
from mbta_helpers.windows import WindowBatch, Windows, split_episodes

CHECKPOINT_EVERY = 500  # updates
RECORD_EVERY = 10  # updates
METRICS, TRAINING_STATE, MODEL = "metrics.jsonl", "training.safetensors", "model.safetensors"


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    window_length: T. beta: weight of the KL, raised linearly over the first beta_warmup updates.
    method: "one-pass", or "em" for two steps with an optimiser each.
    batch_size: of all processes together, where several train.
    schedule: "one-cycle" (linear warm-up, then a cosine to zero) or "constant".
    settle_updates, settle_batch: the second phase. settle_noise: in it, s_0 is moved by noise of a
    random size up to this many standard deviations of the data, so that the model leads
    back to states that the data knows. settle_actions: steps a batch on which the policy goes on
    too, each from a window of its own; 0 leaves it as it is.
    held_out: share of the episodes that are kept for testing.
    precision: of the networks' products; bfloat16 only on devices that multiply it themselves.
    """

    window_length: int
    skill_dim: int = 8
    hidden: int = 128
    model_hidden: int = 128
    gru_hidden: int = 64
    gru_layers: int = 1
    wavelengths: tuple[float, ...] = ()
    own_frame: bool = False
    method: str = "one-pass"
    updates: int = 2000
    batch_size: int = 64
    learning_rate: float = 2e-3
    schedule: str = "one-cycle"
    beta: float = 0.3
    beta_warmup: int = 0
    grad_clip: float = 10.0
    settle_updates: int = 4000
    settle_batch: int = 512
    settle_noise: float = 0.0
    settle_actions: int = 0
    stride: int = 1
    min_displacement: float = 0.0
    held_out: float = 0.1
    precision: str = "float32"

    def __post_init__(self):
        for name in ("window_length", "updates", "batch_size", "stride", "settle_batch"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        for name in ("beta", "beta_warmup", "settle_updates", "settle_noise", "settle_actions",
                     "min_displacement"):  # fmt: skip
            require(getattr(self, name) >= 0, f"{name} must not be negative.")
        for name in ("learning_rate", "grad_clip"):
            require(getattr(self, name) > 0, f"{name} must be positive.")
        for name, choices in (
            ("method", ("one-pass", "em")),
            ("schedule", ("one-cycle", "constant")),
            ("precision", PRECISIONS),
        ):
            value = getattr(self, name)
            require(value in choices, f"{name} is {' or '.join(choices)}, not '{value}'.")

    @property
    def total_updates(self) -> int:
        return self.updates + self.settle_updates

    def networks(self, state_dim: int, action_dim: int) -> NetworkConfig:
        """The sizes of the four networks for those dimensions."""
        return NetworkConfig(
            state_dim=state_dim,
            action_dim=action_dim,
            skill_dim=self.skill_dim,
            hidden=self.hidden,
            model_hidden=self.model_hidden,
            gru_hidden=self.gru_hidden,
            gru_layers=self.gru_layers,
            wavelengths=tuple(self.wavelengths),
            own_frame=self.own_frame,
        )


def one_cycle(progress: float, warmup: float = 0.1) -> float:
    """Share of the learning rate at a progress in [0, 1): linear warm-up, then a cosine."""
    if progress < warmup:
        return 0.04 + 0.96 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def resolve_device(name: str) -> torch.device:
    """The device of that name; UserError where CUDA is asked for and absent."""
    require(name in ("cpu", "cuda"), f"The device is cpu or cuda, not '{name}'.")
    require(
        name == "cpu" or torch.cuda.is_available(),
        "CUDA was asked for, but PyTorch sees no CUDA device here. Use --device cpu.",
    )
    return torch.device(name)


class Trainer:
    """Trains a SkillModel on a dataset; holds everything that a resumed run needs."""

    def __init__(
        self,
        config: TrainingConfig,
        transitions: Transitions,
        seed: int = 0,
        device: str | torch.device = "cpu",
        processes: Processes | None = None,
    ):
        """processes: those that train this model together, each on its own rows of every batch."""
        self.config = config
        self.processes = processes or Processes()
        # Refused before any work where the batches of the two phases cannot be shared out.
        self._rows = self.processes.rows(config.batch_size)
        if config.settle_updates > 0:
            self._settled_rows = self.processes.rows(config.settle_batch)
            self._step_rows = self.processes.rows(config.settle_actions)
        self.seed = seed
        self.device = torch.device(device)
        self.data_digest = transitions.digest()
        training, held_out = split_episodes(
            len(transitions.lengths), config.held_out, np.random.default_rng(seed)
        )
        options = {
            "stride": config.stride,
            "min_displacement": config.min_displacement,
            "device": self.device,
        }
        self.windows = Windows(transitions, config.window_length, training, **options)
        self.held_out = Windows(transitions, config.window_length, held_out, **options)
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = config.networks(transitions.states.shape[1], transitions.actions.shape[1])
            self.model = SkillModel(sizes).to(self.device)
        self.model.normaliser.fit(self.windows)
        groups = self._parameter_groups()
        self.optimisers = [self._adam(group) for group in groups]
        averaging = [self.processes.averaging(group) for group in groups]
        self._averaged = dict(zip(self.optimisers, averaging, strict=True))
        self.update = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        self.command = ""  # that the run began with
        self._settled_on: SettledWindows | None = None

    def _parameter_groups(self) -> list[list[torch.nn.Parameter]]:
        """What each optimiser updates: EM's one or two, then the settling phase's."""
        model = self.model
        posterior, generative = list(model.posterior.parameters()), model.generative_parameters()
        em = (
            [posterior + generative]
            if self.config.method == "one-pass"
            else [posterior, generative]
        )
        settled = [model.world_model, model.prior, model.support]
        settled += [model.policy] if self.config.settle_actions else []
        return [*em, [parameter for module in settled for parameter in module.parameters()]]

    def _adam(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=self.config.learning_rate)

    # -- one update -----------------------------------------------------------------------------

    @property
    def settling(self) -> bool:
        return self.update >= self.config.updates

    def learning_rate(self) -> float:
        """The learning rate of the next update."""
        config = self.config
        if config.schedule == "constant":
            return config.learning_rate
        if self.settling:
            progress = (self.update - config.updates) / config.settle_updates
        else:
            progress = self.update / config.updates
        return config.learning_rate * one_cycle(progress)

    def beta(self) -> float:
        """The weight of the KL in the next update."""
        return self.config.beta * min(1.0, (self.update + 1) / max(self.config.beta_warmup, 1))

    def step(self) -> dict[str, float]:
        """One update on one batch; returns its metrics, in nats a window."""
        metrics = {"update": self.update + 1, "learning_rate": self.learning_rate()}
        if self.settling:
            metrics |= self.processes.mean(self._settle())
        else:
            batch = self.windows.sample(self.config.batch_size, self.generator, self._rows)
            terms = self._one_pass(batch) if self.config.method == "one-pass" else self._em(batch)
            measured = {"elbo": terms.elbo().mean().item(), **means(terms)}
            metrics |= {"beta": self.beta(), **self.processes.mean(measured)}
        require(
            all(math.isfinite(value) for value in metrics.values()),
            f"The loss is not finite at update {self.update + 1}. Use a smaller learning rate.",
        )
        self.update += 1
        return metrics

    def _one_pass(self, batch: WindowBatch) -> Terms:
        with self._autocast():
            loss, terms = one_pass_loss(self.model, batch, self._noise(batch), self.beta())
        self._descend(self.optimisers[0], loss)
        return terms

    def _em(self, batch: WindowBatch) -> Terms:
        posterior, generative = self.optimisers[:2]
        noise = self._noise(batch)
        with self._autocast():
            loss = e_step_loss(self.model, batch, noise, self.beta())
        self._descend(posterior, loss)
        with self._autocast():
            loss, terms = m_step_loss(self.model, batch, noise, self.beta())
        self._descend(generative, loss)
        return terms

    def _settle(self) -> dict[str, float]:
        """−E_q[log p_ψ(s_T|s_0, z)] + KL(q ‖ p_ω) with q fixed, in ψ and ω; and the support."""
        if self._settled_on is None:
            self._settled_on = SettledWindows(self.model, self.windows)
        first, last, q = self._settled_on.sample(
            self.config.settle_batch, self.generator, self._settled_rows
        )
        noise = self._draw(torch.randn, q.loc.shape)
        size = self._draw(torch.rand, (len(first), 1))
        share = self._draw(torch.rand, (len(first), 2))
        moved = self._draw(torch.randn, first.shape)
        first = first + self.config.settle_noise * size * moved * self.model.normaliser.std
        z = q.loc + q.scale * noise  # (B, Z)
        with self._autocast():
            state = self.model.world_model(first, z).log_prob(last).sum(-1)  # (B,)
            kl = gaussian_kl(q, self.model.prior(first)).sum(-1)  # (B,)
            support = support_loss(self.model.support, last, share)
            loss = (kl - state).mean() + support
        metrics = {
            "state": state.mean().item(),
            "kl": kl.mean().item(),
            "support": support.item(),
        }
        if self.config.settle_actions:
            action = self._settled_actions(self._settled_on)
            loss = loss - action
            metrics["action"] = self.config.window_length * action.item()
        self._descend(self.optimisers[-1], loss)
        return metrics

    def _settled_actions(self, settled: SettledWindows) -> Tensor:
        """E_q[log π_θ(a_t|s_t, z)] with q fixed, at random steps t of random windows."""
        state, action, q = settled.sample_steps(
            self.config.settle_actions, self.generator, self._step_rows
        )
        noise = self._draw(torch.randn, q.loc.shape)
        with self._autocast():
            return self.model.policy(state, q.loc + q.scale * noise).log_prob(action).sum(-1).mean()

    def _noise(self, batch: WindowBatch) -> Tensor:
        return self._draw(torch.randn, (len(batch.states), self.config.skill_dim))

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        """Random numbers for this process's rows, drawn among those for the whole batch."""
        size = shape[0] * self.processes.count
        whole = draw((size, *shape[1:]), generator=self.generator)
        return whole[self.processes.rows(size)].to(self.device)

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.config.precision)

    def _descend(self, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        group = optimiser.param_groups[0]
        group["lr"] = self.learning_rate()
        optimiser.zero_grad(set_to_none=True)
        self._averaged[optimiser](loss).backward()  # over the processes, where there are several
        torch.nn.utils.clip_grad_norm_(group["params"], self.config.grad_clip)
        optimiser.step()

    @torch.no_grad()
    def test(self, batches: int = 20) -> dict[str, float]:
        """Means of the ELBO's terms over windows of the held-out episodes, in nats a window."""
        generator = torch.Generator().manual_seed(self.seed)
        terms = []
        for _ in range(batches):
            batch = self.held_out.sample(self.config.batch_size, generator)
            noise = torch.randn((len(batch.states), self.config.skill_dim), generator=generator)
            terms.append(elbo_terms(self.model, batch, noise.to(self.device)))
        terms = Terms(*(torch.cat([getattr(t, name) for t in terms]) for name in TERM_NAMES))
        return {"elbo": terms.elbo().mean().item(), **means(terms)}

    # -- the whole run --------------------------------------------------------------------------

    def run(self, out: Path | None = None, progress: bool = False, command: str = "") -> SkillModel:
        """Train to the end; with `out`, metrics and checkpoints are written there.

        A KeyboardInterrupt leaves a checkpoint that `resume` continues, and is raised again. Of
        several processes rank 0 alone writes, and an interrupt of one stops all after one update.
        """
        require(
            self.processes.agree([self._header(), self.seed, self.data_digest, self.update]),
            "The processes differ in settings, dataset or checkpoint. Give all machines the same.",
        )
        if not self.processes.first:
            out, progress = None, False
        self.command = self.command or command
        begin = time.perf_counter() - self.seconds
        bar = tqdm(
            total=self.config.total_updates,
            initial=self.update,
            desc="training",
            disable=not progress,
            unit="update",
        )
        # Held while the state is written too: a launcher may pass on what the terminal has sent.
        with held_interrupts() as interrupts:
            try:
                while self.update < self.config.total_updates:
                    metrics = self.step()
                    self.seconds = time.perf_counter() - begin
                    if self.update % RECORD_EVERY == 0 or self.update == self.config.total_updates:
                        self._record(metrics | {"seconds": round(self.seconds, 2)}, out)
                        bar.set_postfix(kl=f"{metrics['kl']:.1f}", state=f"{metrics['state']:.1f}")
                    if out is not None and self.update % CHECKPOINT_EVERY == 0:
                        self.save_state(out)
                    bar.update()
                    if self.processes.any(bool(interrupts)):
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                if out is not None:
                    self.save_state(out)
                raise
            finally:
                bar.close()
        if out is not None:
            self.save_state(out)
            self.save_model(out)
        self.processes.wait()
        return self.model

    def _record(self, metrics: dict[str, float], out: Path | None) -> None:
        self.history.append(metrics)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            # The first line replaces what a run that left no checkpoint may have written.
            mode = "a" if len(self.history) > 1 else "w"
            with (out / METRICS).open(mode, encoding="utf-8") as file:
                file.write(json.dumps(metrics) + "\n")

    def _header(self) -> dict:
        sizes = {name: getattr(self.model.config, name) for name in ("state_dim", "action_dim")}
        # As JSON gives it back, so that a header that was read compares equal.
        return json.loads(json.dumps({"training": asdict(self.config), **sizes}))

    def save_model(self, out: Path) -> None:
        """Write the parameters with what made them."""
        provenance = {
            "command": self.command,
            "seed": self.seed,
            "data": self.data_digest,
            "versions": versions() | {"python": sys.version.split()[0]},
            "seconds": round(self.seconds, 1),
            "threads": torch.get_num_threads(),
            "precision": used(self.device, self.config.precision),
            "held_out": {name: round(value, 4) for name, value in self.test().items()},
        }
        tensors = self.model.stored_tensors()
        save_checkpoint(out / MODEL, "skill model", tensors, self._header(), provenance)

    # -- stopping and going on ------------------------------------------------------------------

    def save_state(self, out: Path) -> None:
        """Write everything that the run needs to go on as if it had not stopped."""
        tensors = {f"model/{name}": value for name, value in self.model.stored_tensors().items()}
        tensors["generator"] = self.generator.get_state()
        for index, optimiser in enumerate(self.optimisers):
            for number, slots in optimiser.state_dict()["state"].items():
                for slot, value in slots.items():
                    tensors[f"optimiser/{index}/{number}/{slot}"] = value
        provenance = {
            "update": self.update,
            "seconds": self.seconds,
            "seed": self.seed,
            "data": self.data_digest,
            "command": self.command,
        }
        save_checkpoint(out / TRAINING_STATE, "training state", tensors, self._header(), provenance)

    def load_state(self, out: Path) -> None:
        """Take up the run that was stopped in `out`; UserError if it is another run's."""
        checkpoint = load_checkpoint(out / TRAINING_STATE, "training state")
        provenance, tensors = checkpoint.provenance, checkpoint.tensors
        require(
            checkpoint.config == self._header() and provenance["seed"] == self.seed,
            f"{out} holds a run with another configuration or seed. Resume it with its own.",
        )
        require(
            provenance["data"] == self.data_digest,
            f"{out} was trained on other data (digest {provenance['data']}, here "
            f"{self.data_digest}). Name its dataset with --dataset.",
        )
        prefix = "model/"
        model = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        restore(self.model.stored_tensors(), model, str(out / TRAINING_STATE))
        self.generator.set_state(tensors["generator"])
        for index, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimiser/{index}/"):
                    _, _, number, slot = name.split("/")
                    state.setdefault(int(number), {})[slot] = value
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
        self.update, self.seconds = provenance["update"], provenance["seconds"]
        self.command = provenance.get("command", "")  # states of earlier versions have none
        written = out / METRICS  # not there yet where the run was stopped before its first record
        lines = written.read_text(encoding="utf-8").splitlines() if written.exists() else []
        history = [json.loads(line) for line in lines if line.endswith("}")]
        self.history = [metrics for metrics in history if metrics["update"] <= self.update]
        if self.processes.first:
            with replacing(out / METRICS) as partial:
                partial.write_text("".join(json.dumps(m) + "\n" for m in self.history))


TERM_NAMES = ("action", "state", "kl")


def means(terms: Terms) -> dict[str, float]:
    """The mean of each term over the batch, in nats a window."""
    return {name: getattr(terms, name).mean().item() for name in TERM_NAMES}


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C in a list instead of raising at once, so that an update is whole or not begun.

    Only the main thread can take signals; elsewhere the list stays empty.
    """
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    before = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


class SettledWindows:
    """Ends of every second window with their posterior, computed once: q stays fixed."""

    @torch.no_grad()
    def __init__(self, model: SkillModel, windows: Windows, chunk: int = 2048):
        every = torch.arange(0, len(windows), 2)  # neighbours are nearly the same window
        self.windows, self.every = windows, every.to(windows.state_index.device)
        self.first, self.last = windows.ends(self.every)
        batches = (windows.gather(index) for index in every.split(chunk))
        posteriors = [model.posterior(batch.before, batch.actions) for batch in batches]
        self.mean = torch.cat([q.loc for q in posteriors])
        self.std = torch.cat([q.scale for q in posteriors])

    def sample(
        self, batch_size: int, generator: torch.Generator, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Normal]:
        """s_0 and s_T, (B, S) each, and q over (B, Z); rows as in `Windows.sample`."""
        index = self._draw(batch_size, generator, rows)
        return self.first[index], self.last[index], self._posterior(index)

    def sample_steps(
        self, batch_size: int, generator: torch.Generator, rows: slice = slice(None)
    ) -> tuple[Tensor, Tensor, Normal]:
        """s_t and a_t at random t of random windows, (B, S) and (B, A), and q over (B, Z)."""
        index = self._draw(batch_size, generator, rows)
        step = torch.randint(self.windows.window_length, (batch_size,), generator=generator)[rows]
        state, action = self.windows.steps(self.every[index], step.to(index.device))
        return state, action, self._posterior(index)

    def _draw(self, batch_size: int, generator: torch.Generator, rows: slice) -> Tensor:
        index = torch.randint(len(self.first), (batch_size,), generator=generator)[rows]
        return index.to(self.first.device)

    def _posterior(self, index: Tensor) -> Normal:
        return Normal(self.mean[index], self.std[index], validate_args=False)


@dataclass(frozen=True)
class TrainedModel:
    """A model for use, with how it was trained and where it comes from."""

    model: SkillModel
    config: TrainingConfig
    provenance: dict


def load_model(folder: Path) -> TrainedModel:
    """The parameters in a folder that `train` wrote; UserError says what is wrong with them."""
    checkpoint = load_checkpoint(Path(folder) / MODEL, "skill model")
    header = checkpoint.config
    try:
        config = TrainingConfig(**header["training"])
        model = SkillModel(config.networks(header["state_dim"], header["action_dim"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder} has a configuration that is not understood: {error}.") from error
    restore(model.stored_tensors(), checkpoint.tensors, str(folder))
    return TrainedModel(model.eval(), config, checkpoint.provenance)

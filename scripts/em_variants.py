"""Train variants of chapter 4 on PointMaze Medium and write what they learn as one JSON file.

    python scripts/em_variants.py [--seeds 0 1 2 3 4] [--updates 400] [--out FILE]

Small networks, one core, about a quarter of an hour. Variants: the weight of the KL (β), two steps
against one pass, warm-up of β, and the E-step whose graph is cut. Numbers are means over windows
of held-out episodes, in nats a window.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from datetime import date
from pathlib import Path

import torch

from mbta_helpers.checkpoints import write_text
from mbta_helpers.datasets import load_or_collect, versions
from mbta_helpers.objectives import action_log_likelihood, gaussian_kl, m_step_loss
from mbta_helpers.training import Trainer, TrainingConfig, one_cycle

MAZE = "pointmaze-medium"
OUT = Path(__file__).parents[1] / "mbta_helpers" / "parameters" / "em_variants.json"
BETAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
VARIANTS = {
    **{f"beta {beta:g}": {"beta": beta} for beta in BETAS},
    "em": {"beta": 0.3, "method": "em"},
    "cut": {"beta": 0.3, "method": "em"},
    "warm-up": {"beta": 10.0, "beta_warmup": 200},
}
EVERY = 50  # updates between two looks at the held-out windows


def small_config(updates: int, **options) -> TrainingConfig:
    """The sizes of all runs here: small enough for one core."""
    sizes = {"hidden": 64, "model_hidden": 64, "gru_hidden": 32, "skill_dim": 8}
    return TrainingConfig(window_length=20, updates=updates, settle_updates=0, **sizes, **options)


def cut_e_step_loss(model, batch, noise, beta):
    """The mistake: log π_θ and log p_ω under no_grad, so that only log q_φ has a gradient."""
    q = model.posterior(batch.before, batch.actions)
    z = q.loc + q.scale * noise  # (B, Z)
    with torch.no_grad():
        log_policy = action_log_likelihood(model.policy, batch, z)  # (B,)
        log_prior = model.prior(batch.first).log_prob(z).sum(-1)  # (B,)
    return (beta * (q.log_prob(z).sum(-1) - log_prior) - log_policy).mean()


class CutTrainer:
    """EM as in Trainer, with the E-step whose graph is cut."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        model = trainer.model
        self.groups = [list(model.posterior.parameters()), model.generative_parameters()]
        self.optimisers = [torch.optim.Adam(group) for group in self.groups]
        self.update = 0

    def step(self) -> None:
        trainer, config = self.trainer, self.trainer.config
        batch = trainer.windows.sample(config.batch_size, trainer.generator)
        shape = (config.batch_size, config.skill_dim)
        noise = torch.randn(shape, generator=trainer.generator)
        for number, optimiser in enumerate(self.optimisers):
            loss = (
                m_step_loss(trainer.model, batch, noise, config.beta)[0]
                if number
                else cut_e_step_loss(trainer.model, batch, noise, config.beta)
            )
            rate = config.learning_rate * one_cycle(self.update / config.updates)
            optimiser.param_groups[0]["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.groups[number], config.grad_clip)
            optimiser.step()
        self.update += 1


@torch.no_grad()
def look(trainer: Trainer, windows: int = 4096) -> dict:
    """What the skills of a trained model carry, over held-out windows."""
    model = trainer.model
    generator = torch.Generator().manual_seed(1)
    batch = trainer.held_out.sample(windows, generator)
    q, p = model.posterior(batch.before, batch.actions), model.prior(batch.first)
    z = q.loc + q.scale * torch.randn(q.loc.shape, generator=generator)
    fresh = p.loc + p.scale * torch.randn(p.loc.shape, generator=generator)  # knows s_0 alone
    terms = {
        "action": action_log_likelihood(model.policy, batch, z),
        "action_fresh": action_log_likelihood(model.policy, batch, fresh),
        "state": model.world_model(batch.first, z).log_prob(batch.last).sum(-1),
        "kl": gaussian_kl(q, p).sum(-1),
    }
    result = {name: round(term.mean().item(), 4) for name, term in terms.items()}
    result["elbo"] = round(result["action"] + result["state"] - result["kl"], 4)
    result["kl_dims"] = [round(value, 4) for value in gaussian_kl(q, p).mean(0).tolist()]
    result["mean_variance"] = [round(value, 4) for value in q.loc.var(0).tolist()]
    result["std"] = [round(value, 4) for value in q.scale.mean(0).tolist()]
    return result


def train(variant: str, options: dict, seed: int, updates: int, transitions) -> dict:
    trainer = Trainer(small_config(updates, **options), transitions, seed)
    steps = CutTrainer(trainer) if variant == "cut" else trainer
    curve = {"update": [], "action": [], "elbo": [], "kl": [], "state": []}
    started = time.perf_counter()
    for update in range(1, updates + 1):
        steps.step()
        if update % EVERY == 0 or update == 10:
            test = trainer.test(batches=10)
            for name, values in curve.items():
                values.append(update if name == "update" else round(test[name], 3))
    seconds = time.perf_counter() - started
    final = look(trainer)
    print(f"{variant:12s} seed {seed}: {seconds:.0f} s, {final}", flush=True)
    return {"variant": variant, **options, "seed": seed, "final": final, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transitions = load_or_collect(MAZE)
    runs = [
        train(variant, VARIANTS[variant], seed, options.updates, transitions)
        for seed in options.seeds
        for variant in options.only
    ]
    provenance = {
        "command": shlex.join(["python", "scripts/em_variants.py", *sys.argv[1:]]),
        "maze": MAZE,
        "data": transitions.digest(),
        "seeds": options.seeds,
        "updates": options.updates,
        "date": date.today().isoformat(),
        "versions": versions() | {"python": sys.version.split()[0]},
    }
    lines = ",\n".join(json.dumps(run) for run in runs)
    text = f'{{"provenance": {json.dumps(provenance)},\n"runs": [\n{lines}\n]}}\n'
    write_text(options.out, text)


if __name__ == "__main__":
    main()

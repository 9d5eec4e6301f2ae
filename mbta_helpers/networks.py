"""Networks: skill posterior, skill-conditioned policy, world model and skill prior.

All are diagonal Gaussians. States go in and come out in map units: each network normalises its
inputs with statistics of the training split, which are stored with the parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from mbta_helpers.ants import (
    LED_FRAME,
    OWN_FRAME,
    STATE_DIM,
    lead_fronts,
    led_frame,
    led_torques,
    own_frame,
)
from mbta_helpers.errors import require
from mbta_helpers.windows import Windows


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the four networks and the bounds of their standard deviations.

    wavelengths: of the sines and cosines of the map position that the networks see besides the
    state, in map units; none by default. own_frame: for an ant, whether they see it from
    its own heading, and whether its skills have a lead (`LedPosterior`, `LedPolicy`).
    hidden: width of posterior and policy. model_hidden: of world model and prior.
    The bounds are in units of the standard deviation of what is predicted, for the world model,
    and as they stand for z and for the actions.
    """

    state_dim: int
    action_dim: int
    skill_dim: int = 8
    hidden: int = 128
    model_hidden: int = 128
    gru_hidden: int = 64
    gru_layers: int = 1
    wavelengths: tuple[float, ...] = ()
    own_frame: bool = False
    min_std: float = 0.05
    max_std: float = 2.0

    def __post_init__(self):
        for name in (
            "state_dim",
            "action_dim",
            "skill_dim",
            "hidden",
            "model_hidden",
            "gru_hidden",
            "gru_layers",
        ):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, not {value}.")
        require(all(length > 0 for length in self.wavelengths), "wavelengths must be positive.")
        require(
            not self.own_frame or self.state_dim == STATE_DIM,
            f"Only an ant's state of {STATE_DIM} numbers has a frame of its own; this has "
            f"{self.state_dim}. Set own_frame to False.",
        )
        require(
            not self.own_frame or self.skill_dim % 2 == 0,
            f"An ant's skill is turned by pairs of its numbers, so skill_dim is even, not "
            f"{self.skill_dim}.",
        )
        require(
            0 < self.min_std < self.max_std,
            f"min_std {self.min_std:g} must lie between 0 and max_std {self.max_std:g}.",
        )


class Normaliser(nn.Module):
    """Mean, std, lowest and highest of states, and std of s_T − s_0, over the training windows."""

    def __init__(
        self, state_dim: int, wavelengths: tuple[float, ...] = (), own_frame: bool = False
    ):
        super().__init__()
        self.width = state_dim + 4 * len(wavelengths) + OWN_FRAME * own_frame
        self.wavelengths = wavelengths
        self.own_frame = own_frame
        self.register_buffer("mean", torch.zeros(state_dim))
        self.register_buffer("std", torch.ones(state_dim))
        self.register_buffer("delta_std", torch.ones(state_dim))
        self.register_buffer("low", torch.zeros(state_dim))
        self.register_buffer("high", torch.zeros(state_dim))

    @torch.no_grad()
    def fit(self, windows: Windows) -> None:
        """Set the statistics from windows, which must be those of the training split."""
        every = torch.arange(len(windows), device=windows.state_index.device)
        first, last = windows.ends(every)
        self.mean.copy_(first.mean(0))
        self.low.copy_(first.amin(0))
        self.high.copy_(first.amax(0))
        self.std.copy_(first.std(0).clamp_min(1e-3))
        # About zero, not about the mean: a skill that leads nowhere stays at exactly zero.
        self.delta_std.copy_((last - first).square().mean(0).sqrt().clamp_min(1e-3))

    def forward(self, state: Tensor) -> Tensor:
        """Normalised states, waves of the position, an ant's own view: (..., S) to (..., width).

        A network of plain coordinates learns slowly what changes within a cell of the maze, such
        as where walls end; sines of the position make that easy (Tancik et al. 2020). For the same
        reason an ant's tilt and velocity are also given as seen along its heading.
        """
        features = [(state - self.mean) / self.std, *self.waves(state)]
        if self.own_frame:
            features.append(own_frame(state))
        return torch.cat(features, -1)  # (..., width)

    def waves(self, state: Tensor) -> list[Tensor]:
        """Sines and cosines of the map position, each (..., 2)."""
        phases = [(2 * math.pi / length) * state[..., :2] for length in self.wavelengths]
        return [wave for phase in phases for wave in (phase.sin(), phase.cos())]

    def place(self, state: Tensor) -> Tensor:
        """The map position alone, normalised, with its waves: (..., 2 + 4 · wavelengths)."""
        position = (state[..., :2] - self.mean[:2]) / self.std[:2]
        return torch.cat([position, *self.waves(state)], -1)


class Head(nn.Module):
    """Two layers from features to one output vector."""

    def __init__(self, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden, hidden)
        self.fc2 = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(features)))


class GaussianHeads(nn.Module):
    """Mean and standard deviation of a diagonal Gaussian from features.

    σ = σ_min + (σ_max − σ_min) · sigmoid(·): bounded without the dead gradient of a clamp.
    """

    def __init__(self, config: NetworkConfig, hidden: int, outputs: int):
        super().__init__()
        self.mean_head = Head(hidden, outputs)
        self.std_head = Head(hidden, outputs)
        self.min_std = config.min_std
        self.max_std = config.max_std

    def mean(self, features: Tensor) -> Tensor:
        return self.mean_head(features)

    def std(self, features: Tensor) -> Tensor:
        return self.min_std + (self.max_std - self.min_std) * self.std_head(features).sigmoid()

    def forward(self, features: Tensor) -> Normal:
        return Normal(self.mean(features), self.std(features), validate_args=False)


class Trunk(nn.Module):
    """Two hidden layers."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.relu(self.fc2(torch.relu(self.fc1(inputs))))


class SkillPosterior(nn.Module):
    """q_φ(z|τ): which skill explains a subtrajectory (Freed et al. 2023, section 4)."""

    def __init__(self, config: NetworkConfig, normaliser: Normaliser):
        super().__init__()
        self.normaliser = normaliser
        self.embed = nn.Linear(normaliser.width, config.hidden)
        self.gru = nn.GRU(
            config.hidden + config.action_dim,
            config.gru_hidden,
            num_layers=config.gru_layers,
            bidirectional=True,
            batch_first=True,
        )
        self.readout = nn.Linear(2 * config.gru_hidden, config.hidden)
        self.heads = GaussianHeads(config, config.hidden, config.skill_dim)

    def forward(self, states: Tensor, actions: Tensor) -> Normal:
        """states: (B, T, S), s_0 … s_{T−1}; actions: (B, T, A). Returns q over (B, Z)."""
        features = torch.relu(self.embed(self.normaliser(states)))  # (B, T, hidden)
        _, final = self.gru(torch.cat([features, actions], -1))  # (2 · layers, B, gru_hidden)
        # Each direction's own last step: forward at T − 1, backward at 0. Both have seen all.
        seen = torch.cat([final[-2], final[-1]], -1)  # (B, 2 · gru_hidden)
        return self.heads(torch.relu(self.readout(seen)))


class SkillPolicy(nn.Module):
    """π_θ(a|s, z): the low-level policy that carries out a skill."""

    def __init__(self, config: NetworkConfig, normaliser: Normaliser):
        super().__init__()
        self.normaliser = normaliser
        self.trunk = Trunk(normaliser.width + config.skill_dim, config.hidden)
        self.heads = GaussianHeads(config, config.hidden, config.action_dim)

    def features(self, state: Tensor, z: Tensor) -> Tensor:
        return self.trunk(torch.cat([self.normaliser(state), z], -1))  # (..., hidden)

    def forward(self, state: Tensor, z: Tensor) -> Normal:
        """state: (..., S); z: (..., Z). Returns π over (..., A)."""
        return self.heads(self.features(state, z))

    def act(self, state: Tensor, z: Tensor) -> Tensor:
        """The mean action, inside the box [−1, 1]; (..., A)."""
        return self.heads.mean(self.features(state, z)).clamp(-1.0, 1.0)


class LedPosterior(SkillPosterior):
    """q_φ(z|τ) of an ant: the first two numbers of z, the lead, count from the way of the window.

    The way is that from s_0 to s_{T−1} on the map, in units of the normaliser (7.4). So from the
    first update on the mean of a skill says where it leads, in the world's axes, and the policy
    can turn with it.
    """

    def forward(self, states: Tensor, actions: Tensor) -> Normal:
        """states: (B, T, S), s_0 … s_{T−1}; actions: (B, T, A). Returns q over (B, Z)."""
        q = super().forward(states, actions)
        way = (states[:, -1, :2] - states[:, 0, :2]) / self.normaliser.delta_std[:2]  # (B, 2)
        rest = q.loc.shape[-1] - 2
        return Normal(q.loc + nn.functional.pad(way, (0, rest)), q.scale, validate_args=False)


class LedPolicy(SkillPolicy):
    """π_θ(a|s, z) of an ant that calls the side nearest its lead the front (7.5).

    Turned by a quarter, the ant is the same ant with its legs renamed. So the network sees all as
    from the front, with z by pairs among it, and its torques are given back to the legs as MuJoCo
    names them.
    """

    def __init__(self, config: NetworkConfig, normaliser: Normaliser):
        super().__init__(config, normaliser)
        place = 2 + 4 * len(config.wavelengths)
        self.trunk = Trunk(place + LED_FRAME + 2 * config.skill_dim, config.hidden)

    def features(self, state: Tensor, z: Tensor) -> Tensor:
        seen = led_frame(state, z.unflatten(-1, (-1, 2)), lead_fronts(state, z[..., :2]))
        return self.trunk(torch.cat([self.normaliser.place(state), seen, z], -1))  # (..., hidden)

    def forward(self, state: Tensor, z: Tensor) -> Normal:
        """state: (..., 29); z: (..., Z). Returns π over (..., 8)."""
        own, front = super().forward(state, z), lead_fronts(state, z[..., :2])
        scale = led_torques(own.scale, front).abs()
        return Normal(led_torques(own.loc, front), scale, validate_args=False)

    def act(self, state: Tensor, z: Tensor) -> Tensor:
        """The mean action, inside the box [−1, 1]; (..., 8)."""
        mean = self.heads.mean(self.features(state, z))
        return led_torques(mean, lead_fronts(state, z[..., :2])).clamp(-1.0, 1.0)


class TemporallyAbstractWorldModel(nn.Module):
    """p_ψ(s_T|s_0, z): where a skill leads after T steps. Predicts s_T − s_0."""

    def __init__(self, config: NetworkConfig, normaliser: Normaliser):
        super().__init__()
        self.normaliser = normaliser
        self.trunk = Trunk(normaliser.width + config.skill_dim, config.model_hidden)
        self.heads = GaussianHeads(config, config.model_hidden, config.state_dim)

    def features(self, state: Tensor, z: Tensor) -> Tensor:
        return self.trunk(torch.cat([self.normaliser(state), z], -1))  # (..., hidden)

    def mean(self, state: Tensor, z: Tensor) -> Tensor:
        """Only the mean of forward, at half its price: what planning rolls out; (..., S)."""
        return state + self.normaliser.delta_std * self.heads.mean(self.features(state, z))

    def forward(self, state: Tensor, z: Tensor) -> Normal:
        """state: (..., S); z: (..., Z). Returns p over s_T, (..., S), in map units."""
        features, scale = self.features(state, z), self.normaliser.delta_std
        return Normal(
            state + scale * self.heads.mean(features),
            scale * self.heads.std(features),
            validate_args=False,
        )


class SkillPrior(nn.Module):
    """p_ω(z|s_0): which skills the data shows from a state."""

    def __init__(self, config: NetworkConfig, normaliser: Normaliser):
        super().__init__()
        self.normaliser = normaliser
        self.trunk = Trunk(normaliser.width, config.model_hidden)
        self.heads = GaussianHeads(config, config.model_hidden, config.skill_dim)

    def forward(self, state: Tensor) -> Normal:
        """state: (..., S). Returns p over z, (..., Z)."""
        return self.heads(self.trunk(self.normaliser(state)))


class StateSupport(nn.Module):
    """c(s): log-odds that a state comes from the data and not from anywhere in the box around it.

    Not part of the generative model. Planning asks it whether the states that a plan passes are
    ones that the data knows: a Gaussian prior also offers skills that nothing in the data shows
    from a state, and there the world model says where they would lead, without a warning.
    """

    def __init__(self, config: NetworkConfig, normaliser: Normaliser):
        super().__init__()
        self.normaliser = normaliser
        self.trunk = Trunk(normaliser.width, config.model_hidden)
        self.readout = nn.Linear(config.model_hidden, 1)

    def forward(self, state: Tensor) -> Tensor:
        """state: (..., S). Returns log-odds, (...)."""
        return self.readout(self.trunk(self.normaliser(state))).squeeze(-1)


class SkillModel(nn.Module):
    """The four networks, the state support, and the normaliser that they share."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.normaliser = Normaliser(config.state_dim, config.wavelengths, config.own_frame)
        ant = config.own_frame
        self.posterior = (LedPosterior if ant else SkillPosterior)(config, self.normaliser)
        self.policy = (LedPolicy if ant else SkillPolicy)(config, self.normaliser)
        self.world_model = TemporallyAbstractWorldModel(config, self.normaliser)
        self.prior = SkillPrior(config, self.normaliser)
        self.support = StateSupport(config, self.normaliser)

    def generative_parameters(self) -> list[nn.Parameter]:
        """θ, ψ and ω: what the M-step updates."""
        modules = (self.policy, self.world_model, self.prior)
        return [parameter for module in modules for parameter in module.parameters()]

    def stored_tensors(self) -> dict[str, Tensor]:
        """The state dict with the shared normaliser in it once, not again for every network."""
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if name.startswith("normaliser.") or ".normaliser." not in name
        }

"""The recurrent state-space model (RSSM): a deterministic and a random part in every step.

    h_t = f(h_{t−1}, z_{t−1}, a_{t−1}),   prior p(z_t | h_t),   posterior q(z_t | h_t, o_t)

Hafner et al. (2019), "Learning Latent Dynamics for Planning from Pixels", section 3; with classes
instead of Gaussians Hafner et al. (2021), "Mastering Atari with Discrete World Models". The model's
state is s_t = (h_t, z_t). A distribution is carried as the numbers that a network gives for it.

Symbols: B sequences, T steps, D numbers in h, Z in z, P of a distribution of z, E in an embedding,
A in an action.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbta_helpers.errors import require


class State(NamedTuple):
    """s_t = (h_t, z_t), and the distribution from which z_t was drawn.

    h: (..., D). z: (..., Z). parameters: (..., P), of the posterior or of the prior.
    """

    h: Tensor
    z: Tensor
    parameters: Tensor

    @property
    def features(self) -> Tensor:
        """What heads, actors and critics see, (..., D + Z)."""
        return torch.cat([self.h, self.z], -1)

    def flatten(self) -> State:
        """All leading axes as one."""
        return State(*(part.reshape(-1, part.shape[-1]) for part in self))

    def detach(self) -> State:
        return State(*(part.detach() for part in self))


# -- distributions of z ---------------------------------------------------------------------------


class Latent(Protocol):
    """A family of distributions over z; parameters are (..., P), samples (..., Z)."""

    size: int  # Z
    parameter_count: int  # P

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """A draw with a gradient to the parameters."""

    def mode(self, parameters: Tensor) -> Tensor:
        """The likeliest z."""

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        """D_KL(q ‖ p) in nats, (...): summed over the parts of z."""

    def log_prob(self, parameters: Tensor, z: Tensor) -> Tensor:
        """log-density or log-probability of z, (...)."""


@dataclass(frozen=True)
class GaussianLatent:
    """Z independent Gaussians. The network gives μ and a number whose softplus is σ − least_std."""

    size: int
    least_std: float = 0.1

    @property
    def parameter_count(self) -> int:
        return 2 * self.size

    def moments(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ, (..., Z) each."""
        mean, raw = parameters.chunk(2, -1)
        return mean, F.softplus(raw) + self.least_std

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        mean, std = self.moments(parameters)
        return mean + std * torch.randn(mean.shape, generator=generator)

    def mode(self, parameters: Tensor) -> Tensor:
        return self.moments(parameters)[0]

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        (q_mean, q_std), (p_mean, p_std) = self.moments(q), self.moments(p)
        ratio, shift = (q_std / p_std).square(), ((q_mean - p_mean) / p_std).square()
        return 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)

    def log_prob(self, parameters: Tensor, z: Tensor) -> Tensor:
        return torch.distributions.Normal(*self.moments(parameters)).log_prob(z).sum(-1)


@dataclass(frozen=True)
class CategoricalLatent:
    """`groups` independent choices among `classes`, each one-hot; Z = groups × classes.

    uniform: share of the uniform distribution that is mixed in, which bounds log-probabilities.
    """

    groups: int
    classes: int
    uniform: float = 0.0

    @property
    def size(self) -> int:
        return self.groups * self.classes

    @property
    def parameter_count(self) -> int:
        return self.size

    def probabilities(self, parameters: Tensor) -> Tensor:
        """(..., P) to (..., groups, classes)."""
        logits = parameters.unflatten(-1, (self.groups, self.classes))
        return (1 - self.uniform) * logits.softmax(-1) + self.uniform / self.classes

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """onehot + p − sg(p): the value is a draw, the gradient that of the probabilities."""
        p = self.probabilities(parameters)
        level = torch.rand((*p.shape[:-1], 1), generator=generator)
        index = (p.detach().cumsum(-1)[..., :-1] <= level).sum(-1)  # (..., groups)
        one_hot = F.one_hot(index, self.classes)
        return (one_hot + p - p.detach()).flatten(-2)

    def mode(self, parameters: Tensor) -> Tensor:
        p = self.probabilities(parameters)
        return F.one_hot(p.argmax(-1), self.classes).to(p).flatten(-2)

    def kl(self, q: Tensor, p: Tensor) -> Tensor:
        q, p = self.log_probabilities(q), self.log_probabilities(p)
        return (q.exp() * (q - p)).sum((-2, -1))

    def log_prob(self, parameters: Tensor, z: Tensor) -> Tensor:
        chosen = z.unflatten(-1, (self.groups, self.classes))
        return (chosen * self.log_probabilities(parameters)).sum((-2, -1))

    def log_probabilities(self, parameters: Tensor) -> Tensor:
        """(..., P) to (..., groups, classes), finite also where a probability rounds to 0."""
        if self.uniform:
            return self.probabilities(parameters).log()
        return parameters.unflatten(-1, (self.groups, self.classes)).log_softmax(-1)


# -- the model ------------------------------------------------------------------------------------


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 1) -> nn.Sequential:
    """A network with `layers` hidden layers of one width and ELU between them."""
    sizes = [inputs, *[hidden] * layers]
    parts: list[nn.Module] = []
    for before, after in pairwise(sizes):
        parts += [nn.Linear(before, after), nn.ELU()]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], outputs))


class RSSM(nn.Module):
    """h_t by a GRU, prior and posterior of z_t by small networks."""

    def __init__(
        self,
        action_dim: int,
        embedding_dim: int,
        latent: Latent,
        deterministic: int = 64,
        hidden: int = 64,
    ):
        """deterministic: D. hidden: width of the layers before and after the GRU."""
        super().__init__()
        self.latent, self.deterministic = latent, deterministic
        self.inputs = nn.Sequential(nn.Linear(latent.size + action_dim, hidden), nn.ELU())
        self.cell = self.make_cell(hidden, deterministic)
        self.prior = mlp(deterministic, hidden, latent.parameter_count)
        self.posterior = mlp(deterministic + embedding_dim, hidden, latent.parameter_count)

    def make_cell(self, inputs: int, size: int) -> nn.Module:
        """What maps an input (B, inputs) and h_{t−1}, (B, size), to h_t."""
        return nn.GRUCell(inputs, size)

    def start(self, count: int) -> State:
        """The state before the first observation: zeros."""
        like = self.prior[-1].bias
        sizes = (self.deterministic, self.latent.size, self.latent.parameter_count)
        return State(*(like.new_zeros(count, size) for size in sizes))

    def advance(self, state: State, action: Tensor) -> Tensor:
        """h_t = f(h_{t−1}, z_{t−1}, a_{t−1}); action: (B, A). Returns (B, D)."""
        return self.cell(self.inputs(torch.cat([state.z, action], -1)), state.h)

    def imagine_step(self, state: State, action: Tensor, generator: torch.Generator) -> State:
        """s_t drawn from the prior; action: a_{t−1}, (B, A)."""
        h = self.advance(state, action)
        parameters = self.prior(h)
        return State(h, self.latent.sample(parameters, generator), parameters)

    def observe_step(
        self,
        state: State,
        action: Tensor,
        is_first: Tensor,
        embedding: Tensor,
        generator: torch.Generator,
    ) -> tuple[State, Tensor]:
        """s_t drawn from the posterior, and the prior's parameters (B, P).

        Where is_first, (B,), the past is forgotten: state and action are set to 0.
        embedding: of o_t, (B, E). action: a_{t−1}, (B, A).
        """
        keep = (1 - is_first)[:, None]
        h = self.advance(State(*(part * keep for part in state)), action * keep)
        parameters = self.posterior(torch.cat([h, embedding], -1))
        return State(h, self.latent.sample(parameters, generator), parameters), self.prior(h)

    def observe(
        self, embedding: Tensor, action: Tensor, is_first: Tensor, generator: torch.Generator
    ) -> tuple[State, Tensor]:
        """Filter sequences: posterior states and the priors' parameters, (B, T, ...) each.

        embedding: (B, T, E). action: (B, T, A), a_{t−1}. is_first: (B, T); the first row of a
        sequence is taken as a start, since nothing is known of what was before.
        """
        require(
            embedding.shape[:2] == action.shape[:2] == is_first.shape,
            f"Embeddings {tuple(embedding.shape)}, actions {tuple(action.shape)} and is_first "
            f"{tuple(is_first.shape)} must agree in sequences and steps.",
        )
        state, states, priors = self.start(len(embedding)), [], []
        is_first = torch.cat([torch.ones_like(is_first[:, :1]), is_first[:, 1:]], 1)
        for row in zip(action.unbind(1), is_first.unbind(1), embedding.unbind(1), strict=True):
            state, prior = self.observe_step(state, *row, generator)
            states.append(state)
            priors.append(prior)
        return stack(states), torch.stack(priors, 1)

    def imagine(self, state: State, action: Tensor, generator: torch.Generator) -> State:
        """States after each of given actions, (B, H, ...), from the prior; action: (B, H, A)."""
        states = []
        for each in action.unbind(1):
            state = self.imagine_step(state, each, generator)
            states.append(state)
        return stack(states)


def stack(states: list[State]) -> State:
    """States (B, ...) of consecutive steps as one, (B, T, ...)."""
    return State(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))

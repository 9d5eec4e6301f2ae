"""V, the eye of a world model: a variational autoencoder of small pictures.

Ha and Schmidhuber (2018), "World Models"; the bound is that of Kingma and Welling (2014), and of
chapter 2. Chapter 14 derives what is here.

Symbols: B pictures, Z numbers of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from mbta_helpers.errors import require
from mbta_helpers.objectives import gaussian_kl


@dataclass(frozen=True)
class VAEConfig:
    """How to learn to see.

    noise: σ_o, the standard deviation that the decoder gives a pixel. tolerance: nats a dimension
    of the code that cost nothing.
    """

    side: int = 16
    latents: int = 8
    hidden: int = 128
    noise: float = 0.1
    tolerance: float = 0.1
    updates: int = 4000
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self):
        require(self.noise > 0, f"noise must be positive, not {self.noise}.")
        require(self.tolerance >= 0, f"tolerance must not be negative, but is {self.tolerance}.")


class VAE(nn.Module):
    """q_φ(z|o), a Gaussian, and a decoder that gives each pixel a mean."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        pixels = config.side**2
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 2 * config.latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latents, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, pixels),
            nn.Unflatten(1, (config.side, config.side)),
        )

    def encode(self, pictures: Tensor) -> Normal:
        """The posterior of the code, loc and scale (B, Z); pictures: (B, side, side) in [0, 1]."""
        mean, log_std = self.encoder(pictures).chunk(2, -1)
        return Normal(mean, log_std.clamp(-7, 3).exp(), validate_args=False)

    def decode(self, z: Tensor) -> Tensor:
        """Mean pictures, (B, side, side); z: (B, Z)."""
        return self.decoder(z)

    def loss(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """−ELBO up to a constant, mean over pictures (14.6); noise: (B, Z), standard Gaussian.

        The error is a sum over pixels, as a log-likelihood is, and so is the KL over dimensions.
        """
        q = self.encode(pictures)
        error = (pictures - self.decode(q.loc + q.scale * noise)).square().sum((1, 2))  # (B,)
        prior = Normal(torch.zeros_like(q.loc), torch.ones_like(q.loc), validate_args=False)
        kl = gaussian_kl(q, prior).sum(-1)  # (B,)
        free = self.config.tolerance * self.config.latents
        return (error / (2 * self.config.noise**2) + kl.clamp(min=free)).mean()


def train_vae(pictures: Tensor, config: VAEConfig, generator: torch.Generator) -> VAE:
    """A VAE of pictures, (n, side, side), in [0, 1]."""
    vae = VAE(config)
    initialise(vae, generator)
    optimiser = torch.optim.Adam(vae.parameters(), lr=config.learning_rate, fused=True)
    for _ in range(config.updates):
        chosen = torch.randint(len(pictures), (config.batch_size,), generator=generator)
        noise = torch.randn(config.batch_size, config.latents, generator=generator)
        optimiser.zero_grad()
        vae.loss(pictures[chosen].float(), noise).backward()
        optimiser.step()
    return vae


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all parameters from the generator: uniform, ±1/√inputs for matrices, 0 for biases."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            parameter.zero_()
        else:
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)

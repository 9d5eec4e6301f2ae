"""The live figures of Parts II and III, small and untrained, as the tests build them."""

from __future__ import annotations

import numpy as np
import torch

from mbta_helpers import plots, widgets
from mbta_helpers.hierarchical import four_rooms
from mbta_helpers.hierarchical.diayn import DIAYN, DIAYNConfig
from mbta_helpers.hierarchical.feudal_maze import FeudalAgents, FeudalConfig, u_maze
from mbta_helpers.hierarchical.four_rooms import FOUR_ROOMS, World
from mbta_helpers.hierarchical.options import Option, hallway_options
from mbta_helpers.hierarchical.playgrounds import SquareWorld
from mbta_helpers.latent.mdn_rnn import MDNRNN, MDNConfig
from mbta_helpers.latent.vae import VAE, VAEConfig
from mbta_helpers.latent.vision_memory import VisionAndMemory

ALT = "a picture that stands still"
ROOMS = World(FOUR_ROOMS.next_state, four_rooms.SLIP, FOUR_ROOMS.state_of((7, 9)))
MAZE = u_maze(16)
GOAL = MAZE.number(1, 14)


def still():
    figure, axes = plots.new_figure(size=(2, 1))
    axes[0, 0].plot([0, 1], [0, 1])
    return figure


def drifting() -> Option:
    """An option with random moves and terminations, which may begin anywhere."""
    rng = np.random.default_rng(5)
    policy = rng.dirichlet(np.ones(4), ROOMS.states)
    return Option(np.ones(ROOMS.states, bool), policy, rng.uniform(0, 0.3, ROOMS.states))


def option_picture() -> widgets.OptionPicture:
    named = {f"hallway {i}": option for i, option in enumerate(hallway_options())}
    named["drifting"] = drifting()
    return widgets.OptionPicture(still(), ALT, FOUR_ROOMS, ROOMS, named, (1, 1), gamma=0.99)


def feudal_agents() -> FeudalAgents:
    """Two seeds with random values."""
    rng = np.random.default_rng(6)
    agents = FeudalAgents(MAZE, FeudalConfig(), 2, rng)
    agents.q = [rng.random(q.shape) for q in agents.q]
    return agents


def feudal_picture() -> widgets.FeudalPicture:
    return widgets.FeudalPicture(still(), ALT, MAZE, feudal_agents(), 1, GOAL, (2, 2))


def discoverer() -> DIAYN:
    """A learner that has not learnt, with wider weights, so that its skills go somewhere."""
    learner = DIAYN(SquareWorld(), DIAYNConfig(replay=16), seed=3)
    with torch.no_grad():
        for network in (learner.sac.actor, learner.discriminator):
            for parameter in network.parameters():
                parameter.mul_(2)
    return learner


def skill_map() -> widgets.SkillMap:
    return widgets.SkillMap(still(), ALT, discoverer(), skill=2)


def dreamer() -> VisionAndMemory:
    """An eye and a memory with random weights, those that are sent: of float16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = VisionAndMemory(VAE(VAEConfig()), MDNRNN(MDNConfig()), torch.randn(3, 8), None)
    with torch.no_grad():
        for network in model[:2]:
            for parameter in network.parameters():
                parameter.copy_((1.5 * parameter).half())
    return model


def dream_picture() -> widgets.DreamPicture:
    model = dreamer()
    return widgets.DreamPicture(still(), ALT, model, model.mean[0])


def films() -> np.ndarray:
    """Random pictures, (2, clips, T, side, side)."""
    return np.random.default_rng(8).random((2, 3, 25, 4, 4))


def frames_picture() -> widgets.FramesPicture:
    return widgets.FramesPicture(still(), ALT, *films(), seen=5)


LATER = {
    "options": option_picture,
    "feudal": feudal_picture,
    "diayn": skill_map,
    "dream": dream_picture,
    "frames": frames_picture,
    "returns": lambda: widgets.ReturnsPicture(still(), ALT),
    "balance": lambda: widgets.BalancePicture(still(), ALT),
    "twohot": lambda: widgets.TwoHotPicture(still(), ALT),
}

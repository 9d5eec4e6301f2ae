"""FeUdal Networks: a manager that names directions in a learnt space, a worker that goes there.

Vezhnevets et al. (2017), "FeUdal Networks for Hierarchical Reinforcement Learning". A picture of
this maze shows all there is to know, so neither manager nor worker is recurrent, where the paper
has a dilated LSTM and an LSTM.

Symbols: P pictures, T steps of a roll-out, N environments, D dimensions of states and goals, k of
the worker's embedding, A actions, H hidden units, c horizon. A step is number t of a roll-out, and
its row is c + t where the c steps before the roll-out are kept as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mbta_helpers.errors import require, unknown
from mbta_helpers.hierarchical.sac import descend

GOALS = ("learned", "zero", "random")


# -- the maze -------------------------------------------------------------------------------------

ROOMS = (
    "#########",
    "#...#...#",
    "#...#...#",
    "#.......#",
    "#...#..G#",
    "#########",
)
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])  # rows and columns: north, south, west, east
PIXELS = 2  # along the side of a cell


class PixelMaze:
    """N copies of a maze of two rooms, seen as pictures; reaching G pays 1 and ends the episode.

    rooms: "#" is wall; the agent starts on a random free cell of the left half. limit: steps of an
    episode. Autoreset is gymnasium's NEXT_STEP: the step after an end ignores the action, pays 0
    and returns the first picture of a new episode.

    The maze has one picture for each free cell. `pictures` holds them all, (P, 3, height, width),
    and a step returns their numbers, (N,), so that a network looks at each picture once, however
    many steps show it.
    """

    def __init__(self, rooms: tuple[str, ...], count: int, limit: int, rng: np.random.Generator):
        require(count >= 1 and limit >= 1, "There is at least one maze and one step.")
        require(len({len(row) for row in rooms}) == 1, "The rows of a maze are equally long.")
        letters = np.array([list(row) for row in rooms])
        free = np.argwhere(letters != "#")  # (P, 2)
        self.goal = np.flatnonzero(letters[tuple(free.T)] == "G")
        self.starts = np.flatnonzero(free[:, 1] < letters.shape[1] // 2)
        require(
            len(self.goal) == 1 and len(self.starts) > 0,
            "A maze has one goal, G, and a free cell in its left half.",
        )
        number = np.full(letters.shape, -1)
        number[tuple(free.T)] = np.arange(len(free))
        ahead = number[tuple((free[:, None] + MOVES).transpose(2, 0, 1))]  # (P, 4)
        self.after = np.where(ahead < 0, np.arange(len(free))[:, None], ahead)
        self.pictures = draw(letters, free)
        self.limit, self.rng = limit, rng
        self.cell, self.age = np.zeros(count, int), np.zeros(count, int)
        self.over = np.ones(count, bool)

    def reset(self) -> np.ndarray:
        """Begin an episode everywhere; pictures, (N,)."""
        self.over[:] = True
        return self.step(np.zeros(len(self.over), int))[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pictures, rewards, terminated and truncated, (N,) each; action: (N,) of 0 … 3."""
        start = self.rng.choice(self.starts, len(action))
        self.cell = np.where(self.over, start, self.after[self.cell, action])
        self.age = np.where(self.over, 0, self.age + 1)
        terminated = self.cell == self.goal
        truncated = ~terminated & (self.age >= self.limit)
        self.over = terminated | truncated
        return self.cell, terminated.astype(np.float32), terminated, truncated


def draw(letters: np.ndarray, free: np.ndarray) -> np.ndarray:
    """A picture for each place of the agent: walls red, goal green, agent blue.

    letters: (rows, columns). free: (P, 2). Returns (P, 3, PIXELS · rows, PIXELS · columns).
    """
    pictures = np.zeros((len(free), 3, *letters.shape), np.float32)
    pictures[:, 0] = letters == "#"
    pictures[:, 1] = letters == "G"
    pictures[np.arange(len(free)), 2, free[:, 0], free[:, 1]] = 1
    return pictures.repeat(PIXELS, 2).repeat(PIXELS, 3)


# -- the networks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FuNConfig:
    """How to learn.

    rollout: steps of each environment between two updates. horizon: c. dim: d. embedding: k.
    manager_rate: learning rate of what makes goals; slower than the rest, so that the worker can
    keep up. whims: share of the time in which a random direction takes the goal's place, for c
    steps on end: the paper's random goals, which explore.
    goals: "learned"; the ablations "zero" and "random" hand down 0 or random directions instead.
    intrinsic, extrinsic: weights of the two rewards that the worker is paid.
    bias: of φ; the paper has none.
    mortal_worker: whether the worker's value ends where the goal ends an episode. A worker that is
    paid for directions alone then learns not to arrive.
    """

    environments: int = 16
    rollout: int = 64
    horizon: int = 5
    dim: int = 16
    embedding: int = 8
    hidden: int = 64
    manager_gamma: float = 0.95
    worker_gamma: float = 0.9
    smoothing: float = 0.95
    learning_rate: float = 2e-3
    manager_rate: float = 3e-4
    entropy: float = 0.1
    goals: str = "learned"
    whims: float = 0.5
    intrinsic: float = 1.0
    extrinsic: float = 0.0
    bias: bool = False
    mortal_worker: bool = False

    def __post_init__(self):
        for name in ("environments", "rollout", "horizon", "dim", "embedding", "hidden"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1.")
        require(
            self.rollout > self.horizon,
            f"rollout must be longer than the horizon of {self.horizon}, not {self.rollout}.",
        )
        for name in ("manager_gamma", "worker_gamma"):
            require(0 <= getattr(self, name) < 1, f"{name} lies in [0, 1).")
        for name in ("smoothing", "whims"):
            require(0 <= getattr(self, name) <= 1, f"{name} lies in [0, 1].")
        for name in ("learning_rate", "manager_rate"):
            require(getattr(self, name) > 0, f"{name} must be positive.")
        if self.goals not in GOALS:
            raise unknown("kind of goals", self.goals, GOALS)


class View(NamedTuple):
    """What the networks make of pictures.

    features: z, (…, H). state: s, (…, D). goal: g, (…, D), of length 1. value: V^M, (…).
    """

    features: Tensor
    state: Tensor
    goal: Tensor
    value: Tensor


class FuN(nn.Module):
    """Manager and worker on one encoder."""

    def __init__(self, picture: tuple[int, ...], actions: int, config: FuNConfig):
        super().__init__()
        hidden, dim, k = config.hidden, config.dim, config.embedding
        self.encoder = nn.Sequential(
            nn.Conv2d(picture[0], 16, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (picture[1] // 2) * (picture[2] // 2), hidden),
            nn.ReLU(),
        )
        self.space = nn.Linear(hidden, dim)
        self.director = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.manager_value = nn.Linear(hidden, 1)
        self.actions = nn.Linear(hidden, actions * k)
        self.phi = nn.Linear(dim, k, bias=config.bias)
        self.worker_value = nn.Linear(hidden + k, 1)

    def forward(self, pictures: Tensor) -> View:
        """What the manager sees and wants; pictures: (P, 3, height, width)."""
        z = self.encoder(pictures)  # (P, H)
        s = self.space(z)  # (P, D)
        goal = F.normalize(self.director(s), dim=-1)  # (P, D)
        return View(z, s, goal, self.manager_value(z).squeeze(-1))

    def embed(self, z: Tensor) -> Tensor:
        """U, (…, A, k), of the worker; z: (…, H)."""
        return self.actions(z).unflatten(-1, (-1, self.phi.out_features))

    def worker(self, z: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        """Logits U w, (…, A), and V^W, (…); z: (…, H), goals: the sum of the last c, (…, D)."""
        w = self.phi(goals)  # (…, k)
        logits = (self.embed(z) * w.unsqueeze(-2)).sum(-1)  # (…, A)
        return logits, self.worker_value(torch.cat([z, w], -1)).squeeze(-1)


# -- rewards, returns, targets --------------------------------------------------------------------


def intrinsic_reward(state: Tensor, goal: Tensor, episode: Tensor, horizon: int) -> Tensor:
    """(1/c) Σ_{i=1..c} cos(s_t − s_{t−i}, g_{t−i}) for t = c … c + T, (T + 1, N).

    What came before the episode began adds 0. state, goal: (c + T + 1, N, D). episode: (c + T + 1,
    N), the number of the episode that each step belongs to.
    """
    total = torch.zeros(())
    now, number = state[horizon:], episode[horizon:]
    for i in range(1, horizon + 1):
        before = slice(horizon - i, -i)
        cosine = F.cosine_similarity(now - state[before], goal[before], -1)  # (T + 1, N)
        total = total + torch.where(episode[before] == number, cosine, 0.0)
    return total / horizon


def advantages(
    reward: Tensor, value: Tensor, terminated: Tensor, live: Tensor, gamma: float, smoothing: float
) -> Tensor:
    """A_t = δ_t + γ λ A_{t+1}, with δ_t = r_t + γ (1 − terminated_t) V_{t+1} − V_t; (T, N).

    Generalised advantage estimation (Schulman et al. 2016). reward, terminated: (T, N). value:
    (T + 1, N). live: (T + 1, N), 0 where the picture is an episode's last, from which the next
    step resets. An episode cut off by the time limit is bootstrapped from its last picture.
    """
    future = torch.zeros_like(reward[0])
    found = torch.empty_like(reward)
    for t in reversed(range(len(reward))):
        going_on = 1 - terminated[t]
        delta = reward[t] + gamma * going_on * value[t + 1] - value[t]
        future = live[t] * (delta + gamma * smoothing * future)
        found[t] = future
    return found


def ends(live: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """Where step t's goal is judged, min(t + c, end of its episode), and whether we know it.

    live: (T + 1, N). Returns numbers of steps, (T, N), and (T, N): 0 for what lies beyond T or
    starts from an episode's last picture.
    """
    steps = len(live) - 1
    end = torch.empty(live.shape, dtype=torch.long)
    end[steps] = steps + horizon  # not yet known
    for t in reversed(range(steps)):
        stop = torch.where(live[t + 1] > 0, end[t + 1], t + 1)
        end[t] = stop
    time = torch.arange(steps)[:, None]
    end = torch.minimum(end[:-1], time + horizon)
    return end.clamp(max=steps), live[:-1] * (end <= steps)


def manager_loss(view: View, end: Tensor, known: Tensor, advantage: Tensor) -> Tensor:
    """−E[A^M cos(s_{t+c} − s_t, g_t)]: the transition policy gradient, on goals only.

    view: of (T + 1, N) pictures. end, known, advantage: (T, N).
    """
    state = view.state.detach()
    later = state.gather(0, end.unsqueeze(-1).expand(-1, -1, state.shape[-1]))  # (T, N, D)
    cosine = F.cosine_similarity(later - state[:-1], view.goal[:-1], -1)  # (T, N)
    return -(known * advantage * cosine).sum() / known.sum().clamp_min(1)


# -- acting ---------------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """T steps in N environments.

    picture: (T + 1, N). action, reward, intrinsic, terminated: (T, N). goals: (T + 1, N, D), sums
    of the last c. live: (T + 1, N), 0 where a picture is an episode's last.
    """

    picture: Tensor
    action: Tensor
    reward: Tensor
    intrinsic: Tensor
    terminated: Tensor
    goals: Tensor
    live: Tensor


class Agent:
    """FuN at work in N mazes, with the last c steps, to which goals still refer."""

    def __init__(self, maze: PixelMaze, networks: FuN, config: FuNConfig, seed: int):
        self.maze, self.networks, self.config = maze, networks, config
        self.rng = np.random.default_rng(seed)
        self.pictures = torch.from_numpy(maze.pictures)
        rows, count = config.horizon + config.rollout + 1, len(maze.cell)
        self.picture = np.zeros((rows, count), int)
        self.goal = np.zeros((rows, count, config.dim), np.float32)
        self.episode = np.full((rows, count), -1)
        self.live = np.ones((rows, count), np.float32)
        self.picture[-1], self.episode[-1] = maze.reset(), 0
        self.whim = np.zeros((count, config.dim), np.float32)
        # Whims begin at different steps in different environments.
        self.left = self.rng.integers(config.horizon, size=count)
        if config.goals == "random":  # the manager's own are never heard, from the first step on
            self.whim = self.rng.standard_normal(self.whim.shape, np.float32)
            self.whim /= np.linalg.norm(self.whim, axis=1, keepdims=True)

    def change_whims(self) -> None:
        """A new whim, or none, where the last has been kept up for c steps."""
        count, dim = self.whim.shape
        chance = 1.0 if self.config.goals == "random" else self.config.whims
        noise = self.rng.standard_normal((count, dim), np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        noise[self.rng.random(count) >= chance] = 0  # no whim
        self.whim = np.where((self.left == 0)[:, None], noise, self.whim)
        self.left = np.where(self.left == 0, self.config.horizon, self.left) - 1

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Act for T steps; the networks look at each picture of the maze once."""
        c, steps = self.config.horizon, self.config.rollout
        view = self.networks(self.pictures)
        wanted = view.goal.numpy() * (self.config.goals != "zero")  # (P, D)
        embedding = self.networks.embed(view.features).numpy()  # (P, A, k)
        phi = self.networks.phi
        weight, bias = phi.weight.numpy(), 0.0 if phi.bias is None else phi.bias.numpy()
        kept = (self.picture, self.goal, self.episode, self.live)
        for each in kept:
            each[: c + 1] = each[steps:].copy()
        count = len(self.maze.cell)
        action = np.zeros((steps, count), int)
        reward, terminated = np.zeros((2, steps, count), np.float32)
        goals = np.zeros((steps + 1, count, self.config.dim), np.float32)
        for t in range(steps + 1):
            now = c + t
            number = self.picture[now]
            if t < steps and self.config.goals != "zero":
                self.change_whims()
            own = ~self.whim.any(1, keepdims=True)
            self.goal[now] = np.where(own, wanted[number], self.whim)
            recent = slice(now - c + 1, now + 1)
            same = self.episode[recent] == self.episode[now]  # (c, N)
            goals[t] = (self.goal[recent] * same[..., None]).sum(0)
            if t == steps:
                break
            w = goals[t] @ weight.T + bias  # (N, k)
            logits = (embedding[number] * w[:, None]).sum(-1)  # (N, A)
            action[t] = (logits + self.rng.gumbel(size=logits.shape)).argmax(-1)
            self.picture[now + 1], reward[t], terminated[t], truncated = self.maze.step(action[t])
            self.episode[now + 1] = self.episode[now] + (self.live[now] == 0)
            self.live[now + 1] = 1 - np.maximum(terminated[t], truncated)
        picture, goal, episode, live = map(torch.from_numpy, kept)
        intrinsic = intrinsic_reward(view.state[picture], goal, episode, c)[1:]
        given = (torch.from_numpy(each) for each in (action, reward, terminated, goals))
        action, reward, terminated, goals = given
        ours = (picture[c:].clone(), live[c:].clone())  # the next roll-out overwrites the rows
        return Rollout(ours[0], action, reward, intrinsic, terminated, goals, ours[1])


# -- learning -------------------------------------------------------------------------------------


def fun_loss(networks: FuN, pictures: Tensor, rollout: Rollout, config: FuNConfig) -> Tensor:
    """Manager's and worker's losses: policy gradients, squared errors of the values, entropy."""
    view = View(*(each[rollout.picture] for each in networks(pictures)))  # (T + 1, N, …)
    logits, value = networks.worker(view.features, rollout.goals)
    paid = config.intrinsic * rollout.intrinsic + config.extrinsic * rollout.reward  # (T, N)
    deaths = rollout.terminated * config.mortal_worker
    manager, worker = (
        advantages(reward, each.detach(), terminated, rollout.live, gamma, config.smoothing)
        for reward, each, terminated, gamma in (
            (rollout.reward, view.value, rollout.terminated, config.manager_gamma),
            (paid, value, deaths, config.worker_gamma),
        )
    )
    log_policy = logits[:-1].log_softmax(-1)  # (T, N, A)
    taken = log_policy.gather(-1, rollout.action[..., None]).squeeze(-1)  # (T, N)
    entropy = -(log_policy.exp() * log_policy).sum(-1)  # (T, N)
    errors = sum(
        (each - (each.detach() + advantage)).square()
        for each, advantage in ((view.value[:-1], manager), (value[:-1], worker))
    )
    live = rollout.live[:-1]
    loss = (live * (0.5 * errors - worker * taken - config.entropy * entropy)).sum() / live.sum()
    return loss + manager_loss(view, *ends(rollout.live, config.horizon), manager)


class FuNHistory(NamedTuple):
    """One number an update: steps so far; share of the episodes that ended at the goal; r^I.

    steps: (U,). success: (U,), NaN where no episode ended. intrinsic: (U,), mean over steps.
    """

    steps: np.ndarray
    success: np.ndarray
    intrinsic: np.ndarray


def train_fun(
    rooms: tuple[str, ...], config: FuNConfig, updates: int, seed: int, limit: int = 60
) -> tuple[FuN, FuNHistory]:
    """Train FuN in a maze of rooms; limit: steps of an episode. Learning rates fall to 0."""
    require(updates >= 1, f"There is at least 1 update, not {updates}.")
    maze_seed, agent_seed = np.random.SeedSequence(seed).spawn(2)
    maze = PixelMaze(rooms, config.environments, limit, np.random.default_rng(maze_seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = FuN(maze.pictures.shape[1:], len(MOVES), config)
    agent = Agent(maze, networks, config, agent_seed)
    directing = [*networks.space.parameters(), *networks.director.parameters()]
    others = [p for name, p in networks.named_parameters() if not name.startswith(("space", "dir"))]
    optimiser = torch.optim.Adam(
        [
            {"params": directing, "lr": config.manager_rate},
            {"params": others, "lr": config.learning_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda done: 1 - done / updates)
    rows = []
    for update in range(1, updates + 1):
        rollout = agent.collect()
        descend(optimiser, fun_loss(networks, agent.pictures, rollout, config))
        schedule.step()
        over = (1 - rollout.live[1:]).sum().item()
        success = rollout.terminated.sum().item() / over if over else np.nan
        rows.append((update * rollout.action.numel(), success, rollout.intrinsic.mean().item()))
    return networks, FuNHistory(*np.array(rows).T)


def try_out(
    networks: FuN,
    rooms: tuple[str, ...],
    config: FuNConfig,
    episodes: int,
    seed: int,
    limit: int = 60,
) -> tuple[np.ndarray, Rollout]:
    """Episodes side by side, without whims: which reached the goal, (N,), and their first steps."""
    maze = PixelMaze(rooms, episodes, limit, np.random.default_rng(seed))
    quiet = replace(config, whims=0.0, environments=episodes, rollout=limit)
    rollout = Agent(maze, networks, quiet, seed + 1).collect()
    # Who does not reach the goal is cut off at the last of these steps, so a goal that was reached
    # at all was reached in the first episode.
    return (rollout.terminated > 0).any(0).numpy(), rollout

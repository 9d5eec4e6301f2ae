"""The command line: collect, train, evaluate, plan, info. What a chapter does, without it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mbta_helpers.errors import UserError, require

MAZE_NAMES = ("pointmaze-umaze", "pointmaze-medium", "pointmaze-large")
ANT_NAMES = ("antmaze-umaze", "antmaze-medium", "antmaze-large")
PRESET_NAMES = MAZE_NAMES + ANT_NAMES


def point(text: str) -> tuple[float, float]:
    """X,Y as two numbers."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a point; write X,Y like 1.5,-2"
        ) from None
    return x, y


def seed(text: str) -> int:
    """A whole number that every random generator takes."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to 2^63 - 1")
    return int(text)


def _with_negative_points(arguments: Sequence[str]) -> list[str]:
    """Joins `--start -1,2` to `--start=-1,2`, because argparse takes -1,2 for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--start", "--goal") and argument[:1] == "-":
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = argparse.ArgumentParser(
        prog="mbta", description="Learn skills and a world model offline, then plan with them."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    collect = commands.add_parser("collect", help="play in a maze and store a Minari dataset")
    collect.add_argument("maze", help=", ".join(PRESET_NAMES))
    collect.add_argument("--steps", type=int, help="default 200000, with ants 1000000")
    collect.add_argument("--seed", type=seed, default=0, help="default 0")
    collect.add_argument(
        "--out", metavar="ID", help="Minari id; default as mbta/pointmaze/medium-v0"
    )
    collect.add_argument(
        "--after-goal",
        choices=("resample", "hold"),
        help="ants only: take a new goal (default), or stay for the rest of the episode",
    )

    train = commands.add_parser("train", help="train the skill model by EM")
    train.add_argument("--preset", required=True, help=f"{', '.join(PRESET_NAMES)}, or paper")
    train.add_argument("--dataset", metavar="ID", help="Minari id; default the maze's own")
    train.add_argument("--seed", type=seed, default=0, help="default 0")
    where = train.add_mutually_exclusive_group()
    where.add_argument("--out", metavar="DIR", type=Path, help="default runs/PRESET-seedSEED")
    where.add_argument("--resume", metavar="DIR", type=Path, help="go on with the run in DIR")
    train.add_argument("--method", choices=("one-pass", "em"), help="default as in the preset")
    train.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="default as in the preset; bfloat16 only where the device multiplies it",
    )
    train.add_argument("--updates", type=int, help="EM updates; default as in the preset")
    train.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    train.add_argument("--threads", type=int, default=1, help="of the processor; default 1")

    evaluate = commands.add_parser("evaluate", help="success over random tasks, with intervals")
    _add_model_options(evaluate)
    evaluate.add_argument("--episodes", type=int, default=100, help="default 100")
    evaluate.add_argument("--planner", choices=("cem", "prior", "random"), default="cem")
    evaluate.add_argument(
        "--tasks",
        choices=("random", "corner"),
        default="random",
        help="between random cells (default), or from corner to corner",
    )
    evaluate.add_argument(
        "--push",
        type=float,
        default=0.0,
        metavar="SPEED",
        help="kick the body every 100 steps by this much, map units a second; default 0",
    )
    evaluate.add_argument(
        "--motors",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of each action that arrives; default 1",
    )
    evaluate.add_argument("--json", action="store_true", help="print one JSON object, nothing else")

    plan = commands.add_parser("plan", help="one plan, as a table and a picture")
    _add_model_options(plan)
    plan.add_argument("--start", type=point, required=True, metavar="X,Y")
    plan.add_argument("--goal", type=point, required=True, metavar="X,Y")
    plan.add_argument("--figure", type=Path, metavar="FILE", help="PNG, PDF or SVG")

    commands.add_parser("info", help="versions, devices, caches, shipped parameters")
    return top


def _add_model_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", required=True, help=", ".join(PRESET_NAMES))
    command.add_argument("--checkpoint", metavar="DIR", type=Path, help="default: as shipped")
    command.add_argument("--seed", type=seed, default=0, help="default 0")
    command.add_argument("--plan-length", type=int, metavar="L", help="skills in a plan")
    command.add_argument("--candidates", type=int, metavar="K", help="plans in an iteration")
    command.add_argument("--elites", type=int, help="of them kept")
    command.add_argument("--iterations", type=int, help="of the cross-entropy method")
    command.add_argument("--replan-every", type=int, metavar="H", help="steps between plans")
    command.add_argument("--threads", type=int, default=1, help="of the processor; default 1")


# Modules that need torch are imported in the commands, so that --help is quick.


def run_collect(arguments: argparse.Namespace) -> None:
    """Collect a dataset and say where it is."""
    from mbta_helpers import datasets, mazes

    maze = mazes.get_maze(arguments.maze)
    dataset_id = datasets.collect(
        maze,
        arguments.steps,
        arguments.seed,
        arguments.out,
        progress=True,
        after_goal=arguments.after_goal,
    )
    transitions = datasets.load(dataset_id)
    print(
        f"{dataset_id}: {len(transitions.actions)} steps in {len(transitions.lengths)} episodes, "
        f"digest {transitions.digest()}"
    )


def run_train(arguments: argparse.Namespace) -> None:
    """Train, or go on with a run that was stopped."""
    from dataclasses import replace

    from mbta_helpers import datasets, distributed, presets, training

    _set_threads(arguments.threads)
    preset = presets.get_preset(arguments.preset)
    chosen = {name: getattr(arguments, name) for name in ("method", "precision", "updates")}
    config = replace(
        preset.training, **{name: value for name, value in chosen.items() if value is not None}
    )
    device = training.resolve_device(arguments.device)
    out = arguments.resume or arguments.out
    out = out or Path("runs") / f"{arguments.preset}-seed{arguments.seed}"
    started = (out / training.TRAINING_STATE).exists()
    if arguments.resume is None:
        require(
            not started,
            f"{out} holds a run already. Go on with it by --resume {out}, or take another --out.",
        )
    else:
        require(started, f"{out} holds no run that could go on. Name a folder of `train`.")
    with distributed.launched(device) as processes:
        with processes.first_alone():  # either may write
            if arguments.dataset is None:
                transitions = datasets.load_or_collect(preset.maze, progress=True)
            else:
                transitions = datasets.load(arguments.dataset)
        seed, device = arguments.seed, processes.device
        trainer = training.Trainer(config, transitions, seed, device, processes)
        if arguments.resume is not None:
            trainer.load_state(out)
        try:
            trainer.run(out, progress=True, command=shlex.join(["mbta", *sys.argv[1:]]))
        except KeyboardInterrupt:
            if processes.first:
                stopped = f"Stopped after {trainer.update} updates. Go on with --resume {out}"
                print(stopped, file=sys.stderr)
            processes.wait()  # torchrun ends all as soon as one has ended
            raise SystemExit(130) from None
    if processes.first:
        test = ", ".join(f"{name} {value:.2f}" for name, value in trainer.test().items())
        print(f"{out / training.MODEL}: {trainer.seconds:.0f} s; held out, nats a window: {test}")


def _set_threads(count: int) -> None:
    import torch

    require(count >= 1, f"--threads must be at least 1, not {count}.")
    torch.set_num_threads(count)


def _load(arguments: argparse.Namespace):
    """The preset with the planner's options put in, and the trained model."""
    from dataclasses import replace

    from mbta_helpers import mazes, presets, training

    preset = presets.get_preset(arguments.preset)
    given = {
        name: getattr(arguments, name)
        for name in ("candidates", "elites", "iterations", "plan_length", "replan_every")
        if getattr(arguments, name) is not None
    }
    search = {n: given.pop(n) for n in ("candidates", "elites", "iterations") if n in given}
    planner = replace(preset.planner, cem=replace(preset.planner.cem, **search), **given)
    if arguments.checkpoint is None:
        trained = presets.load_shipped(arguments.preset)
    else:
        trained = training.load_model(arguments.checkpoint)
    states, actions = mazes.DIMENSIONS[mazes.get_maze(preset.maze).body]
    sizes = trained.model.config
    require(
        (sizes.state_dim, sizes.action_dim) == (states, actions),
        f"{arguments.checkpoint} was trained on states of {sizes.state_dim} and actions of "
        f"{sizes.action_dim} dimensions, but {preset.maze} has {states} and {actions}. Name a "
        "checkpoint of this maze.",
    )
    return preset, planner, trained


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Success over random tasks."""
    import torch

    from mbta_helpers import evaluation, mazes, planning, simulation

    _set_threads(arguments.threads)
    disturbance = simulation.Disturbance(push_speed=arguments.push, motors=arguments.motors)
    preset, planner_config, trained = _load(arguments)
    maze = mazes.get_maze(preset.maze)
    tasks = mazes.PROTOCOLS[arguments.tasks](maze, arguments.episodes, arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    if arguments.planner == "cem":
        planner = planning.Planner(trained.model, planner_config, trained.config.window_length)
        agent = evaluation.PlanningAgent(planner, generator)
    else:
        agent = evaluation.SkillAgent(
            trained.model,
            planner_config.replan_every,
            generator,
            use_prior=arguments.planner == "prior",
        )
    result = evaluation.evaluate(
        agent,
        maze,
        tasks,
        progress=not arguments.json,
        seed=arguments.seed,
        disturbance=disturbance,
    )
    summary = result.summary() | {
        "preset": arguments.preset,
        "seed": arguments.seed,
        "planner": arguments.planner,
        "tasks": arguments.tasks,
        "push": arguments.push,
        "motors": arguments.motors,
    }
    if arguments.json:
        print(json.dumps(summary))
    else:
        print(evaluation.table(summary))


def run_plan(arguments: argparse.Namespace) -> None:
    """One plan, carried out once."""
    import numpy as np
    import torch

    from mbta_helpers import evaluation, mazes, planning, plots, simulation

    _set_threads(arguments.threads)
    if arguments.figure is not None:
        plots.figure_kind(arguments.figure)  # before any work, not after it
    preset, planner_config, trained = _load(arguments)
    maze = mazes.get_maze(preset.maze)
    start, goal = np.array(arguments.start), np.array(arguments.goal)
    maze.check_point("start", start)
    maze.check_point("goal", goal)
    planner = planning.Planner(trained.model, planner_config, trained.config.window_length)
    agent = evaluation.PlanningAgent(planner, torch.Generator().manual_seed(arguments.seed))
    task = mazes.Tasks(start[None], goal[None])
    result = evaluation.evaluate(agent, maze, task, seed=arguments.seed)
    bodies = simulation.begin(maze, task, np.random.default_rng(arguments.seed))
    plan = planner.plan(
        torch.from_numpy(bodies.states).float(),
        torch.from_numpy(task.goals).float(),
        torch.Generator().manual_seed(arguments.seed),
    )
    bodies.close()
    path = plan.path[0].numpy()
    print("skill       x       y   to goal")
    for number, (x, y) in enumerate(path[:, :2]):
        print(f"{number:5d} {x:7.2f} {y:7.2f} {np.hypot(x - goal[0], y - goal[1]):9.2f}")
    outcome = f"reached after {result.steps[0]} steps" if result.success[0] else result.causes[0]
    print(f"Carried out with a new plan every {planner_config.replan_every} steps: {outcome}.")
    if arguments.figure is not None:
        figure = plots.plan_figure(maze, path, result.paths[0], goal)
        plots.save_figure(figure, arguments.figure)
        print(f"Picture: {arguments.figure}")


def run_info(arguments: argparse.Namespace) -> None:
    """What is installed, what is cached, what is shipped."""
    import minari
    import torch
    from minari.storage import get_dataset_path

    from mbta_helpers import datasets, presets
    from mbta_helpers.precision import multiplies_bfloat16

    print("versions")
    for name, number in datasets.versions().items():
        print(f"  {name} {number}")
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(f"devices\n  cpu ({torch.get_num_threads()} threads), cuda: {cuda}")
    kinds = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print(f"  bfloat16: {', '.join(filter(multiplies_bfloat16, kinds)) or 'none'}")
    print(f"datasets in {get_dataset_path('')}")
    for dataset_id in minari.list_local_datasets() or ["none"]:
        print(f"  {dataset_id}")
    print(f"shipped parameters in {presets.PARAMETERS}")
    for name in presets.shipped():
        provenance = presets.load_shipped(name).provenance
        print(
            f"  {name}: {provenance['command']} (seed {provenance['seed']}, data "
            f"{provenance['data']}, {provenance['seconds']:.0f} s)"
        )


RUN = {
    "collect": run_collect,
    "train": run_train,
    "evaluate": run_evaluate,
    "plan": run_plan,
    "info": run_info,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 where all went well, 2 for a mistake in the input, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parsed = parser().parse_args(_with_negative_points(arguments))
    try:
        RUN[parsed.command](parsed)
    except (UserError, OSError) as error:
        print(f"mbta {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

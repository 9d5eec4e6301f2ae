"""The command line: what it prints, and what it refuses with exit code 2 and nothing written."""

import fcntl
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from samples import store_episodes, tiny_config

from mbta_helpers import __main__ as command_line
from mbta_helpers import presets, training
from mbta_helpers.__main__ import main, parser
from mbta_helpers.presets import PRESETS

CHEAP = [
    "--plan-length",
    "2",
    "--replan-every",
    "5",
    "--candidates",
    "20",
    "--elites",
    "4",
    "--iterations",
    "2",
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty root for datasets, and an empty folder to work in."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.fixture
def tiny_preset(monkeypatch):
    """The preset of the small maze, with a run of a second."""
    preset = presets.Preset("pointmaze-umaze", tiny_config(), PRESETS["pointmaze-umaze"].planner)
    monkeypatch.setitem(presets.PRESETS, "pointmaze-umaze", preset)


def files(folder):
    """Every file under a folder with its content, locks left out."""
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and error stream of a command."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    out, err = capsys.readouterr()
    return code, out, err


def episodes(count=4, length=12, **changes):
    rng = np.random.default_rng(0)
    stored = []
    for _ in range(count):
        state = rng.standard_normal((length + 1, 4)).cumsum(0)
        observations = {
            "observation": state,
            "achieved_goal": state[:, :2].copy(),
            "desired_goal": np.zeros((length + 1, 2)),
        } | changes
        observations = {k: v for k, v in observations.items() if v is not None}
        actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        stored.append({"observations": observations, "actions": actions})
    return stored


# -- what works -------------------------------------------------------------------------------


def test_collect_train_evaluate_plan(root, tiny_preset, capsys):
    """The whole way, with numbers of steps that only a test would choose."""
    code, out, _ = run(capsys, "collect", "pointmaze-umaze", "--steps", 1500, "--seed", 1)
    assert code == 0 and out.startswith("mbta/pointmaze/umaze-v0: 15")
    code, out, _ = run(capsys, "train", "--preset", "pointmaze-umaze", "--out", "run")
    assert code == 0 and out.startswith("run/model.safetensors")
    made = {path.name for path in (root / "here" / "run").iterdir()}
    assert made == {"model.safetensors", "training.safetensors", "metrics.jsonl"}

    model = ["--preset", "pointmaze-umaze", "--checkpoint", "run"]
    code, out, _ = run(capsys, "evaluate", *model, *CHEAP, "--episodes", 2, "--seed", 3)
    assert code == 0 and "of 2" in out and "95 % interval" in out

    ends = ["--start", "-1,1", "--goal", "-1,-1"]  # negative numbers, without an equals sign
    code, out, _ = run(capsys, "plan", *model, *CHEAP, *ends, "--figure", "plan.png")
    assert code == 0 and "to goal" in out and "Picture: plan.png" in out
    table = [line.split() for line in out.splitlines()[1:4]]
    assert [row[0] for row in table] == ["0", "1", "2"], "a row for the start and each skill"
    assert (float(table[0][1]), float(table[0][2])) == (-1.0, 1.0)
    assert float(table[0][3]) == pytest.approx(2.0)
    assert (root / "here" / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def ant_run(tmp_path_factory):
    """A folder with a run of a second on a little play of ants."""
    from mbta_helpers import datasets, mazes

    walks = datasets.collect(mazes.get_maze("antmaze-umaze"), 3000, 0, "tests/ants-v0")
    out = tmp_path_factory.mktemp("runs") / "ants"
    training.Trainer(tiny_config(), datasets.load(walks), seed=0).run(out)
    return out


def test_ants_are_evaluated_and_planned_for(ant_run, capsys):
    model = ["--preset", "antmaze-umaze", "--checkpoint", ant_run, *CHEAP]
    disturbed = ["--tasks", "corner", "--push", 1, "--motors", 0.8]
    code, out, _ = run(capsys, "evaluate", *model, "--episodes", 2, *disturbed, "--json")
    result = json.loads(out)
    assert code == 0 and result["episodes"] == 2
    assert (result["tasks"], result["push"], result["motors"]) == ("corner", 1.0, 0.8)
    ends = ["--start", "-4,4", "--goal", "0,4"]
    code, out, _ = run(capsys, "plan", *model, *ends)
    assert code == 0 and "Carried out with a new plan every 5 steps" in out


def test_collect_ants(root, capsys):
    arguments = ["--steps", 60, "--seed", 4, "--after-goal", "hold", "--out", "tests/ants-v0"]
    code, out, _ = run(capsys, "collect", "antmaze-umaze", *arguments)
    assert code == 0 and out.startswith("tests/ants-v0: 60 steps in 1 episodes, digest ")


@pytest.mark.parametrize("planner", ["cem", "prior", "random"])
def test_json_is_one_object_and_nothing_else(trained, capsys, planner):
    arguments = ["--preset", "pointmaze-umaze", "--checkpoint", trained, "--json", *CHEAP]
    more = ["--episodes", 2, "--seed", 7, "--planner", planner]
    code, out, err = run(capsys, "evaluate", *arguments, *more)
    assert code == 0 and err == ""
    result = json.loads(out)
    required = {
        *("successes", "episodes", "success_rate", "ci95", "mean_steps", "plan_ms_median"),
        *("preset", "seed", "planner"),
    }
    assert required <= result.keys()
    assert (result["episodes"], result["seed"], result["planner"]) == (2, 7, planner)
    assert result["preset"] == "pointmaze-umaze"
    assert result["success_rate"] == result["successes"] / 2
    assert len(result["ci95"]) == 2 and result["plan_ms_median"] > 0


def test_evaluate_gives_the_same_twice(trained, capsys):
    arguments = ["--preset", "pointmaze-umaze", "--checkpoint", trained, "--json", *CHEAP]
    results = []
    for _ in range(2):
        result = json.loads(run(capsys, "evaluate", *arguments, "--episodes", 2)[1])
        results.append({k: v for k, v in result.items() if k != "plan_ms_median"})
    assert results[0] == results[1]


def test_info_names_versions_and_places(stored, datasets_root, capsys):
    code, out, _ = run(capsys, "info")
    assert code == 0
    for part in ("mujoco", torch.__version__.split("+")[0], stored, str(datasets_root), "cuda"):
        assert part in out


def test_a_stopped_run_says_how_to_go_on(root, tiny_preset, capsys, monkeypatch):
    store_episodes("tests/some-v0", episodes())
    step = training.Trainer.step

    def interrupted(self):
        if self.update == 12:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(training.Trainer, "step", interrupted)
    train = ["train", "--preset", "pointmaze-umaze", "--dataset", "tests/some-v0"]
    code, _, err = run(capsys, *train, "--out", "run")
    assert code == 130
    assert "Stopped after 12 updates. Go on with --resume run" in err
    code, _, err = run(capsys, *train, "--out", "run")
    assert code == 2 and "holds a run already. Go on with it by --resume run" in err


def test_help_is_quick_and_needs_no_torch():
    """`--help` and a slip in the arguments are answered without the libraries being loaded."""
    program = (
        "import sys\n"
        "from mbta_helpers.__main__ import main\n"
        "for arguments in (['--help'], ['train', '--help'], ['collect']):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit as exit_:\n"
        "        print('exit', exit_.code)\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'minari', 'matplotlib'} & set(sys.modules)\n"
        "print('loaded', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.count("exit 0") == 2 and done.stdout.count("exit 2") == 1
    assert "loaded []" in done.stdout
    assert "usage: mbta collect" in done.stderr


@pytest.mark.parametrize("command", ["collect", "train", "evaluate", "plan", "info"])
def test_every_command_has_help(command, capsys):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and out.startswith(f"usage: mbta {command}")
    assert command in command_line.RUN


def test_maze_names_are_those_of_the_mazes():
    from mbta_helpers.mazes import MAZES

    assert {*command_line.MAZE_NAMES, *command_line.ANT_NAMES} == set(MAZES)
    text = parser().format_help()
    assert all(command in text for command in command_line.RUN)


# -- bad input --------------------------------------------------------------------------------

POINTS = ["--start=-1,1", "--goal=1,1"]
PLAN = ["plan", "--preset", "pointmaze-umaze", "--checkpoint", "TRAINED"]
EVALUATE = ["evaluate", "--preset", "pointmaze-umaze", "--checkpoint", "TRAINED"]
TRAIN = ["train", "--preset", "pointmaze-umaze", "--out", "run"]

BAD = {
    "maze": (["collect", "pointmaze-medum"], "Did you mean pointmaze-medium"),
    "steps": (["collect", "pointmaze-umaze", "--steps", "0"], "at least 1, not 0"),
    "steps-text": (["collect", "pointmaze-umaze", "--steps", "many"], "invalid int value"),
    "seed": (["collect", "pointmaze-umaze", "--seed", "-1"], "'-1' is not a whole number"),
    "large-seed": (["collect", "pointmaze-umaze", "--seed", "1" + "0" * 30], "not a whole"),
    "id": (["collect", "pointmaze-umaze", "--out", "name"], "not a Minari dataset id"),
    "after-goal": (
        ["collect", "pointmaze-umaze", "--after-goal", "hold"],
        "--after-goal says what an ant does",
    ),
    "after-goal-text": (["collect", "antmaze-umaze", "--after-goal", "sleep"], "invalid choice"),
    "ant-maze": (["collect", "antmaze-medum"], "Did you mean antmaze-medium"),
    "preset": (["train", "--preset", "pointmaze-larg"], "Did you mean pointmaze-large"),
    "preset-far": (["evaluate", "--preset", "xyz"], "antmaze-umaze, paper, pointmaze-large"),
    "dataset": ([*TRAIN, "--dataset", "mbta/none-v0"], "Unknown dataset 'mbta/none-v0'"),
    "method": ([*TRAIN, "--method", "three-steps"], "invalid choice"),
    "updates": ([*TRAIN, "--updates", "0"], "updates must be at least 1"),
    "threads": ([*TRAIN, "--threads", "0"], "--threads must be at least 1"),
    "device": ([*TRAIN, "--device", "tpu"], "cpu or cuda, not 'tpu'"),
    "resume": ([*TRAIN[:3], "--resume", "nowhere"], "nowhere holds no run"),
    "resume elsewhere": ([*TRAIN[:3], "--resume", "a", "--out", "b"], "not allowed with"),
    "checkpoint": (
        ["evaluate", "--preset", "pointmaze-umaze", "--checkpoint", "nowhere"],
        "There is no file nowhere/model.safetensors",
    ),
    "episodes": ([*EVALUATE, "--episodes", "0"], "at least 1, not 0"),
    "planner": ([*EVALUATE, "--planner", "magic"], "invalid choice"),
    "L": ([*EVALUATE, "--plan-length", "0"], "L must be at least 1 skill, not 0"),
    "K": ([*EVALUATE, "--candidates", "1", "--elites", "1"], "K must be at least 2"),
    "elites": ([*EVALUATE, "--candidates", "10", "--elites", "11"], "between 2 and the 10"),
    "no-elites": ([*EVALUATE, "--elites", "0"], "elites must lie between 2"),
    "iterations": ([*EVALUATE, "--iterations", "0"], "iterations must be at least 1"),
    "H": ([*EVALUATE, "--replan-every", "0"], "H must be at least 1"),
    "start-in-wall": ([*PLAN, "--start", "0,0", "--goal", "1,1"], "start 0,0 lies inside a wall"),
    "goal-in-wall": ([*PLAN, "--start", "1,1", "--goal", "0,0"], "goal 0,0 lies inside a wall"),
    "goal-outside": ([*PLAN, "--start", "1,1", "--goal", "9,9"], "goal 9,9 lies outside"),
    "goal-nan": ([*PLAN, "--start", "1,1", "--goal", "nan,1"], "not a point of the map"),
    "goal-text": ([*PLAN, "--start", "1,1", "--goal", "there"], "'there' is not a point"),
    "goal-three": ([*PLAN, "--start", "1,1", "--goal", "1,1,1"], "is not a point"),
    "figure": ([*PLAN, *CHEAP, *POINTS, "--figure", "a.gif"], "png, pdf, svg, not 'gif'"),
    "tasks": ([*EVALUATE, "--tasks", "easy"], "invalid choice"),
    "push": ([*EVALUATE, "--push", "-1"], "A push of -1 is not a speed"),
    "motors": ([*EVALUATE, "--motors", "0"], "motors is a share in (0, 1], not 0"),
    "other-body": (
        ["evaluate", "--preset", "antmaze-umaze", "--checkpoint", "TRAINED"],
        "antmaze-umaze has 29 and 8",
    ),
    "no-command": ([], "required: COMMAND"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_nothing_is_written(root, trained, capsys, name):
    arguments, message = BAD[name]
    arguments = [trained if part == "TRAINED" else part for part in arguments]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert message in err and "Traceback" not in err
    assert out == ""
    assert files(root) == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(root, capsys):
    code, _, err = run(capsys, *TRAIN, "--device", "cuda")
    assert code == 2 and "no CUDA device here. Use --device cpu" in err
    assert files(root) == {}


DATA = {
    "missing-key": (episodes(achieved_goal=None), "needs dictionary observations"),
    "nan": (episodes(observation=np.full((13, 4), np.nan)), "holds NaN"),
    "dimensions": (episodes(achieved_goal=np.zeros((13, 3))), "achieved_goal (T + 1, 2)"),
    "short": (episodes(length=4), "the longest has 4 actions and T is 5"),
    "one-episode": (episodes(count=1), "leaves one side empty"),
}


@pytest.mark.parametrize("name", DATA)
def test_a_bad_dataset_is_refused_before_anything_is_written(root, tiny_preset, capsys, name):
    stored, message = DATA[name]
    store_episodes("tests/bad-v0", stored)
    before = files(root)
    code, _, err = run(capsys, *TRAIN, "--dataset", "tests/bad-v0")
    assert code == 2 and message in err
    assert files(root) == before


def test_a_dataset_of_other_dimensions_trains_but_plans_in_no_maze(root, tiny_preset, capsys):
    """An ant's model is a good model; PointMaze has four dimensions, and that is said."""
    store_episodes("tests/ant-v0", episodes(observation=np.random.rand(13, 27)))  # noqa: NPY002
    assert run(capsys, *TRAIN, "--dataset", "tests/ant-v0")[0] == 0
    before = files(root)
    model = ["--preset", "pointmaze-umaze", "--checkpoint", "run"]
    code, _, err = run(capsys, "plan", *model, *POINTS)
    assert code == 2 and "states of 29 and actions of 2" in err
    assert files(root) == before


def harmed(name, content):
    if name == "cut":
        return content[: len(content) // 2]
    if name == "altered":
        return content[:-1] + bytes([content[-1] ^ 1])
    return content.replace(b'\\"format\\": ', b'\\"format\\": 9', 1)


@pytest.mark.parametrize(
    ("harm", "message"),
    [("cut", "truncated or damaged"), ("altered", "was altered"), ("newer", "Update the package")],
)
def test_a_bad_checkpoint_is_refused(root, trained, capsys, harm, message):
    content = (trained / training.MODEL).read_bytes()
    broken = harmed(harm, content)
    if harm == "newer":  # the header's length stands before it
        size = int.from_bytes(broken[:8], "little") + len(broken) - len(content)
        broken = size.to_bytes(8, "little") + broken[8:]
    assert broken != content
    (root / "broken").mkdir()
    (root / "broken" / training.MODEL).write_bytes(broken)
    before = files(root)
    arguments = ["--preset", "pointmaze-umaze", "--checkpoint", root / "broken"]
    code, _, err = run(capsys, "plan", *arguments, *POINTS)
    assert code == 2 and message in err
    assert files(root) == before


def test_a_model_that_is_not_shipped(root, capsys):
    code, _, err = run(capsys, "evaluate", "--preset", "paper")
    assert code == 2 and "No parameters are shipped for 'paper'" in err
    assert "--checkpoint" in err


def test_no_room_for_a_figure_leaves_the_old_one(root, trained, capsys, monkeypatch):
    from matplotlib.figure import Figure

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    picture = root / "here" / "plan.png"
    picture.write_bytes(b"the old picture")
    monkeypatch.setattr(Figure, "savefig", full_disk)
    arguments = ["--preset", "pointmaze-umaze", "--checkpoint", trained, *CHEAP, *POINTS]
    code, _, err = run(capsys, "plan", *arguments, "--figure", picture)
    assert code == 2 and "No space left on device" in err
    assert files(root) == {picture.relative_to(root): b"the old picture"}


def test_a_folder_that_cannot_be_made_is_a_clear_error(root, tiny_preset, capsys):
    store_episodes("tests/some-v0", episodes())
    (root / "here" / "file").write_text("a")
    arguments = [*TRAIN[:3], "--dataset", "tests/some-v0", "--out", "file/run"]
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "file" in err.splitlines()[-1]


def test_two_collects_at_once_into_one_dataset(root):
    """Two processes: one of them stores its data, the other is told to wait."""
    command = [sys.executable, "-m", "mbta_helpers", "collect", "pointmaze-umaze"]
    command += ["--steps", "20000", "--out", "tests/both-v0"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2]
    refused = answers[codes.index(2)][1]
    assert "Another process is writing tests/both-v0" in refused
    assert "Traceback" not in refused


def test_a_lock_held_by_a_living_process_is_respected(root, capsys):
    folder = root / "datasets" / "tests"
    folder.mkdir(parents=True)
    with (folder / ".held-v0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begin = time.perf_counter()
        code, _, err = run(capsys, "collect", "pointmaze-umaze", "--out", "tests/held-v0")
        assert code == 2 and "Another process is writing" in err
        assert time.perf_counter() - begin < 5, "it should not wait, nor play first"
    assert files(root) == {}


def test_only_presets_count_as_shipped():
    """The ant's controller lies beside them, and is no skill model."""
    assert set(presets.shipped()) <= set(PRESETS) and "pointmaze-large" in presets.shipped()

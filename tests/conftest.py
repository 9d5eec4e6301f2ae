"""What all tests share: one thread, a root for datasets of their own, and data of a real maze."""

import sys

import pytest


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums keep their order, and nothing waits for a busy second core."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory):
    """A folder for Minari datasets, in place of the person's own."""
    return tmp_path_factory.mktemp("minari")


@pytest.fixture(autouse=True, scope="module")
def own_datasets(datasets_root):
    """Set for each module, and taken back: the notebooks run after this with the usual folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets_root))
        yield


@pytest.fixture(scope="session")
def umaze():
    from mbta_helpers.mazes import get_maze

    return get_maze("pointmaze-umaze")


@pytest.fixture(scope="session")
def played(umaze):
    """Some 3000 steps of play in the small maze."""
    from mbta_helpers import datasets

    return datasets.play(umaze, 3000, seed=3)


@pytest.fixture(scope="session")
def stored(played, umaze, datasets_root):
    """The id of a Minari dataset that `collect` wrote, with the transitions of `played`."""
    from mbta_helpers import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets_root))
        return datasets.collect(umaze, 3000, seed=3, dataset_id="tests/umaze-v0")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, played):
    """A folder with a finished run of a few updates: good for nothing but tests."""
    from samples import tiny_config

    from mbta_helpers.training import Trainer

    out = tmp_path_factory.mktemp("runs") / "umaze"
    Trainer(tiny_config(), played, seed=0).run(out)
    return out

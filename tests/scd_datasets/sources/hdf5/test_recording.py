"""stable-worldmodel's HDF5 recordings: an action stays with its observation, its outcome comes one row later.

All that needs no file runs without h5py too, on arrays as h5py hands them out.
"""

import importlib.util
import os
import sys

import numpy as np
import pytest

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.open_store import open_or_build, open_store
from scd_datasets.sources import open_source as source_opener
from scd_datasets.sources.hdf5 import recording as reader
from scd_datasets.sources.hdf5.recording import Hdf5Recording
from scd_datasets.sources.open_source import open_source

ROWS = (20, 17, 23)  # of each episode
FIRST = np.cumsum((0, *ROWS[:-1]))
N = sum(ROWS)


class Stored(np.ndarray):
    """An array as h5py hands it out, in one piece."""

    chunks = None


@pytest.fixture(params=["h5py", "no h5py"])
def write(request, tmp_path, monkeypatch):
    """(arrays) → a file of them, or what the reader would find in such a file."""
    real = request.param == "h5py"
    if real and importlib.util.find_spec("h5py") is None:
        pytest.skip("h5py is an extra: pip install 'lerobot_env_scd_world[hdf5]'")

    def to_disk(arrays):
        file = tmp_path / "pusht.h5"
        if real:
            import h5py

            with h5py.File(file, "w") as out:
                for name, values in arrays.items():
                    out.create_dataset(name, data=values, chunks=(1, *values.shape[1:]))
        else:
            file.write_bytes(b"anything")
            stored = {name: values.view(Stored) for name, values in sorted(arrays.items())}
            monkeypatch.setattr(reader, "open_columns", lambda file: stored)
            monkeypatch.setattr(reader, "top_names", lambda file: list(stored))
            monkeypatch.setattr(source_opener, "first_layout", lambda files: None)
        return file

    return to_disk


def collected(actions_as_taken: np.ndarray) -> np.ndarray:
    """As `World.collect` leaves a column of actions that led to the rows: each episode's moved up by one."""
    return np.concatenate(
        [np.roll(actions_as_taken[f : f + n], -1, 0) for f, n in zip(FIRST, ROWS, strict=True)]
    )


def recording(**changes) -> dict[str, np.ndarray]:
    """Our environment's columns; every value of row i is made of i. The action that led to row i is −i."""
    rows = np.arange(N, dtype=np.float32)
    last = np.isin(rows, FIRST + ROWS - 1)
    arrays = {
        "pixels": np.tile(rows.astype(np.uint8)[:, None, None, None], (1, 16, 24, 3)),
        "agent_pos": rows[:, None] + np.array([0.25, 0.5], np.float32),
        "environment_state": np.tile(rows[:, None], (1, 3)),
        "action": collected(-rows[:, None] * np.ones(2, np.float32)),
        "reward": rows.astype(np.float64),
        "terminated": last,
        "step_idx": 1 + np.concatenate([np.arange(n) for n in ROWS]),
        "uncertainty": np.zeros(N),
        "ep_len": np.array(ROWS, np.int32),
        "ep_offset": FIRST,
    }
    return {name: values for name, values in (arrays | changes).items() if values is not None}


def pusht(angle: np.ndarray, **changes) -> dict[str, np.ndarray]:
    """swm/PushT-v1's columns; the block turns through `angle` (N,)."""
    rows = np.arange(N, dtype=np.float64)
    agent, speed, block = (rows[:, None] + np.array([d, d + 0.5]) for d in (0, 1000, 100))
    goal = np.repeat(np.random.default_rng(0).uniform(0, 6, (len(ROWS), 7)), ROWS, axis=0)
    theirs = {
        "proprio": np.concatenate([agent, speed], axis=1),
        "state": np.concatenate([agent, block, angle[:, None], speed], axis=1),
        "goal_state": goal,
        "goal": np.zeros((N, 16, 24, 3), np.uint8),
        "agent_pos": None,
        "environment_state": None,
    }
    return recording(**(theirs | changes))


def test_an_action_stays_with_its_row_and_its_outcome_comes_one_row_later(write, tmp_path):
    source = Hdf5Recording(write(recording()), fps=10)
    store = check_dataset(source, tmp_path / "s.zarr").store
    assert store.lengths.tolist() == [19, 16, 22]  # the last row's action was taken elsewhere
    assert (store.schema.cameras, store.schema.fps) == (("image",), 10)
    assert (len(store.schema.agent_pos), len(store.schema.environment_state)) == (2, 3)
    windows = store.windows(np.array([0, 1, 2]), np.array([4, 4, 4]), 5)
    rows = FIRST[:, None] + np.arange(4, 10)
    assert (windows["pixels"] == rows[:, :, None, None, None, None]).all()
    assert np.allclose(windows["state"][..., 0], rows + 0.25)
    assert np.allclose(windows["action"], -(rows[:, 1:, None]))  # leads to the next row
    assert np.allclose(windows["reward"], rows[:, 1:])
    ends = store.windows(np.array([0, 1, 2]), store.lengths - 3, 2)
    assert not ends["success"].any()
    for episode, length in zip(source.episodes, store.lengths, strict=True):
        success = source.low_dim(episode)["next.success"]
        assert np.flatnonzero(success).tolist() == [length - 1]


def test_pushts_block_turns_without_a_jump_and_its_goal_is_known(write):
    turning = np.linspace(3, 9, N)
    source = Hdf5Recording(write(pusht(turning % (2 * np.pi))), fps=10)
    assert list(source.sizes) == ["image"]  # `goal` is no camera
    assert source.names("observation.state") == ("agent_x", "agent_y", "agent_vx", "agent_vy")
    names = source.names("observation.environment_state")
    for episode in source.episodes:
        state = source.low_dim(episode)["observation.environment_state"]
        assert state.shape == (episode.length, len(names))
        values = dict(zip(names, state.T, strict=True))
        angle = np.unwrap(np.arctan2(values["block_sin"], values["block_cos"]))
        assert np.allclose(np.diff(angle), np.diff(turning)[0])
        assert np.allclose(values["block_x"], 100 + episode.first + np.arange(episode.length))
        goal = source._arrays["goal_state"][episode.first]
        assert np.allclose(values["goal_agent_y"], goal[1])
        assert np.allclose(values["goal_block_sin"], np.sin(goal[4]))
    table = check_dataset(source).table()
    for finding in ("a goal of its own", "terminated counts as success", "also recorded: goal, uncertainty"):
        assert finding in table


def test_published_recordings_have_neither_reward_nor_goal(write):
    missing = dict.fromkeys(("reward", "terminated", "goal", "goal_state", "step_idx", "uncertainty"))
    report = check_dataset(Hdf5Recording(write(pusht(np.zeros(N), **missing)), fps=10))
    assert (report.schema.reward, report.schema.success) == (False, False)
    assert len(report.schema.environment_state) == 4


def test_seven_values_beside_four_are_pushts_only_where_the_agents_are_among_them(write):
    arrays = pusht(np.zeros(N))
    source = Hdf5Recording(write(arrays | {"proprio": arrays["proprio"] + 1}), fps=10)
    assert source.names("observation.environment_state")[-1] == "environment_state_6"


def test_a_lone_state_is_the_robots(write):
    alone = recording(agent_pos=None, environment_state=None, state=np.ones((N, 5)))
    source = Hdf5Recording(write(alone), fps=10)
    assert len(source.names("observation.state")) == 5
    assert source.names("observation.environment_state") == ()


@pytest.mark.parametrize("imagined", [False, True])
def test_what_was_imagined_is_said_to_be(write, imagined):
    ours = dict.fromkeys(("start_episode", "start_frame", "success_probability"), np.zeros(N))
    source = Hdf5Recording(write(recording(**ours) if imagined else recording()), fps=10)
    assert ("imagined by a world that its marks do not name" in check_dataset(source).table()) == imagined


def test_cameras_are_chosen_by_name(write):
    arrays = recording(pixels=None)
    views = {
        f"pixels.{name}": np.full((N, 16, 24, 3), i, np.uint8) for i, name in enumerate(("top", "wrist"))
    }
    file = write(arrays | views)
    assert list(Hdf5Recording(file, 10).sizes) == ["top", "wrist"]
    source = Hdf5Recording(file, 10, cameras=["wrist"])
    assert (source.pixels(source.episodes[0]) == 1).all()
    with pytest.raises(ValueError, match="no camera called side; the dataset has top, wrist"):
        Hdf5Recording(file, 10, cameras=["side"])


def test_training_opens_it_as_a_dataset(write, tmp_path):
    file = write(recording())
    for kind in ("zarr", "lerobot"):
        with pytest.raises(ValueError, match=r"store no frame rate: give data.fps=10"):
            open_store(DataConfig(kind=kind, root=str(file)), tmp_path / "run")
        store = open_store(DataConfig(kind=kind, root=str(file), fps=10, image_size=8), tmp_path / "run")
        assert (store.path, store.schema.height) == (tmp_path / "run" / "windows.zarr", 8)
    assert "10 fps, as given" in (tmp_path / "run" / "windows.zarr" / "report" / "report.txt").read_text()
    assert isinstance(open_source(SourceConfig(root=str(tmp_path), fps=10)), Hdf5Recording)  # its folder
    (tmp_path / "other.h5").touch()
    with pytest.raises(ValueError, match="several recordings"):
        open_source(SourceConfig(root=str(tmp_path), fps=10))


def test_a_file_that_has_changed_is_read_again(write, tmp_path):
    source = Hdf5Recording(write(recording()), fps=10)
    before = open_or_build(source, tmp_path / "s.zarr").source
    assert open_or_build(source, tmp_path / "s.zarr").source == before
    os.utime(source.root, (0, 0))
    assert open_or_build(source, tmp_path / "s.zarr").source != before


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"action": np.full((N, 2), np.nan, np.float32)}, "action action_0 is nan at frame 0"),
        ({"step_idx": np.roll(np.arange(N), 5)}, "frame_index does not count"),
        ({"pixels": np.zeros((30, 16, 24, 3), np.uint8)}, r"episode 1 .*: pixels has 10 of 16 frames"),
        ({"reward": np.zeros(30)}, r"episode 1 .*: next.reward has shape \(9,\)"),
        ({"action": np.zeros((30, 2), np.float32)}, "episode 1 .*has 10 rows, 16 are listed"),
        ({"ep_len": np.array([20, 17, 1])}, "episode 2 .*has a single row"),
        ({"ep_len": np.array([20, 0, 23])}, "expected ep_len of 1 or more"),
        ({"ep_offset": np.array([0, 20])}, "as many ep_offset"),
        ({"ep_len": None}, "of an unknown layout: it has no ep_len, only action, agent_pos"),
        ({"action": None}, "has no action, only agent_pos, .*data.keys={<array>: action}"),
        ({"pixels": np.full((N, 3, 16, 24), -1.0)}, r"pixels holds values from -1 to -1, .*127.5 \(x \+ 1\)"),
        (
            {"pixels": None, "goal": np.zeros((N, 16, 24, 3), np.uint8)},
            "no camera, which would be called pixels",
        ),
        ({"reward": np.zeros(N, np.complex64)}, "reward is complex64; expected integers, floats"),
    ],
)
def test_what_is_wrong_is_named(write, arrays, what):
    with pytest.raises(ValueError, match=what):
        check_dataset(Hdf5Recording(write(recording(**arrays)), fps=10))


def test_what_is_set_aside_is_not_read(write):
    keys = {"reward": "recorded.reward", "step_idx": "recorded.step", "goal_state": "recorded.goal"}
    source = Hdf5Recording(write(pusht(np.zeros(N))), fps=10, keys=keys)
    assert len(source.names("observation.environment_state")) == 4
    assert {"next.reward", "frame_index"}.isdisjoint(source.low_dim(source.episodes[0]))
    with pytest.raises(ValueError, match="has no action, only"):
        Hdf5Recording(source.root, fps=10, keys={"action": "recorded.action"})


def test_the_extra_is_named_where_h5py_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"pip install 'lerobot_env_scd_world\[hdf5\]'"):
        Hdf5Recording(tmp_path / "pusht.h5", fps=10)


# ------------------------------------------------------------------------------------- real files alone


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="an extra: pip install 'lerobot_env_scd_world[hdf5]'")


def test_a_chunk_that_was_never_written_is_no_black_image(h5py, tmp_path):
    arrays, file = recording(), tmp_path / "pusht.h5"
    with h5py.File(file, "w") as out:
        for name, values in arrays.items():
            out.create_dataset(name, data=values) if name != "pixels" else None
        pixels = out.create_dataset("pixels", arrays["pixels"].shape, "uint8", chunks=(7, 8, 24, 3))
        pixels[:28], pixels[35:] = arrays["pixels"][:28], arrays["pixels"][35:]
        pixels[28:35, :8] = arrays["pixels"][28:35, :8]
    report = check_dataset(Hdf5Recording(file, fps=10), tmp_path / "s.zarr", skip_bad=True)
    assert report.store.episode_index.tolist() == [0, 2]
    assert "pixels cannot be read: a part of these rows was never written" in report.table()


def test_values_in_other_files_are_refused(h5py, tmp_path):
    """A recording must not bring home what else lies on this disk."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(8 * N))
    for name, what in {
        "link": "is a link",
        "external": "lie in other files",
        "virtual": "lie in other files",
    }.items():
        file = tmp_path / f"{name}.h5"
        with h5py.File(file, "w") as out:
            for column, values in recording(reward=None).items():
                out.create_dataset(column, data=values)
            if name == "link":
                out["reward"] = h5py.ExternalLink("other.h5", "reward")
            elif name == "external":
                out.create_dataset("reward", (N,), "float64", external=[(str(secret), 0, 8 * N)])
            else:
                layout = h5py.VirtualLayout((N,), "float64")
                layout[:] = h5py.VirtualSource("other.h5", "reward", (N,))
                out.create_virtual_dataset("reward", layout)
        with pytest.raises(ValueError, match=what):
            Hdf5Recording(file, fps=10)


def test_an_unknown_layout_is_said_before_a_rate_is_asked_for(h5py, tmp_path):
    file = tmp_path / "other.hdf5"
    with h5py.File(file, "w") as out:
        out.create_dataset("steps/joints", data=np.zeros((3, 2)))
        out.create_dataset("terminals", data=np.zeros(3))
    what = r"of an unknown layout: it has no ep_len, ep_offset, only steps/, terminals\. HDF5 is read as .*"
    with pytest.raises(ValueError, match=f"{what}docs/data.md"):
        open_source(SourceConfig(root=str(file)))
    h5py.File(file, "w").close()
    with pytest.raises(ValueError, match=r"only nothing\."):
        open_source(SourceConfig(root=str(file)))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer.*git lfs"),
    ],
)
def test_what_is_no_file_yet_is_said_to_be_none(h5py, tmp_path, content, what):
    file = tmp_path / "image.hdf5"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"image\.hdf5 {what}"):
        open_source(SourceConfig(root=str(file)))


def test_half_a_file_is_refused(h5py, tmp_path):
    file = tmp_path / "pusht.h5"
    with h5py.File(file, "w") as out:
        for name, values in recording().items():
            out.create_dataset(name, data=values)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot be opened"):
        Hdf5Recording(file, fps=10)
    with pytest.raises(FileNotFoundError, match="no recording at"):
        Hdf5Recording(tmp_path / "none.h5", fps=10)

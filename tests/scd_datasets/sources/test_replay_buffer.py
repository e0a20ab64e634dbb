"""Diffusion Policy's replay buffers: rows stay together, plain values alone are read, damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.replay_buffer import ReplayBuffer

ENDS = (20, 37, 60)


def pusht(path: Path, ends=ENDS, dtype=np.float32, **arrays) -> Path:
    """As Diffusion Policy writes PushT (zarr v2); every value of row i is made of i."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    rows = np.arange(ends[-1], dtype=np.float32)
    data = {
        "img": np.broadcast_to(rows[:, None, None, None], (len(rows), 16, 24, 3)).astype(dtype),
        "state": rows[:, None] + np.arange(5, dtype=np.float32) / 10,
        "action": rows[:, None] + np.array([0.5, 0.75], np.float32),
        "keypoint": np.broadcast_to(rows[:, None, None], (len(rows), 9, 2)).astype(np.float32),
        "n_contacts": np.zeros((len(rows), 1), np.float32),
    } | arrays
    for name, values in data.items():
        chunks = (7, *values.shape[1:])
        array = group.create_array(
            f"data/{name}", shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=Blosc()
        )
        array[:] = values
    group.create_array("meta/episode_ends", shape=(len(ends),), dtype="int64")[:] = ends
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_observation_and_action_of_one_step_stay_in_one_row(tmp_path, dtype):
    source = ReplayBuffer(pusht(tmp_path / "replay.zarr", dtype=dtype), fps=10)
    store = check_dataset(source, tmp_path / "s.zarr").store
    assert store.lengths.tolist() == [20, 17, 23]
    assert (store.schema.cameras, store.schema.fps, store.schema.reward) == (("image",), 10, False)
    assert (len(store.schema.agent_pos), len(store.schema.environment_state)) == (2, 18)
    windows = store.windows(np.array([0, 1, 2]), np.array([4, 4, 4]), 5)
    rows = np.array([0, 20, 37])[:, None] + np.arange(4, 10)
    assert (windows["pixels"] == rows[:, :, None, None, None, None]).all()
    assert np.allclose(windows["state"][..., 0], rows)
    assert np.allclose(windows["action"], rows[:, :-1, None] + np.array([0.5, 0.75]))


def test_training_opens_it_as_a_dataset(tmp_path):
    root = str(pusht(tmp_path / "replay.zarr"))
    with pytest.raises(ValueError, match=r"stores? no frame rate: give data.fps=10"):
        open_store(DataConfig(kind="zarr", root=root), tmp_path / "run")
    store = open_store(DataConfig(kind="zarr", root=root, fps=10, image_size=8), tmp_path / "run")
    assert (store.path, store.schema.height) == (tmp_path / "run" / "windows.zarr", 8)
    report = (tmp_path / "run" / "windows.zarr" / "report" / "report.txt").read_text()
    for finding in ("10 fps, as given", "also recorded: n_contacts", "next.reward: not recorded", "16 × 24"):
        assert finding in report
    assert isinstance(open_source(SourceConfig(root=root, fps=10)), ReplayBuffer)


def test_objects_and_codecs_that_run_code_are_refused(tmp_path):
    """Unpickling a data set would be running it."""
    root = pusht(tmp_path / "replay.zarr")
    described = root / "data" / "state" / ".zarray"
    plain = json.loads(described.read_text())
    described.write_text(json.dumps(plain | {"filters": [{"id": "pickle", "protocol": 5}]}))
    with pytest.raises(ValueError, match="pickle"):
        ReplayBuffer(root, fps=10)
    described.write_text(json.dumps(plain | {"dtype": "<c16", "fill_value": [0.0, 0.0]}))
    with pytest.raises(ValueError, match="dtype complex128; expected integers, floats or bool"):
        ReplayBuffer(root, fps=10)


def test_a_missing_chunk_is_no_black_image(tmp_path):
    root = pusht(tmp_path / "replay.zarr")
    (root / "data" / "img" / "4.0.0.0").unlink()  # rows 28…34
    report = check_dataset(ReplayBuffer(root, fps=10), tmp_path / "s.zarr", skip_bad=True)
    assert report.store.episode_index.tolist() == [0, 2]
    assert "episode 1, data/img: cannot be read" in report.table()


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        (
            {"img": np.full((60, 16, 24, 3), 300.0, np.float32)},
            "values from 300 to 300, expected gray levels",
        ),
        ({"img": np.full((60, 16, 24, 3), 0.5, np.float32)}, "values up to 0.5, .*multiply by 255"),
        ({"img": np.full((30, 16, 24, 3), 9.0, np.float32)}, r"episode 1 \(data/img\): has 10 of 17 frames"),
        ({"action": np.full((60, 2), np.nan, np.float32)}, "action action_0 is nan at frame 0"),
    ],
)
def test_bad_values_are_named(tmp_path, arrays, what):
    with pytest.raises(ValueError, match=what):
        check_dataset(ReplayBuffer(pusht(tmp_path / "replay.zarr", **arrays), fps=10))


def test_buffers_without_what_training_needs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no camera among data's arrays"):
        ReplayBuffer(pusht(tmp_path / "a.zarr", img=np.zeros((60, 5))), fps=10)
    with pytest.raises(ValueError, match="episode_ends must rise"):
        ReplayBuffer(pusht(tmp_path / "b.zarr", ends=(20, 20, 60)), fps=10)

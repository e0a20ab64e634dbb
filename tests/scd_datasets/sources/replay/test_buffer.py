"""Diffusion Policy's replay buffers: rows stay together, plain values alone are read, damage is named."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.open_store import open_store
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.replay.buffer import ReplayBuffer, recorded_fps

ENDS = (20, 37, 60)
LENGTHS = (20, 17, 23)


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
        if values is None:
            continue
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
    with pytest.raises(ValueError, match="state is complex128; expected integers, floats or bool"):
        ReplayBuffer(root, fps=10)


def test_a_missing_chunk_is_no_black_image(tmp_path):
    root = pusht(tmp_path / "replay.zarr")
    (root / "data" / "img" / "4.0.0.0").unlink()  # rows 28…34
    report = check_dataset(ReplayBuffer(root, fps=10), tmp_path / "s.zarr", skip_bad=True)
    assert report.store.episode_index.tolist() == [0, 2]
    assert "episode 1, data/img: cannot be read" in report.table()
    assert (
        "half a download? zarr 3 writes zeros only with config={'write_empty_chunks': True}" in report.table()
    )


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        (
            {"img": np.full((60, 16, 24, 3), 300.0, np.float32)},
            "values from 300 to 300, expected gray levels",
        ),
        (
            {"img": np.repeat([200.0, 0.5, 200.0], LENGTHS)[:, None, None, None] * np.ones((16, 24, 3))},
            r"episode 1 .*values up to 0.5, other frames of this camera 0…255: multiply these by 255",
        ),
        ({"img": np.full((60, 16, 24, 3), 900, np.uint16)}, "values from 900 .*divided by 257"),
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


# ------------------------------------------------------------------------------------- variants


def test_a_zipped_buffer_reads_as_its_folder_does(tmp_path):
    folder = pusht(tmp_path / "replay.zarr")
    top = shutil.make_archive(str(tmp_path / "top.zarr"), "zip", folder)
    inside = shutil.make_archive(str(tmp_path / "inside.zarr"), "zip", tmp_path, "replay.zarr")
    expected = ReplayBuffer(folder, fps=10)
    for file in (top, inside):
        store = open_store(DataConfig(kind="zarr", root=file, fps=10), tmp_path / f"{Path(file).stem}_run")
        assert store.lengths.tolist() == [20, 17, 23]
        source = open_source(SourceConfig(root=file, fps=10))
        assert np.array_equal(source.pixels(source.episodes[1]), expected.pixels(expected.episodes[1]))
    shutil.make_archive(str(tmp_path / "other"), "zip", folder / "data")
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        open_source(SourceConfig(root=str(tmp_path / "other.zip"), fps=10))


def umi(path: Path, **arrays) -> Path:
    """As UMI writes its gripper's poses, without an action; every value of row i is made of i."""
    rows = np.arange(60, dtype=np.float32)[:, None]
    poses = {"robot0_eef_pos": rows + np.zeros(3), "robot0_eef_rot_axis_angle": rows + 100 + np.zeros(3)}
    poses |= {"robot0_gripper_width": rows + 200, "robot0_demo_end_pose": np.zeros((60, 6))}
    left_out = dict.fromkeys(("img", "state", "action", "keypoint", "n_contacts"))
    camera = {"camera0_rgb": np.broadcast_to(rows[:, None, None].astype(np.uint8), (60, 16, 24, 3))}
    return pusht(path, **(left_out | poses | camera | arrays))


def test_umis_action_is_where_the_gripper_is_one_row_later(tmp_path):
    report = check_dataset(ReplayBuffer(umi(tmp_path / "umi.zarr"), fps=60), tmp_path / "s.zarr")
    store, schema = report.store, report.schema
    assert store.lengths.tolist() == [19, 16, 22]  # where the last row led to is not known
    assert schema.cameras == ("camera0_rgb",)
    assert schema.agent_pos == schema.action
    assert schema.action[2:4] == ("robot0_eef_pos_2", "robot0_eef_rot_axis_angle_0")
    assert schema.action[-1] == "robot0_gripper_width"
    windows = store.windows(np.array([1]), np.array([4]), 5)
    assert np.allclose(windows["state"][0, :, 0], 20 + np.arange(4, 10))
    assert np.allclose(windows["action"][0, :, 0], 20 + np.arange(5, 10))
    assert "no action is recorded → where robot0_eef_pos, robot0_eef_rot_axis_angle" in report.table()


def test_umis_pictures_ask_to_be_copied_to_a_common_compression(tmp_path):
    """JPEG XL is decoded by a library that is no dependency; nothing foreign is decoded without it."""
    root = umi(tmp_path / "umi.zarr")
    described = root / "data" / "camera0_rgb" / ".zarray"
    compressor = {"compressor": {"id": "imagecodecs_jpegxl", "level": 99}}
    described.write_text(json.dumps(json.loads(described.read_text()) | compressor))
    with pytest.raises(ValueError, match=r"imagecodecs_jpegxl.*copy it once to an ordinary compression"):
        ReplayBuffer(root, fps=60)


def test_channels_first_gray_and_depth(tmp_path):
    shades = np.arange(60, dtype=np.uint8)[:, None, None]
    arrays = {
        "img": np.broadcast_to(shades[..., None], (60, 3, 16, 24)),
        "gray": np.broadcast_to(shades, (60, 16, 24)),
        "wrist": np.broadcast_to(shades[..., None], (60, 16, 24, 1)),
        "depth": np.full((60, 16, 24), 900, np.uint16),
    }
    report = check_dataset(
        ReplayBuffer(pusht(tmp_path / "replay.zarr", **arrays), fps=10), tmp_path / "s.zarr"
    )
    assert report.schema.cameras == ("gray", "image", "wrist")
    pixels = report.store.windows(np.array([0]), np.array([0]), 5)["pixels"]
    assert (pixels == np.arange(6)[:, None, None, None, None]).all()
    assert "gray: gray pictures → read as three equal colors" in report.table()
    assert "depth: uint16 (60, 16, 24) is depth → left out" in report.table()
    with pytest.raises(ValueError, match="is depth; a camera is uint8"):
        ReplayBuffer(tmp_path / "replay.zarr", fps=10, cameras=["depth"])
    with pytest.raises(
        ValueError, match=r"no camera among .*; img is left out: uint16 \(60, 16, 24\) is depth"
    ):
        ReplayBuffer(pusht(tmp_path / "deep.zarr", img=arrays["depth"]), fps=10)


def test_floats_from_0_to_1_are_gray_levels_and_it_is_said(tmp_path):
    levels = np.arange(60)[:, None, None, None] * np.ones((16, 24, 3)) / 255
    report = check_dataset(ReplayBuffer(pusht(tmp_path / "r.zarr", img=levels), fps=10), tmp_path / "s.zarr")
    pixels = report.store.windows(np.array([0]), np.array([0]), 5)["pixels"]
    assert (pixels == np.arange(6)[:, None, None, None, None]).all()
    assert "img: floats, from 0 to 1 in 8 frames looked at → read as gray levels of 1/255" in report.table()


def test_keys_name_what_has_another_name(tmp_path):
    root = pusht(
        tmp_path / "r.zarr",
        action=None,
        command=np.ones((60, 2)),
        img=None,
        front=np.ones((60, 16, 24, 3), np.uint8),
        n_contacts=np.ones((60, 1)),
    )
    with pytest.raises(ValueError, match=r"no data/action: .*data.keys=\{<array>:action\}"):
        open_source(SourceConfig(root=str(root), fps=10))
    keys = {"command": "action", "front": "observation.images.cam", "n_contacts": "observation.state"}
    source = open_source(SourceConfig(root=str(root), fps=10, keys=keys))
    assert list(source.sizes) == ["cam"]
    assert (source.low_dim(source.episodes[0])["action"] == 1).all()
    assert source.names("observation.state") == ("state_0",)
    assert source.read_options()[-1] == keys  # another store than without


# ------------------------------------------------------------------------------------- videos beside a buffer


def real(folder: Path, video_fps: int = 30, short: int = 0) -> Path:
    """As Diffusion Policy records a real robot: 10 rows a second, videos of 30 frames a second beside them.

    Frame k of episode n's camera 0 is as bright as 10 n + k.
    """
    folder.mkdir()
    rows = np.arange(60, dtype=np.float64)
    low_dim = {
        "img": None,
        "state": None,
        "keypoint": None,
        "n_contacts": None,
        "timestamp": 1.7e9 + rows / 10,
    }
    low_dim |= {"robot_eef_pose": rows[:, None] + np.zeros(6), "robot_joint": rows[:, None] + np.zeros(6)}
    pusht(folder / "replay_buffer.zarr", **low_dim)
    for episode, length in enumerate(LENGTHS):
        for camera in (0, 1):
            file = folder / "videos" / str(episode) / f"{camera}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(file), "w") as out:
                stream = out.add_stream("libx264", video_fps, options={"g": "12", "crf": "1"})
                stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
                for k in range(length * 3 - short * (episode == 1)):
                    image = np.full((32, 48, 3), 10 * episode + k + 50 * camera, np.uint8)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
                out.mux(stream.encode())
    return folder


def test_videos_beside_a_buffer_show_its_rows(tmp_path):
    folder = real(tmp_path / "pick")
    source = open_source(SourceConfig(root=str(folder), decoder="pyav"))
    report = check_dataset(source, tmp_path / "s.zarr")
    assert (report.schema.fps, report.schema.cameras) == (10, ("camera_0", "camera_1"))
    assert report.schema.agent_pos[5:7] == ("robot_joint_5", "robot_eef_pose_0")
    for episode in range(3):
        shown = report.store.windows(np.array([episode]), np.array([2]), 5)["pixels"][0].mean((2, 3, 4))
        expected = 10 * episode + 3 * np.arange(2, 8)
        assert np.abs(shown - np.stack([expected, expected + 50], 1)).max() <= 1
    assert "data/timestamp: 10 rows a second → the frame rate" in report.table()
    with pytest.raises(ValueError, match=f"has its pictures beside it: data.root={folder}"):
        open_source(SourceConfig(root=str(folder / "replay_buffer.zarr")))


def test_cameras_are_chosen_among_videos_and_among_arrays_beside_videos(tmp_path):
    folder = real(tmp_path / "pick")
    assert list(open_source(SourceConfig(root=str(folder), cameras=["camera_1"])).sizes) == ["camera_1"]
    shutil.rmtree(folder / "replay_buffer.zarr")
    pusht(folder / "replay_buffer.zarr", wrist=np.ones((60, 16, 24, 3), np.uint8))
    source = open_source(SourceConfig(root=str(folder), fps=10, cameras=["wrist"]))
    assert source.sizes == {"wrist": (16, 24)}


def test_videos_that_are_missing_or_short_are_damage(tmp_path):
    folder = real(tmp_path / "pick", short=9)
    (folder / "videos" / "2" / "1.mp4").unlink()
    report = check_dataset(open_source(SourceConfig(root=str(folder), decoder="pyav")), skip_bad=True)
    assert [damage.episode for damage in report.bad] == [2, 1]
    assert "episode 2, videos/2/1.mp4: there is no such video" in report.table()
    assert "episode 1, videos/1/0.mp4: ends before row 15 of 17, at 1.50 s" in report.table()


def test_the_rate_comes_from_steady_timestamps_alone(tmp_path):
    times = np.arange(60) / 10
    unsteady = pusht(tmp_path / "a.zarr", timestamp=np.where(times > 3, times + 0.05, times))
    with pytest.raises(ValueError, match=r"no frame rate: give data.fps=10 .*data.fps=60 for UMI's"):
        ReplayBuffer(unsteady, fps=None)
    steady = pusht(tmp_path / "b.zarr", timestamp=np.where(np.arange(60) >= 37, times + 99, times))
    assert ReplayBuffer(steady, fps=None).fps == 10
    assert "10 rows a second → 5 fps, as given" in check_dataset(ReplayBuffer(steady, fps=5)).table()


@pytest.mark.parametrize(
    ("step", "fps"),
    [
        (1 / 29.97, 29.97),
        (1001 / 30000, 29.97),
        (1 / 30.01, 30),  # a clock's error
        (0.08, 12.5),
        (0.15, 6.6667),  # no usual one, and kept
        (2.0, 0.5),
    ],
)
def test_a_rate_that_is_a_fraction_is_kept(step, fps):
    assert recorded_fps(1.7e9 + step * np.arange(60), np.array(ENDS)) == fps


def test_a_rate_in_whole_milliseconds_is_that_of_the_mean_step():
    assert recorded_fps(np.round(np.arange(60) / 30, 3), np.array(ENDS)) == 30
    assert json.dumps(recorded_fps(np.arange(60) / 10, np.array(ENDS))) == "10"
    assert recorded_fps(np.full(60, np.nan), np.array(ENDS)) is None

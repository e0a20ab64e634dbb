"""robomimic's and ALOHA's HDF5: rows stay together, what is stored is used, damage and slips are named."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from scd_datasets.config import DataConfig, SourceConfig
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.open_store import open_or_build, open_store
from scd_datasets.sources.open_source import open_source

h5py = pytest.importorskip("h5py", reason="an extra: pip install 'lerobot_env_scd_world[hdf5]'")
ROWS = (20, 17, 23)


def write(group, arrays):
    for name, values in arrays.items():
        if values is not None:
            group.create_dataset(name, data=values, dtype=getattr(values, "dtype", None))


def demonstration(number: int, rows: int, **changes) -> dict:
    """Every value of row i of demonstration n is made of 100 n + i; a picture's of 30 n + i."""
    count = 100 * number + np.arange(rows, dtype=np.float64)
    shade = np.uint8(30 * number) + np.arange(rows, dtype=np.uint8)
    arrays = {
        "actions": count[:, None] + np.arange(7) / 10,
        "rewards": (np.arange(rows) == rows - 1).astype(np.float64),
        "dones": (np.arange(rows) == rows - 1).astype(np.int64),
        "states": np.zeros((rows, 40)),
        "obs/robot0_eef_pos": count[:, None] + np.zeros(3),
        "obs/robot0_eef_quat": np.tile([0, 0, 0, 1.0], (rows, 1)),
        "obs/robot0_gripper_qpos": -count[:, None] + np.zeros(2),
        "obs/robot0_joint_vel": np.zeros((rows, 7)),
        "obs/object": count[:, None] + np.zeros(10),
        "obs/agentview_image": np.broadcast_to(shade[:, None, None, None], (rows, 16, 24, 3)),
        "obs/agentview_depth": np.ones((rows, 16, 24, 1), np.float32),
        "next_obs/robot0_eef_pos": np.full((rows, 3), np.nan),
    }
    return arrays | changes


def robomimic(path, control_freq: float | None = 20, attributes=None, **changes):
    """As robomimic's dataset_states_to_obs.py writes it; demo_10 comes after demo_2."""
    kwargs = {} if control_freq is None else {"control_freq": control_freq}
    with h5py.File(path, "w") as out:
        data = out.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": kwargs})
        for name, value in (attributes or {}).items():
            data.attrs[name] = json.dumps(value)
        for number, rows in zip((0, 10, 2), (ROWS[0], ROWS[2], ROWS[1]), strict=True):
            write(data.create_group(f"demo_{number}"), demonstration(number % 7, rows, **changes))
        out.create_dataset("mask/train", data=np.array([b"demo_0", b"demo_2"]))
    return path


def test_a_demonstrations_rows_stay_together(tmp_path):
    source = open_source(SourceConfig(root=str(robomimic(tmp_path / "image.hdf5"))))
    report = check_dataset(source, tmp_path / "s.zarr")
    store, schema = report.store, report.schema
    assert store.lengths.tolist() == list(ROWS)
    assert (schema.cameras, schema.fps, schema.tasks) == (("agentview_image",), 20, ("Lift",))
    assert (len(schema.agent_pos), len(schema.environment_state)) == (9, 10)
    assert schema.agent_pos[2:4] == ("robot0_eef_pos_2", "robot0_eef_quat_0")
    assert (schema.reward, schema.success) == (True, False)
    windows = store.windows(np.array([0, 1, 2]), np.array([4, 4, 4]), 5)
    rows = np.arange(4, 10) + 100 * np.array([0, 2, 3])[:, None]
    shades = np.arange(4, 10) + 30 * np.array([0, 2, 3])[:, None]
    assert (windows["pixels"] == shades[:, :, None, None, None, None]).all()
    assert np.allclose(windows["state"][..., 0], rows)
    assert np.allclose(windows["state"][..., 8], -rows)
    assert np.allclose(windows["action"][..., 0], rows[:, :-1])
    table = report.table()
    assert "obs/agentview_depth: float32 (20, 16, 24, 1) is depth → left out" in table
    assert "also recorded: obs/robot0_joint_vel, states → not read" in table
    assert "dones: when an episode is done → not read; where it means" in table
    assert "next_obs" not in table


def test_keys_choose_other_arrays(tmp_path):
    keys = {
        "obs/agentview_image": "observation.images.agentview",
        "obs/robot0_joint_vel": "observation.state",
        "obs/robot0_eef_pos": "observation.state",
        "dones": "next.success",
    }
    root = str(robomimic(tmp_path / "image.hdf5"))
    report = check_dataset(open_source(SourceConfig(root=root, keys=keys)))
    assert report.schema.cameras == ("agentview",)
    assert report.schema.agent_pos[6:8] == ("robot0_joint_vel_6", "robot0_eef_pos_0")
    assert report.schema.success
    assert report.summary()["success"] == "100% of episodes"
    with pytest.raises(ValueError, match="did you mean obs/agentview_image"):
        open_source(SourceConfig(root=root, keys={"obs/agentview_img": "observation.image"}))


def test_the_rate_is_the_stored_one(tmp_path):
    stored = str(robomimic(tmp_path / "stored.hdf5", control_freq=12.5))
    assert open_source(SourceConfig(root=stored)).fps == 12.5
    with pytest.raises(ValueError, match=r"was recorded at 12.5 fps, data.fps=20: leave data.fps out"):
        open_source(SourceConfig(root=stored, fps=20))
    unknown = str(robomimic(tmp_path / "unknown.hdf5", control_freq=None))
    with pytest.raises(ValueError, match=r"give data.fps=20 \(robosuite's own\)"):
        open_source(SourceConfig(root=unknown))
    assert open_source(SourceConfig(root=unknown, fps=15)).fps == 15


def test_liberos_names_and_instruction(tmp_path):
    libero = {name: None for name in demonstration(0, 1) if name.startswith(("obs/", "next_obs/"))}
    libero |= {"actions": np.zeros((9, 7)), "rewards": None, "dones": None, "states": None}
    libero |= {"obs/ee_pos": np.ones((9, 3)), "obs/ee_ori": np.ones((9, 3)), "obs/ee_states": np.ones((9, 6))}
    libero |= {"obs/joint_states": np.ones((9, 7)), "obs/gripper_states": np.ones((9, 2))}
    libero |= {
        name: np.zeros((9, 16, 16, 3), np.uint8) for name in ("obs/agentview_rgb", "obs/eye_in_hand_rgb")
    }
    told = {"problem_info": {"language_instruction": list('"open the drawer"')}}
    source = open_source(SourceConfig(root=str(robomimic(tmp_path / "d.hdf5", attributes=told, **libero))))
    assert source.episodes[0].tasks == ("open the drawer",)
    assert list(source.sizes) == ["agentview_rgb", "eye_in_hand_rgb"]
    assert len(source.names("observation.state")) == 7 + 3 + 3 + 2


def test_low_dimensional_files_say_what_they_lack(tmp_path):
    pictures = {"obs/agentview_image": None, "obs/agentview_depth": None}
    root = str(robomimic(tmp_path / "low_dim.hdf5", **pictures))
    with pytest.raises(ValueError, match=r"has no camera.*dataset_states_to_obs.py renders some"):
        open_source(SourceConfig(root=root))


def test_damage_is_one_episodes(tmp_path):
    file = robomimic(tmp_path / "image.hdf5")
    with h5py.File(file, "a") as out:
        del out["data/demo_0/obs/agentview_image"]
        del out["data/demo_2/obs/object"]
    report = check_dataset(open_source(SourceConfig(root=str(file))), tmp_path / "s.zarr", skip_bad=True)
    assert report.store.episode_index.tolist() == [2]
    assert "episode 0, image.hdf5: has no obs/agentview_image" in report.table()
    assert "episode 1, image.hdf5: has no obs/object" in report.table()


def test_links_to_other_files_are_refused(tmp_path):
    file = robomimic(tmp_path / "image.hdf5")
    with h5py.File(file, "a") as out:
        del out["data/demo_2/actions"]
        out["data/demo_2/actions"] = h5py.ExternalLink("other.h5", "actions")
        del out["data/demo_10"]
        out["data/demo_10"] = h5py.ExternalLink("other.h5", "demo")
    report = check_dataset(open_source(SourceConfig(root=str(file))), skip_bad=True)
    assert [damage.episode for damage in report.bad] == [1, 2]
    assert report.table().count("is a link, maybe to another file") == 2


# ------------------------------------------------------------------------------------- ALOHA


def jpegs(frames: np.ndarray, padded: bool) -> np.ndarray:
    encoded = []
    for frame in frames:
        Image.fromarray(frame).save(buffer := io.BytesIO(), "JPEG", quality=95)
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    if padded:
        longest = max(map(len, encoded)) + 9
        return np.stack([np.pad(one, (0, longest - len(one))) for one in encoded])
    rows = np.empty(len(encoded), h5py.vlen_dtype(np.uint8))
    rows[:] = encoded
    return rows


def aloha(folder, stored="raw", base=False, sizes=((16, 24),) * 3):
    """As ACT's record_sim_episodes.py writes it; every value of row i of episode n is made of 100 n + i."""
    folder.mkdir()
    for number, (rows, size) in enumerate(zip(ROWS, sizes, strict=True)):
        count = 100 * number + np.arange(rows, dtype=np.float32)
        shade = np.uint8(30 * number) + np.arange(rows, dtype=np.uint8)
        frames = np.broadcast_to(shade[:, None, None, None], (rows, *size, 3)).copy()
        file = folder / f"episode_{(0, 2, 10)[number]}.hdf5"
        with h5py.File(file, "w") as out:
            out.attrs["sim"], out.attrs["compress"] = False, stored != "raw"
            write(
                out,
                {
                    "action": count[:, None] + np.zeros(14, np.float32),
                    "base_action": np.full((rows, 2), 7.0) if base else None,
                    "observations/qpos": count[:, None] + 0.5 + np.zeros(14, np.float32),
                    "observations/qvel": np.zeros((rows, 14), np.float32),
                    "observations/images/cam_high": frames
                    if stored == "raw"
                    else jpegs(frames, stored == "padded"),
                    "observations/images_depth/cam_high": np.ones((rows, *size), np.uint16),
                    "compress_len": None if stored == "raw" else np.ones((1, rows)),
                },
            )
    return folder


@pytest.mark.parametrize("stored", ["raw", "padded", "ragged"])
def test_a_folder_of_alohas_episodes(tmp_path, stored):
    root = str(aloha(tmp_path / "transfer_cube", stored))
    with pytest.raises(ValueError, match=r"ALOHA, .*store no frame rate: give data.fps=50 \(ALOHA's own"):
        open_source(SourceConfig(root=root))
    source = open_source(SourceConfig(root=root, fps=50))
    report = check_dataset(source, tmp_path / "s.zarr")
    assert [episode.file for episode in source.episodes][1:] == ["episode_2.hdf5", "episode_10.hdf5"]
    assert report.store.lengths.tolist() == list(ROWS)
    assert (report.schema.cameras, report.schema.fps) == (("cam_high",), 50)
    assert (report.schema.action[0], report.schema.agent_pos[13]) == ("left_waist", "right_gripper")
    windows = report.store.windows(np.array([0, 1, 2]), np.array([4, 4, 4]), 5)
    rows = np.arange(4, 10) + 100 * np.arange(3)[:, None]
    shades = np.arange(4, 10) + 30 * np.arange(3)[:, None]
    assert np.abs(windows["pixels"] - shades[:, :, None, None, None, None]).max() <= (
        0 if stored == "raw" else 1
    )
    assert np.allclose(windows["state"][..., 0], rows + 0.5)
    assert np.allclose(windows["action"][..., 0], rows[:, :-1])
    table = report.table()
    assert "observations/images_depth/cam_high: uint16 (20, 16, 24) is depth → left out" in table
    assert ("red and blue exchanged" in table) == (stored != "raw")
    assert "observations/qvel" in table


def test_a_mobile_base_is_part_of_the_action(tmp_path):
    source = open_source(SourceConfig(root=str(aloha(tmp_path / "a", base=True)), fps=50))
    assert source.names("action")[13:] == ("right_gripper", "base_linear", "base_angular")
    assert (source.low_dim(source.episodes[0])["action"][:, 14:] == 7).all()


def test_training_opens_the_folder_and_sees_it_grow(tmp_path):
    folder = aloha(tmp_path / "a")
    store = open_store(DataConfig(kind="zarr", root=str(folder), fps=50), tmp_path / "run")
    assert store.path == tmp_path / "run" / "windows.zarr"
    source = open_source(SourceConfig(root=str(folder), fps=50))
    before = open_or_build(source, tmp_path / "s.zarr").source
    (folder / "episode_11.hdf5").write_bytes((folder / "episode_2.hdf5").read_bytes())
    with h5py.File(folder / "episode_11.hdf5", "a") as out:
        out["observations/qpos"][:] += 1000
    again = open_source(SourceConfig(root=str(folder), fps=50))
    assert len(open_or_build(again, tmp_path / "s.zarr").lengths) == 4
    assert open_or_build(again, tmp_path / "s.zarr").source != before


def test_damaged_episodes_are_named_before_any_picture_is_decoded(tmp_path):
    """Half a file, and pictures of another size, which would be stretched."""
    folder = aloha(tmp_path / "a", sizes=((16, 24), (16, 24), (32, 24)))
    half = (folder / "episode_0.hdf5").read_bytes()
    (folder / "episode_0.hdf5").write_bytes(half[: len(half) // 2])
    report = check_dataset(open_source(SourceConfig(root=str(folder), fps=50)), skip_bad=True)
    assert len(report.good) == 1
    assert "episode 0, episode_0.hdf5: " in report.table()
    assert "cannot be opened" in report.table()
    what = r"episode 2, episode_10.hdf5: a row of observations/images/cam_high is (32, 24, 3), elsewhere"
    assert what in report.table()


def test_a_picture_that_is_broken_or_larger_than_the_first_is_damage(tmp_path):
    folder = aloha(tmp_path / "a", stored="padded")
    for number, break_it in {
        2: lambda row: row[:400],
        10: lambda row: jpegs(np.zeros((1, 32, 24, 3), np.uint8), True)[0],
    }.items():
        with h5py.File(folder / f"episode_{number}.hdf5", "a") as out:
            rows = out["observations/images/cam_high"]
            broken = np.resize(break_it(rows[5]), rows.shape[1]) * (
                np.arange(rows.shape[1]) < len(break_it(rows[5]))
            )
            rows[5] = broken
    report = check_dataset(open_source(SourceConfig(root=str(folder), fps=50)), skip_bad=True)
    assert [damage.episode for damage in report.bad] == [1, 2]
    assert "a picture in it cannot be decoded" in str(report.bad[0])
    assert "one frame is (32, 24, 3), the first one (16, 24, 3)" in str(report.bad[1])


def test_other_folders_and_files_are_refused_with_what_is_read(tmp_path):
    folder = aloha(tmp_path / "a")
    (folder / "notes.h5").touch()
    with pytest.raises(ValueError, match="several recordings"):
        open_source(SourceConfig(root=str(folder), fps=50))
    robomimic(tmp_path / "demo_1.hdf5"), robomimic(tmp_path / "demo_2.hdf5")
    with pytest.raises(ValueError, match=r"several recordings \(demo_1.hdf5, demo_2.hdf5\)"):
        open_source(SourceConfig(root=str(tmp_path)))
    with h5py.File(tmp_path / "other.h5", "w") as out:
        out["joint_action"] = np.zeros((9, 7))
    with pytest.raises(
        ValueError, match=r"unknown layout: it has no ep_len, ep_offset, only joint_action. HDF5 is read as"
    ):
        open_source(SourceConfig(root=str(tmp_path / "other.h5"), fps=50))


def test_an_action_that_is_set_aside_leaves_nothing_to_learn(tmp_path):
    config = SourceConfig(root=str(robomimic(tmp_path / "a.hdf5")), keys={"actions": "recorded.actions"})
    with pytest.raises(ValueError, match=r"leaves no action.*data.keys=\{<array>: action\}"):
        open_source(config)

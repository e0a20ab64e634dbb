"""LeRobotDataset → store: exactly what was recorded, and damage is named by file and episode."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scd_datasets.config import DataConfig
from scd_datasets.preparation.check import check_dataset, make_schema, valid_episodes
from scd_datasets.preparation.open_store import open_or_build, open_store
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import DamagedEpisode
from scd_world.rollouts.record import record


def rewrite(file, change):
    """Apply `change` to the columns {name: list} of a parquet file."""
    table = pq.read_table(file)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns, schema=table.schema), file)


def second_file(root):
    return root / "data" / "chunk-000" / "file-001.parquet"  # episodes 1 and 2; the first holds episode 0


@pytest.mark.slow
def test_the_store_holds_exactly_what_was_recorded(recorded, tmp_path):
    report = check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr")
    store = report.store
    assert store.lengths.tolist() == [7, 7, 7]
    windows = store.windows(np.arange(3), np.zeros(3, int), 7)
    seeds, steps = np.arange(3)[:, None], np.arange(7)
    pixels = windows["pixels"][:, :7]
    assert pixels.shape == (3, 7, 2, 64, 72, 3)
    for channel, value in enumerate((seeds[:, :, None], steps[:, None], np.arange(2))):
        assert (pixels[..., channel] == np.broadcast_to(value, (3, 7, 2))[..., None, None]).all()
    expected = np.stack(np.broadcast_arrays(seeds, steps, -seeds, -steps), axis=-1)
    assert (windows["state"][:, :7] == expected).all()
    assert (windows["reward"] == steps + 1).all()
    assert (windows["success"] == (steps == 6)).all()
    frames = np.concatenate(pq.read_table(second_file(recorded))["action"].to_numpy())
    assert np.array_equal(windows["action"][1:].ravel(), frames)


def test_the_schema_describes_what_was_recorded(recorded):
    schema = check_dataset(LeRobotFolder(recorded)).schema
    assert schema.cameras == ("top", "wrist")
    assert (schema.height, schema.width, schema.fps, schema.horizon) == (64, 72, 10, 7)
    assert schema.state == ("state_0", "state_1", "environment_state_0", "environment_state_1")
    assert schema.reward
    assert schema.success
    assert all(low < high for low, high in zip(schema.action_low, schema.action_high, strict=True))


def test_a_cameras_key_is_kept_where_its_name_does_not_tell_it(recorded):
    """`image` alone would be taken for `observation.image`; usual keys leave a schema as it ever was."""
    info = recorded / "meta" / "info.json"
    assert "camera_keys" not in check_dataset(LeRobotFolder(recorded, ["top"])).schema.to_dict()
    info.write_text(info.read_text().replace("observation.images.top", "observation.images.image"))
    source = LeRobotFolder(recorded, ["image"])
    schema = make_schema(source, valid_episodes(source, skip_bad=False).good)
    assert schema.lerobot_keys == {"image": "observation.images.image"}
    both = LeRobotFolder(recorded)
    assert make_schema(both, valid_episodes(both, skip_bad=False).good).camera_keys == ()
    info.write_text(info.read_text().replace("observation.images.image", "cam_top"))
    named = LeRobotFolder(recorded, ["top"], keys={"cam_top": "observation.images.top"})
    schema = make_schema(named, valid_episodes(named, skip_bad=False).good)
    assert schema.lerobot_keys == {"top": "cam_top"}  # LeRobot's policies know the dataset's own name


@pytest.mark.parametrize("key", ["next.reward", "next.success"])
def test_an_outcome_of_two_numbers_is_refused_with_a_cure_that_works(recorded, key):
    for file in recorded.glob("data/*/*.parquet"):
        table = pq.read_table(file)
        twice = pa.array([[value, value] for value in table[key].to_pylist()])
        pq.write_table(table.set_column(table.column_names.index(key), key, twice), file)
    info = recorded / "meta" / "info.json"
    values = json.loads(info.read_text())
    values["features"][key]["shape"] = [2]
    info.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"{key} has 2 numbers a step \(\w+_0, \w+_1\)") as refused:
        check_dataset(LeRobotFolder(recorded))
    (cure,) = re.findall(r"data\.(drop_features)=\[(.*)\]", str(refused.value))
    config = DataConfig(root=str(recorded), **{cure[0]: [cure[1]]})
    schema = check_dataset(open_source(config)).schema
    assert (schema.reward, schema.success) == (key != "next.reward", key != "next.success")


def test_cameras_are_chosen_and_images_resized(recorded):
    folder = LeRobotFolder(recorded, cameras=["wrist"], image_size=48)
    pixels = folder.pixels(folder.episodes[1])
    assert pixels.shape == (7, 1, 48, 48, 3)  # 54 would not divide by 16
    assert (pixels[..., 2] == 1).all()
    with pytest.raises(ValueError, match="no camera called left; the dataset has top, wrist"):
        LeRobotFolder(recorded, cameras=["left"])


def test_dropped_features_were_never_recorded(recorded, tmp_path):
    config = DataConfig(root=str(recorded), drop_features=["observation.environment_state", "next.reward"])
    store = open_store(config, tmp_path)
    assert (store.schema.environment_state, store.schema.reward, store.schema.success) == ((), False, True)
    whole = open_store(replace(config, drop_features=[]), tmp_path / "whole")
    assert np.array_equal(store.state, whole.state[:, :2])
    assert not store.reward.any()
    assert (
        "observation.environment_state: recorded → ignored"
        in (tmp_path / "windows.zarr" / "report" / "report.txt").read_text()
    )
    # Other features are another store, and one that is not recorded is named.
    assert open_store(replace(config, drop_features=[]), tmp_path).fingerprint != store.fingerprint
    with pytest.raises(ValueError, match=r"drop_features=\['action'\].*without observation.state"):
        open_store(replace(config, drop_features=["action"]), tmp_path)


def test_data_without_reward_success_and_state(recorded):
    info = recorded / "meta" / "info.json"
    values = json.loads(info.read_text())
    for key in ("next.reward", "next.success", "observation.state", "observation.environment_state"):
        del values["features"][key]
    info.write_text(json.dumps(values))
    schema = check_dataset(LeRobotFolder(recorded)).schema
    assert (schema.reward, schema.success, schema.state) == (False, False, ())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda c: c["action"].__setitem__(9, [0.0, float("nan")]), "action action_1 is nan at frame 2"),
        (lambda c: c["timestamp"].__setitem__(9, 0.0), "timestamp goes back after frame 1"),
        (
            lambda c: c["timestamp"].__setitem__(13, 9.0),
            r"frames 5 and 6 are 8.5000 s apart, expected 0.1000",
        ),
        (lambda c: c["frame_index"].__setitem__(9, 5), "frame_index does not count"),
        (lambda c: [column.pop() for column in c.values()], "has 6 rows, 7 are listed"),
    ],
)
def test_bad_values_are_named_and_skipped_on_request(recorded, tmp_path, change, what):
    rewrite(second_file(recorded), change)
    with pytest.raises(DamagedEpisode, match=rf"episode 2 \(data/chunk-000/file-001.parquet\): .*{what}"):
        check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    report = check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr", skip_bad=True)
    assert report.store.episode_index.tolist() == [0, 1]
    assert "episode 2" in report.table()


def test_a_truncated_parquet_file_costs_its_episodes_only(recorded, tmp_path):
    file = second_file(recorded)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        DamagedEpisode, match=r"episode 1 \(data/chunk-000/file-001.parquet\): cannot be read"
    ):
        check_dataset(LeRobotFolder(recorded))
    report = check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr", skip_bad=True)
    assert [damage.episode for damage in report.bad] == [1, 2]
    assert report.store.episode_index.tolist() == [0]


def test_a_broken_image_is_named(recorded):
    def cut(columns):
        image = columns["observation.images.top"][3]
        image["bytes"] = image["bytes"][:-30]

    rewrite(second_file(recorded), cut)
    with pytest.raises(
        DamagedEpisode, match=r"episode 1 .*frame 3 of observation.images.top cannot be decoded"
    ):
        check_dataset(LeRobotFolder(recorded))
    report = check_dataset(LeRobotFolder(recorded), skip_bad=True)
    assert [checked.episode.index for checked in report.good] == [0, 2]


def test_a_truncated_video_is_named(config, tmp_path):
    record(config(store_as_video=True, episodes=2))
    video = min((tmp_path / "counting" / "videos" / "observation.images.wrist").rglob("*.mp4"))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(DamagedEpisode, match=r"episode 0 \(videos/observation.images.wrist/.*mp4\)"):
        check_dataset(LeRobotFolder(tmp_path / "counting"))


def test_an_unreadable_list_of_episodes_is_named(recorded):
    (recorded / "meta" / "episodes" / "chunk-000" / "file-000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"meta/episodes/chunk-000/file-000.parquet cannot be read"):
        LeRobotFolder(recorded)


def test_counts_that_differ_are_reported(recorded):
    info = recorded / "meta" / "info.json"
    info.write_text(info.read_text().replace('"total_frames": 21', '"total_frames": 20'))
    assert "info.json says 3 episodes and 20 frames" in check_dataset(LeRobotFolder(recorded)).table()


def test_folders_that_are_no_dataset(recorded, tmp_path):
    store = open_store(DataConfig(root=str(recorded)), tmp_path).path
    with pytest.raises(FileNotFoundError, match=r"is a window store, .* data=zarr"):
        LeRobotFolder(store)
    with pytest.raises(FileNotFoundError, match="neither a LeRobotDataset"):
        LeRobotFolder(tmp_path / "nothing")
    info = recorded / "meta" / "info.json"
    info.write_text(info.read_text().replace("v3.0", "v1.6"))
    with pytest.raises(ValueError, match=r"version 'v1.6', and v3.0, v2.1, v2.0 are read"):
        LeRobotFolder(recorded)


def test_a_dataset_without_actions_is_refused(recorded):
    info = recorded / "meta" / "info.json"
    values = json.loads(info.read_text())
    del values["features"]["action"]
    info.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="records no 'action'"):
        LeRobotFolder(recorded)


@pytest.mark.slow
def test_a_store_is_built_once_and_again_when_the_dataset_grows(config, tmp_path):
    record(config(episodes=2))
    out = tmp_path / "s.zarr"
    first = open_or_build(LeRobotFolder(config().out), out)
    built = (out / "zarr.json").stat().st_mtime_ns
    assert open_or_build(LeRobotFolder(config().out), out).fingerprint == first.fingerprint
    assert (out / "zarr.json").stat().st_mtime_ns == built
    record(config(episodes=3))
    assert len(open_or_build(LeRobotFolder(config().out), out).lengths) == 3
    assert open_or_build(LeRobotFolder(config().out, image_size=32), out).schema.height == 32


@pytest.mark.slow
def test_a_store_that_a_training_began_with_is_not_replaced_when_the_dataset_grows(config, tmp_path):
    record(config(episodes=2))
    data = DataConfig(root=str(config().out))
    first = open_store(data, tmp_path)
    assert open_store(data, tmp_path, needed=True).fingerprint == first.fingerprint
    record(config(episodes=3))
    with pytest.raises(ValueError, match=r"data=zarr data\.root=.*windows\.zarr.*another out="):
        open_store(data, tmp_path, needed=True)
    kept = replace(data, kind="zarr", root=str(tmp_path / "windows.zarr"))
    assert open_store(kept, tmp_path, needed=True).fingerprint == first.fingerprint


def test_a_patch_that_does_not_fit_is_refused_before_anything_is_decoded(recorded, tmp_path):
    data = DataConfig(root=str(recorded))
    complaint = r"patch=12 does not divide the frame 64×72. Patches that do: 4, 8\."
    with pytest.raises(ValueError, match=complaint):
        open_store(data, tmp_path, patch=12)
    assert not (tmp_path / "windows.zarr").exists()
    assert open_store(data, tmp_path, patch=8).schema.width == 72
    resized = open_store(replace(data, image_size=60), tmp_path, patch=12).schema
    assert (resized.height, resized.width) == (60, 72)  # 67.5, to a multiple of the patch


@pytest.mark.parametrize("size", [(64, 72), (32, 36), (48, 56)])
def test_a_recording_comes_in_the_size_of_the_world_that_reads_it(recorded, tmp_path, size):
    """It was trained with images that had been resized: on the recording itself it was refused."""
    natural = open_store(DataConfig(root=str(recorded)), tmp_path).schema
    world = replace(natural, height=size[0], width=size[1])
    schema = open_store(DataConfig(root=str(recorded)), tmp_path / "its", world=world).schema
    assert (schema.height, schema.width) == size
    asked = open_store(DataConfig(root=str(recorded), image_size=16), tmp_path / "asked", world=world).schema
    assert asked.height == 16
    square = replace(natural, height=48, width=48)  # of another shape: it is not squeezed, but refused
    assert open_store(DataConfig(root=str(recorded)), tmp_path, world=square).schema == natural

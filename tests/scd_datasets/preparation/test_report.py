"""The report before training: what is missing or odd, where, and what is done about it."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scd_datasets.config import CheckConfig, DataConfig, OnBadEpisode, SourceConfig
from scd_datasets.preparation.build import run_check
from scd_datasets.preparation.check import check_dataset
from scd_datasets.preparation.open_store import open_or_build, open_store
from scd_datasets.sources.images import ImageGrid, resize
from scd_datasets.sources.lerobot.reader import LeRobotFolder, download
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import DamagedEpisode
from scd_world.rollouts.record import record

from ..by_hand import write_dataset
from .test_check import rewrite, second_file


def rewrite_info(root, change):
    file = root / "meta" / "info.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def report_of(root, **options) -> str:
    return check_dataset(LeRobotFolder(root, **options), skip_bad=True).table()


def damage_all(recorded):
    for file in sorted((recorded / "data").rglob("*.parquet")):
        rewrite(file, lambda columns: columns["action"].__setitem__(0, [float("nan")] * 2))
        if file == second_file(recorded):
            rewrite(file, lambda columns: columns["action"].__setitem__(7, [float("nan")] * 2))


def test_what_was_not_recorded_is_reported_with_what_follows(recorded):
    def forget(info):
        for key in ("next.reward", "next.success", "observation.state"):
            del info["features"][key]

    assert "no reward is learned" not in report_of(recorded)
    rewrite_info(recorded, forget)
    table = report_of(recorded)
    for finding in ("next.reward: not recorded → no reward is learned", "next.success: not recorded",
                 "observation.state: not recorded"):  # fmt: skip
        assert finding in table
    assert "2 of the environment's; not recorded, so not learned: the robot's state, a reward, su" in table


@pytest.mark.parametrize(
    ("fps", "stride", "advice"),
    [
        (20, 1, None),
        (25, 1, "data.stride=2 makes steps of 2 frames, 12.5 a second"),
        (30, 1, "data.stride=3 makes steps of 3 frames, 10 a second"),
        (50, 1, "data.stride=5 makes steps of 5 frames, 10 a second"),
        (50, 2, "data.stride=5 makes steps of 5 frames, 10 a second"),  # a stride is counted as recorded
        (50, 5, None),
    ],
)
def test_a_fast_recording_is_told_which_stride_makes_longer_steps(tmp_path, fps, stride, advice):
    root = write_dataset(tmp_path / "d", fps=fps)
    report = check_dataset(open_source(SourceConfig(root=str(root), stride=stride)))
    told = [finding for finding in report.findings if "makes steps of" in finding.done]
    assert len(told) == (advice is not None)
    assert all(advice in finding.done and not finding.notable for finding in told)


def test_dropped_frames_are_counted(recorded, monkeypatch):
    def found(state, action, starts, lengths):
        assert len(state) == len(action) == lengths.sum()
        return np.isin(np.arange(len(state)), [starts[0] + 1, starts[0] + 4, starts[-1]])

    assert "the recorder dropped" not in report_of(recorded)
    monkeypatch.setattr("scd_datasets.preparation.report.find_dropped_frames", found)
    table = report_of(recorded)
    assert "2 episodes: 3 of " in table
    assert (
        "steps lead twice as far as their command says: the recorder dropped a frame → kept; nothing" in table
    )


def test_odd_columns_are_named(recorded):
    def change(columns):
        columns["next.done"][2] = True
        columns["action"][:] = [[a, 0.25] for a, _ in columns["action"]]
        columns["next.reward"][:] = [0.0] * len(columns["next.reward"])

    for file in (recorded / "data").rglob("*.parquet"):
        rewrite(file, change)
    table = report_of(recorded)
    assert "action: 1 of 2 never move: action_1 → kept" in table
    assert "next.reward: never changes" in table
    assert "next.success: every episode succeeds" in table
    assert "episode 1, data/chunk-000/file-001.parquet: next.done is set at frame 2 of 7" in table


def test_a_check_alone_lists_all_damage_and_then_fails(recorded, capsys):
    rewrite(second_file(recorded), lambda c: [c["action"].__setitem__(i, [0.0, np.nan]) for i in (1, 9)])
    config = CheckConfig(data=SourceConfig(root=str(recorded)), build=False)
    with pytest.raises(
        DamagedEpisode, match=r"episode 1 .*; damaged as well: episode 2\. .*skip_damaged=true"
    ):
        run_check(config)
    printed = capsys.readouterr().out
    for episode in (1, 2):
        assert f"episode {episode}, data/chunk-000/file-001.parquet: action action_1 is nan" in printed
    assert "→ stops here; on_bad_episode=skip" in printed


@pytest.mark.parametrize("build", [False, True])
def test_where_all_episodes_are_damaged_the_error_lists_them(recorded, tmp_path, build):
    damage_all(recorded)
    data, skip = SourceConfig(root=str(recorded)), OnBadEpisode.skip
    config = CheckConfig(data=data, build=build, on_bad_episode=skip, out=str(tmp_path / "s.zarr"))
    with pytest.raises(ValueError, match=r"(?s)all 3 episodes are damaged.*episode 0 .*episode 2 "):
        run_check(config)
    assert not (tmp_path / "s.zarr" / "zarr.json").exists()


def test_where_no_image_decodes_the_error_lists_them(config, tmp_path):
    record(config(store_as_video=True, episodes=2))
    for video in (tmp_path / "counting" / "videos").rglob("*.mp4"):
        video.write_bytes(b"")
    for out in (None, tmp_path / "s.zarr"):
        with pytest.raises(ValueError, match="all 2 episodes are damaged"):
            check_dataset(LeRobotFolder(tmp_path / "counting"), out, skip_bad=True)


def test_leaving_damage_out_is_another_store(recorded, tmp_path):
    """A store without the damaged episode must not serve a training that is to stop at it."""
    rewrite(second_file(recorded), lambda c: c["action"].__setitem__(9, [0.0, np.nan]))
    folder = LeRobotFolder(recorded)
    assert len(open_or_build(folder, tmp_path / "s.zarr", skip_bad=True).lengths) == 2
    assert "episode 2" in (tmp_path / "s.zarr" / "report" / "report.txt").read_text()
    with pytest.raises(DamagedEpisode, match="episode 2"):
        open_or_build(folder, tmp_path / "s.zarr", skip_bad=False)


def test_a_frame_rate_that_is_not_the_datasets_is_refused(recorded):
    assert open_source(SourceConfig(root=str(recorded), fps=10)).fps == 10
    with pytest.raises(ValueError, match=r"recorded at 10 fps, data.fps=20: leave data.fps out"):
        open_source(SourceConfig(root=str(recorded), fps=20))


def test_a_window_store_is_read_as_it_was_built(recorded, tmp_path):
    check_dataset(LeRobotFolder(recorded), tmp_path / "s.zarr")
    data = DataConfig(kind="zarr", root=str(tmp_path / "s.zarr"))
    assert len(open_store(data, tmp_path).lengths) == 3
    with pytest.raises(ValueError, match=r"data.image_size, data.resize: .* read as it was built"):
        open_store(replace(data, resize="letterbox", image_size=32), tmp_path)


def test_videos_say_who_decodes_them(config, tmp_path):
    record(config(store_as_video=True, episodes=1))
    assert "decoded by PyAV" in report_of(tmp_path / "counting", decoder="pyav")


def test_cameras_of_two_sizes_come_in_one_as_asked(recorded):
    """The wrist's images are made 32 × 72: twice as wide, in proportion, as the grid."""

    def flatten(columns):
        columns["observation.images.wrist"][:] = [
            {"bytes": png(np.full((32, 72, 3), 200, np.uint8)), "path": None} for _ in columns["action"]
        ]

    for file in (recorded / "data").rglob("*.parquet"):
        rewrite(file, flatten)
    rewrite_info(recorded, lambda i: i["features"]["observation.images.wrist"].update(shape=[32, 72, 3]))
    for letterbox in (False, True):
        folder = LeRobotFolder(recorded, image_size=32, letterbox=letterbox)
        schema = check_dataset(folder).schema
        assert (schema.recorded, schema.resize) == (((64, 72), (32, 72)), folder.grid.resize)
        pixels = folder.pixels(folder.episodes[0])
        for at, camera in enumerate(("top", "wrist")):
            top, left, height, width = schema.views[camera]
            inside = np.zeros(pixels.shape[2:4], bool)
            inside[top : top + height, left : left + width] = True
            assert inside.all() == (height == schema.height and width == schema.width)
            assert not pixels[:, at, ~inside].any()
        wrist = schema.views["wrist"]
        assert (pixels[:, 1, wrist.top : wrist.top + wrist.height] == 200).all()
    assert abs(wrist.width / wrist.height - 72 / 32) < 0.1
    assert "letterboxed" in report_of(recorded, image_size=32, letterbox=True)
    assert "data.resize=letterbox keeps proportions" in report_of(recorded, image_size=32)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize(
    ("recorded_size", "view"),
    [((480, 640), (12, 0, 72, 96)), ((640, 480), (0, 12, 96, 72)), ((96, 96), (0, 0, 96, 96))],
)
def test_a_letterbox_keeps_proportions_in_the_middle(recorded_size, view):
    assert ImageGrid(96, 96, letterbox=True).views({"top": recorded_size})["top"] == view
    assert ImageGrid(96, 96).views({"top": recorded_size})["top"] == (0, 0, 96, 96)


def test_small_images_are_averages_of_large_ones():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::2] = 200
    assert np.abs(resize(Image.fromarray(stripes), (16, 16)).astype(int)[2:-2] - 100).max() <= 2


def test_a_hub_id_without_network_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"no dataset 'a/b': none is cached here, .* data.root=<folder>"
    ):
        download("a/b")

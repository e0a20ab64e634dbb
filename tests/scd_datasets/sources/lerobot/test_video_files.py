"""What is wrong with a dataset's files is said before anything is decoded, and all of it at once."""

import re
import shutil
import struct
import zlib
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from scd_datasets.preparation import check
from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot import reader, video_files
from scd_datasets.sources.lerobot.reader import LeRobotFolder
from scd_datasets.sources.source import DamagedEpisode

from ...by_hand import LENGTH, SIZE, TOP, picture, write_dataset, write_video

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
LARGE = [np.zeros((64, 64, 3), np.uint8)] * LENGTH
NINE = [picture(0, i) for i in range(9)]
WRIST = "observation.images.wrist"


def video(root, episode):
    return root / f"videos/chunk-000/{TOP}/episode_{episode:06d}.mp4"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda file: file.unlink(), "there is no such file"),
        (lambda file: file.write_text(POINTER), "is a Git LFS pointer.*git lfs pull"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: file.write_text("a film"), "cannot be opened as a video"),
        (
            lambda file: write_video(file, NINE),
            f"has 9 of the episode's {LENGTH}",
        ),
    ],
)
def test_all_bad_videos_are_named_before_one_is_decoded(tmp_path, monkeypatch, damage, what):
    root = write_dataset(tmp_path / "d", "v2.1", episodes=5, video=True)
    for episode in (1, 3):
        damage(video(root, episode))
    monkeypatch.setattr(LeRobotFolder, "pixels", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DamagedEpisode, match=rf"(?s)episode 1 .*{what}.*; the same of 1 more: episode 3"):
        check_dataset(LeRobotFolder(root), tmp_path / "s.zarr")


def test_what_may_be_skipped_is_skipped(tmp_path):
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    video(root, 1).write_text(POINTER)
    report = check_dataset(LeRobotFolder(root), skip_bad=True)
    assert [one.episode.index for one in report.good] == [0, 2]
    assert report.verdict.startswith("ready, with")


def test_numbers_that_are_a_pointer_are_called_one(tmp_path):
    root = write_dataset(tmp_path / "d", "v2.1")
    (root / "data/chunk-000/episode_000002.parquet").write_text(POINTER)
    with pytest.raises(DamagedEpisode, match=r"episode 2 .*Git LFS pointer"):
        check_dataset(LeRobotFolder(root))


def test_a_camera_that_is_listed_and_was_never_recorded_is_left_out(tmp_path):
    listed = {WRIST: {"dtype": "video", "shape": [*SIZE, 3]}}
    root = write_dataset(tmp_path / "d", "v2.0", video=True, features=listed)
    report = check_dataset(LeRobotFolder(root))
    assert report.schema.cameras == ("top",)
    assert f"camera {WRIST}: is listed, and its videos' folder is not there → left out" in report.table()
    with pytest.raises(ValueError, match="no camera called wrist; the dataset has top"):
        LeRobotFolder(root, cameras=["wrist"])


@pytest.mark.parametrize("key", ["observation.images.depth", "observation.depth"])
def test_depth_without_a_flag_is_no_camera(tmp_path, key):
    """16-bit PNG, as recorders wrote them: taken for a colour camera it would be white everywhere."""

    def depth(episode, frame):
        return np.full(SIZE, 800 + 10 * frame, np.uint16)

    root = write_dataset(tmp_path / "d", cameras={TOP: picture, key: depth})
    report = check_dataset(LeRobotFolder(root))
    assert report.schema.cameras == ("top",)
    assert "holds no 8-bit colours (I;16): depth? → left out" in report.table()


@pytest.mark.parametrize(
    "draw",
    [
        lambda e, i: picture(e, i)[..., 0],
        lambda e, i: np.concatenate([picture(e, i), np.full((*SIZE, 1), 255, np.uint8)], axis=-1),
    ],
)
def test_gray_and_rgba_are_colours(tmp_path, draw):
    folder = LeRobotFolder(write_dataset(tmp_path / "d", cameras={TOP: draw}))
    assert folder.pixels(folder.episodes[1])[3, 0, 20, 20].tolist() == [64, 64, 64]


def test_images_of_another_size_than_info_says_are_read_as_they_are(tmp_path):
    features = {TOP: {"dtype": "image", "shape": [64, 96, 3]}}
    folder = LeRobotFolder(write_dataset(tmp_path / "d", features=features))
    assert folder.sizes == {"top": SIZE}
    assert any("its images have 32 × 48 pixels, info.json says 64 × 96" in f.what for f in folder.findings())


def test_images_of_several_sizes_in_one_camera_are_damage(tmp_path):
    def draw(episode, frame):
        return picture(episode, frame) if (episode, frame) != (1, 5) else np.zeros((16, 16, 3), np.uint8)

    with pytest.raises(DamagedEpisode, match=r"frame 5 .*it has 16 × 16 pixels, the others 32 × 48"):
        check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", cameras={TOP: draw})))


def test_a_small_file_that_asks_for_gigabytes_can_be_skipped(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

    def lay(columns):
        if columns["episode_index"][0] == 1:
            columns[TOP][0] = {"bytes": bomb, "path": None}

    report = check_dataset(LeRobotFolder(write_dataset(tmp_path / "d", columns=lay)), skip_bad=True)
    assert [damage.episode for damage in report.bad] == [1]
    assert "pixels" in report.bad[0].what


def span(root, **changes):
    """Changes where episode 1 is said to lie in its video."""

    def change(rows):
        rows[1].update({f"videos/{TOP}/{name}": value for name, value in changes.items()})

    return write_dataset(root, video=True, rows=change)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"from_timestamp": 0.03}, r"1 of 3 episodes: each begins beside a frame, by 0\.3 of one at most"),
        ({"to_timestamp": 2.4}, r"is listed with another length in the video, by 4 frames at most"),
    ],
)
def test_videos_that_are_cut_by_another_clock_are_reported(tmp_path, changes, what):
    found = LeRobotFolder(span(tmp_path / "d", **changes)).findings()
    assert any(re.search(what, f.what) and "episode 1" in f.where for f in found)


def test_episodes_that_share_a_frame_are_reported_and_read(tmp_path):
    """A split that was one frame off: read in order, the second began one frame late."""

    def share(rows):
        for row, start in zip(rows, (0.0, (LENGTH - 1) / 10), strict=True):
            row.update({f"videos/{TOP}/file_index": 0, f"videos/{TOP}/from_timestamp": start})
            row.update({f"videos/{TOP}/to_timestamp": start + LENGTH / 10})

    root = write_dataset(tmp_path / "d", episodes=2, video=True, rows=share)
    write_video(root / f"videos/{TOP}/chunk-000/file-000.mp4", [picture(0, i) for i in range(2 * LENGTH)])
    folder = LeRobotFolder(root, decoder="pyav")
    first, second = (folder.pixels(episode) for episode in folder.episodes)
    assert np.array_equal(first[-1], second[0])
    assert np.array_equal(second, LeRobotFolder(root, decoder="pyav").pixels(folder.episodes[1]))
    assert any("shares frames with the one before it" in finding.what for finding in folder.findings())


def in_one_file(root, frames, rate, fps=10, columns=lambda columns: None):
    """A v3.0 dataset whose episodes lie in one video of `rate` frames a second, one after another: frames,
    the numbers of an episode's pictures."""

    def place(rows):
        for episode, row in enumerate(rows):
            start, end = (len(frames) * (episode + i) / rate for i in (0, 1))
            row.update({f"videos/{TOP}/{name}": 0 for name in ("chunk_index", "file_index")})
            row.update({f"videos/{TOP}/from_timestamp": start, f"videos/{TOP}/to_timestamp": end})

    write_dataset(root, episodes=3, fps=fps, video=True, rows=place, columns=columns)
    pictures = [picture(episode, i) for episode in range(3) for i in frames]
    write_video(root / f"videos/{TOP}/chunk-000/file-000.mp4", pictures, fps=rate)
    return root


def shown(folder):
    """The numbers of all pictures, by episode; each is of its own episode."""
    numbers = []
    for episode in folder.episodes:
        pixels = folder.pixels(episode)[:, 0]
        corner = pixels[:, 4, 8 * episode.index + 4]
        assert (corner < 30).all(), "of another episode"
        numbers.append(np.round((pixels[:, 20, 20, 0].astype(float) - 40) / 8).astype(int).tolist())
    return numbers


ROWS = list(range(LENGTH))


@pytest.mark.parametrize("rate", [10, 20, 30])
def test_frames_that_are_the_rows_are_taken_one_by_one_whatever_rate_their_file_says(tmp_path, rate):
    """An episode began with the last frame of the one before it, in a file of twice the rows' rate."""
    root = in_one_file(tmp_path / "d", ROWS, rate)
    assert shown(LeRobotFolder(root, in_order=True)) == [ROWS] * 3
    if rate != 10:
        with pytest.raises(DamagedEpisode, match=r"as many as rows: data\.clock=index takes them one by one"):
            check_dataset(LeRobotFolder(root))


@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("times", [2, 3])
def test_a_camera_that_is_faster_than_the_rows_shows_each_at_its_time(tmp_path, times, in_order):
    """As LeRobot reads it; taken one by one, frames told of another moment than their rows."""
    root = in_one_file(tmp_path / "d", np.repeat(ROWS, times), 10 * times)
    folder = LeRobotFolder(root, in_order=in_order)
    report = check_dataset(folder)
    assert shown(folder) == [ROWS] * 3
    assert (
        f"run at {10 * times} frames per second, the dataset at 10 → frames are found by their times\n"
        in (report.table() + "\n")
    )


def test_rows_that_begin_later_in_the_video_are_shown_what_was_there_then(tmp_path):
    """Trimmed recordings, as LeRobot reads them."""

    def later(columns):
        columns["timestamp"] = [np.float32(t + 0.7) for t in columns["timestamp"]]

    frames = list(range(LENGTH + 10))
    folder = LeRobotFolder(in_one_file(tmp_path / "d", frames, 10, columns=later))
    assert shown(folder) == [[(i + 7) % 24 for i in ROWS]] * 3
    assert np.array_equal(folder.pixels(folder.episodes[1], 3), folder.pixels(folder.episodes[1])[::3])


def test_a_clock_that_began_before_the_camera_and_the_rows_shifts_neither(tmp_path):
    def later(columns):
        columns["timestamp"] = [np.float32(t + 4.0) for t in columns["timestamp"]]

    assert shown(LeRobotFolder(in_one_file(tmp_path / "d", ROWS, 10, columns=later))) == [ROWS] * 3


def test_a_rate_that_is_a_little_off_makes_no_episode_too_short(tmp_path):
    """By the dataset's rate, the last episode of many seemed to end outside the file."""
    root = in_one_file(tmp_path / "d", ROWS, 9.5)
    folder = LeRobotFolder(root)
    for episode in folder.episodes:
        folder.check_files(episode)
    in_order = LeRobotFolder(root, in_order=True)
    check_dataset(in_order)
    assert shown(in_order) == [ROWS] * 3


def test_videos_of_another_rate_are_reported(tmp_path):
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    for episode in range(3):
        write_video(video(root, episode), [picture(episode, i) for i in range(LENGTH)], fps=20)
    assert any("run at 20 frames per second" in f.what for f in LeRobotFolder(root).findings())
    in_order = LeRobotFolder(root, in_order=True)
    assert in_order.pixels(in_order.episodes[0])[:, 0, 20, 20, 0].tolist() == pytest.approx(
        [40 + 8 * i for i in range(LENGTH)], abs=3
    )


def test_the_check_looks_at_files_of_numbers_too(tmp_path):
    root = write_dataset(tmp_path / "d")
    table = pq.read_table(root / "data/chunk-000/file-001.parquet")
    assert table.num_rows == LENGTH
    (root / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(DamagedEpisode, match=r"episode 1 .*there is no such file"):
        check.valid_episodes(LeRobotFolder(root), skip_bad=False, files=True)


def test_the_first_video_that_opens_tells_the_size(tmp_path):
    features = {TOP: {"dtype": "video", "shape": [64, 96, 3]}}
    root = write_dataset(tmp_path / "d", "v2.1", video=True, features=features)
    video(root, 0).write_text(POINTER)
    assert LeRobotFolder(root).sizes == {"top": SIZE}


def test_a_video_that_is_longer_than_its_rows_is_reported(tmp_path):
    """The usual way to lose step with a real clock."""
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    write_video(video(root, 1), [picture(1, i) for i in range(LENGTH + 13)])
    table = check_dataset(LeRobotFolder(root, in_order=True)).table()
    assert "1 of 3 episodes: each has more frames in the video than rows, by 13 at most" in table


def test_where_no_camera_is_left_the_reasons_are_said(tmp_path):
    root = write_dataset(tmp_path / "d", "v2.1", video=True)
    shutil.rmtree(root / "videos")
    with pytest.raises(
        ValueError, match=rf"no camera that can be read \(camera {TOP}: is listed, and its videos"
    ):
        check_dataset(LeRobotFolder(root))


def test_where_no_header_says_how_many_frames_there_are_a_clock_may_have_begun_earlier(tmp_path, monkeypatch):
    """Fragmented files: what was ready to train was damaged all of a sudden."""

    def later(columns):
        columns["timestamp"] = [np.float32(t + 4.0) for t in columns["timestamp"]]

    root = write_dataset(tmp_path / "d", "v2.1", video=True, columns=later)
    facts = video_files.video_facts
    monkeypatch.setattr(reader, "video_facts", lambda file: replace(facts(file), frames=0))
    folder = LeRobotFolder(root)
    assert shown(folder) == [ROWS] * 3
    assert check_dataset(folder).bad == []

"""Datasets of every version open as they are; what cannot be understood is named by file and field."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import RevisionNotFoundError

from scd_datasets.preparation.check import check_dataset
from scd_datasets.sources.lerobot.metadata import MetadataError, read_metadata
from scd_datasets.sources.lerobot.reader import LeRobotFolder, download

from ...by_hand import LENGTH, TOP, picture, png, write_dataset

EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.mark.parametrize("video", [False, True])
def test_every_version_gives_the_same_episodes(tmp_path, video):
    """v2.x keeps a file per episode and no place of it; most datasets that exist are such."""
    stores = []
    for version in ("v2.0", "v2.1", "v3.0"):
        root = write_dataset(tmp_path / version, version, video=video)
        folder = LeRobotFolder(root, decoder="pyav")
        assert (folder.metadata.version, folder.cameras, folder.fps) == (version, {"top": TOP}, 10)
        stores.append(check_dataset(folder, tmp_path / f"{version}.zarr").store)
    assert len({store.fingerprint for store in stores}) == 1
    assert stores[0].lengths.tolist() == [LENGTH] * 3
    assert stores[0].schema.tasks == ("reach",)


def test_a_file_of_many_episodes_and_a_second_chunk(tmp_path):
    """Episode 1 comes to lie in chunk 1; chunks_size says how many a folder holds."""
    root = write_dataset(tmp_path / "d", "v2.1", episodes=2, info={"chunks_size": 1})
    file = root / "data/chunk-001/episode_000001.parquet"
    file.parent.mkdir()
    (root / "data/chunk-000/episode_000001.parquet").rename(file)
    folder = LeRobotFolder(root)
    assert [episode.file for episode in folder.episodes][1] == "data/chunk-001/episode_000001.parquet"
    assert len(folder.low_dim(folder.episodes[1])["action"]) == LENGTH


def test_files_that_lie_where_lerobot_puts_them_though_info_says_otherwise(tmp_path):
    """As NVIDIA's published GR1 set: data_path counts chunks by episode."""
    path = "data/chunk-{episode_index:03d}/episode_{episode_index:06d}.parquet"
    root = write_dataset(tmp_path / "d", "v2.0", info={"data_path": path})
    folder = LeRobotFolder(root)
    assert check_dataset(folder).verdict.startswith("ready")
    assert any("files that are not there" in finding.what for finding in folder.findings())


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_fractional_rate_is_kept(tmp_path, version):
    root = write_dataset(tmp_path / "d", version, fps=29.97, video=True)
    store = check_dataset(LeRobotFolder(root), tmp_path / "s.zarr").store
    assert store.schema.fps == 29.97
    assert store.lengths.tolist() == [LENGTH] * 3


def test_a_rate_that_is_whole_is_written_so(tmp_path):
    assert json.dumps(read_metadata(write_dataset(tmp_path / "d", fps=10.0)).fps) == "10"


@pytest.mark.parametrize(
    ("info", "what"),
    [
        ({"fps": 0}, "fps is 0, expected a number of frames per second above 0"),
        ({"fps": "20"}, "fps is '20', expected"),
        ({"fps": None}, "fps is None, expected"),
        ({"fps": True}, "fps is True, expected"),
        ({"fps": 10**400}, "fps is 1000+…, expected .* at most 10,000"),
        ({"fps": float("nan")}, "fps is nan, expected"),
        ({"fps": float("inf")}, "fps is inf, expected"),
        ({"features": None}, "features is None, expected"),
        ({"features": {"action": [2]}}, r"feature action is \[2\], expected"),
        ({"features": {"action": {"dtype": "float32", "shape": [0]}}}, r"action has shape \[0\], expected"),
        ({"features": {TOP: {"dtype": "image", "shape": [4, 4]}}}, r"camera .*top has shape \[4, 4\]"),
        ({"chunks_size": 0}, "chunks_size is 0, expected 1 or more"),
        ({"data_path": 3}, "data_path is 3, expected a path"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path, info, what):
    with pytest.raises(MetadataError, match=rf"info.json: .*{what}"):
        LeRobotFolder(write_dataset(tmp_path / "d", episodes=1, info=info))


@pytest.mark.parametrize(
    ("version", "what"),
    [
        ("v4.0", r"version 'v4.0', which is newer than what this version reads \(v3.0, v2.1, v2.0\): update"),
        ("v20.1", "is newer than"),
        ("v1.6", "v2.0 are read. Bring a copy of it to v2.0"),
        ("2.1", "Bring a copy"),
        (None, "version None, and"),
        ("v" + "9" * 9999, "is newer than"),
    ],
)
def test_another_version_says_who_has_to_change(tmp_path, version, what):
    root = write_dataset(tmp_path / "d", episodes=1, info={"codebase_version": version})
    with pytest.raises(ValueError, match=what):
        LeRobotFolder(root)


@pytest.mark.parametrize("shape", [[10**9], [2**40, 2**40], [65_537]])
def test_a_row_that_no_robot_has_is_named_where_it_is_read(tmp_path, shape):
    large = {"dtype": "float32", "shape": shape}
    root = write_dataset(tmp_path / "d", episodes=1, features={"points": large})
    folder = LeRobotFolder(root)
    assert any("also recorded: points" in finding.what for finding in folder.findings())
    what = "feature points has shape .*, expected at most 65,536 values in a row of observation.environment_"
    with pytest.raises(MetadataError, match=what):
        LeRobotFolder(root, keys={"points": "observation.environment_state"})


@pytest.mark.parametrize("text", ["[]", "{", "3", "[" * 100_000])
def test_an_info_that_is_no_object_is_named(tmp_path, text):
    root = write_dataset(tmp_path / "d", episodes=1)
    (root / "meta" / "info.json").write_text(text)
    with pytest.raises(MetadataError, match=r"info\.json: (is not JSON|holds a)"):
        LeRobotFolder(root)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda row: row.pop("length"), "has no column length, only data/chunk_index"),
        (lambda row: row.update(length=12.5), "row 0: length is 12.5, expected a whole number"),
        (lambda row: row.update(length=None), "row 0: length is None, expected a whole number"),
        (lambda row: row.update(length=0), "episode 0 has length 0"),
        (lambda row: row.pop("data/file_index"), "has no column data/file_index"),
        (lambda row: row.update(tasks=[3]), r"row 0: tasks is \[3\], expected a list of texts"),
    ],
)
def test_a_row_of_the_episodes_that_cannot_be_is_named(tmp_path, change, what):
    root = write_dataset(tmp_path / "d", episodes=1, rows=lambda rows: [change(row) for row in rows])
    with pytest.raises(MetadataError, match=what):
        LeRobotFolder(root)


def test_a_length_that_is_written_as_a_float_is_whole(tmp_path):
    root = write_dataset(tmp_path / "d", rows=lambda rows: [row.update(length=float(LENGTH)) for row in rows])
    assert [episode.length for episode in LeRobotFolder(root).episodes] == [LENGTH] * 3


def test_an_episode_that_is_listed_twice_is_read_once(tmp_path):
    """One would be trained on, and its twin held out."""
    root = write_dataset(tmp_path / "d", rows=lambda rows: rows.append(dict(rows[1])))
    report = check_dataset(LeRobotFolder(root))
    assert [one.episode.index for one in report.good] == [0, 1, 2]
    assert "listed more than once: episode 1 → each is read once" in report.table()
    other = write_dataset(tmp_path / "o", rows=lambda rows: rows.append({**rows[1], "length": 3}))
    with pytest.raises(MetadataError, match=f"episode 1 is listed twice, with {LENGTH} and with 3 steps"):
        LeRobotFolder(other)


def test_numbers_however_deep_they_lie(tmp_path):
    """Lists in lists, as `datasets` writes arrays of two dimensions."""
    root = write_dataset(
        tmp_path / "d",
        columns=lambda c: c.update(action=[[[a], [b]] for a, b in c["action"]]),
        features={"action": {"dtype": "float32", "shape": [2, 1]}},
    )
    folder = LeRobotFolder(root)
    assert folder.low_dim(folder.episodes[0])["action"].shape == (LENGTH, 2)
    assert check_dataset(folder).schema.action == ("action_0", "action_1")


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (["a"] * LENGTH, "action: it holds string, expected numbers"),
        ([[0.0, 1.0]] * (LENGTH - 1) + [[0.0]], "action: its rows have different lengths"),
        ([[0.0, None]] * LENGTH, "action: some of its values are missing"),
    ],
)
def test_a_column_that_holds_no_numbers_is_named(tmp_path, column, what):
    root = write_dataset(tmp_path / "d", columns=lambda columns: columns.update(action=column))
    with pytest.raises(ValueError, match=f"cannot be read: {what}"):
        check_dataset(LeRobotFolder(root))


def test_a_column_that_is_not_there_is_named(tmp_path):
    root = write_dataset(tmp_path / "d", columns=lambda columns: columns.pop("observation.state"))
    with pytest.raises(ValueError, match=r"has no column observation\.state"):
        check_dataset(LeRobotFolder(root))


def test_a_file_of_one_episode_need_not_say_whose_it_is(tmp_path):
    """GR00T's layout has no frame_index; some have no episode_index."""
    gone = {"frame_index": None, "episode_index": None}
    root = write_dataset(
        tmp_path / "d", "v2.0", columns=lambda c: [c.pop(key) for key in gone], features=dict(gone)
    )
    assert check_dataset(LeRobotFolder(root)).schema.horizon == LENGTH


@pytest.mark.parametrize(("there", "expected"), [("v3.0", "v3.0"), ("v2.1", "v2.1"), ("main", "main")])
def test_a_hub_is_asked_for_the_newest_version_that_it_has(monkeypatch, there, expected):
    asked = []

    def snapshot(repo, repo_type, revision):
        asked.append(revision)
        if revision != there:
            raise RevisionNotFoundError(revision, response=_Response())
        return f"/somewhere/{revision}"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert download("user/name") == Path(f"/somewhere/{expected}")
    asked.clear()
    with pytest.raises(FileNotFoundError, match="has no revision v9"):
        download("user/name", "v9")
    assert asked == ["v9"]


class _Response:
    headers: dict[str, str] = {}  # noqa: RUF012
    request = None
    status_code = 404


def test_several_threads_read_what_one_reads(tmp_path):
    root = write_dataset(tmp_path / "d", "v2.1", episodes=4, video=True)
    folder = LeRobotFolder(root)
    alone = [folder.pixels(episode) for episode in folder.episodes]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(folder.pixels, folder.episodes * 3))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 3, together, strict=True))


def test_an_image_that_is_not_stored_is_named(tmp_path):
    def drop(columns):
        columns[TOP][7] = None

    root = write_dataset(tmp_path / "d", columns=drop)
    with pytest.raises(ValueError, match=rf"frame 7 of {TOP} cannot be decoded: no image is stored"):
        check_dataset(LeRobotFolder(root))


def test_bytes_that_are_no_picture_are_named(tmp_path):
    def spoil(columns):
        columns[TOP][7] = {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0", "path": None}

    root = write_dataset(tmp_path / "d", episodes=1, columns=spoil)
    what = rf"frame 7 of {TOP} cannot be decoded: it is no picture in a known format \(PNG, JPEG, "
    with pytest.raises(ValueError, match=what):
        check_dataset(LeRobotFolder(root))


def test_images_may_lie_beside_the_table_and_nowhere_else(tmp_path):
    def beside(columns):
        columns[TOP] = [{"bytes": None, "path": f"images/{i}.png"} for i in range(LENGTH)]

    root = write_dataset(tmp_path / "d", episodes=1, columns=beside)
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert pa.types.is_struct(table.schema.field(TOP).type)
    (root / "images").mkdir()
    for i in range(LENGTH):
        (root / "images" / f"{i}.png").write_bytes(png(picture(0, i)))
    folder = LeRobotFolder(root)
    assert (folder.pixels(folder.episodes[0])[:, 0, 20, 20, 0] == [40 + 8 * i for i in range(LENGTH)]).all()

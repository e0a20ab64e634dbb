"""A LeRobotDataset v3 on disk, read episode by episode from its files; damage is named by file and episode.

LeRobot's own reader opens all files or none and decodes frame by frame. Reading the parquet and video files
directly is several times faster, needs no ten-second import, and knows which episode it could not read.

L steps of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from scd_datasets.lerobot_features import (
    ACTION,
    ENVIRONMENT_STATE,
    REWARD,
    STATE,
    SUCCESS,
    camera_keys,
    common_size,
    number_names,
    picture_size,
)

VERSION = "v3.0"


class DamagedEpisode(ValueError):
    """One episode that cannot be learned from; the message names file and episode."""

    def __init__(self, episode: int, file: str, what: str) -> None:
        super().__init__(f"episode {episode} ({file}): {what}")
        self.episode, self.file, self.what = episode, file, what


@dataclass(frozen=True)
class VideoSpan:
    file: str
    start: float  # seconds in the file


@dataclass(frozen=True)
class Episode:
    """Where one episode lies."""

    index: int
    length: int
    tasks: tuple[str, ...]
    file: str  # of its numbers, relative to the dataset
    videos: dict[str, VideoSpan]


class LeRobotFolder:
    """The episodes of the dataset in folder `root`.

    cameras: short names of those to read (`top` for `observation.images.top`), all by default.
    image_size: the shorter side of the pictures in px; by default as recorded. Cameras of different sizes
    come in the smallest one's size.
    """

    def __init__(self, root: str | Path, cameras: Sequence[str] = (), image_size: int | None = None) -> None:
        self.root = Path(root)
        self.info = _read_info(self.root)
        self.fps = int(self.info["fps"])
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.cameras = camera_keys(self.features, cameras)  # short name → key
        self.size = common_size(
            [picture_size(self.features[key]) for key in self.cameras.values()], image_size
        )
        if ACTION not in self.features:
            raise ValueError(
                f"{self.root} records no {ACTION!r}: {sorted(self.features)}; nothing to learn from"
            )
        self.episodes = self._read_episodes()
        self._file = lru_cache(maxsize=1)(self._read_file)
        self._row_group = lru_cache(maxsize=2)(self._read_row_group)

    @property
    def number_keys(self) -> list[str]:
        """Columns of numbers that are read; the ones that a dataset may lack only where it has them."""
        wanted = (STATE, ENVIRONMENT_STATE, ACTION, REWARD, SUCCESS)
        return [key for key in wanted if key in self.features] + ["timestamp", "frame_index", "episode_index"]

    def names(self, key: str) -> tuple[str, ...]:
        """A name for each number of feature `key`; () where it is not recorded."""
        return number_names(key, self.features[key]) if key in self.features else ()

    def numbers(self, episode: Episode) -> dict[str, np.ndarray]:
        """{key: (L, …)} of `number_keys`, as recorded."""
        try:
            columns = self._file(episode.file)
            rows = np.flatnonzero(columns["episode_index"] == episode.index)
            return {key: values[rows] for key, values in columns.items()}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedEpisode(episode.index, episode.file, f"cannot be read: {error}") from error

    def pixels(self, episode: Episode) -> np.ndarray:
        """uint8 (L, V, H, W, 3)."""
        out = np.empty((episode.length, len(self.cameras), *self.size, 3), np.uint8)
        for camera, key in enumerate(self.cameras.values()):
            is_video = self.features[key]["dtype"] == "video"
            file = episode.videos[key].file if is_video else episode.file
            frames = self._video_frames(episode, key) if is_video else self._image_frames(episode, key)
            count = 0
            try:
                for count, frame in enumerate(frames, start=1):
                    out[count - 1, camera] = _resized(frame, self.size)
            except (pa.ArrowException, av.FFmpegError, OSError, ValueError, SyntaxError) as error:
                # PIL says SyntaxError for a broken PNG
                what = f"frame {count} of {key} cannot be decoded: {error}"
                raise DamagedEpisode(episode.index, file, what) from error
            if count < episode.length:
                what = f"{key} ends after {count} of {episode.length} frames"
                raise DamagedEpisode(episode.index, file, what)
        return out

    # ------------------------------------------------------------------------------------- files

    def _read_episodes(self) -> list[Episode]:
        files = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        rows = [row for file in files for row in _read_table(file).to_pylist()]
        if not rows:
            raise ValueError(
                f"{self.root} holds no episode (meta/episodes is empty); record some with scd-record"
            )
        return [self._episode(row) for row in sorted(rows, key=lambda row: row["episode_index"])]

    def _episode(self, row: dict[str, Any]) -> Episode:
        def path(template: str, at: str, **keys: str) -> str:
            return template.format(
                chunk_index=row[f"{at}/chunk_index"], file_index=row[f"{at}/file_index"], **keys
            )

        videos = {
            key: VideoSpan(
                path(self.info["video_path"], f"videos/{key}", video_key=key),
                row[f"videos/{key}/from_timestamp"],
            )
            for key in self.cameras.values()
            if self.features[key]["dtype"] == "video"
        }
        return Episode(
            index=row["episode_index"],
            length=row["length"],
            tasks=tuple(row["tasks"]),
            file=path(self.info["data_path"], "data"),
            videos=videos,
        )

    def _read_file(self, file: str) -> dict[str, np.ndarray]:
        table = pq.read_table(self.root / file, columns=self.number_keys)
        return {key: _to_numpy(table[key]) for key in self.number_keys}

    def _read_row_group(self, file: str, group: int) -> pa.Table:
        images = [key for key in self.cameras.values() if self.features[key]["dtype"] == "image"]
        return pq.ParquetFile(self.root / file).read_row_group(group, columns=[*images, "episode_index"])

    def _image_frames(self, episode: Episode, key: str) -> Iterator[Image.Image]:
        rows = np.flatnonzero(self._file(episode.file)["episode_index"] == episode.index)
        first, last = (rows[0], rows[-1]) if len(rows) else (0, -1)
        start = 0
        for group, count in enumerate(_row_group_sizes(self.root / episode.file)):
            if first < start + count and last >= start:
                table = self._row_group(episode.file, group)
                mine = np.flatnonzero(_to_numpy(table["episode_index"]) == episode.index)
                for picture in table[key].take(mine).to_pylist():
                    encoded = picture["bytes"] or (self.root / picture["path"]).read_bytes()
                    yield Image.open(io.BytesIO(encoded)).convert("RGB")
            start += count

    def _video_frames(self, episode: Episode, key: str) -> Iterator[Image.Image]:
        """The episode's frames in the video; a frame that is half a step or more from its time ends them."""
        span, half = episode.videos[key], 0.5 / self.fps
        with av.open(str(self.root / span.file)) as video:
            if not video.streams.video:
                raise ValueError("no video in it")
            stream = video.streams.video[0]
            stream.thread_type = "AUTO"
            video.seek(max(0, int((span.start - half) / stream.time_base)), stream=stream)
            count = 0
            for frame in video.decode(stream):
                if frame.time < span.start - half:
                    continue
                if count == episode.length or abs(frame.time - span.start - count / self.fps) >= half:
                    return
                yield frame.to_image()
                count += 1


def download(repo_id: str, revision: str | None = None) -> Path:
    """The folder of a dataset from the Hugging Face Hub, fetched if it is not cached."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision or VERSION))


def _read_info(root: Path) -> dict[str, Any]:
    file = root / "meta" / "info.json"
    if not file.is_file():
        raise FileNotFoundError(f"no LeRobotDataset at {root}: it has no {file.name}; see scd-record")
    try:
        info = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}); restore it from the recording's copy") from error
    if info.get("codebase_version") != VERSION:
        raise ValueError(
            f"{root} has LeRobotDataset version {info.get('codebase_version')}, expected {VERSION}; "
            "convert it with python -m lerobot.scripts.convert_dataset_v21_to_v30"
        )
    return info


def _read_table(file: Path) -> pa.Table:
    try:
        names = [name for name in pq.read_schema(file).names if not name.startswith("stats/")]
        return pq.read_table(file, columns=names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}): the list of its episodes is lost; restore the file from a copy"
        ) from error


def _row_group_sizes(file: Path) -> list[int]:
    metadata = pq.read_metadata(file)
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers (L,) or lists of numbers (L, n); rows of different lengths raise ValueError."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if not pa.types.is_nested(array.type):
        return array.to_numpy(zero_copy_only=False)
    return np.stack(array.to_numpy(zero_copy_only=False)) if len(array) else np.empty((0, 0))


def _resized(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)

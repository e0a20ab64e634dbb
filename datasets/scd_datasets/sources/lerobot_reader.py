"""A LeRobotDataset v3 on disk, read episode by episode from its files; damage is named by file and episode.

LeRobot's own reader opens all files or none and decodes frame by frame. Reading the parquet and video files
directly is several times faster, needs no ten-second import, and knows which episode it could not read.

L steps of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from scd_datasets.sources.images import ImageGrid, region_of, resize
from scd_datasets.sources.imagined_mark import imagined_by
from scd_datasets.sources.lerobot_features import (
    ACTION,
    DONE,
    ENVIRONMENT_STATE,
    MULTIPLE,
    REWARD,
    STATE,
    SUCCESS,
    camera_keys,
    camera_size,
    common_size,
    dim_names,
)
from scd_datasets.sources.paths import fill, inside
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, VideoSpan
from scd_datasets.sources.video_readers import VideoReader, video_class

VERSION = "v3.0"
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


class LeRobotFolder:
    """Reads the episodes of the dataset in folder `root`: a `Source`.

    cameras: short names of those to read (`top` for `observation.images.top`), all by default.
    image_size: the shorter side of the images in px; by default as recorded, if that is not too large
    (`common_size`). Cameras of different sizes come in the smallest one's size, stretched, or with
    `letterbox` in their own proportions on black.
    decoder: of videos, one of `video_readers.DECODERS`.
    multiple: what the longer side of a resized image is a multiple of.

    Raises FileNotFoundError where there is no dataset, and ValueError for another version, a missing action
    or an unknown camera.
    """

    def __init__(
        self,
        root: str | Path,
        cameras: Sequence[str] = (),
        image_size: int | None = None,
        letterbox: bool = False,
        decoder: str = "auto",
        multiple: int = MULTIPLE,
    ) -> None:
        self.root = Path(root)
        self.info = _read_info(self.root)
        self.fps = int(self.info["fps"])
        self.features: dict[str, dict[str, Any]] = self.info["features"]
        self.cameras = camera_keys(self.features, cameras)  # short name → key
        self.sizes = {name: camera_size(self.features[key]) for name, key in self.cameras.items()}
        self.grid = ImageGrid(*common_size(list(self.sizes.values()), image_size, multiple), letterbox)
        if ACTION not in self.features:
            raise ValueError(
                f"{self.root} records no {ACTION!r}: {sorted(self.features)}; nothing to learn from"
            )
        self.decoder = decoder
        self.episodes = self._read_episodes()
        self._videos: dict[str, tuple[str, VideoReader]] = {}  # camera → its open file
        self._file = lru_cache(maxsize=1)(self._read_file)
        self._row_group = lru_cache(maxsize=2 * len(self.cameras))(self._read_row_group)

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Gives the feature of each camera, in the order of the frames."""
        return tuple(self.cameras.values())

    @property
    def imagined(self) -> str | None:
        return imagined_by(self.info, self.root)

    @property
    def low_dim_keys(self) -> list[str]:
        """Lists the low-dimensional columns to read; those that a dataset may lack only where it has them."""
        wanted = (STATE, ENVIRONMENT_STATE, ACTION, REWARD, SUCCESS, DONE)
        return [key for key in wanted if key in self.features] + ["timestamp", "frame_index", "episode_index"]

    def names(self, key: str) -> tuple[str, ...]:
        """Gives a name for each dimension of feature `key`; () where it is not recorded."""
        return dim_names(key, self.features[key]) if key in self.features else ()

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        """Reads {key: (L, …)} of `low_dim_keys`, as recorded."""
        try:
            columns = self._file(episode.file)
            rows = np.flatnonzero(columns["episode_index"] == episode.index)
            return {key: values[rows] for key, values in columns.items()}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedEpisode(episode.index, episode.file, f"cannot be read: {error}") from error

    def pixels(self, episode: EpisodeIndex) -> np.ndarray:
        """Decodes uint8 (L, V, H, W, 3) in the grid; the cameras side by side, in threads."""
        out, views = self.grid.canvas(episode.length, len(self.cameras)), self.grid.views(self.sizes)

        def fill(index: int, camera: str) -> None:
            self._fill(episode, camera, region_of(out, index, views[camera]))

        with ThreadPoolExecutor(max(1, len(self.cameras))) as pool:
            list(pool.map(fill, range(len(self.cameras)), self.cameras))
        return out

    def findings(self) -> list[Finding]:
        found, listed = [], sum(episode.length for episode in self.episodes)
        if (self.info["total_episodes"], self.info["total_frames"]) != (len(self.episodes), listed):
            what = (
                f"info.json says {self.info['total_episodes']} episodes and {self.info['total_frames']} "
                f"frames, meta/episodes lists {len(self.episodes)} and {listed}"
            )
            found.append(Finding(what, "meta/info.json", "the list is followed"))
        if self.imagined:
            done = "what is learned from it is what that world predicts"
            found.append(Finding(f"{self.imagined}, not recorded", "meta", done))
        read = {*self.cameras.values(), *self.low_dim_keys, *BOOKKEEPING}
        if unread := [key for key in self.features if key not in read]:
            found.append(Finding(f"also recorded: {', '.join(unread)}", "meta/info.json", "not read"))
        if any(self._is_video(key) for key in self.cameras.values()):
            found.append(Finding("images stored as video", "videos/", f"decoded by {self._decoder[1]}"))
        return found

    def read_options(self) -> list[Any]:
        return [list(self.cameras), [self.grid.height, self.grid.width], self.grid.resize]

    # ------------------------------------------------------------------------------------- files

    def _read_episodes(self) -> list[EpisodeIndex]:
        files = sorted((self.root / "meta" / "episodes").glob("*/*.parquet"))
        rows = [row for file in files for row in _read_table(file).to_pylist()]
        if not rows:
            raise ValueError(
                f"{self.root} holds no episode (meta/episodes is empty); record some with scd-record"
            )
        return [self._episode(row) for row in sorted(rows, key=lambda row: row["episode_index"])]

    def _episode(self, row: dict[str, Any]) -> EpisodeIndex:
        def path(template: str, part: str, **keys: str) -> str:
            where = {f"{name}_index": int(row[f"{part}/{name}_index"]) for name in ("chunk", "file")}
            return fill(template, **where, **keys)

        videos = {
            key: VideoSpan(
                path(self.info["video_path"], f"videos/{key}", video_key=key),
                row[f"videos/{key}/from_timestamp"],
            )
            for key in self.cameras.values()
            if self.features[key]["dtype"] == "video"
        }
        return EpisodeIndex(
            index=row["episode_index"],
            length=row["length"],
            tasks=tuple(row["tasks"]),
            file=path(self.info["data_path"], "data"),
            videos=videos,
        )

    def _read_file(self, file: str) -> dict[str, np.ndarray]:
        table = pq.read_table(self.root / file, columns=self.low_dim_keys)
        return {key: _to_numpy(table[key]) for key in self.low_dim_keys}

    def _read_row_group(self, file: str, group: int, key: str) -> pa.Table:
        return pq.ParquetFile(self.root / file).read_row_group(group, columns=[key, "episode_index"])

    def _is_video(self, key: str) -> bool:
        return self.features[key]["dtype"] == "video"

    @property
    def _decoder(self) -> tuple[type[VideoReader], str]:
        return video_class(self.decoder)

    def _fill(self, episode: EpisodeIndex, camera: str, out: np.ndarray) -> None:
        """Writes the camera's frames of the episode, resized, into `out` uint8 (L, h, w, 3)."""
        key, count = self.cameras[camera], 0
        file = episode.videos[key].file if self._is_video(key) else episode.file
        try:
            if self._is_video(key):
                count = self._video(camera, file, out.shape[1:3]).read(episode.videos[key].start, out)
            else:
                for count, image in enumerate(self._image_frames(episode, key), start=1):
                    out[count - 1] = resize(image, out.shape[1:3])
        except (pa.ArrowException, OSError, ValueError, SyntaxError) as error:
            # PIL raises SyntaxError for a broken PNG
            where = key if self._is_video(key) else f"frame {count} of {key}"
            raise DamagedEpisode(episode.index, file, f"{where} cannot be decoded: {error}") from error
        if count < episode.length:
            what = f"{key} ends after {count} of {episode.length} frames"
            raise DamagedEpisode(episode.index, file, what)

    def _video(self, camera: str, file: str, size: tuple[int, int]) -> VideoReader:
        """Gives the open file, left where the episode before this one ended in it."""
        opened = self._videos.get(camera)
        if opened is None or opened[0] != file:
            opened = self._videos[camera] = (file, self._decoder[0](self.root / file, self.fps, size))
        return opened[1]

    def _image_frames(self, episode: EpisodeIndex, key: str) -> Iterator[Image.Image]:
        rows = np.flatnonzero(self._file(episode.file)["episode_index"] == episode.index)
        first, last = (rows[0], rows[-1]) if len(rows) else (0, -1)
        start = 0
        for group, count in enumerate(_row_group_sizes(self.root / episode.file)):
            if first < start + count and last >= start:
                table = self._row_group(episode.file, group, key)
                mine = np.flatnonzero(_to_numpy(table["episode_index"]) == episode.index)
                for image in table[key].take(mine).to_pylist():
                    encoded = image["bytes"] or (self.root / inside(image["path"])).read_bytes()
                    yield Image.open(io.BytesIO(encoded)).convert("RGB")
            start += count


def download(repo_id: str, revision: str | None = None) -> Path:
    """Gives the folder of a dataset from the Hugging Face Hub, fetched if it is not cached; FileNotFoundError
    where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError

    try:
        return Path(snapshot_download(repo_id, repo_type="dataset", revision=revision or VERSION))
    except RevisionNotFoundError as error:
        raise FileNotFoundError(
            f"{repo_id} has no revision {revision or VERSION!r} on the Hugging Face Hub: name one by "
            "data.revision=main, or have its owner convert it to LeRobotDataset v3"
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:  # OSError: no network, and none cached
        raise FileNotFoundError(
            f"no dataset {repo_id!r}: none is cached here, and the Hugging Face Hub gave none "
            f"({str(error).splitlines()[0]}). A folder on this disk is named by data.root=<folder>"
        ) from error


def _read_info(root: Path) -> dict[str, Any]:
    file = root / "meta" / "info.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"no dataset at {root}: neither a LeRobotDataset (meta/info.json; scd-record makes one) nor a "
            "replay buffer (data/, meta/episode_ends)"
        )
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
    """Converts scalars to (L,), lists to (L, n); rows of different lengths raise ValueError."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if not pa.types.is_nested(array.type):
        return array.to_numpy(zero_copy_only=False)
    return np.stack(array.to_numpy(zero_copy_only=False)) if len(array) else np.empty((0, 0))

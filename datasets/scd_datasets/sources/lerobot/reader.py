"""A LeRobotDataset on disk (v2.0, v2.1, v3.0), read episode by episode; damage is named by file and episode.

LeRobot's own reader opens all files or none, reads v3.0 alone, and decodes frame by frame. Reading parquet
and video files directly is several times faster, needs no ten-second import, and knows which episode it could
not read.

L steps of an episode, V cameras, H W pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from scd_datasets.sources.images import MULTIPLE, ImageGrid, region_of, resize
from scd_datasets.sources.lerobot.features import (
    ACTION,
    DONE,
    ENVIRONMENT_STATE,
    REWARD,
    STATE,
    SUCCESS,
    camera_keys,
    dim_names,
)
from scd_datasets.sources.lerobot.imagined_mark import imagined_by
from scd_datasets.sources.lerobot.keys import missing_action, state_finding
from scd_datasets.sources.lerobot.metadata import (
    INFO,
    VERSIONS,
    Metadata,
    read_metadata,
    without_cameras,
)
from scd_datasets.sources.lerobot.parquet import images, read_columns, row_group_sizes
from scd_datasets.sources.lerobot.video_files import (
    ONE_BY_ONE,
    VideoFacts,
    are_rows,
    file_fault,
    frames_of,
    other_size,
    rate_findings,
    runs_faster,
    span_findings,
    too_short,
    video_facts,
)
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, every_nth
from scd_datasets.sources.video_readers import LATE, VideoReader, video_class

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
EIGHT_BIT = (
    "RGB",
    "RGBA",
    "RGBX",
    "L",
    "LA",
    "P",
    "PA",
    "1",
    "CMYK",
    "YCbCr",
)  # PIL's modes that a camera takes
TRIED = 16  # episodes, of which the first picture that opens tells a camera's size
CACHED = 4  # files whose numbers are kept: several threads may read neighbouring episodes


class LeRobotFolder:
    """Reads the episodes of the dataset in folder `root`: a `Source`.

    cameras: short names of those to read (`top` for `observation.images.top`), all by default.
    image_size: the shorter side of the images in px; by default as recorded, if that is not too large
    (`common_size`). Cameras of different sizes come in the smallest one's size, stretched, or with
    `letterbox` in their own proportions on black.
    decoder: of videos, one of `video_readers.DECODERS`.
    multiple: what the longer side of a resized image is a multiple of.
    keys: the recorder's name of a feature → LeRobot's, where they differ.
    in_order: a video's frames are the rows, one by one, whatever their times say, unless the video
    runs at a higher rate than they do.

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
        keys: Mapping[str, str] | None = None,
        in_order: bool = False,
    ) -> None:
        self.root, self.decoder, self.in_order = Path(root), decoder, in_order
        self._facts: dict[str, VideoFacts | str] = {}
        metadata = read_metadata(self.root, keys)
        if ACTION not in metadata.features:
            raise ValueError(missing_action(self.root, metadata.features))
        self.metadata, self._found = self._leave_out(metadata)
        self.fps, self.features, self.episodes = (
            self.metadata.fps,
            self.metadata.features,
            self.metadata.episodes,
        )
        self.cameras = camera_keys(self.features, cameras)  # short name → key
        self.sizes = {name: self._size(key) for name, key in self.cameras.items()}
        self.grid = ImageGrid.common(self.sizes, image_size, letterbox, multiple)
        self._open = threading.local()  # .videos: camera → its open file, each thread's own
        self._file = lru_cache(maxsize=CACHED)(self._read_file)
        self._row_group = lru_cache(maxsize=2 * CACHED * len(self.cameras))(self._read_row_group)

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Gives each camera's key on disk, in the order of the frames."""
        return tuple(self.features[key].stored for key in self.cameras.values())

    @property
    def imagined(self) -> str | None:
        return imagined_by({"robot_type": self.metadata.robot_type}, self.root)

    @property
    def low_dim_keys(self) -> list[str]:
        """Lists the low-dimensional features to read, those that the dataset has."""
        wanted = (STATE, ENVIRONMENT_STATE, ACTION, REWARD, SUCCESS, DONE)
        return [key for key in (*wanted, "timestamp", "frame_index", "episode_index") if key in self.features]

    def names(self, key: str) -> tuple[str, ...]:
        """Gives a name for each dimension of feature `key`; () where it is not recorded."""
        return dim_names(key, self.features[key]) if key in self.features else ()

    def check_files(self, episode: EpisodeIndex) -> None:
        """Looks at the episode's files without decoding them; DamagedEpisode names what is wrong."""
        if fault := file_fault(self.root / episode.file):
            raise DamagedEpisode(episode.index, episode.file, fault)
        for camera, key in self.cameras.items():
            if self._is_video(key):
                span, facts = episode.videos[key], self._video_facts(episode.videos[key].file)
                if isinstance(facts, str):
                    raise DamagedEpisode(episode.index, span.file, facts)
                one_by_one = self._one_by_one(episode, key)
                fault = too_short(facts, span, episode.length, self.fps, one_by_one)
                if fault := fault or other_size(facts, self.sizes[camera]):
                    raise DamagedEpisode(episode.index, span.file, fault)

    def low_dim(self, episode: EpisodeIndex) -> dict[str, np.ndarray]:
        """Reads {key: (L, …)} of `low_dim_keys`, as recorded."""
        try:
            columns = self._file(episode.file)
            rows = self._rows(episode)
            return {key: values[rows] for key, values in columns.items()}
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DamagedEpisode(episode.index, episode.file, f"cannot be read: {error}") from error

    def pixels(self, episode: EpisodeIndex, every: int = 1) -> np.ndarray:
        """Decodes every n-th frame to uint8 (⌈L/n⌉, V, H, W, 3) in the grid."""
        count, views = every_nth(episode.length, every), self.grid.views(self.sizes)
        out = self.grid.canvas(count, len(self.cameras))
        for index, camera in enumerate(self.cameras):
            self._fill(episode, camera, region_of(out, index, views[camera]), every)
        return out

    def findings(self) -> list[Finding]:
        found = [*self.metadata.findings, *self._found, *state_finding(self.features)]
        if self.imagined:
            done = "what is learned from it is what that world predicts"
            found.append(Finding(f"{self.imagined}, not recorded", "meta", done))
        read = {*self.cameras.values(), *self.low_dim_keys, *BOOKKEEPING}
        if unread := [key for key in self.features if key not in read]:
            found.append(Finding(f"also recorded: {', '.join(unread)}", INFO, "not read", notable=False))
        videos = {key for key in self.cameras.values() if self._is_video(key)}
        if videos:
            episodes = [episode.of_cameras(videos) for episode in self.episodes]
            found += span_findings(episodes, self.fps, self._facts)
            done = f"decoded by {self._decoder[1]}"
            found.append(Finding("images stored as video", "videos/", done, notable=False))
            first = {key: self._video_facts(self.episodes[0].videos[key].file) for key in sorted(videos)}
            known = {key: facts for key, facts in first.items() if isinstance(facts, VideoFacts)}
            found += rate_findings(self.episodes[0], known, self.fps, self.in_order)
        return found

    def read_options(self) -> list[Any]:
        stored = [(name, self.features[key].stored) for name, key in self.cameras.items()]
        options: list[Any] = [list(self.cameras), [self.grid.height, self.grid.width], self.grid.resize]
        renamed = {key: f.stored for key, f in self.features.items() if f.stored != key}
        return [*options, stored, renamed, self.in_order] if renamed or self.in_order else options

    # ------------------------------------------------------------------------------------- cameras

    def _leave_out(self, metadata: Metadata) -> tuple[Metadata, list[Finding]]:
        """Leaves out the cameras that are none: depth, and those that are listed and were never recorded."""
        first, found, none = metadata.episodes[0], [], set()
        for key in camera_keys(metadata.features, ()).values():
            feature = metadata.features[key]
            if feature.dtype == "video":
                folders = {(self.root / episode.videos[key].file).parent for episode in metadata.episodes}
                facts = self._video_facts(first.videos[key].file)
                if not any(folder.is_dir() for folder in folders):
                    found.append(
                        Finding("is listed, and its videos' folder is not there", f"camera {key}", "left out")
                    )
                    none.add(key)
                elif isinstance(facts, VideoFacts) and facts.is_depth:
                    found.append(Finding(f"holds depth ({facts.pixel_format})", f"camera {key}", "left out"))
                    none.add(key)
            elif (image := self._first_image(first, feature.stored)) and image.mode not in EIGHT_BIT:
                found.append(
                    Finding(f"holds no 8-bit colours ({image.mode}): depth?", f"camera {key}", "left out")
                )
                none.add(key)
        return without_cameras(metadata, none), found

    def _size(self, key: str) -> tuple[int, int]:
        """Gives (height, width) of a camera's images: what the first that opens has, else what info.json
        says."""
        said, has = self.features[key].image_size, None
        for episode in self.episodes[:TRIED]:
            if self._is_video(key):
                facts = self._video_facts(episode.videos[key].file)
                has = (facts.height, facts.width) if isinstance(facts, VideoFacts) else None
            elif image := self._first_image(episode, self.features[key].stored):
                has = image.height, image.width
            if has:
                break
        has = has or said
        if has != said:
            what = f"its images have {has[0]} × {has[1]} pixels, info.json says {said[0]} × {said[1]}"
            self._found.append(Finding(what, f"camera {key}", "read as they are"))
        return has

    def _first_image(self, episode: EpisodeIndex, stored: str) -> Image.Image | None:
        """Opens the first image of a camera; None where that fails: the check will say of which episode."""
        try:
            table = pq.ParquetFile(self.root / episode.file).read_row_group(0, columns=[stored])
            return next(images(table[stored].slice(0, 1), self.root))
        except (pa.ArrowException, OSError, ValueError, SyntaxError, KeyError, StopIteration):
            return None

    def _video_facts(self, file: str) -> VideoFacts | str:
        if file not in self._facts:
            self._facts[file] = video_facts(self.root / file)
        return self._facts[file]

    def _is_video(self, key: str) -> bool:
        return self.features[key].dtype == "video"

    @property
    def _decoder(self) -> tuple[type[VideoReader], str]:
        return video_class(self.decoder)

    # ------------------------------------------------------------------------------------- files

    def _read_file(self, file: str) -> dict[str, np.ndarray]:
        stored = {key: self.features[key].stored for key in self.low_dim_keys}
        there = pq.read_schema(self.root / file).names  # what no robot measured may be listed and left out
        stored = {key: name for key, name in stored.items() if key not in BOOKKEEPING or name in there}
        columns = read_columns(self.root / file, list(stored.values()))
        return {key: columns[name] for key, name in stored.items()}

    def _read_row_group(self, file: str, group: int, key: str) -> pa.Table:
        return pq.ParquetFile(self.root / file).read_row_group(group, columns=[key])

    def _rows(self, episode: EpisodeIndex) -> np.ndarray:
        """Gives the episode's rows in its file; all of them where the file does not say whose they are."""
        columns = self._file(episode.file)
        if "episode_index" not in columns:
            return np.arange(len(columns[ACTION]))
        return np.flatnonzero(columns["episode_index"] == episode.index)

    def _fill(self, episode: EpisodeIndex, camera: str, out: np.ndarray, every: int) -> None:
        """Writes every n-th of the camera's frames, resized, into `out` uint8 (⌈L/n⌉, h, w, 3)."""
        key, count = self.cameras[camera], 0
        file = episode.videos[key].file if self._is_video(key) else episode.file
        try:
            if self._is_video(key):
                count = self._fill_from_video(episode, camera, out, every)
            else:
                for index, image in enumerate(self._image_frames(episode, key, every)):
                    out[index] = resize(self._colors(image, camera), out.shape[1:3])
                    count = index + 1
        except (pa.ArrowException, OSError, ValueError, SyntaxError) as error:
            # PIL raises SyntaxError for a broken PNG
            where = key if self._is_video(key) else f"frame {count * every} of {key}"
            raise DamagedEpisode(episode.index, file, f"{where} cannot be decoded: {error}") from error
        if count < len(out):
            what = f"{key} ends after {count * every} of {episode.length} frames"
            if self._is_video(key) and not self._one_by_one(episode, key):
                what += f", or its times do not fit the rows', which begin at {self._times(episode)[0]:g} s"
                if not self.in_order and are_rows(self._frames(episode, key), episode.length):
                    what += f"; there may be as many frames as rows: {ONE_BY_ONE}"
            raise DamagedEpisode(episode.index, file, what)

    def _fill_from_video(self, episode: EpisodeIndex, camera: str, out: np.ndarray, every: int) -> int:
        """Writes every n-th of the camera's frames into `out`, and gives how many there were."""
        span = episode.videos[key := self.cameras[camera]]
        video = self._video(camera, span.file, out.shape[1:3])
        if self._one_by_one(episode, key):
            return video.following(span.start, out, every)
        times = self._times(episode)
        if abs(times[0]) > LATE / self.fps and are_rows(self._frames(episode, key), episode.length):
            times = times - times[0]  # a clock that began before both
        return video.nearest(span.start + times[::every], out, within=LATE / self.fps)

    def _frames(self, episode: EpisodeIndex, key: str) -> int | None:
        """Counts the frames that the video of a camera has for an episode."""
        span = episode.videos[key]
        return frames_of(self._video_facts(span.file), span, self.fps)

    def _one_by_one(self, episode: EpisodeIndex, key: str) -> bool:
        """Says whether the frames of a camera are the episode's rows: where they are said to be, and the
        video does not run faster."""
        span = episode.videos[key]
        facts = self._video_facts(span.file)
        return self.in_order and not runs_faster(facts, span, episode.length, self.fps)

    def _times(self, episode: EpisodeIndex) -> np.ndarray:
        """Gives the times of an episode's rows (L,) in its video, in s: those recorded, as LeRobot reads
        them."""
        columns = self._file(episode.file)
        if "timestamp" not in columns:
            return np.arange(episode.length) / self.fps
        return columns["timestamp"][self._rows(episode)].astype(np.float64).reshape(-1)

    def _colors(self, image: Image.Image, camera: str) -> Image.Image:
        """Decodes an image to RGB; ValueError where it is not what the camera's first one was."""
        if image.mode not in EIGHT_BIT:
            raise ValueError(f"it holds no 8-bit colours ({image.mode})")
        if (image.height, image.width) != self.sizes[camera]:
            height, width = self.sizes[camera]
            raise ValueError(f"it has {image.height} × {image.width} pixels, the others {height} × {width}")
        return image.convert("RGB")

    def _video(self, camera: str, file: str, size: tuple[int, int]) -> VideoReader:
        """Gives this thread's open file, left where the episode before this one ended in it."""
        videos: dict[str, tuple[str, VideoReader]] = self._open.__dict__.setdefault("videos", {})
        opened = videos.get(camera)
        if opened is None or opened[0] != file:
            reader = self._decoder[0](self.root / file, size)
            opened = videos[camera] = (file, reader)
        return opened[1]

    def _image_frames(self, episode: EpisodeIndex, key: str, every: int) -> Iterator[Image.Image]:
        stored, rows, start = self.features[key].stored, self._rows(episode)[::every], 0
        for group, count in enumerate(row_group_sizes(self.root / episode.file)):
            mine = rows[(rows >= start) & (rows < start + count)] - start
            if len(mine):
                table = self._row_group(episode.file, group, stored)
                if stored not in table.column_names:
                    raise ValueError(f"the file has no column {stored}")
                yield from images(table[stored].take(mine), self.root)
            start += count


def download(repo_id: str, revision: str | None = None) -> Path:
    """Gives the folder of a dataset from the Hugging Face Hub, fetched if it is not cached.

    Without a revision the newest format that the dataset has: LeRobot tags each by its version.
    FileNotFoundError where there is none.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RevisionNotFoundError,
    )

    tried = [revision] if revision else [*VERSIONS, "main"]
    failed: Exception | None = None
    for name in tried:
        try:
            return Path(snapshot_download(repo_id, repo_type="dataset", revision=name))
        except RevisionNotFoundError:
            continue
        except LocalEntryNotFoundError as error:  # no network, and this version is not cached; another may be
            failed = error
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            failed = error
            break
    if failed is None:
        raise FileNotFoundError(
            f"{repo_id} has no revision {' or '.join(tried)} on the Hugging Face Hub: name one that it has, "
            "data.revision=<name>"
        )
    raise FileNotFoundError(
        f"no dataset {repo_id!r}: none is cached here, and the Hugging Face Hub gave none "
        f"({str(failed).splitlines()[0]}). A folder on this disk is named by data.root=<folder>"
    ) from failed

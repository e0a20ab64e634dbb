"""Recording into a LeRobotDataset v3 so that the folder is a finished dataset at any time.

LeRobot's writer holds files open whose footer is written at the end: a process that dies leaves nothing that
opens. So a few episodes at a time are written beside the dataset, finalized, read back, and only then moved
in, `meta/info.json` last. The one file that imports lerobot.datasets.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from scd_datasets.preparation.check import check_low_dim
from scd_datasets.sources.lerobot.imagined_mark import IMAGINED, imagined_robot_type
from scd_datasets.sources.lerobot.reader import BOOKKEEPING, LeRobotFolder
from scd_world.utils.atomic_folder import beside

RECORDING = "meta/recording.json"  # how the dataset was recorded, and each episode by which policy
IMAGE_WRITER_THREADS = 2
# Keys of recipes that earlier versions wrote.
FORMER_KEYS = {"videos": "store_as_video", "draw": "render_images", "flaws": "degrade", "share": "weight"}


class LeRobotWriter:
    """Appends whole episodes to the LeRobotDataset in folder `root`, which is created if it is missing.

    fps: frames per second. features: LeRobot's, by key. videos: store images as mp4 instead of PNG.
    recipe: how the episodes are recorded (plain JSON); a dataset recorded by another recipe is refused.
    imagined: by which world (plain JSON: `world`, `world_sha256`), where episodes are imagined: LeRobot then
    has this world for a robot, and does not merge the dataset with one of another.

    Frames go in with `add_frame`, an episode ends with `save_episode`, and is safe after the next `publish`.
    Use as a context manager: leaving it publishes whole episodes, unless writing was the problem.

    Raises BlockingIOError while another process records into `root`, and ValueError where `root` holds
    something else, or was recorded by another recipe, and for videos at a rate that is no whole number.
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        features: dict[str, Any],
        recipe: dict[str, Any],
        videos: bool = False,
        imagined: dict[str, Any] | None = None,
    ) -> None:
        if videos and fps != int(fps):
            raise ValueError(
                f"LeRobot encodes videos of whole rates alone, not {fps} fps: store_as_video=false"
            )
        self.root = Path(root)
        self.fps = int(fps) if fps == int(fps) else fps
        self.features, self.videos = features, videos
        self.recipe = json.loads(json.dumps(recipe))  # as it will be read back: lists, not tuples
        self.imagined = imagined
        self.notes_file, self.robot_type = RECORDING, None
        if imagined is not None:
            self.notes_file = IMAGINED
            self.robot_type = imagined_robot_type(imagined["world"], imagined["world_sha256"])
        self.scratch = beside(self.root, ".scd-recording")
        self.part = self.scratch / "part"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.scratch / "lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"another process is recording into {self.root}; choose another out, or stop it first"
            ) from None
        self._dataset: Any = None  # LeRobot's writer, while a part is open
        self.notes: list[dict[str, Any]] = []
        try:
            if self.root.exists():
                self._continue()
        except BaseException:
            self._leave()
            raise
        self._published = len(self.notes)
        self._writing = False  # still True after an error: the part on disk is not to be trusted

    def _continue(self) -> None:
        if not (self.root / self.notes_file).is_file():
            command = "scd-record" if self.imagined is None else "scd-rollout or scd-play"
            raise ValueError(f"{self.root} is no recording of {command}; choose another out")
        recording = json.loads((self.root / self.notes_file).read_text())
        recipe = upgrade_recipe(recording["recipe"])
        differing = [
            f"{key}: {recipe.get(key)!r} there, {value!r} here"
            for key, value in self.recipe.items()
            if recipe.get(key) != value
        ]
        if differing:
            raise ValueError(
                f"{self.root} was recorded with other settings ({'; '.join(differing)}); use the same "
                "settings or another out"
            )
        info = json.loads((self.root / "meta" / "info.json").read_text())
        total, noted = info["total_episodes"], recording["episodes"]
        if len(noted) < total:
            raise ValueError(
                f"{self.root} holds {total} episodes, and {self.notes_file} knows {len(noted)}: something "
                "else has added to it; choose another out"
            )
        if changed := sorted(set(self.features) ^ (set(info["features"]) - set(BOOKKEEPING))):
            raise ValueError(
                f"{self.root} was not recorded with the same features ({', '.join(changed)} here or there "
                "alone): an earlier version named them otherwise, or it was edited; choose another out"
            )
        self.notes = noted[:total]
        _drop_unlisted(self.root, total)

    @property
    def num_episodes(self) -> int:
        return len(self.notes)

    def open(self) -> None:
        """Opens LeRobot's writer of the part being recorded; the next frame would open it as well."""
        if self._dataset is None:
            self._dataset = self._open_part()

    def add_frame(self, frame: dict[str, Any]) -> None:
        """Adds a frame to the current episode: {key: array} of all features, and the `task` in words."""
        self.open()
        self._dataset.add_frame(frame)

    def drop_episode(self) -> None:
        """Forgets the frames of the current episode."""
        if self._dataset is not None and self._dataset.has_pending_frames():
            self._dataset.clear_episode_buffer()

    def save_episode(self, note: dict[str, Any]) -> None:
        """Ends the current episode. note: plain JSON, kept beside it."""
        from lerobot.utils.utils import SuppressProgressBars

        # One bar for the whole recording is enough.
        with SuppressProgressBars(), _embedding_at_once(), _ordinary_priority():
            self._writing = True
            self._dataset.save_episode(parallel_encoding=False)  # it would fork a process full of threads
            self._writing = False
        self.notes.append({"episode_index": self.num_episodes, **note})

    def publish(self) -> None:
        """Finishes the part, reads it back, and moves it into the dataset."""
        if self.num_episodes == self._published:
            return
        self._writing = True
        with _ordinary_priority():
            self._dataset.finalize()
        self._dataset = None
        shutil.rmtree(self.part / "images", ignore_errors=True)  # where LeRobot kept images on the way
        notes = (self.imagined or {}) | {"recipe": self.recipe, "episodes": self.notes}
        (self.part / self.notes_file).write_text(json.dumps(notes, indent=1))
        # LeRobot's image writer logs what it could not write and goes on: trust only what reads back.
        written = LeRobotFolder(self.part)
        for episode in written.episodes[self._published :]:
            check_low_dim(written, episode)
            written.pixels(episode)
        if self.root.exists():
            _move_into(self.part, self.root)
        else:
            os.replace(self.part, self.root)
        self._published = self.num_episodes
        self._writing = False

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if not self._writing:
                self.drop_episode()
                self.publish()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._dataset = None
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.release()

    def _open_part(self) -> Any:
        os.environ.setdefault(
            "SVT_LOG", "1"
        )  # errors only: the AV1 encoder logs its settings for every video
        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        shutil.rmtree(self.part, ignore_errors=True)
        repo_id = f"local/{self.root.name}"
        options = {"image_writer_threads": IMAGE_WRITER_THREADS, "video_backend": "pyav"}
        if not self.root.exists():
            return LeRobotDataset.create(
                repo_id,
                self.fps,
                self.features,
                root=self.part,
                robot_type=self.robot_type,
                use_videos=self.videos,
                **options,
            )
        # LeRobot appends in new files and needs no more of the old ones than what meta/ says of them.
        shutil.copytree(self.root / "meta", self.part / "meta")
        return LeRobotDataset.resume(repo_id, root=self.part, **options)


@contextmanager
def _embedding_at_once() -> Iterator[None]:
    """LeRobot puts the bytes of images into an episode's table row by row, also where there are none: 3 ms
    a frame, up to half of a recording. One call for all rows writes the same."""
    from lerobot.datasets import dataset_writer
    from lerobot.datasets.io_utils import embed_table_storage

    def embed(dataset):
        at_once = dataset.with_format("arrow").map(embed_table_storage, batched=True, batch_size=None)
        return at_once.with_format(**dataset.format)

    with patch.object(dataset_writer, "embed_images", embed):
        yield


@contextmanager
def _ordinary_priority() -> Iterator[None]:
    """Where root runs it, the AV1 encoder makes the thread that calls it a real-time one, for good (SVT-AV1:
    SCHED_FIFO, 99): whatever else the machine does, a training say, would wait for it."""
    if not hasattr(os, "sched_getscheduler"):  # Linux alone has it
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def upgrade_recipe(recipe: Any) -> Any:
    """Gives a recipe with the keys of today, so that recordings of earlier versions can be continued."""
    if isinstance(recipe, list):
        return [upgrade_recipe(part) for part in recipe]
    if isinstance(recipe, dict):
        return {FORMER_KEYS.get(key, key): upgrade_recipe(value) for key, value in recipe.items()}
    return recipe


def _move_into(part: Path, root: Path) -> None:
    """Moves new data first, the list of episodes after it, their count last: it opens at any time."""
    files = [file.relative_to(part) for file in part.rglob("*") if file.is_file()]
    last = [Path("meta/info.json")]
    data = [file for file in files if file.parts[0] in ("data", "videos")]
    meta = [file for file in files if file.parts[0] == "meta" and file not in last]
    for file in data + meta + last:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part / file, root / file)


def _drop_unlisted(root: Path, total: int) -> None:
    """Removes what a killed process moved in without counting it in meta/info.json."""
    listed = set()
    for file in (root / "meta" / "episodes").glob("*/*.parquet"):
        table = pq.read_table(
            file, columns=["episode_index", "data/chunk_index", "data/file_index"]
        ).to_pydict()
        if min(table["episode_index"]) >= total:
            file.unlink()
        else:
            listed |= set(zip(table["data/chunk_index"], table["data/file_index"], strict=True))
    for file in (root / "data").glob("chunk-*/file-*.parquet"):
        if (int(file.parent.name.split("-")[1]), int(file.stem.split("-")[1])) not in listed:
            file.unlink()

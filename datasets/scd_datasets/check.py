"""Is a recorded dataset fit to learn from? Checks every episode, builds the window store from the good ones.

L steps of an episode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scd_datasets.bench import made_up_store, measure
from scd_datasets.config import CheckConfig, OnBadEpisode, SourceConfig
from scd_datasets.lerobot_features import ACTION, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.lerobot_reader import DamagedEpisode, Episode, LeRobotFolder, download
from scd_datasets.store import EpisodeArrays, WindowStore, write_store
from scd_world.schema import DataSchema

TIME_TOLERANCE = 1e-3  # s; timestamps are float32
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checked:
    """One episode whose numbers are good: where it lies, and {key: (L, …)}."""

    episode: Episode
    numbers: dict[str, np.ndarray]


@dataclass(frozen=True)
class Report:
    """What a check found and built; `table()` is for people."""

    folder: LeRobotFolder
    schema: DataSchema
    good: list[Checked]
    bad: list[DamagedEpisode]
    store: WindowStore | None

    def table(self) -> str:
        lengths = np.array([checked.episode.length for checked in self.good])
        schema, frames = self.schema, int(lengths.sum())
        rows = {
            "dataset": self.folder.root,
            "episodes": f"{len(self.good)} good, {len(self.bad)} damaged",
            "frames": f"{frames:,} at {schema.fps} fps: {frames / schema.fps / 60:.1f} minutes",
            "length": f"{lengths.min()} … {lengths.max()} steps, median {np.median(lengths):.0f}",
            "cameras": f"{', '.join(schema.cameras)}: {schema.height} × {schema.width}",
            "state": f"{len(schema.agent_pos)} robot, {len(schema.environment_state)} environment",
            "tasks": "; ".join(schema.tasks),
        }
        for name, low, high in zip(schema.action, schema.action_low, schema.action_high, strict=True):
            rows[f"action {name}"] = f"{low:.4g} … {high:.4g}"
        if schema.reward:
            rewards = np.concatenate([checked.numbers[REWARD].ravel() for checked in self.good])
            rows["reward"] = f"{rewards.min():.4g} … {rewards.max():.4g}, mean {rewards.mean():.4g}"
        if schema.success:
            share = np.mean([checked.numbers[SUCCESS].any() for checked in self.good])
            rows["success"] = f"{share:.0%} of episodes"
        if self.store is not None:
            rows["store"] = f"{self.store.path} (fingerprint {self.store.fingerprint[:12]})"
        info, listed = self.folder.info, sum(episode.length for episode in self.folder.episodes)
        if (info["total_episodes"], info["total_frames"]) != (len(self.folder.episodes), listed):
            rows["counts differ"] = (
                f"info.json says {info['total_episodes']} episodes and {info['total_frames']} frames, "
                f"meta/episodes lists {len(self.folder.episodes)} and {listed}; the list was followed"
            )
        for damage in self.bad:
            rows[f"episode {damage.episode}"] = f"{damage.file}: {damage.what}"
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def check_dataset(folder: LeRobotFolder, out: str | Path | None = None, skip_bad: bool = False) -> Report:
    """Check all episodes' numbers, then decode all their pictures; with `out`, into a window store.

    A damaged episode raises DamagedEpisode, or with `skip_bad` is left out and listed in the report.
    """
    bad: list[DamagedEpisode] = []
    good = list(_checked(folder, bad, skip_bad))
    if not good:
        raise ValueError(f"{folder.root} has no good episode; the first: {bad[0]}")
    schema = make_schema(folder, good)
    decoded: list[Checked] = []
    episodes = _decoded(folder, good, decoded, bad, skip_bad)
    if out is None:
        deque(episodes, maxlen=0)
        return Report(folder, schema, decoded, bad, None)
    store = write_store(out, schema, episodes, source_digest(folder))
    return Report(folder, schema, decoded, bad, store)


def run_check(config: CheckConfig) -> None:
    """The command scd-data."""
    if not (config.data.root or config.data.repo_id):
        with tempfile.TemporaryDirectory() as scratch:
            return _print_speed(made_up_store(Path(scratch) / "made_up.zarr"))
    folder = open_folder(config.data)
    out = Path(config.out or f"{str(folder.root).rstrip('/')}.zarr") if config.build else None
    report = check_dataset(folder, out, skip_bad=config.on_bad_episode is OnBadEpisode.skip)
    print(report.table())
    if config.bench and report.store is not None:
        _print_speed(report.store)


def open_folder(source: SourceConfig) -> LeRobotFolder:
    root = Path(source.root) if source.root else download(str(source.repo_id), source.revision)
    return LeRobotFolder(root, source.cameras, source.image_size)


def open_or_build(
    folder: LeRobotFolder, out: str | Path, skip_bad: bool = False, in_memory: bool | None = None
) -> WindowStore:
    """The window store of a dataset at `out`: built if it is not there or the dataset has changed since."""
    if Path(out).exists() and WindowStore.open(out, in_memory=False).source == source_digest(folder):
        return WindowStore.open(out, in_memory)
    for damage in check_dataset(folder, out, skip_bad).bad:
        log.warning("left out: %s", damage)
    return WindowStore.open(out, in_memory)


def check_numbers(folder: LeRobotFolder, episode: Episode) -> dict[str, np.ndarray]:
    """The episode's numbers {key: (L, …)}; DamagedEpisode says what is wrong with them."""

    def damaged(what: str) -> DamagedEpisode:
        return DamagedEpisode(episode.index, episode.file, what)

    numbers = folder.numbers(episode)
    count = len(numbers["frame_index"])
    if count != episode.length:
        raise damaged(f"has {count} rows, meta/episodes says {episode.length}")
    if not np.array_equal(numbers["frame_index"], np.arange(count)):
        raise damaged("frame_index does not count 0, 1, 2, …")
    for key in (STATE, ENVIRONMENT_STATE, ACTION, REWARD, "timestamp"):
        if key not in numbers:
            continue
        size = len(folder.names(key))
        if numbers[key].size != count * size:
            raise damaged(f"{key} has shape {numbers[key].shape}, expected {size} numbers in {count} rows")
        finite = np.isfinite(numbers[key].astype(np.float64)).reshape(count, size)
        if not finite.all():
            frame, column = np.argwhere(~finite)[0]
            value = numbers[key].reshape(count, size)[frame, column]
            raise damaged(f"{key} {folder.names(key)[column]} is {value} at frame {frame}")
    steps = np.diff(numbers["timestamp"].astype(np.float64))
    if (steps <= 0).any():
        raise damaged(f"the timestamp goes back after frame {np.argmax(steps <= 0)}")
    late = np.abs(steps - 1 / folder.fps) > TIME_TOLERANCE
    if late.any():
        i = np.argmax(late)
        raise damaged(f"frames {i} and {i + 1} are {steps[i]:.4f} s apart, expected {1 / folder.fps:.4f} s")
    return numbers


def make_schema(folder: LeRobotFolder, good: list[Checked]) -> DataSchema:
    """What the dataset's numbers are, with the bounds of the actions that were recorded."""
    actions = np.concatenate([_matrix(checked, ACTION) for checked in good])
    height, width = folder.size
    return DataSchema(
        cameras=tuple(folder.cameras),
        height=height,
        width=width,
        agent_pos=folder.names(STATE),
        environment_state=folder.names(ENVIRONMENT_STATE),
        action=folder.names(ACTION),
        action_low=tuple(actions.min(0).tolist()),
        action_high=tuple(actions.max(0).tolist()),
        fps=folder.fps,
        tasks=tuple(sorted({task for checked in good for task in checked.episode.tasks})),
        reward=REWARD in folder.features,
        success=SUCCESS in folder.features,
        horizon=max(checked.episode.length for checked in good),
    )


def source_digest(folder: LeRobotFolder) -> str:
    """Changes with the dataset's files (their sizes and times, not bytes) and with what is read of them."""
    files = [file for part in ("data", "videos", "meta") for file in (folder.root / part).rglob("*")]
    seen = [
        (str(file.relative_to(folder.root)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(files)
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps([seen, list(folder.cameras), folder.size]).encode()).hexdigest()


def _checked(folder: LeRobotFolder, bad: list[DamagedEpisode], skip_bad: bool) -> Iterator[Checked]:
    for episode in folder.episodes:
        try:
            yield Checked(episode, check_numbers(folder, episode))
        except DamagedEpisode as damage:
            if not skip_bad:
                raise
            bad.append(damage)


def _decoded(
    folder: LeRobotFolder,
    good: list[Checked],
    decoded: list[Checked],
    bad: list[DamagedEpisode],
    skip_bad: bool,
) -> Iterator[EpisodeArrays]:
    """The good episodes with their pictures; keeps the books of those that decode and those that do not."""
    frames = sum(checked.episode.length for checked in good)
    with tqdm(total=frames, unit="frame", desc="decoding", dynamic_ncols=True) as bar:
        for checked in good:
            try:
                episode = _arrays(folder, checked)
            except DamagedEpisode as damage:
                if not skip_bad:
                    raise
                bad.append(damage)
                continue
            decoded.append(checked)
            yield episode
            bar.update(episode.length)


def _arrays(folder: LeRobotFolder, checked: Checked) -> EpisodeArrays:
    length, numbers = checked.episode.length, checked.numbers
    return EpisodeArrays(
        pixels=folder.pixels(checked.episode),
        state=np.concatenate([_matrix(checked, STATE), _matrix(checked, ENVIRONMENT_STATE)], axis=1),
        action=_matrix(checked, ACTION),
        reward=numbers.get(REWARD, np.zeros(length)).reshape(length),
        success=numbers.get(SUCCESS, np.zeros(length, bool)).reshape(length),
        index=checked.episode.index,
    )


def _print_speed(store: WindowStore) -> None:
    for name, speed in measure(store.path).items():
        print(f"random windows {name}: {speed:,.0f} frames/s per core")


def _matrix(checked: Checked, key: str) -> np.ndarray:
    """(L, n) float32; n = 0 where the key is not recorded."""
    length = checked.episode.length
    return checked.numbers.get(key, np.zeros((length, 0))).reshape(length, -1).astype(np.float32)

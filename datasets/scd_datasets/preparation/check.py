"""From a recording to a checked store: every episode is checked, and the good ones become windows.

L steps of an episode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scd_datasets.config import CheckConfig, OnBadEpisode
from scd_datasets.preparation.report import CheckedEpisode, CheckReport
from scd_datasets.sources.lerobot_features import ACTION, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Source
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.read_speed import measure, synthetic_store
from scd_datasets.store.store import WindowStore, write_store
from scd_world.robot_data.camera_keys import usual_keys
from scd_world.robot_data.schema import DataSchema

TIME_TOLERANCE = 1e-3  # s; timestamps are float32
MAX_LISTED = 8  # damaged episodes that an error lists
log = logging.getLogger(__name__)


def check_dataset(source: Source, out: str | Path | None = None, skip_bad: bool = False) -> CheckReport:
    """Checks the low-dimensional data of all episodes, then decodes all their images.

    out: where to build a window store from what is good; None: check only.
    skip_bad: leave damaged episodes out and list them in the report, instead of raising.

    Raises DamagedEpisode (a ValueError) for a damaged episode without `skip_bad`, and ValueError for a
    dataset without a camera, or without any good episode.
    """
    if not source.sizes:
        raise ValueError(
            f"{source.root} has no camera (a feature of dtype image or video), and a world predicts images. "
            "Beside recordings with cameras, its low-dimensional data can train the state prior: "
            f"scd-train … prior.extra_datasets=[{source.root}]"
        )
    good, bad = valid_episodes(source, skip_bad)
    schema = make_schema(source, good)
    decoded: list[CheckedEpisode] = []
    episodes = _decode(source, schema, good, decoded, bad, skip_bad)
    store = None
    if out is None:
        deque(episodes, maxlen=0)
    else:
        store = write_store(out, schema, episodes, source_digest(source, skip_bad), source.imagined)
    return CheckReport(source, schema, decoded, bad, skip_bad, store)


def run_check(config: CheckConfig) -> None:
    """Runs the command scd-data: checks, prints the report, builds the store unless `build` is False."""
    if not (config.data.root or config.data.repo_id):
        with tempfile.TemporaryDirectory() as scratch:
            return _print_speed(synthetic_store(Path(scratch) / "synthetic.zarr"))
    source, skip_bad = open_source(config.data), config.on_bad_episode is OnBadEpisode.skip
    if not config.build:  # all damage at once, and the verdict last
        report = check_dataset(source, skip_bad=True)
        print(replace(report, skip_bad=skip_bad).table())
        if report.bad and not skip_bad:
            raise damage_error(report.bad)
        return
    root = str(source.root).rstrip("/")
    usual = f"{root.removesuffix('.zarr')}.windows.zarr" if root.endswith(".zarr") else f"{root}.zarr"
    out = Path(config.out or usual)
    report = check_dataset(source, out, skip_bad)
    print(report.table())
    if config.bench and report.store is not None:
        _print_speed(report.store)


def damage_error(bad: list[DamagedEpisode]) -> DamagedEpisode:
    """Gives the error of a check that may skip nothing: the first damage in full, the others by index."""
    first, *others = bad
    more = ""
    if others:
        listed = ", ".join(str(damage.episode) for damage in others[:MAX_LISTED])
        more = f"; damaged as well: episode {listed}{', …' if len(others) > MAX_LISTED else ''}"
    cure = "Repair the dataset, or leave damaged episodes out: on_bad_episode=skip for scd-data, "
    cure += "data.skip_damaged=true for scd-train"
    return DamagedEpisode(first.episode, first.file, f"{first.what}{more}. {cure}")


def no_valid_error(source: Source, bad: list[DamagedEpisode]) -> ValueError:
    """Gives the error of a dataset whose episodes are all damaged."""
    listed = "".join(f"\n  {damage}" for damage in bad[:MAX_LISTED])
    return ValueError(
        f"{source.root}: all {len(bad)} episodes are damaged, nothing is left to learn from{listed}"
    )


def check_low_dim(source: Source, episode: EpisodeIndex) -> dict[str, np.ndarray]:
    """Reads the episode's low-dimensional data {key: (L, …)}; DamagedEpisode says what is wrong with it."""

    def damaged(what: str) -> DamagedEpisode:
        return DamagedEpisode(episode.index, episode.file, what)

    values = source.low_dim(episode)
    count = len(values[ACTION])
    if count != episode.length:
        raise damaged(f"has {count} rows, {episode.length} are listed")
    if "frame_index" in values and not np.array_equal(values["frame_index"], np.arange(count)):
        raise damaged("frame_index does not count 0, 1, 2, …")
    for key in (STATE, ENVIRONMENT_STATE, ACTION, REWARD):
        if key not in values:
            continue
        names = source.names(key)
        if values[key].size != count * len(names):
            raise damaged(
                f"{key} has shape {values[key].shape}, expected {len(names)} values in {count} rows"
            )
        finite = np.isfinite(values[key].astype(np.float64)).reshape(count, len(names))
        if not finite.all():
            frame, column = np.argwhere(~finite)[0]
            value = values[key].reshape(count, len(names))[frame, column]
            raise damaged(f"{key} {names[column]} is {value} at frame {frame}")
    if "timestamp" in values and (
        wrong := timestamp_error(values["timestamp"].astype(np.float64), source.fps)
    ):
        raise damaged(wrong)
    return values


def timestamp_error(timestamps: np.ndarray, fps: int) -> str | None:
    """Says what is wrong with an episode's timestamps (L,) in seconds, if anything."""
    if not np.isfinite(timestamps).all():
        return f"the timestamp is not finite at frame {np.argmin(np.isfinite(timestamps))}"
    steps = np.diff(timestamps)
    if (steps <= 0).any():
        return f"the timestamp goes back after frame {np.argmax(steps <= 0)}"
    late = np.abs(steps - 1 / fps) > TIME_TOLERANCE
    if not late.any():  # nor has an episode of one frame any step
        return None
    i = int(np.argmax(late))
    return f"frames {i} and {i + 1} are {steps[i]:.4f} s apart, expected {1 / fps:.4f} s"


def make_schema(source: Source, good: list[CheckedEpisode]) -> DataSchema:
    """Describes the dataset: names and sizes, and the bounds of the actions that were recorded."""
    actions = np.concatenate([checked.matrix(ACTION) for checked in good])
    grid, recorded = source.grid, tuple(source.sizes.values())
    as_recorded = set(recorded) == {(grid.height, grid.width)}
    usual = source.camera_keys == tuple(usual_keys(source.sizes).values())
    return DataSchema(
        cameras=tuple(source.sizes),
        height=grid.height,
        width=grid.width,
        agent_pos=source.names(STATE),
        environment_state=source.names(ENVIRONMENT_STATE),
        action=source.names(ACTION),
        action_low=tuple(actions.min(0).tolist()),
        action_high=tuple(actions.max(0).tolist()),
        fps=source.fps,
        tasks=tuple(sorted({task for checked in good for task in checked.episode.tasks[:1]})),
        reward=bool(source.names(REWARD)),
        success=bool(source.names(SUCCESS)),
        horizon=max(checked.episode.length for checked in good),
        recorded=() if as_recorded else recorded,
        resize="stretch" if as_recorded else grid.resize,
        camera_keys=() if usual else source.camera_keys,
    )


def source_digest(source: Source, skip_bad: bool) -> str:
    """Hashes what a store depends on: the dataset's files (their sizes and times, not bytes), and what is
    read of them."""
    files = [file for part in ("data", "videos", "meta") for file in (source.root / part).rglob("*")]
    files += [source.root]  # where the whole dataset is one file
    stats = [
        (str(file.relative_to(source.root)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(files)
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps([stats, source.read_options(), skip_bad]).encode()).hexdigest()


def valid_episodes(source: Source, skip_bad: bool) -> tuple[list[CheckedEpisode], list[DamagedEpisode]]:
    """Splits the episodes by their low-dimensional data: the good ones, and the damage of the others, which
    raises DamagedEpisode unless it may be skipped. ValueError where an outcome is more than one number."""
    for key in (REWARD, SUCCESS):
        if len(names := source.names(key)) > 1:
            raise ValueError(
                f"{source.root}: {key} has {len(names)} numbers a step ({', '.join(names)}), expected one. "
                f"Leave it out, data.drop_features=[{key}], or record the one that counts"
            )
    good, bad = [], []
    for episode in source.episodes:
        try:
            good.append(CheckedEpisode(episode, check_low_dim(source, episode)))
        except DamagedEpisode as damage:
            bad.append(damage)
    if bad and not skip_bad:
        raise damage_error(bad)
    if not good:
        raise no_valid_error(source, bad)
    return good, bad


def _decode(
    source: Source,
    schema: DataSchema,
    good: list[CheckedEpisode],
    decoded: list[CheckedEpisode],
    bad: list[DamagedEpisode],
    skip_bad: bool,
) -> Iterator[EpisodeArrays]:
    """Yields the good episodes with their images; appends those that decode to `decoded`, others to `bad`.

    The next episode is decoded while this one is written.
    """
    frames = sum(checked.episode.length for checked in good)
    with (
        tqdm(total=frames, unit="frame", desc="decoding", dynamic_ncols=True) as bar,
        ThreadPoolExecutor(1) as ahead,
    ):
        waiting = deque([ahead.submit(source.pixels, good[0].episode)])
        for i, checked in enumerate(good):
            if i + 1 < len(good):
                waiting.append(ahead.submit(source.pixels, good[i + 1].episode))
            try:
                pixels = waiting.popleft().result()
            except DamagedEpisode as damage:
                if not skip_bad:
                    raise damage_error([damage]) from damage
                bad.append(damage)
                continue
            decoded.append(checked)
            yield _arrays(schema, checked, pixels)
            bar.update(checked.episode.length)
    if not decoded:
        raise no_valid_error(source, bad)


def _arrays(schema: DataSchema, checked: CheckedEpisode, pixels: np.ndarray) -> EpisodeArrays:
    length, values = checked.episode.length, checked.low_dim
    return EpisodeArrays(
        pixels=pixels,
        state=checked.state,
        action=checked.matrix(ACTION),
        reward=values.get(REWARD, np.zeros(length)).reshape(length),
        success=values.get(SUCCESS, np.zeros(length, bool)).reshape(length),
        index=checked.episode.index,
        task=schema.tasks.index(checked.episode.tasks[0]) if checked.episode.tasks else 0,
    )


def _print_speed(store: WindowStore) -> None:
    for name, speed in measure(store.path).items():
        print(f"random windows {name}: {speed:,.0f} frames/s per core")

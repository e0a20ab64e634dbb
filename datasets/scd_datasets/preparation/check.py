"""From a recording to a checked store: every episode is checked, and the good ones become windows.

L steps of an episode.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scd_datasets.preparation.checked import CheckedEpisode
from scd_datasets.preparation.clock import BY_ROWS, timestamp_error
from scd_datasets.preparation.contact_sheet import chosen, picked_frames
from scd_datasets.preparation.decode import decoded
from scd_datasets.preparation.pictures import EpisodePictures, camera_measures
from scd_datasets.preparation.report import LEFT_OUT, CheckReport
from scd_datasets.preparation.values import absurd, twins
from scd_datasets.sources.lerobot.features import ACTION, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Source, listed
from scd_datasets.sources.strided import Strided
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.store import REPORT
from scd_datasets.store.writer import StoreWriter
from scd_world.robot_data.camera_keys import usual_keys
from scd_world.robot_data.schema import DataSchema

MAX_LISTED = 8  # damaged episodes that an error lists
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validated:
    """Holds the episodes whose numbers are good, the damage of others, and which repeat another:
    twin → first, by their indices."""

    good: list[CheckedEpisode]
    bad: list[DamagedEpisode]
    twins: dict[int, int]


def check_dataset(source: Source, out: str | Path | None = None, skip_bad: bool = False) -> CheckReport:
    """Checks the files and the low-dimensional data of all episodes, then decodes all their images.

    out: where to build a window store from what is good, the report in it; None: check only. An import that
    was interrupted goes on where it was.
    skip_bad: leave damaged episodes out and list them in the report, instead of raising.

    Raises DamagedEpisode (a ValueError) that names all damage without `skip_bad`, and ValueError for a
    dataset without a camera, or without any good episode.
    """
    if not source.sizes:
        left_out = [f"{f.where}: {f.what}" for f in source.findings() if f.done == LEFT_OUT]
        raise ValueError(
            f"{source.root} has no camera that can be read ({'; '.join(left_out) or 'none is listed'}), and "
            "a world predicts images. Beside recordings with cameras, its low-dimensional data can train the "
            f"state prior: scd-train … prior.extra_datasets=[{source.root}]"
        )
    found = valid_episodes(source, skip_bad, files=True)
    schema = make_schema(source, found.good)
    report = CheckReport(source, schema, [], list(found.bad), found.twins, [], {}, skip_bad)
    writer, digest = None, "" if out is None else source_digest(source)
    if out is not None:  # an interrupted import goes on, whether or not it was to skip
        stride = source.stride if isinstance(source, Strided) else None
        writer = StoreWriter(out, schema, digest, source.imagined, stride)
    with writer or nullcontext():
        report = _decode_all(report, found.good, writer)
        if writer is not None:
            writer.finish(source_digest(source, skipped=True) if report.bad else digest)
            report = replace(report, path=writer.path, fingerprint=writer.fingerprint)
            report.write(writer.scratch / REPORT)
    return report


def damage_error(bad: list[DamagedEpisode]) -> DamagedEpisode:
    """Gives the error of a check that may skip nothing: the first damage in full, the others by index."""
    first, *others = bad
    more = ""
    if same := [damage.episode for damage in others if damage.what == first.what]:
        more = f"; the same of {len(same)} more: episode {listed(same)}"
        others = [damage for damage in others if damage.what != first.what]
    if others:
        more += f"; damaged as well: episode {listed([damage.episode for damage in others])}"
    cure = "Repair the dataset, or leave damaged episodes out: on_bad_episode=skip for scd-data, "
    cure += "data.skip_damaged=true for scd-train"
    if BY_ROWS in first.what:  # all it takes, and leaving episodes out might leave none
        cure = f"Give {BY_ROWS}, or {cure[0].lower()}{cure[1:]}"
    return DamagedEpisode(first.episode, first.file, f"{first.what}{more}. {cure}")


def no_valid_error(source: Source, bad: list[DamagedEpisode]) -> ValueError:
    """Gives the error of a dataset whose episodes are all damaged."""
    shown = "".join(f"\n  {damage}" for damage in bad[:MAX_LISTED])
    return ValueError(
        f"{source.root}: all {len(bad)} episodes are damaged, nothing is left to learn from{shown}"
    )


def check_low_dim(source: Source, episode: EpisodeIndex) -> dict[str, np.ndarray]:
    """Reads the episode's low-dimensional data {key: (L, …)}; DamagedEpisode says what is wrong with it."""

    def damaged(what: str) -> DamagedEpisode:
        return DamagedEpisode(episode.index, episode.file, what)

    values = source.low_dim(episode)
    if ACTION not in values:
        raise damaged("holds no action")
    count = len(values[ACTION])
    if count != episode.length:
        raise damaged(f"has {count} rows, {episode.length} are listed")
    if "frame_index" in values and not np.array_equal(values["frame_index"], np.arange(count)):
        raise damaged("frame_index does not count 0, 1, 2, …")
    for key in (STATE, ENVIRONMENT_STATE, ACTION, REWARD, SUCCESS):
        if key not in values:
            continue
        names = source.names(key)
        if values[key].size != count * len(names):
            raise damaged(
                f"{key} has shape {values[key].shape}, expected {len(names)} values in {count} rows"
            )
        with np.errstate(over="ignore"):  # what a float32 cannot hold is stored as infinite
            finite = np.isfinite(values[key].astype(np.float32)).reshape(count, len(names))
        if not finite.all():
            frame, column = np.argwhere(~finite)[0]
            value = values[key].reshape(count, len(names))[frame, column]
            raise damaged(f"{key} {names[column]} is {value} at frame {frame}")
    if "timestamp" in values and (
        wrong := timestamp_error(values["timestamp"].astype(np.float64), source.fps, source.in_order)
    ):
        raise damaged(wrong)
    return values


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
        tasks=tasks_of(good),
        reward=bool(source.names(REWARD)),
        success=bool(source.names(SUCCESS)),
        horizon=max(checked.episode.length for checked in good),
        recorded=() if as_recorded else recorded,
        resize="stretch" if as_recorded else grid.resize,
        camera_keys=() if usual else source.camera_keys,
    )


def first_task(checked: CheckedEpisode) -> str:
    """Gives the task that counts for an episode; "" where it has none."""
    return checked.episode.tasks[0] if checked.episode.tasks else ""


def tasks_of(good: list[CheckedEpisode]) -> tuple[str, ...]:
    """Lists the tasks of the episodes, "" among them where some have one and some none; () where none has."""
    tasks = {first_task(checked) for checked in good}
    return () if tasks == {""} else tuple(sorted(tasks))


def source_digest(source: Source, skipped: bool = False) -> str:
    """Hashes what a store depends on: the dataset's files (their sizes and times, not bytes), what is read of
    them, and whether something was left out as damaged."""
    named = [
        file
        for episode in source.episodes
        for file in (episode.file, *(v.file for v in episode.videos.values()))
    ]
    parts = {"data", "videos", "meta", *(Path(file).parts[0] for file in named)}
    files = {file for part in parts for file in (source.root / part, *(source.root / part).rglob("*"))}
    files |= {source.root / file for file in named}  # those in a folder that is a link, too
    files |= {source.root}  # where the whole dataset is one file
    stats = [
        (str(file.relative_to(source.root)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(files)
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps([stats, source.read_options(), skipped]).encode()).hexdigest()


def valid_episodes(source: Source, skip_bad: bool, files: bool = False) -> Validated:
    """Checks the episodes by their low-dimensional data, and by their files where `files`; damage raises
    DamagedEpisode unless it may be skipped. ValueError where an outcome is more than one number.

    A strided source is checked as it was recorded: a pause hides between frames that are left out.
    """
    if isinstance(source, Strided):
        found = valid_episodes(source.recorded, skip_bad, files)
        steps = {one.index: one for one in source.episodes}
        good = [CheckedEpisode(steps[one.episode.index], source.strided(one.low_dim)) for one in found.good]
        return replace(found, good=good)
    for key in (REWARD, SUCCESS):
        if len(names := source.names(key)) > 1:
            raise ValueError(
                f"{source.root}: {key} has {len(names)} numbers a step ({', '.join(names)}), expected one. "
                f"Leave it out, data.drop_features=[{key}], or record the one that counts"
            )
    good, bad = [], []
    for episode in source.episodes:
        try:
            if files:
                source.check_files(episode)
            good.append(CheckedEpisode(episode, check_low_dim(source, episode)))
        except DamagedEpisode as damage:
            bad.append(damage)
    beyond = absurd(source, good) if good else []
    good = [one for one in good if one.episode.index not in {damage.episode for damage in beyond}]
    bad = sorted([*bad, *beyond], key=lambda damage: damage.episode)
    if bad and not skip_bad:
        raise damage_error(bad)
    if not good:
        raise no_valid_error(source, bad)
    repeated = {good[twin].episode.index: good[first].episode.index for twin, first in twins(good).items()}
    return Validated([one for one in good if one.episode.index not in repeated], bad, repeated)


def _decode_all(report: CheckReport, good: list[CheckedEpisode], writer: StoreWriter | None) -> CheckReport:
    """Decodes the good episodes' images and writes them, measuring them on the way; those that do not decode
    are damaged too."""
    source, schema = report.source, report.schema
    kept = {} if writer is None else writer.kept
    if kept:
        log.info("going on with an interrupted import: %d of %d episodes are there", len(kept), len(good))
    frame_bytes = len(schema.cameras) * schema.height * schema.width * 3
    sheet = {good[place].episode.index for place in chosen(len(good))}
    measured, done, bad, shown = [], [], list(report.bad), {}

    def decode(checked: CheckedEpisode) -> tuple[np.ndarray, EpisodePictures]:
        index = checked.episode.index
        pixels = (
            writer.pixels(index) if writer is not None and index in kept else source.pixels(checked.episode)
        )
        return pixels, EpisodePictures.of(index, pixels)

    frames = sum(checked.episode.length for checked in good)
    with tqdm(total=frames, unit="frame", desc="decoding", dynamic_ncols=True) as bar:
        for checked, future in decoded(decode, good, frame_bytes):
            try:
                pixels, pictures = future.result()
            except DamagedEpisode as damage:  # the others are looked at all the same: all at once
                bad.append(damage)
                continue
            if writer is not None:
                writer.append(_arrays(schema, checked, pixels))
            if checked.episode.index in sheet:
                shown[checked.episode.index] = picked_frames(pixels)
            measured.append(pictures)
            done.append(checked)
            bar.update(checked.episode.length)
    if bad and not report.skip_bad:
        if writer is not None:
            writer.keep()  # who then leaves them out need not decode the others again
        raise damage_error(bad)
    if not done:
        raise no_valid_error(source, bad)
    shown = shown or {done[0].episode.index: picked_frames(source.pixels(done[0].episode))}
    return replace(report, good=done, bad=bad, cameras=camera_measures(schema.cameras, measured), shown=shown)


def _arrays(schema: DataSchema, checked: CheckedEpisode, pixels: np.ndarray) -> EpisodeArrays:
    length, values = checked.episode.length, checked.low_dim
    return EpisodeArrays(
        pixels=pixels,
        state=checked.state,
        action=checked.matrix(ACTION),
        reward=values.get(REWARD, np.zeros(length)).reshape(length),
        success=values.get(SUCCESS, np.zeros(length, bool)).reshape(length),
        index=checked.episode.index,
        task=schema.tasks.index(first_task(checked)) if schema.tasks else 0,
    )

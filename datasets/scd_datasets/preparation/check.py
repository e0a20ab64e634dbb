"""From a recording to a checked store: every episode is checked, and the good ones become windows.

L steps of an episode.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scd_datasets.config import CheckConfig, OnBadEpisode
from scd_datasets.preparation.checked import CheckedEpisode
from scd_datasets.preparation.clock import timestamp_error
from scd_datasets.preparation.contact_sheet import chosen, picked_frames
from scd_datasets.preparation.decode import decoded
from scd_datasets.preparation.pictures import EpisodePictures, camera_measures
from scd_datasets.preparation.report import TEXT, CheckReport
from scd_datasets.preparation.values import absurd, twins
from scd_datasets.sources.lerobot.features import ACTION, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.sources.open_source import open_source
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Source, listed
from scd_datasets.store.arrays import EpisodeArrays
from scd_datasets.store.known_stores import find, link, remember
from scd_datasets.store.read_speed import measure, synthetic_store
from scd_datasets.store.store import REPORT, WindowStore
from scd_datasets.store.writer import StoreWriter, refuse_foreign_store
from scd_world.robot_data.camera_keys import usual_keys
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.output_folder import claim_folder

MAX_LISTED = 8  # damaged episodes that an error lists
REPORT_SIGN = ("report.json", ("verdict", "findings"))
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

    Raises DamagedEpisode (a ValueError) for a damaged episode without `skip_bad`, and ValueError for a
    dataset without a camera, or without any good episode.
    """
    if not source.sizes:
        raise ValueError(
            f"{source.root} has no camera (a feature of dtype image or video), and a world predicts images. "
            "Beside recordings with cameras, its low-dimensional data can train the state prior: "
            f"scd-train … prior.extra_datasets=[{source.root}]"
        )
    found = valid_episodes(source, skip_bad, files=True)
    schema = make_schema(source, found.good)
    report = CheckReport(source, schema, [], list(found.bad), found.twins, [], {}, skip_bad)
    writer = (
        None if out is None else StoreWriter(out, schema, source_digest(source, skip_bad), source.imagined)
    )
    with writer or nullcontext():
        report = _decode_all(report, found.good, writer)
        if writer is not None:
            writer.finish()
            report = replace(report, path=writer.path, fingerprint=writer.fingerprint)
            report.write(writer.scratch / REPORT)
    return report


def run_check(config: CheckConfig) -> None:
    """Runs the command scd-data: checks, prints the report, builds the store unless `build` is False."""
    if not (config.data.root or config.data.repo_id):
        with tempfile.TemporaryDirectory() as scratch:
            return _print_speed(synthetic_store(Path(scratch) / "synthetic.zarr"))
    source, skip_bad = open_source(config.data), config.on_bad_episode is OnBadEpisode.skip
    if not config.build:  # all damage at once
        if config.out:
            claim_folder(config.out, "scd-data", REPORT_SIGN)
        report = replace(check_dataset(source, skip_bad=True), skip_bad=skip_bad)
        print(report.table())
        if config.out:
            report.write(Path(config.out))
        if report.bad and not skip_bad:
            raise damage_error(report.bad)
        return
    out = Path(config.out or usual_store(config.data.repo_id, source.root))
    print(build_once(source, out, skip_bad))
    if config.bench:
        _print_speed(WindowStore.open(out, in_memory=False))


def usual_store(repo_id: str | None, root: Path) -> str:
    """Gives where a recording's store goes: beside it, or here where it lies in a hub's cache."""
    if repo_id:
        return f"{repo_id.rpartition('/')[2].partition('@')[0]}.zarr"
    name = str(root).rstrip("/")
    return f"{name.removesuffix('.zarr')}.windows.zarr" if name.endswith(".zarr") else f"{name}.zarr"


def build_once(source: Source, out: Path, skip_bad: bool) -> str:
    """Sees to it that the recording's store lies at `out`, decoding only what was never decoded; gives the
    report in words."""
    digest = source_digest(source, skip_bad)
    if out.exists():
        refuse_foreign_store(out)
        store = WindowStore.open(out, in_memory=False)
        if store.source == digest:
            remember(store)
            return f"the dataset has not changed since it was checked; {out} is as it was\n\n{report_of(out)}"
    if known := find(digest):
        link(known, out)
        return f"already decoded, into {known}; linked to {out}\n\n{report_of(out)}"
    report = check_dataset(source, out, skip_bad)
    remember(WindowStore.open(out, in_memory=False))
    return report.table()


def report_of(store: Path) -> str:
    """Gives the report in words that lies in a store; stores of earlier versions have none in them."""
    file = store / REPORT / TEXT
    return file.read_text(encoding="utf-8").rstrip() if file.is_file() else ""


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
    named = [
        file
        for episode in source.episodes
        for file in (episode.file, *(v.file for v in episode.videos.values()))
    ]
    parts = {"data", "videos", "meta", *(Path(file).parts[0] for file in named)}
    files = {file for part in parts for file in (source.root / part, *(source.root / part).rglob("*"))}
    files |= {source.root}  # where the whole dataset is one file
    stats = [
        (str(file.relative_to(source.root)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(files)
        if file.is_file()
    ]
    return hashlib.sha256(json.dumps([stats, source.read_options(), skip_bad]).encode()).hexdigest()


def valid_episodes(source: Source, skip_bad: bool, files: bool = False) -> Validated:
    """Checks the episodes by their low-dimensional data, and by their files where `files`; damage raises
    DamagedEpisode unless it may be skipped. ValueError where an outcome is more than one number."""
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
            except DamagedEpisode as damage:
                if not report.skip_bad:
                    raise damage_error([damage]) from damage
                bad.append(damage)
                continue
            if writer is not None:
                writer.append(_arrays(schema, checked, pixels))
            if checked.episode.index in sheet:
                shown[checked.episode.index] = picked_frames(pixels)
            measured.append(pictures)
            done.append(checked)
            bar.update(checked.episode.length)
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
        task=schema.tasks.index(checked.episode.tasks[0]) if checked.episode.tasks else 0,
    )


def _print_speed(store: WindowStore) -> None:
    for name, speed in measure(store.path).items():
        print(f"random windows {name}: {speed:,.0f} frames/s per core")

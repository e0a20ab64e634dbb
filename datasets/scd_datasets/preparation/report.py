"""The check's report: can one train on it, what is in it, what is wrong or missing, what is done about it.

`report.txt` for people, `report.json` for programs, `cameras.png` for the eyes; all three lie in the store.

L steps of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scd_datasets.preparation.checked import CheckedEpisode
from scd_datasets.preparation.clock import RATE_TOLERANCE, MeasuredRate, measured_rate
from scd_datasets.preparation.contact_sheet import write_contact_sheet
from scd_datasets.preparation.pictures import CameraMeasures, picture_findings
from scd_datasets.preparation.values import extreme_findings, still_finding
from scd_datasets.sources.lerobot.features import ACTION, DONE, REWARD, SUCCESS
from scd_datasets.sources.source import DamagedEpisode, Finding, Source, listed
from scd_datasets.sources.strided import Strided
from scd_datasets.store.store import WindowStore
from scd_world.reporting.tables import write_json
from scd_world.reporting.units import unit_in
from scd_world.robot_data.dropped_frames import find_dropped_frames
from scd_world.robot_data.schema import DataSchema

WINDOW = 8  # steps: TrainConfig.sequence_length
SHORT = 16  # steps: below, an episode is shorter than the usual windows
ROUNDING = 0.05  # of the proportions: what whole patches cost
FINE, COARSE = 20, 10  # steps a second: above the first a stride is suggested, which gives about the second
SHOWN = 12  # dimensions whose ranges are printed; report.json has them all
LEFT_OUT = "left out"
STOP_HINT = "stops here; on_bad_episode=skip (scd-train: data.skip_damaged=true) leaves it out"
TEXT, JSON, SHEET = "report.txt", "report.json", "cameras.png"


@dataclass(frozen=True)
class CheckReport:
    """Holds what a check found and built; `table()` is for people, `to_dict()` for programs."""

    source: Source
    schema: DataSchema
    good: list[CheckedEpisode]
    bad: list[DamagedEpisode]
    twins: dict[int, int]  # episode → the one that it repeats, by their indices; left out
    cameras: list[CameraMeasures]
    shown: dict[int, np.ndarray]  # episode → a few of its frames, for the contact sheet
    skip_bad: bool
    path: Path | None = None  # of the store that was built
    fingerprint: str = ""

    @property
    def store(self) -> WindowStore | None:
        """Opens the store that was built."""
        return WindowStore.open(self.path, in_memory=False) if self.path else None

    @property
    def verdict(self) -> str:
        """Says whether one can train on it."""
        if self.bad and not self.skip_bad:
            return f"not ready: {len(self.bad)} of {len(self.source.episodes)} episodes are damaged"
        if max(one.episode.length for one in self.good) < 2:
            return "not ready: no episode has two frames, and what is learned is what follows a frame"
        longest = max(one.episode.length for one in self.good)
        if longest < WINDOW:
            return (
                f"not ready: the longest episode has {longest} steps, and a training's windows {WINDOW}; "
                f"record longer ones, or train with sequence_length={longest} and a shorter eval_context"
            )
        if len(self.good) == 1:
            return "not ready: one episode, and one is held out; record more, or train with data.holdout=0"
        count = sum(finding.notable for finding in self.findings)
        if not count:
            return "ready to train"
        return f"ready, with {count} finding{'s' if count > 1 else ''}"

    def table(self) -> str:
        """Writes the verdict, what there is, then what is wrong or missing."""
        rows = self.summary()
        width = max(map(len, rows))
        lines = [self.verdict, "", *(f"{name:<{width}}  {value}" for name, value in rows.items())]
        found = self.findings
        parts = {
            "To look at (where: what → what is done):": [f for f in found if f.notable],
            "Good to know:": [f for f in found if not f.notable],
        }
        for title, findings in parts.items():
            if findings:
                lines += ["", title, *(f"  {f.where}: {f.what} → {f.done}" for f in findings)]
        return "\n".join(lines)

    def summary(self) -> dict[str, str]:
        lengths = np.array([checked.episode.length for checked in self.good])
        schema, frames = self.schema, int(lengths.sum())
        rows = {
            "dataset": str(self.source.root),
            "episodes": f"{len(self.good)} good, {len(self.bad)} damaged",
            "frames": f"{frames:,} at {schema.fps:g} fps: {frames / schema.fps / 60:.1f} minutes",
            "length": f"{lengths.min()} … {lengths.max()} steps, median {np.median(lengths):.0f}",
        }
        if rate := self.rate:
            rows["rate"] = str(rate)
        for camera in self.cameras:
            height, width = self.source.sizes[camera.name]
            size = f"{height} × {width}"
            if (height, width) != (schema.height, schema.width):
                size += f" → {schema.height} × {schema.width}"
            rows[f"camera {camera.name}"] = f"{size}, {camera}"
        rows["state"] = f"{len(schema.agent_pos)} robot, {len(schema.environment_state)} environment"
        rows["tasks"] = "; ".join(schema.tasks) or "none named"
        bounds = zip(schema.action, schema.action_low, schema.action_high, strict=True)
        for name, low, high in list(bounds)[:SHOWN]:
            rows[f"action {name}"] = f"{low:.4g} … {high:.4g} {unit_in(name) or ''}".rstrip()
        if len(schema.action) > SHOWN:
            rows["action …"] = f"{len(schema.action) - SHOWN} more, in {JSON}"
        if schema.reward:
            rewards = np.concatenate([checked.low_dim[REWARD].ravel() for checked in self.good])
            rows["reward"] = f"{rewards.min():.4g} … {rewards.max():.4g}, mean {rewards.mean():.4g}"
        if schema.success:
            share = np.mean([checked.low_dim[SUCCESS].any() for checked in self.good])
            rows["success"] = f"{share:.0%} of episodes"
        rows["learned"] = learned(schema)
        if self.path is not None:
            rows["store"] = f"{self.path} (fingerprint {self.fingerprint[:12]}; report and pictures in it)"
        return rows

    @cached_property
    def rate(self) -> MeasuredRate | None:
        """Measures the recording's clock; None where no time was recorded."""
        return measured_rate([one.low_dim["timestamp"] for one in self.good if "timestamp" in one.low_dim])

    @cached_property
    def findings(self) -> list[Finding]:
        """Lists what is wrong, missing or odd: looked for once, and asked for by verdict, table and JSON."""
        return [
            *(damage_finding(damage, LEFT_OUT if self.skip_bad else STOP_HINT) for damage in self.bad),
            *twin_findings(self.twins),
            *rate_findings(self.rate, self.schema.fps),
            *fine_findings(self.source),
            *picture_findings(self.cameras),
            *image_findings(self.source),
            *feature_findings(self.schema),
            *value_findings(self.schema, self.good),
            *extreme_findings(self.source, self.good),
            *dropped_findings(self.schema, self.good),
            *episode_findings(self.good),
            *self.source.findings(),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Gives all of it as plain JSON."""
        schema, state = self.schema, _ranges([one.state for one in self.good])
        rate = self.rate
        return {
            "verdict": self.verdict,
            "dataset": str(self.source.root),
            "episodes": {
                "good": [one.episode.index for one in self.good],
                "damaged": {str(damage.episode): damage.what for damage in self.bad},
                "repeated": {str(twin): first for twin, first in self.twins.items()},
                "lengths": [one.episode.length for one in self.good],
            },
            "fps": schema.fps,
            "measured_rate": None if rate is None else vars(rate),
            "cameras": {
                camera.name: {
                    "recorded": list(self.source.sizes[camera.name]),
                    "read": [schema.height, schema.width],
                    "moves": camera.moves,
                    "spread": camera.spread,
                    "black": camera.black,
                    "repeated": camera.repeated,
                    "black_episodes": camera.black_episodes,
                    "frozen_episodes": camera.frozen_episodes,
                }
                for camera in self.cameras
            },
            "state": _named_ranges(schema.state, *state),
            "action": _named_ranges(schema.action, np.array(schema.action_low), np.array(schema.action_high)),
            "tasks": list(schema.tasks),
            "learned": learned(schema),
            "findings": [vars(finding) for finding in self.findings],
            "store": None if self.path is None else {"path": str(self.path), "fingerprint": self.fingerprint},
        }

    def write(self, folder: Path) -> None:
        """Writes the report in its three forms."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TEXT).write_text(self.table() + "\n", encoding="utf-8")
        write_json(folder / JSON, self.to_dict())
        write_contact_sheet(folder / SHEET, self.schema.cameras, self.shown)


def learned(schema: DataSchema) -> str:
    """Says what a world of this data will know, and what not."""
    parts = {
        f"the pictures of {len(schema.cameras)} camera{'s' if len(schema.cameras) > 1 else ''}": True,
        f"{len(schema.agent_pos)} values of the robot's state": bool(schema.agent_pos),
        f"{len(schema.environment_state)} of the environment's": bool(schema.environment_state),
        "the reward": schema.reward,
        "success": schema.success,
    }
    absent = {
        "the robot's state": not schema.agent_pos,
        "where objects are": not schema.environment_state,
        "a reward": not schema.reward,
        "success": not schema.success,
    }
    yes, no = ([name for name, told in each.items() if told] for each in (parts, absent))
    return ", ".join(yes) + (f"; not recorded, so not learned: {', '.join(no)}" if no else "")


def _ranges(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate(parts)
    return values.min(0), values.max(0)


def _named_ranges(names: Sequence[str], low: np.ndarray, high: np.ndarray) -> dict[str, dict[str, Any]]:
    return {
        name: {"low": float(a), "high": float(b), "unit": unit_in(name), "moves": bool(a != b)}
        for name, a, b in zip(names, low, high, strict=True)
    }


def damage_finding(damage: DamagedEpisode, done: str) -> Finding:
    return Finding(damage.what, f"episode {damage.episode}, {damage.file}", done)


def twin_findings(twins: dict[int, int]) -> list[Finding]:
    """Says which episodes are others again: trained on and held out, they would flatter a world."""
    if not twins:
        return []
    pairs = listed([f"{twin} ({first})" for twin, first in twins.items()])
    return [Finding(f"{len(twins)} repeat another number by number: {pairs}", "episodes", LEFT_OUT)]


def rate_findings(rate: MeasuredRate | None, fps: float) -> list[Finding]:
    """Says that the recording's clock is not what was declared, where rows count as steps all the same."""
    if rate is None or (abs(rate.fps / fps - 1) <= RATE_TOLERANCE and rate.jitter <= RATE_TOLERANCE):
        return []
    done = f"each row is a step all the same; a world of it counts {fps:g} of them as a second"
    return [Finding(f"declared {fps:g} Hz; {rate}", "timestamp", done)]


def fine_findings(source: Source) -> list[Finding]:
    """Says that steps are short, and which stride makes them longer: near COARSE a second."""
    if source.fps <= FINE:
        return []
    recorded = source.recorded.fps if isinstance(source, Strided) else source.fps
    stride = round(recorded / COARSE)
    what = f"{source.fps:g} frames a second, and neighboring ones hardly differ"
    done = f"kept; data.stride={stride} makes steps of {stride} frames, {recorded / stride:.3g} a second, "
    return [Finding(what, "rate", done + "which a world learns more from", notable=False)]


def dropped_findings(schema: DataSchema, good: Sequence[CheckedEpisode]) -> list[Finding]:
    """Says where the recorder dropped frames, as the robot's own motion tells."""
    lengths = np.array([one.episode.length for one in good], int)
    starts = np.cumsum(lengths) - lengths
    state, action = (np.concatenate(x) for x in ([o.state for o in good], [o.matrix(ACTION) for o in good]))
    found = find_dropped_frames(state[:, : len(schema.agent_pos)], action, starts, lengths)
    if not found.any():
        return []
    episodes = len(np.unique(np.searchsorted(starts, np.flatnonzero(found), side="right")))
    what = (
        f"{found.sum()} of {len(found):,} steps lead twice as far as their command says: the recorder "
        "dropped a frame"
    )
    done = "kept; nothing is learned from these steps, and scd-evaluate says how good a world is without them"
    return [Finding(what, f"{episodes} episode{'s' if episodes > 1 else ''}", done)]


def image_findings(source: Source) -> list[Finding]:
    """Lists the cameras whose images are resized or letterboxed."""
    grid, views = source.grid, source.grid.views(source.sizes)
    frame, found = f"{grid.height} × {grid.width}", []
    for camera, (height, width) in source.sizes.items():
        view = views[camera]
        if (height, width) == (grid.height, grid.width):
            continue
        done, notable = f"resized to {frame}", False
        if (view.height, view.width) != (grid.height, grid.width):
            done = f"letterboxed: {view.height} × {view.width} on black, in a frame of {frame}"
        elif abs(stretch := (grid.width / width) / (grid.height / height) - 1) > ROUNDING:
            wider, notable = "wider" if stretch > 0 else "narrower", True
            done += (
                f", which shows things {abs(stretch):.0%} {wider}; data.resize=letterbox keeps proportions"
            )
        found.append(Finding(f"{height} × {width}", f"camera {camera}", done, notable))
    return found


def feature_findings(schema: DataSchema) -> list[Finding]:
    """Lists what was not recorded, and what a world then lacks."""
    missing = {
        "observation.state": (schema.agent_pos, "the world predicts images alone; they drift sooner"),
        "next.reward": (
            schema.reward,
            "no reward is learned; the environment's reward is 0, and its metadata says so",
        ),
        "next.success": (schema.success, "no success is learned; episodes end at the horizon alone"),
    }
    found = [
        Finding("not recorded", key, done, notable=key == "observation.state")
        for key, (present, done) in missing.items()
        if not present
    ]
    if len(schema.tasks) > 1:
        done = "each episode's task conditions the world; reset(options={'task': …}) picks one"
        found.append(Finding(f"{len(schema.tasks)} tasks", "task", done, notable=False))
    return found


def value_findings(schema: DataSchema, good: Sequence[CheckedEpisode]) -> list[Finding]:
    """Lists the values from which nothing can be learned."""
    low, high = np.array(schema.action_low), np.array(schema.action_high)
    found = still_finding("action", schema.action, low, high, "kept; what they do cannot be learned")
    if schema.state:
        low, high = _ranges([one.state for one in good])
        found += still_finding("state", schema.state, low, high, "kept; they say nothing")
    if schema.reward and len({*np.concatenate([c.low_dim[REWARD].ravel() for c in good]).tolist()}) == 1:
        found.append(Finding("never changes", REWARD, "kept; the reward will be that constant"))
    if schema.success:
        ends = [bool(checked.low_dim[SUCCESS].any()) for checked in good]
        if all(ends) or not any(ends):
            what = f"{'every' if ends[0] else 'no'} episode succeeds"
            found.append(Finding(what, SUCCESS, "kept; record the other outcome too, or none is imagined"))
    return found


def episode_findings(good: Sequence[CheckedEpisode]) -> list[Finding]:
    """Lists the episodes that are whole, but unusual."""
    found = []
    several = [one for one in good if len(one.episode.tasks) > 1]
    without = [one.episode.index for one in good if not one.episode.tasks]
    if without and len(without) < len(good):
        what = f"{len(without)} have no task, and others have: {listed(without)}"
        found.append(Finding(what, "episodes", "they count as a task of their own, ''"))
    for checked in good:
        where, episode = f"episode {checked.episode.index}, {checked.episode.file}", checked.episode
        ends = np.flatnonzero(checked.low_dim.get(DONE, np.zeros(0)))
        if len(ends) and ends[0] < episode.length - 1:
            what = f"{DONE} is set at frame {ends[0]} of {episode.length}"
            found.append(Finding(what, where, "read on to the episode's listed end"))
    if several:
        first = several[0].episode
        what = f"{len(several)} have several tasks: {listed([one.episode.index for one in several])}"
        done = f"the first one counts, such as {first.tasks[0]!r} of {list(first.tasks)}"
        found.append(Finding(what, "episodes", done))
    if short := [c.episode.index for c in good if c.episode.length < SHORT]:
        done = "stored; training leaves out those shorter than its sequence_length"
        found.append(Finding(f"{len(short)} shorter than {SHORT} steps", f"episodes {listed(short)}", done))
    return found

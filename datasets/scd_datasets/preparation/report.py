"""The check's report: what a dataset holds, what is wrong or missing, where, and what is done about it.

L steps of an episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scd_datasets.sources.lerobot_features import DONE, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.sources.source import DamagedEpisode, EpisodeIndex, Finding, Source
from scd_datasets.store.store import WindowStore
from scd_world.robot_data.schema import DataSchema

SHORT = 16  # steps: below, an episode is shorter than the usual windows
ROUNDING = 0.05  # of the proportions: what whole patches cost
LEFT_OUT = "left out"
STOP_HINT = "stops here; on_bad_episode=skip (scd-train: data.skip_damaged=true) leaves it out"


@dataclass(frozen=True)
class CheckedEpisode:
    """An episode whose low-dimensional data is good: where it lies, and that data."""

    episode: EpisodeIndex
    low_dim: dict[str, np.ndarray]  # {key: (L, …)}

    def matrix(self, key: str) -> np.ndarray:
        """Gives (L, n) float32; n = 0 where the key is not recorded."""
        length = self.episode.length
        return self.low_dim.get(key, np.zeros((length, 0))).reshape(length, -1).astype(np.float32)

    @property
    def state(self) -> np.ndarray:
        """Gives (L, S) float32, as `DataSchema.state` names it."""
        return np.concatenate([self.matrix(STATE), self.matrix(ENVIRONMENT_STATE)], axis=1)


@dataclass(frozen=True)
class CheckReport:
    """Holds what a check found and built; `table()` is for people."""

    source: Source
    schema: DataSchema
    good: list[CheckedEpisode]
    bad: list[DamagedEpisode]
    skip_bad: bool
    store: WindowStore | None

    def table(self) -> str:
        """Writes what there is, then what is wrong or missing."""
        rows = self.summary()
        width = max(map(len, rows))
        lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
        found = self.findings()
        if not found:
            return "\n".join([*lines, "", "Nothing is wrong or missing."])
        lines += ["", "To know before training (where: what → what is done):"]
        return "\n".join([*lines, *(f"  {f.where}: {f.what} → {f.done}" for f in found)])

    def summary(self) -> dict[str, str]:
        lengths = np.array([checked.episode.length for checked in self.good])
        schema, frames = self.schema, int(lengths.sum())
        rows = {
            "dataset": str(self.source.root),
            "episodes": f"{len(self.good)} good, {len(self.bad)} damaged",
            "frames": f"{frames:,} at {schema.fps} fps: {frames / schema.fps / 60:.1f} minutes",
            "length": f"{lengths.min()} … {lengths.max()} steps, median {np.median(lengths):.0f}",
            "cameras": f"{', '.join(schema.cameras)}: {schema.height} × {schema.width}",
            "state": f"{len(schema.agent_pos)} robot, {len(schema.environment_state)} environment",
            "tasks": "; ".join(schema.tasks) or "none named",
        }
        for name, low, high in zip(schema.action, schema.action_low, schema.action_high, strict=True):
            rows[f"action {name}"] = f"{low:.4g} … {high:.4g}"
        if schema.reward:
            rewards = np.concatenate([checked.low_dim[REWARD].ravel() for checked in self.good])
            rows["reward"] = f"{rewards.min():.4g} … {rewards.max():.4g}, mean {rewards.mean():.4g}"
        if schema.success:
            share = np.mean([checked.low_dim[SUCCESS].any() for checked in self.good])
            rows["success"] = f"{share:.0%} of episodes"
        if self.store is not None:
            rows["store"] = f"{self.store.path} (fingerprint {self.store.fingerprint[:12]})"
        return rows

    def findings(self) -> list[Finding]:
        return [
            *(damage_finding(damage, LEFT_OUT if self.skip_bad else STOP_HINT) for damage in self.bad),
            *image_findings(self.source),
            *feature_findings(self.schema),
            *value_findings(self.schema, self.good),
            *episode_findings(self.good),
            *self.source.findings(),
        ]


def damage_finding(damage: DamagedEpisode, done: str) -> Finding:
    return Finding(damage.what, f"episode {damage.episode}, {damage.file}", done)


def image_findings(source: Source) -> list[Finding]:
    """Lists the cameras whose images are resized or letterboxed."""
    grid, views = source.grid, source.grid.views(source.sizes)
    frame, found = f"{grid.height} × {grid.width}", []
    for camera, (height, width) in source.sizes.items():
        view = views[camera]
        if (height, width) == (grid.height, grid.width):
            continue
        done = f"resized to {frame}"
        if (view.height, view.width) != (grid.height, grid.width):
            done = f"letterboxed: {view.height} × {view.width} on black, in a frame of {frame}"
        elif abs(stretch := (grid.width / width) / (grid.height / height) - 1) > ROUNDING:
            wider = "wider" if stretch > 0 else "narrower"
            done += (
                f", which shows things {abs(stretch):.0%} {wider}; data.resize=letterbox keeps proportions"
            )
        found.append(Finding(f"{height} × {width}", f"camera {camera}", done))
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
    found = [Finding("not recorded", key, done) for key, (present, done) in missing.items() if not present]
    if len(schema.tasks) > 1:
        done = "each episode's task conditions the world; reset(options={'task': …}) picks one"
        found.append(Finding(f"{len(schema.tasks)} tasks", "task", done))
    return found


def value_findings(schema: DataSchema, good: Sequence[CheckedEpisode]) -> list[Finding]:
    """Lists the values from which nothing can be learned."""
    found = [
        Finding(f"is always {low:.4g}", f"action {name}", "kept; what it does cannot be learned")
        for name, low, high in zip(schema.action, schema.action_low, schema.action_high, strict=True)
        if low == high
    ]
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
    for checked in good:
        where, episode = f"episode {checked.episode.index}, {checked.episode.file}", checked.episode
        ends = np.flatnonzero(checked.low_dim.get(DONE, np.zeros(0)))
        if len(ends) and ends[0] < episode.length - 1:
            what = f"{DONE} is set at frame {ends[0]} of {episode.length}"
            found.append(Finding(what, where, "read on to the episode's listed end"))
        if len(episode.tasks) > 1:
            found.append(Finding(f"has {len(episode.tasks)} tasks", where, f"counts as {episode.tasks[0]!r}"))
    if short := [c.episode.index for c in good if c.episode.length < SHORT]:
        listed = ", ".join(map(str, short[:10])) + (", …" if len(short) > 10 else "")
        done = "stored; training leaves out those shorter than its sequence_length"
        found.append(Finding(f"{len(short)} shorter than {SHORT} steps", f"episodes {listed}", done))
    return found

"""Low-dimensional data: states, actions, rewards, success; all that the state prior learns from.

F frames of all episodes, E episodes, R rows, S state size, A action size.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from scd_datasets.preparation.check import valid_episodes
from scd_datasets.sources.lerobot.features import ACTION, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.sources.source import DropFeatures, Source
from scd_datasets.sources.strided import Strided
from scd_datasets.store.store import WindowStore, previous_state_action, rows_of
from scd_world.robot_data.dropped_frames import find_dropped_frames
from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.stride import Stride

log = logging.getLogger(__name__)
FEWEST = 5  # episodes, from which on one of them is set apart
OPTIONAL = (STATE, ENVIRONMENT_STATE, REWARD, SUCCESS)


@dataclass(frozen=True)
class LowDimData:
    """The recorded steps of E episodes, one after another, in raw units."""

    state: np.ndarray  # float32 (F, S)
    prev: np.ndarray  # float32 (F, S + A) state and action one frame earlier
    action: np.ndarray  # float32 (F, A)
    reward: np.ndarray  # float32 (F,)
    success: np.ndarray  # bool (F,)
    dropped: np.ndarray  # bool (F,) whether the recorder dropped a frame between this one and the next
    lengths: np.ndarray  # int (E,)

    @property
    def starts(self) -> np.ndarray:
        """Gives (E,): the first row of each episode."""
        return np.cumsum(self.lengths) - self.lengths

    def concat(self, other: LowDimData) -> LowDimData:
        """Gives these episodes, then the other ones."""
        both = {f.name: [getattr(self, f.name), getattr(other, f.name)] for f in fields(self)}
        return LowDimData(**{name: np.concatenate(parts) for name, parts in both.items()})

    def select(self, episodes: np.ndarray) -> LowDimData:
        """Gives some of the episodes, by their indices (R,)."""
        rows = rows_of(self.starts, self.lengths, episodes)
        per_frame = [f.name for f in fields(self) if f.name != "lengths"]
        chosen = {name: getattr(self, name)[rows] for name in per_frame}
        return LowDimData(**chosen, lengths=self.lengths[episodes])


def split_hash(data: LowDimData) -> np.ndarray:
    """Hashes each episode's states and actions to (E,) in [0, 1), by which it falls into a split.

    An episode that is recorded again, or beside others, falls into the same one; episodes that merely begin
    alike need not.
    """
    rows = np.ascontiguousarray(np.hstack([data.state, data.action]), np.float32)
    parts = np.split(rows, data.starts[1:])
    return np.array([zlib.crc32(part.tobytes()) for part in parts]) / 2**32


def calibration_threshold(hashes: np.ndarray, share: float) -> float:
    """Gives the bound below which an episode's hash, of (E,), puts it into the calibration split.

    That is about this share of the episodes; of few episodes ten, or a tenth, or one of five. It is a bound,
    not a count: an episode below it stays below it when others are recorded.
    """
    few = min(10, max(len(hashes) // 10, int(len(hashes) >= FEWEST)))
    return max(share, float(np.sort(hashes)[few])) if share and few else share


def store_low_dim(store: WindowStore, episodes: np.ndarray) -> LowDimData:
    """Gives the low-dimensional data of some episodes (E,) of a window store."""
    rows = rows_of(store.starts, store.lengths, episodes)
    starts = np.repeat(store.starts[episodes], store.lengths[episodes])
    return LowDimData(
        state=store.state[rows],
        prev=previous_state_action(store.state, store.action, rows, starts),
        action=store.action[rows],
        reward=store.reward[rows],
        success=store.success[rows],
        dropped=store.dropped[rows],
        lengths=store.lengths[episodes],
    )


def dataset_low_dim(
    root: str | Path,
    schema: DataSchema,
    held_out: LowDimData | None = None,
    skip_bad: bool = False,
    keys: Mapping[str, str] | None = None,
    in_order: bool = False,
    stride: Stride | None = None,
) -> LowDimData:
    """Reads the low-dimensional data of a LeRobotDataset, with or without cameras, recorded beside the one
    with this `schema`, and read as it was: `keys` and `in_order` as for LeRobotFolder, at its `stride` unless
    it was recorded at that rate.

    Features that the schema does not have are not read. An episode that begins exactly as one of those that
    are `held_out` is that one, recorded again, and left out.

    Raises ValueError for another robot, and for a damaged episode without `skip_bad`.
    """
    source = open_beside(root, names_in(schema), keys, in_order, stride)
    if source.imagined:
        log.warning("%s is %s: the state prior learns what that world predicts", root, source.imagined)
    found = valid_episodes(source, skip_bad)
    good, bad = found.good, found.bad
    state = np.concatenate([one.state for one in good])
    action = np.concatenate([one.matrix(ACTION) for one in good])
    lengths = np.array([one.episode.length for one in good])
    firsts = np.cumsum(lengths) - lengths
    starts = np.repeat(firsts, lengths)

    def per_step(key: str, dtype: type) -> np.ndarray:
        """Gives (F,), 0 where it was not recorded, as in a store."""
        if not source.names(key):
            return np.zeros(len(state), dtype)
        return np.concatenate([one.matrix(key)[:, 0] for one in good]).astype(dtype)

    data = LowDimData(
        state=state,
        prev=previous_state_action(state, action, np.arange(len(state)), starts),
        action=action,
        reward=per_step(REWARD, np.float32),
        success=per_step(SUCCESS, bool),
        dropped=find_dropped_frames(state[:, : len(schema.agent_pos)], action, firsts, lengths),
        lengths=lengths,
    )
    kept: np.ndarray = np.arange(len(good))
    if held_out is not None:
        kept = np.flatnonzero(~np.isin(first_rows(data), first_rows(held_out)))
    log.info(
        f"{root}: low-dimensional data of {len(kept)} further episodes, {lengths[kept].sum():,} frames; left "
        f"out: {len(bad)} damaged, {len(good) - len(kept)} that are held out elsewhere"
    )
    return data.select(kept)


def open_beside(
    root: str | Path,
    wanted: Mapping[str, object],
    keys: Mapping[str, str] | None = None,
    in_order: bool = False,
    stride: Stride | None = None,
) -> Source:
    """Opens a LeRobotDataset that was recorded beside another one, of which `wanted` tells names and rate
    (`names_in`, `names_of`), as `dataset_low_dim` reads it: ValueError for another robot. Nothing is read."""
    from scd_datasets.sources.lerobot.reader import LeRobotFolder  # needs pyarrow, and a store does not

    source: Source = LeRobotFolder(root, keys=keys, in_order=in_order)
    # The other one may have been read with `data.drop_features`.
    if unknown := [key for key in OPTIONAL if source.names(key) and not wanted[key]]:
        source = DropFeatures(source, unknown)
    if stride is not None and source.fps != wanted["fps"]:
        source = Strided(source, stride.frames, stride.action)
    theirs = names_of(source)
    differing = [
        f"{key} is {theirs[key]!r} there, {ours!r} in the training data"
        for key, ours in wanted.items()
        if theirs[key] != ours
    ]
    if differing:
        raise ValueError(
            f"{source.root} cannot train this world's state prior ({'; '.join(differing)}): record it as the "
            "training data was, with or without cameras"
        )
    return source


def names_of(source: Source) -> dict[str, object]:
    """Gives what two recordings of one robot share: names, rate, and which outcomes there are."""
    names: dict[str, object] = {key: source.names(key) for key in (STATE, ENVIRONMENT_STATE, ACTION)}
    outcomes = {key: bool(source.names(key)) for key in (REWARD, SUCCESS)}
    return names | {"fps": source.fps} | outcomes


def names_in(schema: DataSchema) -> dict[str, object]:
    """Gives the same of what a store holds."""
    names: dict[str, object] = {STATE: schema.agent_pos, ENVIRONMENT_STATE: schema.environment_state}
    return names | {ACTION: schema.action, "fps": schema.fps, REWARD: schema.reward, SUCCESS: schema.success}


def first_rows(data: LowDimData) -> np.ndarray:
    """Gives (E,), a value for each episode that equals another's where first state and action do, bit for
    bit."""
    first = np.hstack([data.state[data.starts], data.action[data.starts]])
    first = np.ascontiguousarray(first, np.float32)
    return first.view(np.dtype((np.void, first.shape[1] * first.itemsize)))[:, 0]

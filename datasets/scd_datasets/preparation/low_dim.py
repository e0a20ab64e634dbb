"""What was recorded besides images: states, actions, what they earned. All that the body learns from.

F frames of all episodes, E episodes, R rows, S state size, A action size.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from scd_datasets.preparation.check import valid_episodes
from scd_datasets.sources.lerobot_features import ACTION, ENVIRONMENT_STATE, REWARD, STATE, SUCCESS
from scd_datasets.sources.lerobot_reader import LeRobotFolder
from scd_datasets.sources.source import DropFeatures, Source
from scd_datasets.store.store import WindowStore, one_frame_earlier, rows_of
from scd_world.robot_data.schema import DataSchema

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LowDimData:
    """One episode after another, in raw units."""

    state: np.ndarray  # float32 (F, S)
    prev: np.ndarray  # float32 (F, S + A) one frame earlier, see `one_frame_earlier`
    action: np.ndarray  # float32 (F, A)
    reward: np.ndarray  # float32 (F,)
    success: np.ndarray  # bool (F,)
    lengths: np.ndarray  # int (E,)

    @property
    def starts(self) -> np.ndarray:
        """(E,) the first row of each episode."""
        return np.cumsum(self.lengths) - self.lengths

    def concat(self, other: LowDimData) -> LowDimData:
        """These episodes, then the other ones."""
        both = {f.name: [getattr(self, f.name), getattr(other, f.name)] for f in fields(self)}
        return LowDimData(**{name: np.concatenate(parts) for name, parts in both.items()})

    def select(self, episodes: np.ndarray) -> LowDimData:
        """These episodes alone."""
        rows = rows_of(self.starts, self.lengths, episodes)
        per_frame = [f.name for f in fields(self) if f.name != "lengths"]
        chosen = {name: getattr(self, name)[rows] for name in per_frame}
        return LowDimData(**chosen, lengths=self.lengths[episodes])


def split_hash(numbers: LowDimData) -> np.ndarray:
    """(E,) in [0, 1): the checksum of an episode's states and actions. Recorded anew, or beside others, an
    episode is dealt the same; episodes that merely begin alike are not."""
    rows = np.ascontiguousarray(np.hstack([numbers.state, numbers.action]), np.float32)
    parts = np.split(rows, numbers.starts[1:])
    return np.array([zlib.crc32(part.tobytes()) for part in parts]) / 2**32


def calibration_threshold(lot: np.ndarray, share: float) -> float:
    """The lot, of (E,), below which episodes are set apart: about this share of them; of few episodes ten,
    or a tenth.

    It is a bound, and no count: whoever is below still is so beside new recordings.
    """
    few = min(10, len(lot) // 10)
    return max(share, float(np.sort(lot)[few])) if share and few else share


def store_low_dim(store: WindowStore, episodes: np.ndarray) -> LowDimData:
    """Of some episodes of a window store."""
    rows = rows_of(store.starts, store.lengths, episodes)
    starts = np.repeat(store.starts[episodes], store.lengths[episodes])
    return LowDimData(
        state=store.state[rows],
        prev=one_frame_earlier(store.state, store.action, rows, starts),
        action=store.action[rows],
        reward=store.reward[rows],
        success=store.success[rows],
        lengths=store.lengths[episodes],
    )


def dataset_low_dim(
    root: str | Path, schema: DataSchema, unseen: LowDimData | None = None, skip_bad: bool = False
) -> LowDimData:
    """Of all episodes of a LeRobotDataset beside the window store with this `schema`; it needs no cameras.

    Numbers that the schema does not know are not read. An episode that begins exactly as one of those that
    must stay `unseen` is that one, recorded again, and left out. Another robot, or a damaged episode without
    `skip_bad`, raises ValueError.
    """
    source = without_what_is_unknown(LeRobotFolder(root), schema)
    refuse_another_robot(source, schema)
    good, bad = valid_episodes(source, skip_bad)
    state = np.concatenate([one.state for one in good])
    action = np.concatenate([one.matrix(ACTION) for one in good])
    lengths = np.array([one.episode.length for one in good])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)

    def one_number(key: str, dtype: type) -> np.ndarray:
        """(F,) of each step; 0 where it was not recorded, as in a store."""
        if not source.names(key):
            return np.zeros(len(state), dtype)
        return np.concatenate([one.matrix(key)[:, 0] for one in good]).astype(dtype)

    numbers = LowDimData(
        state=state,
        prev=one_frame_earlier(state, action, np.arange(len(state)), starts),
        action=action,
        reward=one_number(REWARD, np.float32),
        success=one_number(SUCCESS, bool),
        lengths=lengths,
    )
    elsewhere = np.zeros(len(good), bool)
    if unseen is not None:
        elsewhere = np.isin(first_rows(numbers), first_rows(unseen))
    kept = np.flatnonzero(~elsewhere)
    log.info(
        f"{root}: numbers of {len(kept)} further episodes, {lengths[kept].sum():,} frames; left out: "
        f"{len(bad)} damaged, {len(good) - len(kept)} that are held out elsewhere"
    )
    return numbers.select(kept)


def without_what_is_unknown(source: Source, schema: DataSchema) -> Source:
    """A store may have been built with `data.drop_features`; then these numbers are ignored here too."""
    known = {STATE: schema.agent_pos, ENVIRONMENT_STATE: schema.environment_state}
    known |= {REWARD: schema.reward, SUCCESS: schema.success}
    unknown = [key for key, there in known.items() if source.names(key) and not there]
    return DropFeatures(source, unknown) if unknown else source


def refuse_another_robot(source: Source, schema: DataSchema) -> None:
    theirs = {key: source.names(key) for key in (STATE, ENVIRONMENT_STATE, ACTION)}
    theirs |= {"fps": source.fps, REWARD: bool(source.names(REWARD)), SUCCESS: bool(source.names(SUCCESS))}
    ours = {STATE: schema.agent_pos, ENVIRONMENT_STATE: schema.environment_state, ACTION: schema.action}
    ours |= {"fps": schema.fps, REWARD: schema.reward, SUCCESS: schema.success}
    differing = [
        f"{key} is {theirs[key]!r} there, {wanted!r} in the training data"
        for key, wanted in ours.items()
        if theirs[key] != wanted
    ]
    if differing:
        raise ValueError(
            f"{source.root} cannot teach this world's body ({'; '.join(differing)}): record it as the "
            "training data was, with or without cameras"
        )


def first_rows(numbers: LowDimData) -> np.ndarray:
    """(E,) one value per episode: its first state and action, bit for bit."""
    first = np.hstack([numbers.state[numbers.starts], numbers.action[numbers.starts]])
    first = np.ascontiguousarray(first, np.float32)
    return first.view(np.dtype((np.void, first.shape[1] * first.itemsize)))[:, 0]

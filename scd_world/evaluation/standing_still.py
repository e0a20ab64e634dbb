"""Does anything move where nothing acts? Moments at which the recordings stand still, gone on with for long.

What melts, fades or crawls in an imagined picture while the robot rests is the world's own doing.
M moments, H steps; gray levels are means over all pixels of absolute differences.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from scd_datasets.store.store import WindowStore
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.open_loop import (
    RowNoise,
    Window,
    frames_of,
    imagine_steps,
    load_batch,
    start_windows,
)
from scd_world.evaluation.outcome_prediction import FRAMES_AT_ONCE
from scd_world.world.world import World

STATE = 0.01  # of a dimension's recorded range: what moves no further stands still
PIXELS = 2.0  # gray levels from the last shown frame: sensors and video compression make as much
FEWEST = 8  # recorded frames for which it goes on standing still after those that are shown, or the horizon
STEPS = (1, 16, 64)  # at which the drift is reported


def find_still_moments(
    store: WindowStore, episodes: np.ndarray, context: int, horizon: int, most: int
) -> list[Window]:
    """Finds where each episode (positions in the store) stands still for longest, and keeps the `most`
    longest of these.

    State and pictures both stand still, over the context, which ends at `frame`, and for `steps` recorded
    frames more.
    """
    state = store.state[:]
    state = state / np.maximum(np.ptp(state, axis=0), 1e-6)
    found = (longest_still(store, int(e), state, context, horizon) for e in episodes)
    return sorted((w for w in found if w is not None), key=lambda w: -w.steps)[:most]


def longest_still(
    store: WindowStore, episode: int, state: np.ndarray, context: int, horizon: int
) -> Window | None:
    """Finds an episode's longest still moment; state (F, S): of all recordings, in units of its range."""
    first, length = int(store.starts[episode]), int(store.lengths[episode])
    mine, best, fewest = state[first : first + length], None, min(FEWEST, horizon)
    pictures = Pictures(store, first, length, most=context + horizon)
    for frame in range(context - 1, length - fewest):
        least = best.steps + 1 if best else fewest
        around = slice(frame - context + 1, min(frame + horizon + 1, length))
        moved = np.abs(mine[around] - mine[frame]).max(axis=1, initial=0) > STATE
        if steps_at_rest(moved, context) < least:
            continue
        now = pictures[frame].astype(np.int16)
        if np.abs(pictures[frame + least] - now).mean() > PIXELS:
            continue
        moved = moved | [np.abs(pictures[i] - now).mean() > PIXELS for i in range(around.start, around.stop)]
        if (steps := steps_at_rest(moved, context)) >= least:
            best = Window(episode, frame, steps)
    return best


class Pictures:
    """An episode's pictures, uint8 (V, H, W, 3), read a few at a time, of which the last are kept: a whole
    episode of several cameras is gigabytes."""

    def __init__(self, store: WindowStore, first: int, length: int, most: int) -> None:
        """first: the episode's first row; most: how many frames in a row are asked for."""
        self.store, self.first, self.length = store, first, length
        self._read = lru_cache(maxsize=most // FRAMES_AT_ONCE + 2)(self._read_some)

    def __getitem__(self, frame: int) -> np.ndarray:
        return self._read(frame // FRAMES_AT_ONCE)[frame % FRAMES_AT_ONCE]

    def _read_some(self, part: int) -> np.ndarray:
        frames = np.arange(part * FRAMES_AT_ONCE, min((part + 1) * FRAMES_AT_ONCE, self.length))
        return self.store.pixels_of_rows(self.first + frames)


def steps_at_rest(moved: np.ndarray, context: int) -> int:
    """Counts the frames after the context until one has moved, (frames,) bool; 0 where the context has."""
    if moved[:context].any():
        return 0
    after = moved[context:]
    return int(after.argmax()) if after.any() else len(after)


@torch.no_grad()
def standing_still(
    world: World,
    store: WindowStore,
    moments: list[Window],
    config: EvaluateConfig,
    done: Callable[[int], object],
) -> dict[str, Any] | None:
    """Measures how far the imagined picture drifts at these moments, as plain data; None: there are none.

    Each goes on for `config.horizon` steps with the action that it stood still under in the recordings, the
    median of those frames: a fit of the normalizer's kind knows nothing of what no state tells, a gripper
    say. Drift is from the last shown frame, and from the first imagined one; `recorded`: from the last shown
    frame, as long as the recordings stood still. done: called with the number of frames just imagined.
    """
    if not moments:
        return None
    parts = [moments[i : i + config.batch_size] for i in range(0, len(moments), config.batch_size)]
    drifts = [drift_of(world, store, part, config, done) for part in parts]
    steps = [h for h in STEPS if h <= config.horizon]
    names = ("from_last_shown", "from_first_imagined", "recorded")
    means = {}
    for name, values in zip(names, map(np.concatenate, zip(*drifts, strict=True)), strict=True):
        shown = [values[:, h - 1] for h in steps]
        means[name] = [float(v[np.isfinite(v)].mean()) if np.isfinite(v).any() else None for v in shown]
    return {
        "moments": len(moments),
        "episodes": len({w.episode for w in moments}),
        "starts": [[int(store.episode_index[w.episode]), w.frame, w.steps] for w in moments],
        "steps": steps,
        **means,
    }


def drift_of(
    world: World,
    store: WindowStore,
    moments: list[Window],
    config: EvaluateConfig,
    done: Callable[[int], object],
) -> tuple[np.ndarray, ...]:
    """Measures each moment's drift at each step, (M, H): from the last shown, from the first imagined frame,
    and that of the recordings, NaN once they moved."""
    batch = load_batch(store, moments, config.context, world.device, world.codec)
    rows = [store.starts[w.episode] + w.frame + np.arange(w.steps) for w in moments]
    held = world.tensor(np.stack([np.median(store.action[r], axis=0) for r in rows]))
    noise = RowNoise(moments, world.frame_shape, config.seed)
    steps = imagine_steps(
        world,
        start_windows(world, batch),
        held[:, None].expand(-1, config.horizon, -1),
        noise,
        config.num_steps,
    )
    recorded = batch.pixels[:, config.context - 1 :].cpu().numpy()
    last, first = recorded[:, 0], None
    from_last, from_first, of_recorded = (np.full((len(moments), config.horizon), np.nan) for _ in range(3))
    for h, s in enumerate(steps):
        frames = frames_of(world, s)
        first = frames if first is None else first
        from_last[:, h], from_first[:, h] = apart(frames, last), apart(frames, first)
        still = [i for i, w in enumerate(moments) if h < w.steps]
        if still:
            of_recorded[still, h] = apart(recorded[still, h + 1], last[still])
        done(len(moments))
    return from_last, from_first, of_recorded


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes the mean absolute difference of frames uint8 (M, V, H, W, 3), (M,) in gray levels."""
    return np.abs(a.astype(np.int16) - b).mean((1, 2, 3, 4))

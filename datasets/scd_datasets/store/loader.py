"""Training batches: windows sampled as a pure function of (seed, step), cut by rank, read one step ahead.

B windows of the global batch, T steps.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.store import WindowStore, previous_state_action

MOVED = 1e-3  # of a dimension's range: simulators settle, sensors tremble
log = logging.getLogger(__name__)


class WindowLoader:
    """Samples windows of `num_steps` steps from `episodes` (E,); `batch(step)` is all there is to resume.

    batch_size: windows of all ranks together: what is sampled does not depend on `world_size`, each rank
    reads its own slice of it.
    motion_share: share of the windows, in [0, 1], sampled from those in which something besides the robot
    moves: `environment_state` where it is recorded, else a pixel change in its upper half.

    Raises ValueError where a share or a batch size is impossible, or no episode is long enough.
    """

    def __init__(
        self,
        store: WindowStore,
        episodes: np.ndarray,
        batch_size: int,
        num_steps: int,
        seed: int,
        motion_share: float = 0.5,
        rank: int = 0,
        world_size: int = 1,
        anchors: bool = False,
        anchor_distance: Callable[[int], int] | None = None,
    ) -> None:
        """anchors: with each window an earlier frame of its episode, the state there, and state and action
        one frame before that. anchor_distance: how many frames earlier at most, of each step; None: any."""
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size counts all processes' windows: {batch_size} does not divide by {world_size}"
            )
        if not 0 <= motion_share <= 1:
            raise ValueError(f"motion_share is a share in [0, 1], got {motion_share}")
        self.store, self.num_steps, self.seed = store, num_steps, seed
        self.batch_size, self.motion_share = batch_size, motion_share
        self.rank, self.world_size, self.anchors = rank, world_size, anchors
        self.anchor_distance = anchor_distance
        self.episodes = self._long_enough(np.asarray(episodes))
        self.windows = self._windows()  # (N, 2) episode, frame
        self.moving = self.windows[self._moves()]

    def batch(self, step: int) -> dict[str, Tensor]:
        """Reads this rank's windows of step `step`, as `WindowStore.windows` gives them."""
        addresses = self.addresses(step)
        share = self.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        episodes, frames = addresses[mine].T
        windows = self.store.windows(episodes, frames, self.num_steps)
        if self.anchors:
            back = np.random.default_rng([self.seed, step, 1]).random(self.batch_size)[mine]
            first = 0 if self.anchor_distance is None else frames - self.anchor_distance(step)
            first = np.maximum(first, 0)
            earlier = first + (back * (frames + 1 - first)).astype(int)  # up to the window's first
            windows["anchor"] = self.store.frames(episodes, earlier)
            state, starts = self.store.state, self.store.starts[episodes]
            rows = starts + earlier
            windows["anchor_state"] = state[rows]
            windows["anchor_prev"] = previous_state_action(state, self.store.action, rows, starts)
        return {name: torch.from_numpy(values) for name, values in windows.items()}

    def addresses(self, step: int) -> np.ndarray:
        """Samples (B, 2): episode and frame of every window of the global batch."""
        rng = np.random.default_rng([self.seed, step])
        wants_motion = rng.random(self.batch_size) < self.motion_share
        uniform = rng.random(self.batch_size)
        any_window = self.windows[(uniform * len(self.windows)).astype(int)]
        if not len(self.moving):
            return any_window
        moving = self.moving[(uniform * len(self.moving)).astype(int)]
        return np.where(wants_motion[:, None], moving, any_window)

    def _long_enough(self, episodes: np.ndarray) -> np.ndarray:
        short = self.store.lengths[episodes] < self.num_steps
        if short.all():
            raise ValueError(
                f"no training episode has {self.num_steps} steps, the longest has "
                f"{self.store.lengths[episodes].max(initial=0)}; shorten windows or record longer episodes"
            )
        if short.any():
            log.warning(
                "%d of %d episodes are shorter than %d steps and left out",
                short.sum(),
                len(short),
                self.num_steps,
            )
        return episodes[~short]

    def _windows(self) -> np.ndarray:
        counts = self.store.lengths[self.episodes] - self.num_steps + 1
        frames = np.concatenate([np.arange(count) for count in counts])
        return np.stack([np.repeat(self.episodes, counts), frames], axis=1)

    def _moves(self) -> np.ndarray:
        """Gives (N,) bool: whether something besides the robot moves inside the window."""
        rows = self.store.starts[self.windows[:, 0]] + self.windows[:, 1]
        # T transitions row → row+1 per window; the one that leaves the episode counts 0.
        running = np.concatenate([[0.0], np.cumsum(self._motion(), dtype=np.float64)])
        amount = running[rows + self.num_steps] - running[rows]
        if self.store.schema.environment_state:
            return amount > 0
        return amount >= max(np.median(amount), np.finfo(np.float32).tiny)

    def _motion(self) -> np.ndarray:
        """Gives (F,): how much moves between a row and the next, 0/1 by environment state, else the pixel
        change."""
        schema = self.store.schema
        if not schema.environment_state:
            return self.store.change
        state = self.store.state[:, len(schema.agent_pos) :]
        scale = np.maximum(np.ptp(state, axis=0), np.finfo(np.float32).tiny)
        moved = np.zeros(len(state))
        moved[:-1] = (np.abs(np.diff(state, axis=0)) > MOVED * scale).any(1)
        moved[self.store.starts + self.store.lengths - 1] = 0  # the next row is another episode
        return moved


def prefetch(
    loader: WindowLoader, first_step: int, depth: int = 2
) -> Generator[dict[str, Tensor], None, None]:
    """Yields the batches of `first_step`, `first_step + 1`, … for ever, read `depth` ahead by a thread."""
    ready: queue.Queue[dict[str, Tensor] | BaseException] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: dict[str, Tensor] | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        step = first_step
        try:
            while not stop.is_set():
                put(loader.batch(step))
                step += 1
        except BaseException as error:  # raised again where the batch is asked for
            put(error)

    thread = threading.Thread(target=read, name="window-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()

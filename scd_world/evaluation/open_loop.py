"""Open loop: recorded context, then imagination driven by the recorded actions, compared step by step.

N windows, B of them at a time, R draws of noise for each, k context frames, T imagined steps
(≤ `horizon` + 1), V cameras, C H W frame, S state, A action.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.store import WindowStore
from scd_world.codec.codec import Codec, with_found
from scd_world.evaluation.config import EvaluateConfig
from scd_world.metrics.block_shape import block_shape
from scd_world.metrics.image import changed_pixels, largest_change, psnr, sharpness, spread, ssim
from scd_world.model.noise import row_noise
from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import observe_context
from scd_world.robot_data.clip import Clip, steady
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.world.world import World

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """Where imagining starts, and how many recorded actions there are from there on."""

    episode: int
    frame: int  # the last context frame
    steps: int  # the last of them may lead to a frame that was not recorded


def choose_windows(
    lengths: np.ndarray, episodes: Sequence[int], context: int, horizon: int, per_episode: int
) -> list[Window]:
    """Spreads starts evenly over each episode, so that each reaches the horizon where its episode does.

    lengths: frames of every episode in the store; episodes: positions there. Longest windows first. Episodes
    with fewer than `context` + 1 frames give none. One step more than the horizon: an episode's last action
    has a reward and a success, but no next frame.
    """
    windows = []
    for episode in episodes:
        first, last = context - 1, int(lengths[episode]) - 1
        if last <= first:
            continue
        starts = np.unique(np.linspace(first, max(first, last - horizon), per_episode).round().astype(int))
        windows += [Window(int(episode), int(f), int(min(horizon + 1, last + 1 - f))) for f in starts]
    # Neighbors from different episodes: the actions of one can stand in for another's.
    place = {episode: i for i, episode in enumerate(episodes)}
    return sorted(windows, key=lambda w: (-w.steps, w.frame, place[w.episode]))


@dataclass(frozen=True)
class WindowBatch:
    """B windows in raw units on the model's device, padded to the longest by repetition.

    Frame k − 1 is the last one of the context, frame k − 1 + h the truth of the h-th imagined step.
    """

    windows: list[Window]
    context: int
    pixels: Tensor  # uint8 (B, k+T, V, H, W, 3)
    state: Tensor  # (B, k+T, S)
    prev: Tensor  # (B, S + A) state and action one frame before the first
    task: Tensor  # (B,) int
    action: Tensor  # (B, k−1+T, A)
    reward: Tensor  # (B, k−1+T) of the action taken at that frame
    success: Tensor  # (B, k−1+T)
    recorded: Tensor  # (B, T) bool: this action, reward and success were recorded
    valid: Tensor  # (B, T) bool: and so was the frame after it
    dropped: Tensor  # (B, k−1+T) bool: the recorder dropped a frame between this one and the next
    found: Tensor  # (B, k+T, N) where the world finds objects in each frame, knowing those before it

    @property
    def steps(self) -> int:
        return self.recorded.shape[1]

    def truth(self, h: int) -> Tensor:
        """Gives the frame after h steps, (B, C, H, W) in [-1, 1]; h = 0 is the last of the context."""
        return encode_pixels(self.pixels[:, self.context - 1 + h])

    def true_state(self, h: int) -> Tensor:
        """Gives the state after h steps, (B, S) in raw units."""
        return self.state[:, self.context - 1 + h]

    @property
    def late(self) -> Tensor:
        """Tells whether a frame was dropped between the last of the context and each later one, (B, T)."""
        return ~steady(self.dropped[:, self.context - 1 :])

    @property
    def future(self) -> Tensor:
        """The actions of the imagined steps, (B, T, A) in raw units."""
        return self.action[:, self.context - 1 :]

    def outcome(self, h: int) -> tuple[Tensor, Tensor]:
        """Gives reward and success of the h-th imagined step, (B,) each, in raw units."""
        i = self.context - 2 + h
        return self.reward[:, i], self.success[:, i]

    def clip(self, world: World, num_steps: int) -> Clip:
        """Gives the first steps, context included, in model units."""
        context = torch.ones_like(self.valid[:, :1]).expand(-1, self.context - 1)
        steps, frames = slice(0, num_steps), slice(0, num_steps + 1)
        return Clip.from_windows(
            {
                "pixels": self.pixels[:, frames],
                **with_found(self.state[:, frames], self.prev, self.found[:, frames]),
                "task": self.task,
                "action": self.action[:, steps],
                "reward": self.reward[:, steps],
                "success": self.success[:, steps],
                "valid": torch.cat([context, self.valid], 1)[:, steps],
                "dropped": self.dropped[:, steps],
            },
            world.stats,
            world.codec.encode,
        )


def load_batch(
    store: WindowStore,
    windows: list[Window],
    context: int,
    device: torch.device | str,
    codec: Codec | None = None,
) -> WindowBatch:
    """Reads windows from the store, and pads them to the longest.

    codec: of the world that is to imagine them; None where none is.
    """
    longest = max(window.steps for window in windows)
    rows = [read_padded(store, window, context, longest) for window in windows]
    arrays = {name: torch.from_numpy(np.stack([row[name] for row in rows])).to(device) for name in rows[0]}
    steps = torch.tensor([window.steps for window in windows], device=device)
    recorded = torch.arange(longest, device=device) < steps[:, None]
    return WindowBatch(
        windows=windows,
        context=context,
        pixels=arrays["pixels"],
        state=arrays["state"],
        prev=arrays["prev"],
        task=arrays["task"],
        action=arrays["action"],
        reward=arrays["reward"],
        success=arrays["success"].float(),
        recorded=recorded,
        valid=arrays["valid"][:, context - 1 :] & recorded,
        dropped=arrays["dropped"],
        found=codec.find(arrays["pixels"]) if codec else arrays["state"][..., :0],
    )


def load_batches(
    store: WindowStore, windows: list[Window], context: int, batch_size: int, world: World
) -> list[WindowBatch]:
    """Reads all windows, `batch_size` of them together, for a world to imagine."""
    parts = [windows[i : i + batch_size] for i in range(0, len(windows), batch_size)]
    return [load_batch(store, part, context, world.device, world.codec) for part in parts]


def read_padded(store: WindowStore, window: Window, context: int, longest: int) -> dict[str, np.ndarray]:
    """Reads one window with its context, and repeats its last step up to `longest` imagined ones."""
    past, missing = context - 1, longest - window.steps
    arrays = store.windows(np.array([window.episode]), np.array([window.frame - past]), past + window.steps)
    once = {name: arrays.pop(name)[0] for name in ("prev", "task")}
    padded = {
        name: np.pad(a[0], [(0, missing)] + [(0, 0)] * (a.ndim - 2), mode="edge")
        for name, a in arrays.items()
    }
    return padded | once


class RowNoise:
    """Standard normal frames, each window's from a seed of its own: no result depends on its batch.

    shape: (C, H, W); draw: counts from 0, each has other noise.
    """

    def __init__(
        self, windows: Sequence[Window], shape: tuple[int, int, int], seed: int, draw: int = 0
    ) -> None:
        entropy = [[seed, w.episode, w.frame] + [draw] * (draw > 0) for w in windows]
        seeds = [np.random.SeedSequence(numbers).generate_state(1, np.uint64) for numbers in entropy]
        self.seeds = torch.from_numpy(np.concatenate(seeds).view(np.int64))
        self.steps, self.shape = torch.zeros_like(self.seeds), shape

    def draw(self, device: torch.device) -> Tensor:
        """Draws the next step's noise, (B, C, H, W)."""
        noise = row_noise(self.seeds, self.steps, self.shape, device)
        self.steps += 1
        return noise


def imagine_steps(
    world: World, s: RolloutState, actions: Tensor, noise: RowNoise, num_steps: int | None
) -> Iterator[RolloutState]:
    """Steps on from `s` with actions (B, T, A) in raw units; yields the state after each of T steps."""
    for i in range(actions.shape[1]):
        s = world.step(s, actions[:, i], noise.draw(world.device), num_steps)
        yield s


def start_windows(world: World, batch: WindowBatch) -> RolloutState:
    """Observes the whole context; the rollout then stands at its last frame."""
    s = observe_context(world.model, batch.clip(world, batch.context), batch.context)
    return world.keep_detail(s, batch.pixels[:, batch.context - 1])


class OpenLoopResults:
    """What N windows gave at each step; NaN where nothing was recorded to compare with.

    Windows that are imagined R times have R·N rows, one draw of them all after another, and N stands for
    that here. `frames` holds name → (N, T); `state`, `true_state` (N, T, S) and `start_state` (N, S) are raw
    units, as are `reward` and `true_reward`; `success` is a probability; `uncertainty` and `state_error`, the
    predicted and the true error, are root mean squares over the state's dimensions, as a share of their
    recorded ranges.
    """

    def __init__(self, windows: list[Window], steps: int, state_size: int, draws: int = 1) -> None:
        def empty(*shape: int) -> np.ndarray:
            return np.full((draws * len(windows), *shape), np.nan, np.float32)

        self.windows, self.draws = windows, draws
        self.episodes = np.array([window.episode for window in windows])
        self.frames: dict[str, np.ndarray] = {}
        self.steps, self.empty = steps, empty
        self.start_state = empty(state_size)
        self.state, self.true_state = empty(steps, state_size), empty(steps, state_size)
        self.reward, self.true_reward = empty(steps), empty(steps)
        self.success, self.true_success = empty(steps), empty(steps)
        self.uncertainty, self.state_error = empty(steps), empty(steps)
        self.image_uncertainty = empty(steps)
        # From where the recorder dropped a frame on, what is compared with was recorded later than it says.
        self.late = np.zeros((draws * len(windows), steps), bool)

    def by_draw(self, values: np.ndarray) -> np.ndarray:
        """Parts rows (R·N, …) into draws and windows (R, N, …)."""
        return values.reshape(self.draws, len(self.windows), *values.shape[1:])

    def rows_of(self, draw: int, rows: slice) -> slice:
        """Gives the rows in which a draw of these windows is recorded."""
        first = draw * len(self.windows)
        return slice(first + rows.start, first + rows.stop)

    def put(self, name: str, rows: slice, h: int, values: Tensor, valid: Tensor) -> None:
        """Stores values (B,) of the h-th step (1 is the first) as the curve `name`."""
        column = self.frames.setdefault(name, self.empty(self.steps))
        column[rows, h - 1] = torch.where(valid, values.float(), torch.nan).cpu().numpy()

    def record(
        self, world: World, rows: slice, h: int, s: RolloutState, batch: WindowBatch, changed_threshold: float
    ) -> Tensor:
        """Compares the h-th imagined step `s` of these rows with what was recorded; gives its images,
        (B, C, H, W), which are decoded once."""
        valid, truth, copied = batch.valid[:, h - 1], batch.truth(h), batch.truth(0)
        imagined = world.images(s)
        if valid.any():
            changed = changed_pixels(truth, copied, changed_threshold)
            self.put("sharpness_recorded", rows, h, sharpness(truth), valid)
            for name, obs in {"imagined": imagined, "copy": copied}.items():
                self.put(f"psnr_{name}", rows, h, psnr(obs, truth), valid)
                self.put(f"psnr_changed_{name}", rows, h, psnr(obs, truth, changed), valid)
                self.put(f"ssim_{name}", rows, h, ssim(obs, truth), valid)
                self.put(f"sharpness_{name}", rows, h, sharpness(obs), valid)
            if world.model.prior.has_renderer:  # what is drawn without imagining is a rival, too
                prior = world.model.prior
                drawn = world.codec.decode(prior.render(s.state, s.prev, s.shown.scene))
                self.put("psnr_drawn", rows, h, psnr(drawn, truth), valid)
            self.put("changed_share", rows, h, changed.float().mean((1, 2, 3)), valid)
            self.put("largest_change", rows, h, largest_change(imagined, copied), valid)
        self.late[rows, h - 1] = batch.late[:, h - 1].cpu().numpy()
        unseen = ~valid[:, None]
        state = world.decode_state(s.state)
        self.state[rows, h - 1] = state.masked_fill(unseen, torch.nan).cpu().numpy()
        self.true_state[rows, h - 1] = batch.true_state(h).masked_fill(unseen, torch.nan).cpu().numpy()
        self.record_uncertainty(world, rows, h, s, batch)
        self.record_outcome(world, rows, h, s, batch)
        return imagined

    def record_spread(
        self, rows: slice, h: int, drawn: list[np.ndarray], batch: WindowBatch, changed_threshold: float
    ) -> None:
        """Compares the draws of the h-th step with each other. drawn: of each, uint8 (B, V, H, W, 3)."""
        changed = changed_pixels(batch.truth(h), batch.truth(0), changed_threshold)
        x = encode_pixels(torch.from_numpy(np.stack(drawn)).to(changed.device))
        for name, mask in {"spread_changed": changed, "spread_unchanged": ~changed}.items():
            for draw, values in enumerate(spread(x, mask)):
                self.put(name, self.rows_of(draw, rows), h, values, batch.valid[:, h - 1])

    def record_block(self, rows: slice, h: int, drawn: list[np.ndarray], batch: WindowBatch) -> None:
        """Compares the shape of PushT's block at the h-th step; drawn: as `record_spread` has it."""
        true_area, true_error = block_shape(batch.pixels[:, batch.context - 1 + h, 0].cpu().numpy())
        for draw, frames in enumerate(drawn):
            area, error = block_shape(frames[:, 0])
            ratio = np.divide(area, true_area, out=np.full_like(area, np.nan), where=true_area > 0)
            found = {
                "block_area": ratio,
                "block_outline_imagined": error,
                "block_outline_recorded": true_error,
            }
            for name, values in found.items():
                known = torch.from_numpy(values).to(batch.valid.device)
                self.put(name, self.rows_of(draw, rows), h, known, batch.valid[:, h - 1])

    def record_uncertainty(
        self, world: World, rows: slice, h: int, s: RolloutState, batch: WindowBatch
    ) -> None:
        found = batch.found[:, batch.context - 1 + h]
        error = s.state - world.stats.encode_state(torch.cat([batch.true_state(h), found], -1))
        if found.shape[-1]:
            imagined = world.decode_objects(s.state)
            for name, where in {"imagined": imagined, "copy": batch.found[:, batch.context - 1]}.items():
                apart = torch.linalg.vector_norm((where - found).unflatten(-1, (-1, 2)), dim=-1)
                self.put(f"object_distance_{name}", rows, h, apart.mean(-1), batch.valid[:, h - 1])
        pairs = {
            "uncertainty": world.model.prior.expected_error(s.ensemble),
            "state_error": error.square().mean(-1).sqrt() / 2,
        }
        if world.model.tells_image_error:
            pairs["image_uncertainty"] = s.image_error
        for name, values in pairs.items():
            known = values.float().masked_fill(~batch.valid[:, h - 1], torch.nan)
            getattr(self, name)[rows, h - 1] = known.cpu().numpy()

    def record_outcome(self, world: World, rows: slice, h: int, s: RolloutState, batch: WindowBatch) -> None:
        true_reward, true_success = batch.outcome(h)
        pairs = {
            "reward": world.stats.decode_reward(s.reward),
            "true_reward": true_reward,
            "success": s.success,
            "true_success": true_success,
        }
        for name, values in pairs.items():
            known = values.float().masked_fill(~batch.recorded[:, h - 1], torch.nan)
            getattr(self, name)[rows, h - 1] = known.cpu().numpy()


@dataclass(frozen=True)
class WindowVideo:
    """One window's frames for people to look at: uint8 (k+T, V, H, W, 3), true and imagined."""

    window: Window
    context: int
    true: np.ndarray
    imagined: np.ndarray  # equal to `true` over the context


def window_video(batch: WindowBatch, row: int, imagined: list[np.ndarray]) -> WindowVideo:
    """Puts a row's frames together. imagined: per step, uint8 (B, V, H, W, 3)."""
    steps = int(batch.valid[row].sum())
    true = batch.pixels[row, : batch.context + steps].cpu().numpy()
    frames = np.stack([*true[: batch.context], *(step[row] for step in imagined[:steps])])
    return WindowVideo(batch.windows[row], batch.context, true, frames)


def frames_of(world: World, s: RolloutState) -> np.ndarray:
    """Gives the current frames, uint8 (B, V, H, W, 3)."""
    return world.pixels(s).cpu().numpy()


def spread_windows(store: WindowStore, episodes: np.ndarray, config: EvaluateConfig) -> list[Window]:
    """Chooses at most `config.windows` windows, spread evenly over the episodes (positions in the store).

    ValueError: every episode is too short for the context.
    """
    enough = episodes[store.lengths[episodes] > config.context]
    if not len(enough):
        raise ValueError(
            f"none of the {len(episodes)} episodes has more than {config.context} frames; lower context"
        )
    if short := len(episodes) - len(enough):
        log.warning(
            "%d of %d episodes have at most %d frames and are left out", short, len(episodes), config.context
        )
    kept = enough[np.linspace(0, len(enough) - 1, min(len(enough), config.windows)).round().astype(int)]
    each = max(1, config.windows // len(kept))
    return choose_windows(store.lengths, kept, config.context, config.horizon, each)

"""A policy in the imagination, then its actions from the same starts in the real simulator: what differs.

N episodes, T steps, C H W frame, S state.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from einops import rearrange
from gymnasium.vector import VectorEnv, VectorWrapper
from torch import Tensor
from tqdm import tqdm

from scd_policies import Policy, make
from scd_policies.rollout import Rollouts, rollout
from scd_world.evaluation.state_errors import state_errors
from scd_world.metrics.image import psnr
from scd_world.reporting import video
from scd_world.reporting.tables import number, significant, table
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.robot_data.schema import DataSchema

LABELS = ("simulator", "imagined", f"|difference| × {video.GAIN}")
STATE_KEYS = ("agent_pos", "environment_state")
WARM_UP = 10  # steps before timing starts: they fill the window, or the first ones would cost less


@dataclass(frozen=True)
class SimComparison:
    """What happened in N episodes; frame 0 is the start of both."""

    imagined: Rollouts
    true: Rollouts

    @property
    def valid(self) -> np.ndarray:
        """Steps that both took, (N, T) bool; the simulator may have ended earlier."""
        a, b = self.imagined.valid, self.true.valid
        steps = min(a.shape[1], b.shape[1])
        return a[:, :steps] & b[:, :steps]

    def videos(self, episode: int) -> tuple[np.ndarray, np.ndarray]:
        """Gives true and imagined frames, uint8 (t+1, 1, H, W, 3), as long as both went on."""
        length = int(self.valid[episode].sum()) + 1
        true, imagined = (side.obs["pixels"][episode, :length, None] for side in (self.true, self.imagined))
        return true, imagined


def run_both(
    envs: VectorEnv,
    simulator: gymnasium.Env,
    policy: Policy,
    starts: Sequence[tuple[int, int]],
    steps: int,
    policy_seeds: Sequence[int],
    what: str,
) -> SimComparison:
    """Lets the policy act on what is imagined from these starts, (episode, frame).

    The simulator, reset to the states that were recorded there, then repeats its actions.
    """
    seeds = list(range(len(starts)))
    options = [{"episode": episode, "frame": frame} for episode, frame in starts]
    settings: dict[str, Any] = {"max_steps": steps, "frames": True}
    with tqdm(total=len(starts) * steps, desc=f"{what}, imagined", unit="frame") as bar:
        shown = ProgressEnv(envs, bar)
        imagined = rollout(shown, policy, seeds, options=options, policy_seeds=policy_seeds, **settings)
    replay = make("replay", simulator.action_space, actions=list(imagined.action))
    states = [{key: imagined.obs[key][i, 0] for key in STATE_KEYS if key in imagined.obs} for i in seeds]
    true = rollout(simulator, replay, seeds, options=states, **settings)
    return SimComparison(imagined, true)


class ProgressEnv(VectorWrapper):
    """A vector environment that moves a progress bar: one frame per row and step."""

    def __init__(self, envs: VectorEnv, bar: tqdm) -> None:
        super().__init__(envs)
        self.bar = bar

    def step(self, actions: Any) -> Any:
        self.bar.update(self.num_envs)
        return super().step(actions)


def measure(pair: SimComparison, schema: DataSchema) -> dict[str, np.ndarray]:
    """Measures each step, name → (N, T); NaN where there is nothing to compare.

    `psnr`, `psnr_copy` (keeping frame 0), and the errors of `evaluation.state_errors`.
    """
    steps = pair.valid.shape[1]
    true, imagined = (frames(side)[:, : steps + 1] for side in (pair.true, pair.imagined))
    copied = true[:, :1].expand(-1, steps, -1, -1, -1)
    curves = {"psnr": per_step(imagined[:, 1:], true[:, 1:]), "psnr_copy": per_step(copied, true[:, 1:])}
    state, true_state = (states_of(side)[:, 1 : steps + 1] for side in (pair.imagined, pair.true))
    curves |= state_errors(state, true_state, schema)
    return {name: np.where(pair.valid, values, np.nan) for name, values in curves.items()}


def frames(side: Rollouts) -> Tensor:
    """Gives all frames, (N, T+1, C, H, W) in [-1, 1]."""
    return encode_pixels(torch.from_numpy(side.obs["pixels"])[:, :, None])


def per_step(a: Tensor, b: Tensor) -> np.ndarray:
    """Computes PSNR (N, T) of frames (N, T, C, H, W)."""
    flat = (rearrange(x, "n t c h w -> (n t) c h w") for x in (a, b))
    return rearrange(psnr(*flat), "(n t) -> n t", n=len(a)).numpy()


def states_of(side: Rollouts) -> np.ndarray:
    """Gives all states, (N, T+1, S) in raw units."""
    return np.concatenate([side.obs[key] for key in STATE_KEYS if key in side.obs], axis=-1)


def summary(curves: dict[str, np.ndarray], steps: Sequence[int], columns: dict[str, str]) -> str:
    """Tabulates means of the PSNRs, medians of all else, at those of `steps` that were reached."""
    shown = {name: title for name, title in columns.items() if name in curves}
    reach = next(iter(curves.values())).shape[1]
    rows = []
    for step in (s for s in steps if s <= reach):
        row = [str(step)]
        for name in shown:
            form = number if name.startswith("psnr") else significant
            row.append(form(center(name, curves[name][:, step - 1])))
        rows.append(row)
    return table(["step", *shown.values()], rows)


def center(name: str, values: np.ndarray) -> float:
    """Gives the mean of a PSNR, the median of an error; NaN where nothing is known."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan")
    return float(known.mean() if name.startswith("psnr") else np.median(known))


def steps_per_second(env: gymnasium.Env, seconds: float = 3.0) -> float:
    """Times a single environment, one action at a time."""
    space: Any = env.action_space
    action = ((space.low + space.high) / 2).astype(space.dtype)
    env.reset(seed=0)
    taken, began = -WARM_UP, time.perf_counter()
    while taken < WARM_UP or time.perf_counter() - began < seconds:
        if taken == 0:
            began = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        taken += 1
        if terminated or truncated:
            env.reset()
    return taken / (time.perf_counter() - began)


def evenly_spaced[T](items: Sequence[T], count: int) -> list[T]:
    """Selects at most `count` of them, evenly spaced."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in places]


def write_videos(
    path: Path, images: list[np.ndarray], fps: float, labels: Sequence[str] = LABELS
) -> dict[str, str]:
    """Writes images as .mp4 and as .webp; gives the files and what they are."""
    video.write_mp4(path.with_suffix(".mp4"), images, fps)
    video.write_animation(path.with_suffix(".webp"), images, fps)
    return {
        f"{path.name}.mp4": f"video: {' | '.join(labels)}",
        f"{path.name}.webp": "the same as an animation",
    }


def as_json(curves: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Gives the mean of each PSNR, the median of each error, at every step."""
    return {name: [center(name, column) for column in values.T] for name, values in curves.items()}

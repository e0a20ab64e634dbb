"""Reward and success of every step of held-out episodes, told from the recorded past: right, and calibrated?

What decides over a policy in the imagination are these two numbers, so they are judged on far more steps
than the imagined windows have. Nothing is rendered: the heads speak before the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scd_datasets.store.store import WindowStore
from scd_world.metrics.statistics import auroc, correlation, reliability
from scd_world.robot_data.normalizer import encode_pixels
from scd_world.world.world import World

THRESHOLD = 0.5  # an environment ends an episode above it, unless told otherwise


@dataclass(frozen=True)
class OutcomePredictions:
    """R steps of E episodes, one after another; raw units."""

    episode: np.ndarray  # (R,)
    reward: np.ndarray  # (R,)
    true_reward: np.ndarray  # (R,)
    success: np.ndarray  # (R,) probability
    true_success: np.ndarray  # (R,) bool


@torch.no_grad()
def predict_outcomes(
    world: World, store: WindowStore, episodes: Sequence[int], batch_size: int, done: Callable[[int], object]
) -> OutcomePredictions:
    """One encoder pass per step, the recorded frame and state given after each; longest episodes first."""
    order = sorted(episodes, key=lambda e: -int(store.lengths[e]))
    rows: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(order), batch_size):
        rows += predict_batch(world, store, order[first : first + batch_size], done)
    return OutcomePredictions(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def predict_batch(
    world: World, store: WindowStore, episodes: list[int], done: Callable[[int], object]
) -> list[tuple[np.ndarray, ...]]:
    lengths = store.lengths[episodes]
    windows = [store.windows(np.array([e]), np.array([0]), int(store.lengths[e])) for e in episodes]

    def column(name: str, i: int) -> torch.Tensor:
        """(B, …) of step i; an episode that is over repeats its last."""
        return world.tensor(np.stack([w[name][0, min(i, w[name].shape[1] - 1)] for w in windows]))

    def frame(i: int) -> torch.Tensor:
        pixels = np.stack([w["pixels"][0, min(i, w["pixels"].shape[1] - 1)] for w in windows])
        return encode_pixels(torch.from_numpy(pixels).to(world.device))

    stats, reward, success = world.stats, [], []
    task = torch.as_tensor(store.task[episodes], device=world.device)
    s = world.model.initial(frame(0), stats.encode_state(column("state", 0)), task=task)
    for i in range(int(lengths.max())):
        act = stats.encode_action(column("action", i))
        s = world.model.observe(s, act, frame(i + 1), stats.encode_state(column("state", i + 1)))
        reward.append(stats.decode_reward(s.reward).cpu().numpy())
        success.append(s.success.cpu().numpy())
        done(int((i < lengths).sum()))
    reward, success = np.stack(reward, axis=1), np.stack(success, axis=1)
    return [
        (np.full(n, episode), reward[row, :n], w["reward"][0], success[row, :n], w["success"][0])
        for row, (episode, n, w) in enumerate(zip(episodes, lengths.tolist(), windows, strict=True))
    ]


def score(told: OutcomePredictions, has_reward: bool, has_success: bool) -> dict[str, Any]:
    """Plain data for the report."""
    found: dict[str, Any] = {"steps": len(told.episode), "episodes": len(np.unique(told.episode))}
    if has_reward:
        found["reward"] = score_reward(told.reward.astype(float), told.true_reward.astype(float))
    if has_success:
        found["success"] = score_success(told)
    return found


def score_reward(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    constant = np.ptp(said) == 0
    return {
        "mse": float(np.mean((said - true) ** 2)),
        "mse_of_the_mean": float(np.var(true)),  # what a constant guess would give
        "correlation": correlation(said, true),
        "bias": float(np.mean(said - true)),  # above 0: optimistic
        "slope": float("nan") if constant else float(np.polyfit(said, true, 1)[0]),  # 1 = calibrated
    }


def score_success(told: OutcomePredictions) -> dict[str, Any]:
    said, true = told.success.astype(float), told.true_success.astype(bool)
    rate = true.mean()
    episodes = np.unique(told.episode)
    ever = np.array(
        [[(said[told.episode == e] > THRESHOLD).any(), true[told.episode == e].any()] for e in episodes]
    )
    return {
        "auroc": auroc(said, true),
        "positives": int(true.sum()),
        "brier": float(np.mean((said - true) ** 2)),
        "brier_of_the_rate": float(rate * (1 - rate)),  # what a constant guess would give
        "calibration": reliability(said, true),
        "found": float(np.mean(said[true] > THRESHOLD)) if true.any() else None,
        "false_alarms": int((said[~true] > THRESHOLD).sum()),
        "mean_probability": float(said.mean()),
        "rate": float(rate),
        "episodes_right": float(np.mean(ever[:, 0] == ever[:, 1])),
    }

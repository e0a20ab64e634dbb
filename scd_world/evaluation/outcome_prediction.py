"""Reward and success of every step of held-out episodes, predicted from the recorded past, and scored.

These two decide over a policy in the imagination, so they are scored on far more steps than the imagined
windows have. Nothing is rendered: the heads read them off before the decoder runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scd_datasets.store.store import WindowStore
from scd_world.metrics.statistics import auroc, correlation, reliability
from scd_world.world.world import World

THRESHOLD = 0.5  # an environment ends an episode above it, by default


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
    """Predicts every step of these episodes (positions in the store), longest episodes first.

    One encoder pass per step, the recorded frame and state given after each. done: called with the number of
    steps that were just predicted.
    """
    order = sorted(episodes, key=lambda e: -int(store.lengths[e]))
    rows: list[tuple[np.ndarray, ...]] = []
    for first in range(0, len(order), batch_size):
        rows += predict_batch(world, store, order[first : first + batch_size], done)
    return OutcomePredictions(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def predict_batch(
    world: World, store: WindowStore, episodes: list[int], done: Callable[[int], object]
) -> list[tuple[np.ndarray, ...]]:
    """Predicts these episodes together; gives for each the fields of `OutcomePredictions`."""
    lengths = store.lengths[episodes]
    windows = [store.windows(np.array([e]), np.array([0]), int(store.lengths[e])) for e in episodes]
    for window in windows:
        found = world.codec.find(torch.from_numpy(window["pixels"])).cpu().numpy()
        window["state"] = np.concatenate([window["state"], found], -1)

    def column(name: str, i: int) -> torch.Tensor:
        """Stacks step i of all episodes, (B, …); an episode that is over repeats its last."""
        return world.tensor(np.stack([w[name][0, min(i, w[name].shape[1] - 1)] for w in windows]))

    def frame(i: int) -> torch.Tensor:
        pixels = np.stack([w["pixels"][0, min(i, w["pixels"].shape[1] - 1)] for w in windows])
        return world.codec.encode(torch.from_numpy(pixels).to(world.device))

    stats = world.stats
    rewards: list[np.ndarray] = []
    successes: list[np.ndarray] = []
    task = torch.as_tensor(store.task[episodes], device=world.device)
    s = world.model.initial(frame(0), stats.encode_state(column("state", 0)), task=task)
    for i in range(int(lengths.max())):
        action = stats.encode_action(column("action", i))
        s = world.model.observe(s, action, frame(i + 1), stats.encode_state(column("state", i + 1)))
        rewards.append(stats.decode_reward(s.reward).cpu().numpy())
        successes.append(s.success.cpu().numpy())
        done(int((i < lengths).sum()))
    reward, success = np.stack(rewards, axis=1), np.stack(successes, axis=1)
    return [
        (np.full(n, episode), reward[row, :n], w["reward"][0], success[row, :n], w["success"][0])
        for row, (episode, n, w) in enumerate(zip(episodes, lengths.tolist(), windows, strict=True))
    ]


def score(outcomes: OutcomePredictions, has_reward: bool, has_success: bool) -> dict[str, Any]:
    """Scores what the data has of both, as plain data for the report."""
    scores: dict[str, Any] = {"steps": len(outcomes.episode), "episodes": len(np.unique(outcomes.episode))}
    if has_reward:
        scores["reward"] = score_reward(outcomes.reward.astype(float), outcomes.true_reward.astype(float))
    if has_success:
        scores["success"] = score_success(outcomes)
    return scores


def score_reward(predicted: np.ndarray, observed: np.ndarray) -> dict[str, float]:
    """Scores rewards (R,) in raw units; `slope`: of observed over predicted, 1 where calibrated."""
    constant = np.ptp(predicted) == 0
    return {
        "mse": float(np.mean((predicted - observed) ** 2)),
        "mse_constant": float(np.var(observed)),  # of the best constant prediction
        "correlation": correlation(predicted, observed),
        "bias": float(np.mean(predicted - observed)),  # above 0: optimistic
        "slope": float("nan") if constant else float(np.polyfit(predicted, observed, 1)[0]),
    }


def score_success(outcomes: OutcomePredictions) -> dict[str, Any]:
    """Scores success probabilities step by step, and `episode_accuracy`: is any step above the threshold?"""
    predicted, observed = outcomes.success.astype(float), outcomes.true_success.astype(bool)
    rate = observed.mean()
    of_episodes = [outcomes.episode == e for e in np.unique(outcomes.episode)]
    ever = np.array([[(predicted[of] > THRESHOLD).any(), observed[of].any()] for of in of_episodes])
    return {
        "auroc": auroc(predicted, observed),
        "positives": int(observed.sum()),
        "brier": float(np.mean((predicted - observed) ** 2)),
        "brier_constant": float(rate * (1 - rate)),  # of the best constant prediction
        "calibration": reliability(predicted, observed),
        "recall": float(np.mean(predicted[observed] > THRESHOLD)) if observed.any() else None,
        "false_alarms": int((predicted[~observed] > THRESHOLD).sum()),
        "mean_probability": float(predicted.mean()),
        "rate": float(rate),
        "episode_accuracy": float(np.mean(ever[:, 0] == ever[:, 1])),
    }

"""Reward and success of every step of held-out episodes, predicted from the recorded past, and scored.

These two decide over a policy in the imagination, so they are scored on far more steps than the imagined
windows have. Nothing is rendered: the heads read them off before the decoder runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.store import WindowStore
from scd_world.metrics.statistics import auroc, correlation, reliability
from scd_world.world.world import World

FRAMES_AT_ONCE = 16  # that are read of each episode
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
    starts, lengths = store.starts[episodes], store.lengths[episodes]
    steps = np.minimum(np.arange(int(lengths.max()) + 1), lengths[:, None] - 1)
    rows = starts[:, None] + steps  # (B, T+1); an episode that is over repeats its last
    shown = read_frames(world, store, rows)
    stats, action = world.stats, world.tensor(store.action[rows])
    rewards: list[np.ndarray] = []
    successes: list[np.ndarray] = []
    frame, state = next(shown)
    task = torch.as_tensor(store.task[episodes], device=world.device)
    s = world.model.initial(frame, stats.encode_state(state), task=task)
    for i, (frame, state) in enumerate(shown):
        s = world.model.observe(s, stats.encode_action(action[:, i]), frame, stats.encode_state(state))
        rewards.append(stats.decode_reward(s.reward).cpu().numpy())
        successes.append(s.success.cpu().numpy())
        done(int((i < lengths).sum()))
    reward, success = np.stack(rewards, axis=1), np.stack(successes, axis=1)
    true_reward, true_success = store.reward[rows], store.success[rows]
    return [
        (np.full(n, e), reward[row, :n], true_reward[row, :n], success[row, :n], true_success[row, :n])
        for row, (e, n) in enumerate(zip(episodes, lengths.tolist(), strict=True))
    ]


def read_frames(world: World, store: WindowStore, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Reads rows (B, T) a few at a time, for whole episodes of several cameras are gigabytes; yields at each
    time the frames as the model sees them, (B, C, h, w), and the states in raw units, what is found among
    them, (B, S)."""
    found = None
    for first in range(0, rows.shape[1], FRAMES_AT_ONCE):
        some = rows[:, first : first + FRAMES_AT_ONCE]
        pixels, state = torch.from_numpy(store.pixels_of_rows(some)), world.tensor(store.state[some])
        for i in range(some.shape[1]):
            now = pixels[:, i].to(world.device)
            found = world.codec.find(now[:, None], found)[:, 0]
            yield world.codec.encode(now), torch.cat([state[:, i], found], dim=-1)


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

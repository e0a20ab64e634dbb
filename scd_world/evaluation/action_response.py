"""Does the imagination obey? Shuffled actions, a sweep of every dimension, the action that does nothing.

B windows, M moments, J values of a sweep, n steps, S state, A action; raw units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.store import WindowStore, rows_of
from scd_world.evaluation.open_loop import RowNoise, Window, WindowBatch, imagine_steps, look, start_windows
from scd_world.metrics.statistics import correlation, summarise
from scd_world.world.world import World

LOSS_STEPS = 8  # steps of the clips on which losses with true and with shuffled actions are compared
FOLLOWS = 0.9  # correlation from which an action counts as the robot's next position


# ---- shuffled actions ----------------------------------------------------------------------------


@torch.no_grad()
def losses_true_and_shuffled(world: World, batch: WindowBatch, seed: int) -> tuple[dict[str, float], ...]:
    """Loss parts with the recorded actions and with another window's, on the same clips and noise."""
    shortest = min(window.steps for window in batch.windows)  # what is padded was not recorded
    clip = batch.clip(world, min(LOSS_STEPS, batch.context - 1 + shortest))
    noise = world.model.sample_noise(clip, torch.Generator().manual_seed(seed)).without_self_rollout()
    parts = []
    for act in (clip.action, clip.action[other_rows(batch.windows)]):
        total, losses = world.model.loss(replace(clip, action=act), noise)
        parts.append({name: float(value) for name, value in ({"total": total} | losses).items()})
    return tuple(parts)


def other_rows(windows: Sequence[Window]) -> Tensor:
    """Whose actions each row is given: the next row's of another episode, else simply the next row's."""
    B, rows = len(windows), []
    for i, window in enumerate(windows):
        following = [(i + j) % B for j in range(1, B)]
        others = (j for j in following if windows[j].episode != window.episode)
        rows.append(next(others, (i + 1) % B))
    return torch.tensor(rows)


def loss_ratio(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Σ loss(shuffled actions) / Σ loss(true actions), in all and per part; 1: actions are ignored."""
    ratios = {}
    for name in pairs[0][0] if pairs else ():
        true, shuffled = (sum(pair[i][name] for pair in pairs) for i in (0, 1))
        if true > 0:
            ratios[name] = shuffled / true
    return ratios


# ---- sweeps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActionSweep:
    """What happened when one action dimension was held at J values for n steps, from M moments."""

    action: str
    values: np.ndarray  # (J,) raw units
    response: np.ndarray  # (M, J, S) state after n steps minus state at the moment, raw units
    pixel_change: np.ndarray  # (M, J) mean |difference| to the picture of the middle value, grey levels
    data_slope: np.ndarray  # (S,) the same slope, estimated from recordings

    def slopes(self) -> np.ndarray:
        """(M, S): least-squares slope of each state dimension's response, per unit of action."""
        v = self.values - self.values.mean()
        return np.einsum("j,mjs->ms", v, self.response) / (v**2).sum()

    def report(self, state_names: tuple[str, ...], episodes: np.ndarray) -> dict:
        slopes = self.slopes()
        means = summarise(slopes, episodes)
        agree = (slopes * means.mean > 0).mean(0)
        return {
            "values": self.values.tolist(),
            "slope": {
                name: {
                    "mean": means.mean[i],
                    "low": means.low[i],
                    "high": means.high[i],
                    "same_sign": agree[i],
                    "in_data": self.data_slope[i],
                }
                for i, name in enumerate(state_names)
            },
            "response": {name: self.response[:, :, i].mean(0).tolist() for i, name in enumerate(state_names)},
            "pixel_change": self.pixel_change.mean(0).tolist(),
        }


@torch.no_grad()
def sweep_actions(
    world: World,
    batch: WindowBatch,
    steps: int,
    count: int,
    num_steps: int | None,
    seed: int,
    in_data: np.ndarray,
    done: Callable[[int], object],
) -> list[ActionSweep]:
    """Every action dimension in turn, over its recorded range; the others keep the moment's recorded value.

    All values of one moment see the same noise. in_data (A, S): slopes from recordings.
    """
    start, sweeps = start_windows(world, batch), []
    M = len(batch.windows)
    before = batch.true_state(0).cpu().numpy()
    for d, name in enumerate(world.schema.action):
        values = torch.linspace(float(world.stats.action_low[d]), float(world.stats.action_high[d]), count)
        states, pictures = [], []
        for value in values:
            held = batch.future[:, 0].clone()
            held[:, d] = value
            noise = RowNoise(batch.windows, world.frame_shape, seed)
            s = start.fork()
            for _ in range(steps):
                s = world.step(s, held, noise.draw(world.device), num_steps)
                done(M)
            states.append(world.outputs(s)["state"] - before)
            pictures.append(look(s).astype(np.float32))
        middle = pictures[count // 2]
        change = np.stack([np.abs(p - middle).mean(axis=(1, 2, 3, 4)) for p in pictures], axis=1)
        response = np.stack(states, axis=1)
        sweeps.append(ActionSweep(name, values.numpy().astype(np.float64), response, change, in_data[d]))
    return sweeps


def slopes_in_data(store: WindowStore, episodes: np.ndarray, steps: int) -> np.ndarray:
    """(A, S): ∂(state[i+n] − state[i])/∂(mean action of the n steps), by regression on action and state.

    What a linear look at the recordings says of the same question. Correlations, not experiments: a guide.
    """
    A, S = len(store.schema.action), len(store.schema.state)
    X, Y = [], []
    for episode in episodes:
        first, length = store.starts[episode], store.lengths[episode]
        if length <= steps:
            continue
        rows = first + np.arange(length - steps)
        action = np.mean([store.action[rows + i] for i in range(steps)], axis=0)
        X.append(np.concatenate([action, store.state[rows], np.ones((len(rows), 1))], axis=1))
        Y.append(store.state[rows + steps] - store.state[rows])
    if not X or not S:
        return np.full((A, S), np.nan)
    x, y = np.concatenate(X).astype(np.float64), np.concatenate(Y).astype(np.float64)
    scale = np.maximum(np.abs(x).max(0), 1e-9)
    return (np.linalg.lstsq(x / scale, y, rcond=None)[0] / scale[:, None])[:A]


# ---- the action that does nothing ----------------------------------------------------------------


def find_null_action(store: WindowStore, episodes: np.ndarray) -> str:
    """`hold` (stay) where actions are target positions, else `zero`, `unknown` where zero is out of range."""
    A, P = len(store.schema.action), len(store.schema.agent_pos)
    rows = rows_of(store.starts, store.lengths - 1, episodes)
    action = store.action[rows]
    if A == P:
        follows = np.array([correlation(action[:, i], store.state[rows + 1, i]) for i in range(A)])
        if (follows[np.isfinite(follows)] > FOLLOWS).any() and not (follows <= FOLLOWS).any():
            return "hold"  # a joint that never moves says nothing
    return "zero" if ((action.min(0) <= 0) & (action.max(0) >= 0)).all() else "unknown"


@torch.no_grad()
def null_action_drift(
    world: World,
    batch: WindowBatch,
    kind: str,
    num_steps: int | None,
    seed: int,
    done: Callable[[int], object],
) -> dict:
    """How much moves under the null action, once n/4 steps have let the robot come to rest, until step n.

    Beside it, how much moved in the recordings between the same two steps.
    """
    n = min(16, int(batch.valid.sum(1).min()))
    if n < 4 or kind == "unknown":
        return {}
    act = batch.true_state(0)[:, : batch.future.shape[-1]] if kind == "hold" else 0 * batch.future[:, 0]
    noise = RowNoise(batch.windows, world.frame_shape, seed)
    looks = []
    steps = imagine_steps(
        world, start_windows(world, batch), act[:, None].expand(-1, n, -1), noise, num_steps
    )
    for s in steps:
        looks.append(world.outputs(s))
        done(len(batch.windows))
    first, last = n // 4, n
    now, then = looks[last - 1], looks[first - 1]
    recorded = [batch.pixels[:, batch.context - 1 + h].float() for h in (first, last)]
    moved = (batch.true_state(last) - batch.true_state(first)).abs().cpu().numpy()
    drift = np.abs(now["state"] - then["state"])
    return {
        "kind": kind,
        "from_step": first,
        "to_step": last,
        "grey_levels": float(np.abs(now["pixels"].astype(float) - then["pixels"]).mean()),
        "grey_levels_recorded": float((recorded[1] - recorded[0]).abs().mean()),
        "state": dict(zip(world.schema.state, np.median(drift, axis=0).tolist(), strict=True)),
        "state_recorded": dict(zip(world.schema.state, np.median(moved, axis=0).tolist(), strict=True)),
    }

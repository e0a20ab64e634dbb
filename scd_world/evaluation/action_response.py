"""How imagined steps respond to the action: shuffled actions, a sweep of every dimension, the null action.

B windows, of which M are swept, J values of a sweep, n steps, S state, A action; raw units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from scd_datasets.store.store import WindowStore, rows_of
from scd_world.evaluation.open_loop import (
    RowNoise,
    Window,
    WindowBatch,
    frames_of,
    imagine_steps,
    start_windows,
)
from scd_world.metrics.statistics import correlation, summarize
from scd_world.world.world import World

LOSS_STEPS = 8  # steps of the clips on which losses with true and with shuffled actions are compared
HARDLY = 0.02  # share of its range in all episodes: a dimension that covers less in some hardly moved there
FOLLOWS = 0.9  # correlation from which an action counts as the robot's next position


# ---- shuffled actions ----------------------------------------------------------------------------


@torch.no_grad()
def losses_true_and_shuffled(world: World, batch: WindowBatch, seed: int) -> tuple[dict[str, float], ...]:
    """Computes losses with the recorded actions and with another window's, on the same clips and noise."""
    shortest = min(window.steps for window in batch.windows)  # what is padded was not recorded
    clip = batch.clip(world, min(LOSS_STEPS, batch.context - 1 + shortest))
    noise = world.model.sample_noise(clip, torch.Generator().manual_seed(seed)).of_recordings()
    parts = []
    for action in (clip.action, clip.action[other_rows(batch.windows)]):
        total, losses = world.model.loss(replace(clip, action=action), noise)
        parts.append({name: float(value) for name, value in ({"total": total} | losses).items()})
    return tuple(parts)


def other_rows(windows: Sequence[Window]) -> Tensor:
    """Picks whose actions each row is given, (B,): the next row of another episode, else the next row."""
    B, rows = len(windows), []
    for i, window in enumerate(windows):
        following = [(i + j) % B for j in range(1, B)]
        others = (j for j in following if windows[j].episode != window.episode)
        rows.append(next(others, (i + 1) % B))
    return torch.tensor(rows)


def loss_ratio(pairs: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Computes Σ loss(shuffled actions) / Σ loss(true actions), total and parts; 1: actions are ignored."""
    ratios = {}
    for name in pairs[0][0] if pairs else ():
        true, shuffled = (sum(pair[i][name] for pair in pairs) for i in (0, 1))
        if true > 0:
            ratios[name] = shuffled / true
    return ratios


# ---- sweeps --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActionSweep:
    """What happened when one action dimension was held at J values for n steps, from M starts."""

    action: str
    values: np.ndarray  # (J,) raw units
    response: np.ndarray  # (M, J, S) state after n steps minus state at the start, raw units
    pixel_change: np.ndarray  # (M, J) mean |difference| to the frame of the middle value, gray levels
    data_slope: np.ndarray  # (S,) the same slope, estimated from recordings; NaN: they do not tell

    def slopes(self) -> np.ndarray:
        """Fits each state dimension's response, (M, S): least-squares slope per unit of action."""
        v = self.values - self.values.mean()
        return np.einsum("j,mjs->ms", v, self.response) / (v**2).sum()

    def report(self, state_names: tuple[str, ...], episodes: np.ndarray) -> dict:
        """Summarizes the sweep as plain data. episodes (M,): the episode of each start."""
        slopes = self.slopes()
        means = summarize(slopes, episodes)
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
    """Sweeps every action dimension that ever moved over its recorded range; the others keep their recorded
    value.

    steps: n, for which a value is held; count: J. All values of one start see the same noise. in_data (A, S):
    slopes from recordings. done: called with the number of frames that were just imagined.
    """
    start, sweeps = start_windows(world, batch), []
    M = len(batch.windows)
    start_state = batch.true_state(0).cpu().numpy()
    for d in np.flatnonzero(~world.stats.constant_actions.cpu().numpy()).tolist():
        name = world.schema.action[d]
        values = torch.linspace(float(world.stats.action_low[d]), float(world.stats.action_high[d]), count)
        responses, images = [], []
        for value in values:
            held = batch.future[:, 0].clone()
            held[:, d] = value
            noise = RowNoise(batch.windows, world.frame_shape, seed)
            s = start.fork()
            for _ in range(steps):
                s = world.step(s, held, noise.draw(world.device), num_steps)
                done(M)
            responses.append(world.outputs(s)["state"] - start_state)
            images.append(frames_of(world, s).astype(np.float32))
        middle = images[count // 2]
        change = np.stack([np.abs(image - middle).mean(axis=(1, 2, 3, 4)) for image in images], axis=1)
        response = np.stack(responses, axis=1)
        sweeps.append(ActionSweep(name, values.numpy().astype(np.float64), response, change, in_data[d]))
    return sweeps


def slopes_in_data(store: WindowStore, episodes: np.ndarray, steps: int) -> np.ndarray:
    """Fits ∂(state[i+n] − state[i])/∂(mean action of the n steps), (A, S), by regression on action and state.

    What a linear model of the recordings says of the same question. Correlations, not experiments: a guide.
    NaN where that would be noise: a slope of less than two standard errors, or action or state hardly moved.
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
    x = x / scale
    slopes, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    # Neighboring rows share all but one of their steps: as many fewer are independent.
    variance = ((y - x @ slopes) ** 2).sum(0) * steps / max(len(x) - rank, 1)
    error = np.sqrt(np.diag(np.linalg.pinv(x.T @ x)).clip(0)[:, None] * variance)
    slopes = np.where(np.abs(slopes) < 2 * error, np.nan, slopes / scale[:, None])[:A]
    resting = hardly_moved(store, episodes)
    slopes[[name in resting["action"] for name in store.schema.action]] = np.nan
    slopes[:, [name in resting["state"] for name in store.schema.state]] = np.nan
    return slopes


def hardly_moved(store: WindowStore, episodes: np.ndarray) -> dict[str, list[str]]:
    """Names the dimensions of `action` and `state` that cover next to nothing of their range in these."""
    rows = rows_of(store.starts, store.lengths, episodes)
    return {
        what: [
            name
            for name, here, anywhere in zip(
                getattr(store.schema, what), np.ptp(recorded[rows], 0), np.ptp(recorded[:], 0), strict=True
            )
            if here <= HARDLY * anywhere
        ]
        for what, recorded in {"action": store.action, "state": store.state}.items()
    }


def never_varied(world: World) -> list[str]:
    """Names the actions that had one value in all that the world learnt from: what they do is unknown."""
    constant = np.flatnonzero(world.stats.constant_actions.cpu().numpy())
    return [world.schema.action[d] for d in constant]


def own_numbers(world: World) -> dict[str, str]:
    """Names, of each action that has one, the number of the state that it commands: the one of its name, else
    the first that was found to follow it."""
    schema = world.schema
    found: dict[str, str] = {}
    for joint, action in zip(world.stats.joints.tolist(), world.stats.commands.tolist(), strict=True):
        found.setdefault(schema.action[action], schema.state[joint])
    return found | {name: name for name in schema.action if name in schema.state}


# ---- the action that does nothing ----------------------------------------------------------------


def find_null_action(store: WindowStore, episodes: np.ndarray) -> str:
    """Finds which action does nothing.

    `hold` (the current position) where actions are target positions, else `zero`; `unknown` where zero is out
    of range.
    """
    A, P = len(store.schema.action), len(store.schema.agent_pos)
    rows = rows_of(store.starts, store.lengths - 1, episodes)
    action = store.action[rows]
    if A == P:
        follows = np.array([correlation(action[:, i], store.state[rows + 1, i]) for i in range(A)])
        if (follows[np.isfinite(follows)] > FOLLOWS).any() and not (follows <= FOLLOWS).any():
            return "hold"  # a joint that never moves has no correlation, and does not count
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
    """Measures how much moves under the null action from step n/4, when the robot is at rest, to step n.

    And how much moved in the recordings between the same two steps. kind: as `find_null_action` has it.
    """
    n = min(16, int(batch.valid.sum(1).min()))
    if n < 4 or kind == "unknown":
        return {}
    hold = kind == "hold"
    action = batch.true_state(0)[:, : batch.future.shape[-1]] if hold else 0 * batch.future[:, 0]
    noise = RowNoise(batch.windows, world.frame_shape, seed)
    outputs = []
    steps = imagine_steps(
        world, start_windows(world, batch), action[:, None].expand(-1, n, -1), noise, num_steps
    )
    for s in steps:
        outputs.append(world.outputs(s))
        done(len(batch.windows))
    first, last = n // 4, n
    now, then = outputs[last - 1], outputs[first - 1]
    recorded = [batch.pixels[:, batch.context - 1 + h].float() for h in (first, last)]
    moved = (batch.true_state(last) - batch.true_state(first)).abs().cpu().numpy()
    drift = np.abs(now["state"] - then["state"])
    return {
        "kind": kind,
        "from_step": first,
        "to_step": last,
        "gray_levels": float(np.abs(now["pixels"].astype(float) - then["pixels"]).mean()),
        "gray_levels_recorded": float((recorded[1] - recorded[0]).abs().mean()),
        "state": dict(zip(world.schema.state, np.median(drift, axis=0).tolist(), strict=True)),
        "state_recorded": dict(zip(world.schema.state, np.median(moved, axis=0).tolist(), strict=True)),
    }

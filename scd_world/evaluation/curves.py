"""From raw comparisons to curves over the horizon, and the single figures: outcomes, time to failure.

N windows, H horizons, S state.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from scd_world.evaluation.open_loop import OpenLoopResults
from scd_world.evaluation.pusht_errors import block_errors
from scd_world.metrics.statistics import Summary, auroc, correlation, summarise
from scd_world.robot_data.schema import DataSchema

log = logging.getLogger(__name__)
ENDS = (
    "agent_distance",
    "block_distance",
    "block_angle",
    "error_environment_state",
)  # errors where a window ends


# ---- curves: name → (N, H) -----------------------------------------------------------------------


def all_curves(loop: OpenLoopResults, schema: DataSchema) -> dict[str, np.ndarray]:
    """Everything that is measured at each horizon; `…_copy`: of keeping the last context frame."""
    curves = dict(loop.frames)
    curves["psnr_gain"] = curves["psnr_imagined"] - curves["psnr_copy"]
    curves["survival"] = survival(curves["psnr_changed_imagined"], curves["psnr_changed_copy"])
    still = np.broadcast_to(loop.start_state[:, None], loop.state.shape)
    for name, state in {"imagined": loop.state, "copy": still}.items():
        curves |= {f"{key}_{name}": v for key, v in state_errors(state, loop.true_state, schema).items()}
    if schema.reward:
        curves["reward_square"] = (loop.reward - loop.true_reward) ** 2
    return curves


def worst_windows(loop: OpenLoopResults, curves: dict[str, np.ndarray], count: int) -> list[dict[str, Any]]:
    """Those of the lowest mean PSNR, lowest first: position in `loop`, means over the horizon, and how far
    the state has strayed where the window ends."""
    means = {
        name: np.nanmean(curves[name], axis=1) for name in ("psnr_imagined", "psnr_copy", "ssim_imagined")
    }
    order = np.argsort(means["psnr_imagined"])[:count]
    strayed = [name for name in curves if name.removesuffix("_imagined") in ENDS]
    return [
        {"window": int(i)}
        | {name: float(values[i]) for name, values in means.items()}
        | {f"{name}_end": float(curves[name][i][np.isfinite(curves[name][i])][-1]) for name in strayed}
        for i in order
    ]


def state_errors(state: np.ndarray, truth: np.ndarray, schema: DataSchema) -> dict[str, np.ndarray]:
    """Mean |error| per group, distance of the agent, pose of PushT's block; raw units. (N, H, S) → (N, H)."""
    P, S = len(schema.agent_pos), len(schema.state)
    errors = {}
    for group, dims in {"agent_pos": slice(0, P), "environment_state": slice(P, S)}.items():
        if schema.state[dims]:
            errors[f"error_{group}"] = np.abs(state - truth)[..., dims].mean(-1)
    if P:
        errors["agent_distance"] = np.linalg.norm((state - truth)[..., :P], axis=-1)
    return errors | block_errors(state[..., P:], truth[..., P:])


def survival(imagined: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """1 until the imagination is first worse than copy-last on the changed pixels, then 0; NaN unreached.

    On whole pictures a window in which nothing moves yet would fail at once: there copy-last is exact.
    """
    failed = np.maximum.accumulate(imagined < copy, axis=1)
    reached = np.maximum.accumulate(np.isfinite(imagined)[:, ::-1], axis=1)[:, ::-1]
    return np.where(reached, 1.0 - failed, np.nan)


# ---- single figures ------------------------------------------------------------------------------


def time_to_failure(curves: dict[str, np.ndarray], means: dict[str, dict]) -> dict[str, Any]:
    """First horizon at which the imagination is worse than copy-last; None: at none of those reached."""
    alive = curves["survival"]
    first = [int(np.argmax(row == 0)) + 1 if (row == 0).any() else math.inf for row in alive]
    median = float(np.median(first)) if first else math.inf
    return {
        "mean_psnr": first_below(means["psnr_imagined"]["mean"], means["psnr_copy"]["mean"]),
        "mean_psnr_changed": first_below(
            means["psnr_changed_imagined"]["mean"], means["psnr_changed_copy"]["mean"]
        ),
        "median_window_changed": None if math.isinf(median) else median,
        "windows_never_failed": float(np.mean(np.isinf(first))) if first else None,
    }


def first_below(a: list[float], b: list[float]) -> int | None:
    below = np.flatnonzero(np.asarray(a, float) < np.asarray(b, float))
    return int(below[0]) + 1 if len(below) else None


def outcomes(loop: OpenLoopResults, schema: DataSchema) -> dict[str, Any]:
    """Reward and success over all imagined steps, the last action of an episode included."""
    found: dict[str, Any] = {}
    known = np.isfinite(loop.true_reward)
    if schema.reward:
        imagined, true = loop.reward[known], loop.true_reward[known]
        found["reward"] = {
            "mse": float(np.mean((imagined - true) ** 2)),
            "mse_of_the_mean": float(np.var(true)),  # what a constant guess would give
            "correlation": correlation(imagined, true),
            "bias": float(np.mean(imagined - true)),  # above 0: optimistic
            "steps": int(known.sum()),
        }
    if schema.success:
        label, score = loop.true_success[known], loop.success[known]
        found["success"] = {
            "auroc": auroc(score, label),
            "positives": int(label.sum()),
            "steps": int(known.sum()),
            "mean_probability": float(score.mean()),
        }
    return found


def uncertainty(loop: OpenLoopResults, share: float = 0.1) -> dict[str, Any]:
    """Does the uncertainty tell which states are wrong, and by how much?

    Large errors are the largest `share` of all steps of all windows. `auroc` is how well the uncertainty
    flags them; `auroc_of_the_step` how well one does who only counts the steps. By tenths of the steps, in
    the order of what was said: the mean error said, and the true one.
    """
    known = np.isfinite(loop.strayed)
    said, true = loop.uncertainty[known].astype(float), loop.strayed[known].astype(float)
    step = np.broadcast_to(np.arange(loop.steps), known.shape)[known]
    if not len(true):
        return {}
    bound = float(np.quantile(true, 1 - share))
    tenths = np.array_split(np.argsort(said, kind="stable"), 10)
    return {
        "large": bound,
        "auroc": auroc(said, true > bound),
        "auroc_of_the_step": auroc(step, true > bound),
        "mean_said": float(said.mean()),
        "mean_true": float(true.mean()),
        "said": [float(said[rows].mean()) for rows in tenths if len(rows)],
        "true": [float(true[rows].mean()) for rows in tenths if len(rows)],
        "steps": len(true),
    }


def curve_report(curves: dict[str, np.ndarray], episodes: np.ndarray, horizon: int) -> dict[str, dict]:
    """Per curve: mean over all windows, 95 % interval, median and count, at each horizon reached."""
    reach = int(np.isfinite(curves["psnr_imagined"][:, :horizon]).any(0).sum())
    summaries = {}
    for name, values in curves.items():
        summaries[name] = as_lists(summarise(values[:, :reach].astype(np.float64), episodes))
    return summaries


def as_lists(summary: Summary) -> dict[str, list]:
    return {key: values.tolist() for key, values in vars(summary).items()}

"""From open-loop results to curves over the horizon and to single figures: outcomes, failure, uncertainty.

N windows, R draws of noise for each, H horizons, S state.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from scd_world.evaluation.open_loop import OpenLoopResults
from scd_world.evaluation.state_errors import SHOWN, state_errors
from scd_world.evaluation.verdict import first_worse
from scd_world.metrics.image import TIE
from scd_world.metrics.statistics import Summary, auroc, correlation, summarize
from scd_world.robot_data.schema import DataSchema

END_ERRORS = {f"{error.name}_imagined" for error in SHOWN}  # what the worst windows are listed with


# ---- curves: name → (N, H) -----------------------------------------------------------------------


def all_curves(loop: OpenLoopResults, schema: DataSchema) -> dict[str, np.ndarray]:
    """Computes everything that is measured at each horizon; `…_copy`: of keeping the last context frame.

    Of several draws it is their mean, and `psnr_best`, for comparison with papers that report the best of n,
    the highest PSNR of any draw, at each step anew.
    """
    curves = {name: loop.by_draw(values).mean(0) for name, values in loop.frames.items()}
    if loop.draws > 1:
        curves["psnr_best"] = loop.by_draw(loop.frames["psnr_imagined"]).max(0)
    recorded = curves.pop("sharpness_recorded")
    for name in ("sharpness_imagined", "sharpness_copy"):
        curves[name] = relative(curves[name], recorded)
    for name in ("psnr", "psnr_changed"):
        curves[f"{name}_gain"] = curves[f"{name}_imagined"] - curves[f"{name}_copy"]
    curves["survival"] = survival(curves["psnr_changed_imagined"], curves["psnr_changed_copy"])
    copied = np.broadcast_to(loop.start_state[:, None], loop.state.shape)
    for name, state in {"imagined": loop.state, "copy": copied}.items():
        errors = state_errors(state, loop.true_state, schema)
        curves |= {f"{key}_{name}": loop.by_draw(values).mean(0) for key, values in errors.items()}
    if schema.reward:
        curves["reward_square"] = loop.by_draw((loop.reward - loop.true_reward) ** 2).mean(0)
    return curves


def steady(loop: OpenLoopResults) -> OpenLoopResults:
    """Gives the results without the steps that come after a frame that the recorder dropped."""
    kept = copy.copy(loop)
    kept.frames = {name: np.where(loop.late, np.nan, values) for name, values in loop.frames.items()}
    late = loop.late[..., None]
    kept.state, kept.true_state = (np.where(late, np.nan, x) for x in (loop.state, loop.true_state))
    kept.reward, kept.true_reward = (np.where(loop.late, np.nan, x) for x in (loop.reward, loop.true_reward))
    return kept


def relative(values: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """Divides (N, H) by each step's mean of the recorded ones, so that their means are a ratio of means.

    The mean of the windows' own ratios would be above 1 for a copy already, wherever windows differ.
    """
    known = np.isfinite(recorded)
    with np.errstate(invalid="ignore", divide="ignore"):  # steps that nobody reached are NaN
        return values / (np.where(known, recorded, 0).sum(0) / known.sum(0))


def worst_windows(loop: OpenLoopResults, curves: dict[str, np.ndarray], count: int) -> list[dict[str, Any]]:
    """Finds the windows of the lowest mean PSNR, lowest first.

    Gives for each its position in `loop`, means over the horizon, and `…_end`: the state's errors at its end.
    """
    means = {
        name: np.nanmean(curves[name], axis=1) for name in ("psnr_imagined", "psnr_copy", "ssim_imagined")
    }
    order = np.argsort(means["psnr_imagined"])[:count]
    ends = [name for name in curves if name in END_ERRORS]
    return [
        {"window": int(i)}
        | {name: float(values[i]) for name, values in means.items()}
        | {f"{name}_end": float(curves[name][i][np.isfinite(curves[name][i])][-1]) for name in ends}
        for i in order
    ]


def survival(imagined: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """Gives (N, H): 1 until imagining is first worse than copy-last on changed pixels, then 0; NaN unreached.

    imagined, copy: (N, H) PSNR in dB. On whole frames a window in which nothing moves yet would fail at once:
    there copy-last is exact.
    """
    failed = np.maximum.accumulate(imagined < copy - TIE, axis=1)
    reached = np.maximum.accumulate(np.isfinite(imagined)[:, ::-1], axis=1)[:, ::-1]
    return np.where(reached, 1.0 - failed, np.nan)


# ---- single figures ------------------------------------------------------------------------------


def time_to_failure(curves: dict[str, np.ndarray], means: dict[str, dict]) -> dict[str, Any]:
    """Finds the first horizon at which imagining is worse than copy-last; None: at none of those reached.

    A tie is no failure: windows are compared one by one, and their mean difference has to differ from zero.
    """
    alive = curves["survival"]
    first = [int(np.argmax(row == 0)) + 1 if (row == 0).any() else math.inf for row in alive]
    median = float(np.median(first)) if first else math.inf
    return {
        "mean_psnr": first_worse(means["psnr_gain"]),
        "mean_psnr_changed": first_worse(means["psnr_changed_gain"]),
        "median_window_changed": None if math.isinf(median) else median,
        "windows_never_failed": float(np.mean(np.isinf(first))) if first else None,
    }


def outcomes(loop: OpenLoopResults, schema: DataSchema) -> dict[str, Any]:
    """Scores reward and success over all imagined steps, the last action of an episode included."""
    scores: dict[str, Any] = {}
    known = np.isfinite(loop.true_reward)
    if schema.reward:
        predicted, observed = loop.reward[known], loop.true_reward[known]
        scores["reward"] = {
            "mse": float(np.mean((predicted - observed) ** 2)),
            "mse_constant": float(np.var(observed)),  # of the best constant prediction
            "correlation": correlation(predicted, observed),
            "bias": float(np.mean(predicted - observed)),  # above 0: optimistic
            "steps": int(known.sum()),
        }
    if schema.success:
        label, score = loop.true_success[known], loop.success[known]
        scores["success"] = {
            "auroc": auroc(score, label),
            "positives": int(label.sum()),
            "steps": int(known.sum()),
            "mean_probability": float(score.mean()),
        }
    return scores


def state_uncertainty(loop: OpenLoopResults) -> dict[str, Any]:
    """Scores the uncertainty of the state, as `uncertainty` does."""
    return uncertainty(loop.uncertainty, loop.state_error)


def image_uncertainty(loop: OpenLoopResults) -> dict[str, Any]:
    """Scores that of the pictures, as `uncertainty` does."""
    return uncertainty(loop.image_uncertainty, image_error(loop))


def image_error(loop: OpenLoopResults) -> np.ndarray:
    """Gives the pictures' root mean square errors, as shares of the range from black to white, (R, T)."""
    return 10 ** (-loop.frames["psnr_imagined"] / 20)


def uncertainty(predicted: np.ndarray, observed: np.ndarray, share: float = 0.1) -> dict[str, Any]:
    """Scores an uncertainty: does it tell what is wrong, and by how much? {}: the world has none.

    predicted, observed (R, T): the error to expect of each row and step, and the true one; NaN: unknown.
    Large errors are the largest `share` of all steps of all windows. `auroc` is how well the uncertainty
    flags them; `auroc_of_the_step` how well the number of the step alone does. By tenths of the steps, in
    the order of the predicted error: `predicted` and `observed`, its mean and that of the true error.
    """
    known = np.isfinite(observed) & np.isfinite(predicted)
    step = np.broadcast_to(np.arange(known.shape[1]), known.shape)[known]
    predicted, observed = predicted[known].astype(float), observed[known].astype(float)
    if not len(observed):
        return {}
    bound = float(np.quantile(observed, 1 - share))
    tenths = np.array_split(np.argsort(predicted, kind="stable"), 10)
    return {
        "large": bound,
        "auroc": auroc(predicted, observed > bound),
        "auroc_of_the_step": auroc(step, observed > bound),
        "mean_predicted": float(predicted.mean()),
        "mean_observed": float(observed.mean()),
        "predicted": [float(predicted[rows].mean()) for rows in tenths if len(rows)],
        "observed": [float(observed[rows].mean()) for rows in tenths if len(rows)],
        "steps": len(observed),
    }


def curve_report(curves: dict[str, np.ndarray], episodes: np.ndarray, horizon: int) -> dict[str, dict]:
    """Summarizes each curve over all windows: mean, 95 % interval, median, count at each horizon reached."""
    reach = int(np.isfinite(curves["psnr_imagined"][:, :horizon]).any(0).sum())
    summaries = {}
    for name, values in curves.items():
        summaries[name] = as_lists(summarize(values[:, :reach].astype(np.float64), episodes))
    return summaries


def before_dropped_frames(loop: OpenLoopResults, schema: DataSchema, horizon: int) -> dict[str, Any]:
    """Counts the windows in which the recorder dropped a frame, and summarizes what comes before it; {}: in
    none."""
    late = loop.by_draw(loop.late)[0, :, :horizon]
    if not late.any() or late[:, 0].all():
        return {}
    curves = curve_report(all_curves(steady(loop), schema), loop.episodes, horizon)
    return {"windows": int(late.any(1).sum()), "steps": int(late.sum()), "curves": curves}


def as_lists(summary: Summary) -> dict[str, list]:
    return {key: values.tolist() for key, values in vars(summary).items()}

"""What a user wants to know first: does the world beat copying the last frame, until when, does it move?

Both are imagined and copied from the same windows, so what counts is the difference within each window: its
mean, and a 95 % interval that resamples episodes. A difference that the interval does not tell from zero, or
that nobody could see, is a tie. H steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scd_world.evaluation.state_errors import AGENT
from scd_world.metrics.image import TIE, VISIBLE
from scd_world.reporting.tables import number, significant

FEW = 5  # episodes: with fewer the interval is hardly more than their range
QUOTED = 8  # the step whose gain is named, where the world is ahead there
SHARP = 0.15  # by which a share of the recorded sharpness may differ from one
# A share of the recorded sharpness below which PSNR praises mush. Worlds that are worth having blur at long
# horizons, to .6 or so: a sentence of its own says that, and takes nothing from what they are praised for.
MUSH = 0.5
FARTHER = 1.05  # times the copy's error of the robot's state: what is less is as far off
LIKE = 0.005  # of SSIM: two pictures that are like the recorded one to so little are equally good


def compare_paired(gain: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Says of each step, (H,) int: 1 better than copying, −1 worse, 0 a tie.

    gain: a summary (mean, low, high) of the windows' differences in dB.
    """
    mean, low, high = bounds(gain)
    return ((mean > TIE) & (low > 0)).astype(int) - ((mean < -TIE) & (high < 0)).astype(int)


def bounds(summary: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gives mean, low and high, (H,) each, by which is judged. One episode alone has no interval (NaN): its
    mean then decides; of several, nothing is said of what one alone reaches."""
    mean, low, high = (np.asarray(summary[name], float) for name in ("mean", "low", "high"))
    return (mean, low, high) if np.isfinite(low).any() else (mean, mean, mean)


def first_worse(gain: Mapping[str, Sequence[float]]) -> int | None:
    """Finds the first step, counted from 1, that is worse than copying; None: none is."""
    worse = np.flatnonzero(compare_paired(gain) < 0)
    return int(worse[0]) + 1 if len(worse) else None


def judge(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    moved: np.ndarray,
    changed_share: np.ndarray,
    episodes: int,
) -> dict[str, Any]:
    """Judges a world as plain data, for the head of its report.

    curves: the report's summaries, `psnr_gain` among them; moved: the largest change (N, H) of an imagined
    pixel since the context, in gray levels; changed_share (N, H) of the recorded pixels; episodes: how many
    there are. `lines` are sentences, the verdict first.
    """
    gain = curves["psnr_gain"]
    signs = compare_paired(gain)
    better, worse = np.flatnonzero(signs > 0) + 1, np.flatnonzero(signs < 0) + 1
    largest = float(np.nanmax(changed_share, initial=0.0))
    still = bool(np.nanmax(moved, initial=0.0) < VISIBLE) and largest > 0
    lines = [f"{sentence(curves, better, worse)}."]
    if episodes < FEW:
        some = f"{episodes} episodes are" if episodes > 1 else "one episode is"
        lines.append(f"Only {some} behind it, and an interval of so few says little: it may be chance.")
    if still:
        lines.append(
            f"**Its imagined pictures never move**: no pixel changes by one gray level in any window, while "
            f"of the recorded ones up to {significant(100 * largest)} % change. It learnt to copy: train it "
            "longer, or a larger model."
        )
    return {
        "lines": lines,
        "better": better.tolist(),
        "worse": worse.tolist(),
        "steps": len(signs),
        "still": still,
    }


def judge_sharpness(share: Mapping[str, Sequence[float]], copied: Sequence[float]) -> list[str]:
    """Says in a sentence each where imagined frames are less, and where more, sharp than recorded ones.

    share: a summary (mean, low, high) of the imagined frames' sharpness as a share of the recorded ones';
    copied: mean share of a copied frame, which tells how much the recorded frames themselves changed.
    """
    mean, low, high = bounds(share)
    outside = {
        f"blurs: less than {100 * (1 - SHARP):.0f} %": (mean < 1 - SHARP) & (high < 1),
        f"is grainy: more than {100 * (1 + SHARP):.0f} %": (mean > 1 + SHARP) & (low > 1),
    }
    lines = []
    for what, where in outside.items():
        if where.any():
            steps = np.flatnonzero(where) + 1
            worst = steps[np.abs(mean[steps - 1] - 1).argmax()]
            share, copy = 100 * mean[worst - 1], 100 * copied[worst - 1]
            lines.append(
                f"It {what} of the recorded frames' sharpness {spans(steps, len(mean))}, at worst "
                f"{share:.0f} % at step {worst} (a copied frame: {copy:.0f} %)."
            )
    return lines


def sentence(
    curves: Mapping[str, Mapping[str, Sequence[float]]], better: np.ndarray, worse: np.ndarray
) -> str:
    """Says in words where the world is better and worse than copying, and what speaks against it where it is
    better. better, worse: steps, from 1."""
    gain = curves["psnr_gain"]
    H, mean = len(gain["mean"]), np.asarray(gain["mean"], float)
    if not len(better) and not len(worse):
        if np.abs(mean).max(initial=0) <= TIE:
            return f"This world equals copying the last frame at each of {H} steps"
        return f"No step of {H} differs from copying the last frame by more than chance"
    if not len(better):
        return (
            f"This world does not beat copying the last frame at any of {H} steps; worse {spans(worse, H)}"
            + by(gain, nearest(worse))
        )
    ties = np.setdiff1d(np.arange(1, H + 1), [*better, *worse])
    after = worse[worse > better[0]]
    ahead = better[better < after[0]] if len(after) else better
    first, last = ahead[0], ahead[-1]
    since = "up to" if first == 1 else f"from step {first} to" if first < last else "only at"
    against = reservations(curves, ahead)
    alone = " in PSNR alone" if "SSIM" in against else ""
    text = (
        f"This world beats copying the last frame{alone} {since} step {last} of {H}{by(gain, nearest(ahead))}"
    )
    if against:
        text += f", but there {', '.join(against.values())}"
    asides = {"a tie": ties, "worse": worse}
    return "; ".join([text, *(f"{what} {spans(at, H)}" for what, at in asides.items() if len(at))])


def reservations(curves: Mapping[str, Mapping[str, Sequence[float]]], ahead: np.ndarray) -> dict[str, str]:
    """Says what else is worse than copying where PSNR is better, by the mean over these steps; {}: nothing.

    PSNR alone prefers mush to a sharp picture of what has moved on. ahead: steps, from 1. Gives a clause
    each, by what it is of.
    """

    def means(name: str, key: str = "mean") -> float:
        return float(np.nanmean(np.asarray(curves[name][key], float)[ahead - 1]))

    found = {}
    if "ssim_imagined" in curves:
        own, copied = means("ssim_imagined"), means("ssim_copy")
        if own < copied - LIKE:
            found["SSIM"] = f"its SSIM is {number(own, 3)} and the copy's {number(copied, 3)}"
    if "sharpness_imagined" in curves:
        share, low, high = (float(np.nanmean(x[ahead - 1])) for x in bounds(curves["sharpness_imagined"]))
        if (share > 1 + SHARP and low > 1) or (share < MUSH and high < 1):
            found["sharpness"] = f"its pictures have {100 * share:.0f} % of the recorded sharpness"
    if f"{AGENT.name}_imagined" in curves:
        own, copied = (means(f"{AGENT.name}_{name}", "median") for name in ("imagined", "copy"))
        if own > FARTHER * copied > 0:
            found["state"] = f"its robot is {own / copied:.3g} times as far off as the copy's"
    return found


def nearest(steps: np.ndarray) -> int:
    """Picks which of these steps is quoted."""
    return int(steps[np.abs(steps - QUOTED).argmin()])


def by(gain: Mapping[str, Sequence[float]], step: int) -> str:
    """Says how large the difference is at a step, with its interval where there is one."""
    mean, low, high = (float(gain[name][step - 1]) for name in ("mean", "low", "high"))
    low, high = sorted((np.sign(mean) * low, np.sign(mean) * high))
    interval = f" [{number(low)}, {number(high)}]" if np.isfinite(low) else ""
    return f", by {number(abs(mean))} dB{interval} at step {step}"


def spans(steps: np.ndarray, last: int) -> str:
    """Says which steps these are: [1, 2, 3, 9, 10] of 10 → `at steps 1–3 and from step 9 on`."""
    runs = np.split(steps, np.flatnonzero(np.diff(steps) > 1) + 1)
    goes_on = runs[-1][-1] == last and len(runs[-1]) > 1
    closed = [(r[0], r[-1]) for r in (runs[:-1] if goes_on else runs)]
    texts = [f"{a}–{b}" if a < b else f"{a}" for a, b in closed]
    plural = "s" if sum(b - a + 1 for a, b in closed) > 1 else ""
    parts = [f"at step{plural} {', '.join(texts)}"] if texts else []
    return " and ".join(parts + ([f"from step {runs[-1][0]} on"] if goes_on else []))

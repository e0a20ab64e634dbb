"""Measures a model's filter (`filter.py`): how far the drawing of a state corrects what is imagined.

The search begins at the reach that brings drawings of recorded states nearest to the recorded frames; a
larger one, which keeps longer what was shown, is taken where rollouts are about as near with it. After k
steps of a rollout, of the imagined x, the measured m and the recorded y,

    P_k = argmin  10 lg Σ ‖x + g·c + g²·f − y‖² / ‖x − y‖²  +  UNSHARP · u

over all rows, c = G(m − x), f = m − x − c and g = P / (P + R²) in each, the corrected frame being the past of
step k + 1: the gains of a Kalman filter whose noise is measured instead of modeled. Each error counts beside
the uncorrected one, as dB have it: else the few rows that went astray would settle what is done to all. And
error alone would blur whatever is uncertain: so the corrected frames shall be as sharp as the recorded ones
within 15 %, u being how far |ln sharpness| is beyond that. Strengths are found so step by step, in the
model's own frames, where what each comes to has a closed form; how much sharper they look once they are
pictures is seen on those of the steps before. All else is judged by whole rollouts and the
structural similarity of their pictures to the recorded ones, which tells both how near and how sharp they
are: a code of the grain of wood and of a small red puck may differ as much, and what somebody sees does not.
But what is sharp and wrong is no better than what is soft and right: nothing is taken whose pictures are
farther off than the nearest by more than FARTHER, in the dB of a mean PSNR.
So each camera gets the strength of the first correction, the reach (which is not asked where dense motion is
learned), the width of the blur G; of the strengths nothing, a quarter, a half or a whole, for what a step
corrects need not be corrected again, and P_k knows no later step; and from the first step on, or from a later
one, m itself in the place of x, where that serves. Of what serves as well the first correction is the
strongest, for the decoder goes on from there, and what corrects the frame that it then draws the least.

After that, by rollouts that are corrected so, the weights w of the error to expect: least squares of its
logarithm, none of them negative, so that nothing that tells of an error ever makes it smaller.
Before that, by rollouts that nothing corrects, the motion is found below which the frame before is as near to
the next one as what was imagined of it. On episodes that nothing was learnt from: what was learnt by heart
is drawn better than anything will be.

N rows, V cameras, C = 3·V channels, H W frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from scipy.optimize import nnls
from torch import Tensor
from tqdm import tqdm

from scd_world.metrics.image import ssim
from scd_world.model.filter import (
    OPEN,
    STEPS,
    WHOLE,
    Measured,
    StateFilter,
    by_camera,
    gaussian,
    kalman_gain,
    motion_of,
)
from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.robot_data.clip import Clip

REACHES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6)  # of [-1, 1]
LARGER = 4  # of these are tried by rollouts, at most
AS_GOOD = 0.2  # dB within which rollouts serve as well: a few windows tell no less
STRENGTHS = torch.cat([torch.zeros(1), torch.logspace(-7, math.log10(WHOLE), 80)])
# Of the usual change per step. No more: a robot that creeps by less is drawn only once it moves again.
STILL = (0.01, 0.02, 0.05)
AS_NEAR = 1.01  # times the error of what was imagined: what is nearer by less only drifts, step by step
COMPARED = 8  # frames of a row, about, that the reach is chosen by
WIDTHS = (0.0, 2.0, 4.0, 8.0)  # of the blur, cells
SHARP = math.log(1.15)  # |ln sharpness| of a picture that is as sharp as it shall be
UNSHARP = 10.0  # dB that one is worse for each factor of e beyond that, too soft or too grainy
FARTHER = 2.0  # dB, of a mean PSNR, by which the nearest may be nearer than what is taken
UNSEEN = (2 / 255) ** 2  # a square error of one gray level, below which none is better than another
EVEN = 1e-5  # of [-1, 1], as of a camera that is covered: a smaller difference is none
LEAST_ERROR = 1e-4  # of a picture, as a share of its range
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the strength that each step by itself would have
FIRST_SHARES = (0.0, 1.0)  # P, of the mean R²; beside these the drawing whole
WHOLE_FROM = (12, 4, 0)  # imagined steps, from which on the drawing may be taken whole
AT_ONCE = 2**22  # numbers that are corrected together
RIDGE = 0.01  # of the weights of the error, beside one for each spread of what tells it
TELLS = 0.01  # deviation of a logarithm; one that differs by less tells nothing
FEWEST = 4  # rows that are rolled out, however little time there is
MEMORY = 0.7  # of the errors that the steps before pass on: a few rows alone say little of one step


class Stopped(Exception):
    """Says that nobody waits for a measurement any more."""


@dataclass(frozen=True)
class Rollouts:
    """What a filter is measured on: a clip's rows, the first `context` frames of which are shown."""

    clip: Clip
    context: int
    seed: int
    decode: Callable[[Tensor], Tensor]  # the model's frames (N, C, H, W) → pictures in [-1, 1]
    bar: tqdm  # of the steps that are imagined in all
    stop: Callable[[], bool] = lambda: False  # whether to leave it at that
    tried: list[Tensor] = field(default_factory=list)  # what all that was tried so far costs, (2, V) each

    def start(self, model: WorldModel) -> RolloutState:
        return observe_context(model, self.clip, self.context)

    @property
    def numbers(self) -> range:
        """Which steps of the clip are imagined, STEPS at most."""
        return range(self.context - 1, self.clip.num_steps)[:STEPS]

    def total(self, model: WorldModel) -> int:
        """Counts the steps that are imagined in all, at most."""
        reaches = 0 if model.prior.moves_shown else LARGER
        return len(self.numbers) * (
            reaches + len(WIDTHS) + len(SHARES) + len(WHOLE_FROM) + len(FIRST_SHARES) + 3
        )

    @cached_property
    def pictures(self) -> list[Tensor]:
        """What was recorded after each step."""
        return [self.decode(self.clip.obs[:, i + 1]).half() for i in self.numbers]

    def steps(self) -> Iterator[tuple[int, Tensor]]:
        """Gives the number of each step, and the noise (N, C, H, W) of its frame: the same every time."""
        obs = self.clip.obs
        generator = torch.Generator(obs.device).manual_seed(self.seed)
        for i in self.numbers:
            if self.stop():
                raise Stopped
            yield i, torch.randn(obs[:, 0].shape, generator=generator, device=generator.device)
            self.bar.update()

    def judged(self, costs: Sequence[Tensor]) -> Tensor:
        """Gives what each that was tried costs, of (2, V) each, (tried, V): no end of it where its pictures
        are by more than FARTHER farther off than the nearest so far, or all of these are."""
        cost, off = torch.stack(list(costs), dim=1)
        nearest = torch.stack(self.tried)[:, 1].amin(0) if self.tried else off.amin(0)
        too_far = off > torch.maximum(nearest + FARTHER, off.amin(0))
        return cost.masked_fill(too_far | cost.isnan(), torch.inf)

    def within(self, model: WorldModel, seconds: float) -> Rollouts:
        """Gives as many of the rows as are measured in so many seconds, by how long one step of all takes."""
        s, (i, noise) = self.start(model), next(self.steps())
        began = time.perf_counter()
        s = model.imagine(s, self.clip.action[:, i], noise)
        self.decode(s.obs).sum().item()  # wait for the device
        took = (time.perf_counter() - began) * self.total(model)
        rows = len(self.clip.action) * min(1.0, seconds / took)
        return replace(self, clip=self.clip.rows(slice(max(FEWEST, int(rows)))))


@torch.no_grad()
def fit_filter(
    model: WorldModel,
    clip: Clip,
    context: int,
    seed: int,
    decode: Callable[[Tensor], Tensor],
    seconds: float = math.inf,
    progress: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Measures the filter of a model that has one, by rollouts of a clip's rows of which `context` frames are
    shown; steps beyond its end are corrected as the last one. decode: from the model's frames (N, C, H, W) to
    pictures in [-1, 1]. seconds: that it may take, about; then of fewer rows. progress: whether a bar is
    shown. stop: asked before each step whether to leave it at that. Gives the number of rows, 0 where it was
    left: then the filter is of no use, and to be read back."""
    corrects = model.filter
    if corrects is None:
        raise ValueError("a model without a filter has none to measure: set model.state_filter=true")
    with tqdm(desc="filter", unit="step", disable=not progress, mininterval=10) as bar:
        try:
            rollouts = Rollouts(clip, context, seed, decode, bar, stop).within(model, seconds)
            bar.reset(rollouts.total(model))
            measure(corrects, model, rollouts)
        except Stopped:
            return 0
    return len(rollouts.clip.action)


@torch.no_grad()
def fit_first_reach(model: WorldModel, clip: Clip, context: int) -> None:
    """Sets a filter's reach by recorded states alone, so that there is something to learn to go on from."""
    assert model.filter is not None
    if model.prior.moves_shown:
        return
    rollouts = Rollouts(clip, context, 0, lambda obs: obs, tqdm(disable=True))
    fit_reach_of_frames(model.filter, model, rollouts)


class Found(NamedTuple):
    """What one reach, or one width of the blur, comes to."""

    cost: Tensor  # (2, V) of its pictures
    strength: Tensor  # (STEPS, V) at its best


def measure(corrects: StateFilter, model: WorldModel, rollouts: Rollouts) -> None:
    """Sets all that a filter has."""
    s = rollouts.start(model)
    corrects.farthest.copy_(s.drawing_error.amax(0))
    if s.scene_features.shape[-1]:
        corrects.farthest.fill_(OPEN)
    corrects.strength.zero_()
    corrects.set_first_strength(torch.zeros_like(corrects.first_strength))
    corrects.grain.fill_(1.0)
    corrects.still.zero_()
    corrects.still.fill_(fit_still(model, rollouts))
    corrects.kernel.copy_(gaussian(0.0))
    if model.prior.moves_shown:  # where that has gone is known, and no reach is asked
        fit_first_strength(corrects, model, rollouts)
        plain = strengths_found(model, rollouts)
    else:
        nearest = fit_reach_of_frames(corrects, model, rollouts)
        fit_first_strength(corrects, model, rollouts)
        plain = fit_reach(corrects, model, rollouts, nearest)
    fit_width(corrects, model, rollouts, plain)
    fit_share(corrects, model, rollouts)
    corrects.error_weights.copy_(fit_error(model, rollouts))


def fit_first_strength(corrects: StateFilter, model: WorldModel, rollouts: Rollouts) -> None:
    """Sets the strength of the first correction, of each camera the largest that serves a rollout as well as
    any under the reach that there is, where the frames that come of it are corrected no more."""
    off, costs = rollouts.start(model).drawing_error.mean(0), []  # (V,)
    tried = [share * off for share in FIRST_SHARES] + [torch.full_like(off, WHOLE)]
    for strength in tried:
        corrects.set_first_strength(strength)
        costs.append(rollout_cost(model, rollouts))
    corrects.set_first_strength(of_each_camera(tried, last_of_good(rollouts.judged(costs))))


def fit_reach(corrects: StateFilter, model: WorldModel, rollouts: Rollouts, nearest: Tensor) -> Found:
    """Sets each camera's reach: of that which serves single frames, and larger ones, the largest that serves
    a rollout as well as any, for away from what was recorded what was shown is all that is known. nearest:
    the place of the first in REACHES, (V,). Gives what they come to without a blur."""
    found = []
    first = nearest.clamp(min=len(REACHES) - 1 - LARGER)  # so that the largest is tried
    reaches = first + torch.arange(1 + LARGER)[:, None]  # (1 + LARGER, V) their places in REACHES
    reaches = torch.tensor(REACHES)[reaches.clamp(max=len(REACHES) - 1)].to(corrects.reach)
    for tried in reaches.unique_consecutive(dim=0):
        corrects.reach.copy_(tried)
        found.append(strengths_found(model, rollouts))
        costs = rollouts.judged([each.cost for each in found])
        if not as_good(costs)[-1].any():
            break
    chosen = last_of_good(costs)
    corrects.reach.copy_(of_each_camera(list(reaches), chosen))
    return Found(*(of_each_camera(tried, chosen) for tried in zip(*found, strict=True)))


def fit_width(corrects: StateFilter, model: WorldModel, rollouts: Rollouts, plain: Found) -> None:
    """Sets the width of the blur, and the strengths under it, of each camera the best. plain: what none
    comes to."""
    found, costs = [plain], rollouts.judged([plain.cost])
    for width in WIDTHS[1:]:
        corrects.kernel.copy_(gaussian(width))
        found.append(strengths_found(model, rollouts))
        costs = rollouts.judged([each.cost for each in found])
        if (costs[-1] > costs.amin(0)).all():
            break  # a wider one would be farther off still
    for camera, best in enumerate(costs.argmin(0).tolist()):
        corrects.kernel[camera] = gaussian(WIDTHS[best])
        corrects.strength[:, camera] = found[best].strength[:, camera]


def fit_share(corrects: StateFilter, model: WorldModel, rollouts: Rollouts) -> None:
    """Sets the strengths: of each camera the least share of those found that serves a rollout as well as any,
    and from some step on, as late as that may be, what is drawn, grain and all, where less serves it less."""
    tried = [share * corrects.strength for share in SHARES]
    costs = [corrected_cost(model, rollouts, each) for each in tried]
    least = first_of_good(rollouts.judged(costs))
    tried, costs = [of_each_camera(tried, least)], [of_each_camera(costs, least)]
    for step in WHOLE_FROM:
        whole = torch.arange(STEPS, device=least.device)[:, None] >= step
        tried.append(torch.where(whole, WHOLE, tried[0]))
        costs.append(corrected_cost(model, rollouts, tried[-1]))
    corrects.strength.copy_(of_each_camera(tried, first_of_good(rollouts.judged(costs))))


def as_good(costs: Tensor) -> Tensor:
    """Says which of those tried are as good as the best, of costs (tried, V)."""
    return costs <= costs.amin(0) + AS_GOOD


def first_of_good(costs: Tensor) -> Tensor:
    """Gives the number of the first that is as good as the best, (V,)."""
    return as_good(costs).int().argmax(0)


def last_of_good(costs: Tensor) -> Tensor:
    return len(costs) - 1 - first_of_good(costs.flip(0))


def of_each_camera(tried: Sequence[Tensor], chosen: Tensor) -> Tensor:
    """Gives of values (…, V) that were tried each camera's chosen one, by its number (V,)."""
    return torch.stack([tried[number][..., camera] for camera, number in enumerate(chosen.tolist())], dim=-1)


def strengths_found(model: WorldModel, rollouts: Rollouts) -> Found:
    """Sets the strengths under the reach and the blur that there are, and gives what comes of it."""
    assert model.filter is not None
    return Found(fit_strength(model, rollouts), model.filter.strength.clone())


def fit_strength(model: WorldModel, rollouts: Rollouts) -> Tensor:
    """Sets the strength at each step, under the blur that there is; gives what the pictures then cost,
    (2, V)."""
    corrects, clip = model.filter, rollouts.clip
    assert corrects is not None
    s, measured = rollouts.start(model), []
    strengths, sums = STRENGTHS.to(s.obs), torch.zeros((), device=s.obs.device)
    seen = s.obs.new_zeros(4, corrects.strength.shape[1])  # how sharp they were so far, as `sharpened` has it
    for k, (i, noise) in enumerate(rollouts.steps()):
        corrects.strength[k:] = 0.0
        last, s = s, model.imagine(s, clip.action[:, i], noise)
        measure, recorded = measured_of(model, s, last), clip.obs[:, i + 1]
        toward = corrects.coarse_and_fine(measure.frame - s.obs)
        motion = motion_of(last.state, s.state, model.prior.delta_scale)
        moved = (clip.valid[:, i] * ~corrects.rests(motion).flatten())[:, None]
        gain = kalman_gain(strengths[:, None, None], s.drawing_error)
        sums = MEMORY * sums + torch.stack(
            [
                errors_at(gain, toward, recorded - s.obs, moved),
                sharpness_at(gain, toward, s.obs, moved),
                (moved * sharpness_of(recorded)).sum(0).expand(len(gain), -1),
            ]
        )
        cost = 10 * sums[0].log10() + UNSHARP * unsharpness(sharpened(seen) * sums[1], sums[2])
        corrects.strength[k] = of_least_cost(cost, strengths)
        s = replace(s, obs=corrects(s.obs, last.obs, motion, measure).frame)
        valid, pictures = clip.valid[:, i, None], (rollouts.decode(s.obs), rollouts.pictures[k])
        measured += picture_cost(*pictures, valid)
        if valid.any():
            shown = (*pictures, s.obs, recorded)
            seen = MEMORY * seen + torch.stack([(valid * sharpness_of(x.float())).sum(0) for x in shown])
    corrects.strength[k + 1 :] = corrects.strength[k]
    rollouts.tried.append(torch.stack(measured).mean(0))
    return rollouts.tried[-1]


def sharpened(seen: Tensor) -> Tensor:
    """Gives how many times sharper imagined frames, beside recorded ones, are as pictures, (V,); 1 where
    none was seen. seen (4, V): sharpness of imagined and recorded pictures, and frames."""
    picture, recorded_picture, frame, recorded = seen.clamp_min(EVEN)
    return picture / recorded_picture / (frame / recorded)


def fit_error(model: WorldModel, rollouts: Rollouts) -> Tensor:
    """Gives the weights (TOLD,) of the error to expect of a picture, of the filter as it is; zeros without
    any recorded frame after those shown."""
    corrects, clip = model.filter, rollouts.clip
    assert corrects is not None
    strength, s = corrects.strength.clone(), rollouts.start(model)
    told, errors = [], []
    for k, (i, noise) in enumerate(rollouts.steps()):
        corrects.strength.zero_()
        last, s = s, model.imagine(s, clip.action[:, i], noise)
        corrects.strength.copy_(strength)
        measure = measured_of(model, s, last)
        motion = motion_of(last.state, s.state, model.prior.delta_scale)
        frame = corrects(s.obs, last.obs, motion, measure).frame
        s, valid = replace(s, obs=frame), clip.valid[:, i] > 0
        if not valid.any():  # the windows of short episodes are those episodes, and this is beyond them
            continue
        pictures, recorded = rollouts.decode(frame[valid]), rollouts.pictures[k][valid]
        told.append(corrects.error_features(measure, measure.frame - s.obs)[valid])
        errors.append((pictures - recorded).square().mean((1, 2, 3)).sqrt() / 2)
    return least_squares_of_logarithm(torch.cat(told), torch.cat(errors))


def measured_of(model: WorldModel, s: RolloutState, last: RolloutState) -> Measured:
    """Gives what the filter was told of the frames of `s`, which were imagined after `last`."""
    return model.measure(s.state, s.prev, s.shown, last.steps_since_observed)


def of_least_cost(cost: Tensor, strengths: Tensor) -> Tensor:
    """Gives each camera's strength of least cost (P, V), of (P,)."""
    return strengths[cost.nan_to_num(0.0).argmin(0)]


def least_squares_of_logarithm(told: Tensor, errors: Tensor) -> Tensor:
    """Gives w (F,) with exp(told · w) near errors (N,), none below 0 but the first, that of the constant; on
    the average they are as large as the errors. told (N, F)."""
    if not len(errors):
        return told.new_zeros(told.shape[1])
    x, y = told[:, 1:].double().cpu().numpy(), errors.double().clamp_min(LEAST_ERROR).log().cpu().numpy()
    center, spread = x.mean(0), x.std(0).clip(TELLS)
    ridge = np.sqrt(RIDGE * len(x)) * np.eye(x.shape[1])
    w, _ = nnls(np.concatenate([(x - center) / spread, ridge]), np.append(y - y.mean(), np.zeros(len(ridge))))
    w /= spread
    as_large = np.log(np.exp(y).mean() / np.exp((x - center) @ w).mean())
    return told.new_tensor([as_large - center @ w, *w])


def corrected_cost(model: WorldModel, rollouts: Rollouts, strength: Tensor) -> Tensor:
    """Sets a strength (STEPS, V); gives what a rollout costs that is corrected so, (2, V)."""
    assert model.filter is not None
    model.filter.strength.copy_(strength)
    return rollout_cost(model, rollouts)


def rollout_cost(model: WorldModel, rollouts: Rollouts) -> Tensor:
    """Gives what a rollout costs that is corrected as it is, (2, V)."""
    clip, s, measured = rollouts.clip, rollouts.start(model), []
    for k, (i, noise) in enumerate(rollouts.steps()):
        s = model.imagine(s, clip.action[:, i], noise)
        measured += picture_cost(rollouts.decode(s.obs), rollouts.pictures[k], clip.valid[:, i, None])
    rollouts.tried.append(torch.stack(measured).mean(0))
    return rollouts.tried[-1]


def picture_cost(frames: Tensor, recorded: Tensor, valid: Tensor) -> list[Tensor]:
    """Gives what pictures (N, C, H, W) of the valid (N, 1) rows cost, one (2, V) in dB, or nothing where none
    is: how unlike the recorded ones they are and how far from as sharp, together, and how far off they are.
    By likeness alone a blur is better than any draw of what may come, and what a distillation has sharpened
    would be drawn over."""
    if not valid.any():
        return []
    frames, recorded = frames.float(), recorded.float()
    found, wanted = ((valid * sharpness_of(x)).sum(0) for x in (frames, recorded))
    off = by_camera((frames - recorded).square()).clamp_min(UNSEEN)
    return [
        torch.stack(
            [
                unlike(frames, recorded, valid) + UNSHARP * unsharpness(found, wanted),
                10 * (valid * off.log10()).sum(0) / valid.sum(),
            ]
        )
    ]


def unlike(frames: Tensor, recorded: Tensor, valid: Tensor) -> Tensor:
    """Gives how unlike the recorded ones pictures (N, C, H, W) are, of the valid (N, 1) rows, (V,) in dB: 10
    lg (1 − SSIM)."""
    pictures = (rearrange(x, "n (v c) h w -> (n v) c h w", c=3) for x in (frames, recorded))
    dissimilarity = (1 - ssim(*pictures)).unflatten(0, (*valid.shape[:1], -1))
    return 10 * ((valid * dissimilarity).sum(0) / valid.sum()).clamp_min(EVEN).log10()


def unsharpness(found: Tensor, wanted: Tensor) -> Tensor:
    """Gives u, how far |ln| of one sharpness beside another is beyond what is sharp enough."""
    found, wanted = found.clamp_min(EVEN), wanted.clamp_min(EVEN)
    return ((found / wanted).log().abs() - SHARP).clamp_min(0)


def sharpness_of(frames: Tensor) -> Tensor:
    """Gives the mean absolute difference of neighboring cells of (N, C, H, W), (N, V)."""
    return by_camera(frames.diff(dim=-1).abs()) + by_camera(frames.diff(dim=-2).abs())


def fit_still(model: WorldModel, rollouts: Rollouts) -> float:
    """Finds the largest of STILL up to which, wherever the clip's states move so little, the frame before is
    as near to the recorded next one as the imagined one is; 0 without any."""
    clip = rollouts.clip
    edges = clip.obs.new_tensor(STILL)
    kept, imagined = clip.obs.new_zeros(2, len(STILL) + 1)
    s = rollouts.start(model)
    for i, noise in rollouts.steps():
        last, s = s, model.imagine(s, clip.action[:, i], noise)
        motion = torch.bucketize(motion_of(last.state, s.state, model.prior.delta_scale), edges)
        for total, frame in ((kept, last.obs), (imagined, s.obs)):
            off = (frame - clip.obs[:, i + 1]).square().sum((1, 2, 3))
            total.index_add_(0, motion, clip.valid[:, i] * off)
    still = 0.0
    for edge, by_keeping, by_imagining in zip(STILL, kept.tolist(), imagined.tolist(), strict=False):
        if by_keeping > AS_NEAR * by_imagining:
            break
        still = edge if by_imagining else still  # where nothing moved so little, nothing is known
    return still


def fit_reach_of_frames(corrects: StateFilter, model: WorldModel, rollouts: Rollouts) -> Tensor:
    """Sets each camera's reach to that which brings drawings of recorded states nearest to the recorded
    frames of a clip that follow those shown. Gives their places in REACHES, (V,)."""
    clip, s = rollouts.clip, rollouts.start(model)
    steps = range(rollouts.context, clip.num_steps + 1, max(1, clip.num_steps // COMPARED))
    before = clip.before_each
    drawn = {i: model.draw(clip.state[:, i], before[:, i], s.shown) for i in steps}
    errors = []
    for reach in REACHES:
        corrects.reach.fill_(reach)
        off = {
            i: by_camera(
                (corrects.measured(d, s.shown, s.steps_since_observed).frame - clip.obs[:, i]).square()
            )
            for i, d in drawn.items()
        }
        errors.append(torch.stack([(clip.valid[:, i - 1, None] * e).sum(0) for i, e in off.items()]).sum(0))
    nearest = torch.stack(errors).argmin(0).cpu()
    corrects.reach.copy_(torch.tensor(REACHES)[nearest])
    return nearest


def errors_at(gain: Tensor, toward: tuple[Tensor, Tensor], missing: Tensor, valid: Tensor) -> Tensor:
    """Gives the square error of frames that are corrected by each gain, beside that of each row's uncorrected
    one, summed over rows, (P, V).

    gain (P, N, V); toward, missing (N, C, H, W): what is coarse and what is fine of the whole correction, and
    what would be the right one; valid (N, 1).
    """
    coarse, fine = toward
    wanted = by_camera(missing.square())
    counts = valid / wanted.clamp_min(UNSEEN)  # (N, V)

    def share(one: Tensor, other: Tensor) -> Tensor:
        return counts * by_camera(one * other)

    # ‖g·c + g²·f − y‖², by powers of g
    powers = (
        share(missing, missing),
        -2 * share(coarse, missing),
        share(coarse, coarse) - 2 * share(fine, missing),
        2 * share(coarse, fine),
        share(fine, fine),
    )
    error = torch.zeros_like(gain)
    for factor in reversed(powers):  # Horner's rule
        error = error * gain + factor
    return error.sum(1)


def sharpness_at(gain: Tensor, toward: tuple[Tensor, Tensor], frames: Tensor, valid: Tensor) -> Tensor:
    """Gives how sharp frames (N, C, H, W) are that are corrected by each gain, summed over rows, (P, V)."""
    coarse, fine = toward
    gains = gain.repeat_interleave(3, dim=2)[..., None, None]
    found = []
    for some in gains.split(max(1, AT_ONCE // frames.numel())):
        corrected = (frames + some * coarse + some.square() * fine).flatten(0, 1)
        found.append((valid * sharpness_of(corrected).unflatten(0, some.shape[:2])).sum(1))
    return torch.cat(found)

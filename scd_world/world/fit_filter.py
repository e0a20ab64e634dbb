"""Measures a model's filter (`filter.py`): how far the drawing of a state corrects what is imagined.

The reach is the one that brings drawings of recorded states nearest to the recorded frames. After k steps of
a rollout, of the imagined x, the measured m and the recorded y,

    P_k = argmin Σ ‖x + g·(m − x) − y‖²     g = P / (P + R²) in each row

over all rows, the corrected frame being the past of step k + 1: the gains of a Kalman filter whose noise is
measured instead of modeled. On episodes that nothing was learnt from: what was learnt by heart is drawn
better than anything will be.

N rows, V cameras, C = 3·V channels, H W frame.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scd_world.model.filter import STEPS, StateFilter, drawing_error, kalman_gain
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.robot_data.clip import Clip

REACHES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8)  # of [-1, 1]
STRENGTHS = torch.cat([torch.zeros(1), torch.logspace(-7, 1, 80)])
COMPARED = 8  # frames of a row, about, that the reach is chosen by
MEMORY = 0.7  # of the errors that the steps before pass on: a few rows alone say little of one step


@torch.no_grad()
def fit_filter(model: WorldModel, clip: Clip, context: int, seed: int) -> None:
    """Measures the filter of a model that has one, by rollouts of a clip's rows of which `context` frames are
    shown; steps beyond its end are corrected as the last one."""
    corrects = model.filter
    if corrects is None:
        raise ValueError("a model without a filter has none to measure: set model.state_filter=true")
    anchor, anchor_drawn = clip.obs[:, 0], model.prior.render(clip.state[:, 0])
    fit_reach(corrects, model, clip, anchor_drawn)
    off = drawing_error(anchor, anchor_drawn)
    corrects.farthest.copy_(off.amax(0))
    corrects.strength.zero_()
    generator = torch.Generator(clip.obs.device).manual_seed(seed)
    s, errors = observe_context(model, clip, context), torch.zeros(())
    for k, i in enumerate(range(context - 1, clip.num_steps)[:STEPS]):
        age = s.steps_since_observed
        noise = torch.randn(s.obs.shape, generator=generator, device=generator.device)
        s = model.imagine(s, clip.action[:, i], noise)  # of strength 0 as yet: uncorrected
        drawn = model.prior.render(s.state)
        m = corrects.measured(drawn, anchor, anchor_drawn)
        found = errors_at(STRENGTHS.to(m), s.obs, m, clip.obs[:, i + 1], off, clip.valid[:, i, None])
        errors = MEMORY * errors.to(m) + found
        corrects.strength[k] = STRENGTHS.to(m)[errors.argmin(0)]
        s = replace(s, obs=corrects(s.obs, drawn, anchor, anchor_drawn, age))
    corrects.strength[k + 1 :] = corrects.strength[k]


def fit_reach(corrects: StateFilter, model: WorldModel, clip: Clip, anchor_drawn: Tensor) -> None:
    """Sets the reach by the frames of a clip and the first one of each row, drawn (N, C, H, W)."""
    anchor = clip.obs[:, 0]
    steps = range(1, clip.num_steps + 1, max(1, clip.num_steps // COMPARED))
    drawn = {i: model.prior.render(clip.state[:, i]) for i in steps}
    errors = {}
    for reach in REACHES:
        corrects.reach.fill_(reach)
        off = {i: corrects.measured(d, anchor, anchor_drawn) - clip.obs[:, i] for i, d in drawn.items()}
        errors[reach] = sum(
            (clip.valid[:, i - 1] * e.square().sum((1, 2, 3))).sum().item() for i, e in off.items()
        )
    corrects.reach.fill_(min(errors, key=errors.__getitem__))


def errors_at(strengths: Tensor, x: Tensor, m: Tensor, y: Tensor, off: Tensor, valid: Tensor) -> Tensor:
    """Gives the square error (P, V) of frames that are corrected at each strength, but for a constant.

    strengths (P,); x, m, y (N, C, H, W); off (N, V), their R²; valid (N, 1).
    """
    toward, missing = ((to - x).unflatten(1, (-1, 3)) for to in (m, y))
    fits, moves = (valid * (toward * other).sum((2, 3, 4)) for other in (missing, toward))  # (N, V)
    gain = kalman_gain(strengths[:, None, None], off)
    return (gain.square() * moves - 2 * gain * fits).sum(1)

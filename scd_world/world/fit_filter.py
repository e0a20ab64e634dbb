"""Measures how far to move an imagined frame toward the drawing of its state (`WorldModel.correct`).

What is imagined drifts; what the state alone draws does not, and knows less. Between the two, after k steps
of a rollout, lies the frame that is nearest to the recorded one: of the imagined x, the drawing d, the
recorded y,

    g_k = argmin ‖x + g·(d − x) − y‖² = ⟨y − x, d − x⟩ / ‖d − x‖²

over all rows, the corrected frame being the past of step k + 1: the gain of a Kalman filter whose noise is
measured instead of modeled. It is one number a step, measured on episodes that nothing was learnt from: what
was learnt by heart is drawn better than anything will be.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from scd_world.model.world_model import FILTERED, WorldModel, observe_context
from scd_world.robot_data.clip import Clip

MEMORY = 0.7  # of the sums over rows that the steps before pass on: a few rows alone say little of one step


@torch.no_grad()
def fit_filter(model: WorldModel, clip: Clip, context: int, seed: int) -> None:
    """Sets the gains of a model that has a filter, by rollouts of a clip's rows of which `context` frames are
    shown; steps beyond its end have the last one's."""
    generator = torch.Generator(clip.obs.device).manual_seed(seed)
    model.filter_gain.zero_()  # as of now nothing is corrected
    s, fits, moves = observe_context(model, clip, context), 0.0, 0.0
    for k, i in enumerate(range(context - 1, clip.num_steps)[:FILTERED]):
        noise = torch.randn(s.obs.shape, generator=generator, device=generator.device)
        s = model.imagine(s, clip.action[:, i], noise)
        drawn = model.prior.render(s.state)
        toward = (drawn - s.obs) * clip.valid[:, i, None, None, None]
        fits = MEMORY * fits + ((clip.obs[:, i + 1] - s.obs) * toward).sum().item()
        moves = MEMORY * moves + toward.square().sum().item()
        model.filter_gain[k] = min(max(fits / moves, 0.0), 1.0) if moves else 0.0
        s = replace(s, obs=torch.lerp(s.obs, drawn, model.filter_gain[k]))
    model.filter_gain[k + 1 :] = model.filter_gain[k]

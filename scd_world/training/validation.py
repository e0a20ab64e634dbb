"""How well a model does on held-out windows while it trains: a few numbers, cheap to have often.

B windows, T steps, k frames of context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from scd_world.metrics.image import TIE, VISIBLE, largest_change, psnr
from scd_world.model.rollout_state import RolloutState
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.config import TrainConfig

HORIZONS = (1, 4, 16)  # open-loop steps at which quality is reported
MOVES = 8.0  # gray levels: a pixel that changes as much is no noise of a camera


class HeldOutValidation:
    """The same held-out windows and the same noise each time, so that only the model changes."""

    def __init__(self, config: TrainConfig, clip: Clip, stats: Normalizer) -> None:
        self.config, self.clip, self.stats = config, clip, stats

    @staticmethod
    def num_steps(config: TrainConfig, longest: int) -> int:
        """Steps of the windows: enough for the furthest horizon, as far as episodes are so long."""
        return max(config.eval_context, min(config.eval_context - 1 + max(HORIZONS), longest))

    @torch.no_grad()
    def measure(self, model: WorldModel, stop: Callable[[], bool]) -> dict[str, float] | None:
        """`eval/…` values, or None if `stop` said so on the way."""
        clip, context = self.clip, self.config.eval_context
        generator = torch.Generator(clip.obs.device).manual_seed(self.config.seed)
        values = action_sensitivity(model, clip, generator)
        s = observe_context(model, clip, context)
        still = s.obs
        for h in range(1, clip.num_steps - context + 2):
            if stop():
                return None
            i = context - 2 + h  # the action that leads to the h-th imagined frame
            noise = torch.randn(still.shape, generator=generator, device=generator.device)
            s = model.imagine(s, clip.action[:, i], noise, self.config.num_steps)
            if h in HORIZONS:
                values |= compare(s, still, clip, i, self.stats, h)
        return values


def action_sensitivity(model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, float]:
    """loss(other windows' actions) / loss(true actions): 1 means that actions are ignored."""
    noise = model.sample_noise(clip, generator).without_self_rollout()
    true, _ = model.loss(clip, noise)
    shuffled, _ = model.loss(replace(clip, action=clip.action.roll(1, 0)), noise)
    return {"eval/loss": true.item(), "eval/action_sensitivity": (shuffled / true).item()}


def copies(values: Mapping[str, float]) -> str | None:
    """Says that a model only copies the last frame, by the `eval/…` values of one evaluation; None: it does
    more, or nothing moves in the recordings either.

    A fresh model copies; one that still does so when its training ends has learnt nothing of the pictures.
    """
    steps = [h for h in HORIZONS if f"eval/psnr_h{h}" in values]
    if not any(values[f"eval/change_recorded_h{h}"] >= MOVES for h in steps):
        return None
    if all(values[f"eval/change_h{h}"] < VISIBLE for h in steps):
        return "the imagined pictures never move, and the recorded ones do"
    if all(abs(values[f"eval/psnr_h{h}"] - values[f"eval/psnr_copy_h{h}"]) < TIE for h in steps):
        return "the imagined pictures are as good as a copy of the last frame, and no better"
    return None


def compare(
    s: RolloutState, still: Tensor, clip: Clip, i: int, stats: Normalizer, h: int
) -> dict[str, float]:
    """Frame i + 1 as imagined against the recorded one, and against the last frame of the context."""
    valid, obs, state = clip.valid[:, i].bool(), clip.obs[:, i + 1], clip.state[:, i + 1]
    if not valid.any():  # every window ends with its episode here
        return {}
    values = {
        f"eval/{name}_h{h}": psnr(shown, obs)[valid].mean().item()
        for name, shown in {"psnr": s.obs, "psnr_copy": still}.items()
    }
    for name, shown in {"change": s.obs, "change_recorded": obs}.items():  # since the context, in gray levels
        values[f"eval/{name}_h{h}"] = largest_change(shown, still)[valid].max().item()
    if state.shape[-1]:
        error = (stats.decode_state(s.state) - stats.decode_state(state)).abs()[valid]
        values[f"eval/state_error_h{h}"] = error.mean().item()  # raw units, mean over the dimensions
    return values

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
from scd_world.robot_data.normalizer import Normalizer, encode_pixels
from scd_world.training.config import TrainConfig
from scd_world.world.world import World

HORIZONS = (1, 4, 16)  # open-loop steps at which quality is reported
LATE, RISEN = 0.75, 1.02  # a best evaluation is early, a loss is higher than there
MOVES = 8.0  # gray levels: a pixel that changes as much is no noise of a camera


class HeldOutValidation:
    """The same held-out windows and the same noise each time, so that only the model changes."""

    def __init__(self, config: TrainConfig, windows: Mapping[str, Tensor], world: World) -> None:
        """windows: as the store gives them, on the world's device."""
        self.config, self.stats, self.world = config, world.stats, world
        self.shown = windows["pixels"][:, config.eval_context - 1]
        self.clip = Clip.from_windows(world.codec.complete(windows), world.stats, world.codec.encode)
        self.truth = encode_pixels(windows["pixels"])  # (B, T+1, C, H, W) what is drawn is compared with

    @staticmethod
    def num_steps(config: TrainConfig, longest: int) -> int:
        """Steps of the windows: enough for the furthest horizon, as far as episodes are so long."""
        return max(config.eval_context, min(config.eval_context - 1 + max(HORIZONS), longest))

    @torch.no_grad()
    def measure(self, model: WorldModel, stop: Callable[[], bool]) -> dict[str, float] | None:
        """`eval/…` values, or None if `stop` said so on the way."""
        clip, context = self.clip, self.config.eval_context
        still = self.truth[:, context - 1]
        generator = torch.Generator(clip.obs.device).manual_seed(self.config.seed)
        values = action_sensitivity(model, clip, generator)
        s = self.world.keep_detail(observe_context(model, clip, context), self.shown)
        for h in range(1, clip.num_steps - context + 2):
            if stop():
                return None
            i = context - 2 + h  # the action that leads to the h-th imagined frame
            noise = torch.randn(s.obs.shape, generator=generator, device=generator.device)
            s = model.imagine(s, clip.action[:, i], noise, self.config.num_steps)
            if h in HORIZONS:
                drawn, truth = self.world.images(s), self.truth[:, i + 1]
                values |= compare(drawn, truth, still, clip.valid[:, i].bool(), h)
                values |= compare_state(s, clip, i, self.stats, h)
        return values


def action_sensitivity(model: WorldModel, clip: Clip, generator: torch.Generator) -> dict[str, float]:
    """loss(other windows' actions) / loss(true actions): 1 means that actions are ignored."""
    noise = model.sample_noise(clip, generator).of_recordings()
    true, _ = model.loss(clip, noise)
    if len(clip.action) < 2:  # there are no others
        return {"eval/loss": true.item()}
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


def past_its_best(losses: Mapping[int, float]) -> str | None:
    """Says that a training learns its recordings by heart, by the held-out loss at each evaluated step; None:
    it does not, or not for long."""
    if not losses:
        return None
    last, best = max(losses), min(losses, key=losses.__getitem__)
    if best > LATE * last or losses[last] < RISEN * losses[best]:
        return None
    return (
        f"the loss was lowest at step {best} ({losses[best]:.4g}) and is {losses[last]:.4g} at step {last}: "
        "from there on the recordings were learnt by heart; record more of them, or set fewer steps"
    )


def compare(drawn: Tensor, truth: Tensor, still: Tensor, valid: Tensor, h: int) -> dict[str, float]:
    """Compares the h-th imagined images with the recorded ones, and with the last of the context (`still`):
    (B, C, H, W) each; valid (B,) bool."""
    if not valid.any():  # every window ends with its episode here
        return {}
    values = {
        f"eval/{name}_h{h}": psnr(shown, truth)[valid].mean().item()
        for name, shown in {"psnr": drawn, "psnr_copy": still}.items()
    }
    for name, shown in {"change": drawn, "change_recorded": truth}.items():  # since the context, gray levels
        values[f"eval/{name}_h{h}"] = largest_change(shown, still)[valid].max().item()
    return values


def compare_state(s: RolloutState, clip: Clip, i: int, stats: Normalizer, h: int) -> dict[str, float]:
    """Compares state i + 1, the h-th imagined one, with the recorded one: raw units, mean over dimensions."""
    valid, state = clip.valid[:, i].bool(), clip.state[:, i + 1]
    if not valid.any() or not state.shape[-1]:
        return {}
    error = (stats.decode_state(s.state) - stats.decode_state(state)).abs()[valid]
    return {f"eval/state_error_h{h}": error.mean().item()}

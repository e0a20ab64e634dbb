"""What all distillations share: a student that learns, a frozen teacher, and the frames to learn from.

F frames (batch, time and noise draws folded together), C H W frame, M context tokens, D width, S state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor, nn

from scd_world.model.flow import Field
from scd_world.model.heads import Heads
from scd_world.model.history import frame_before
from scd_world.model.noise import Noise
from scd_world.model.scd import WorldModel
from scd_world.robot_data.clip import Clip


@dataclass(frozen=True)
class Scene:
    """All that a decoder is told about the frames of a clip, and what they were."""

    h: Tensor  # (F, M, D) what the encoder said
    vector: Tensor  # (F, S + A + tasks)
    seen: Tensor  # (F, I·C, H, W) what the render head sees
    x: Tensor  # (F, C, H, W) the recorded next frame
    noise: Tensor  # (F, C, H, W)
    weight: Tensor  # (F, 1, H, W) of a pixel's error, as in `WorldModel.loss`
    heads: Heads.Output  # (B, T)
    next_state: Tensor  # (B, T, S)

    def field(self, model: WorldModel) -> Field:
        """The model's velocity for these frames."""
        return model.field(self.h, self.vector, self.seen)

    def error(self, drawn: Tensor, target: Tensor) -> Tensor:
        """(F, C, H, W): weighted square errors."""
        return self.weight * (drawn - target).square()


class Objective(nn.Module):
    """Wraps the model that learns; `forward(clip, noise)` is the loss, as `Learner` wants it."""

    def __init__(self, model: WorldModel, teacher: WorldModel) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher.requires_grad_(False)

    def draw_noise(self, clip: Clip, generator: torch.Generator) -> Noise:
        return self.model.draw_noise(clip, generator)


class DecoderObjective(Objective):
    """The decoder alone learns. What it is told comes from the frozen encoder, once for all draws."""

    def __init__(self, model: WorldModel, teacher: WorldModel) -> None:
        super().__init__(model.requires_grad_(False), teacher)
        model.decoder.requires_grad_(True)


def read_clip(model: WorldModel, clip: Clip, noise: Noise) -> Scene:
    """One parallel encoder pass over the clip's history, such as `WorldModel.loss` learns from."""
    obs, state = model.history(clip, noise)
    body = model.body(frame_before(state, clip.act, clip.before), state, clip.act)
    h = model.encoder(obs, torch.cat([state, clip.act], dim=-1), model.told(body.features, clip.task))
    heads, next_state = model.read(model.said(h), body)
    vector = model.told(torch.cat([next_state.detach(), clip.act], dim=-1), clip.task)
    weight = model.pixel_weight(clip) * clip.valid[:, :, None, None, None]

    def fold(values: Tensor) -> Tensor:
        return repeat(values, "b t ... -> (k b t) ...", k=len(noise.x))

    return Scene(
        h=fold(h),
        vector=fold(vector),
        seen=fold(model.seen(obs, next_state.detach())),
        x=fold(clip.obs[:, 1:]),
        noise=noise.x.flatten(0, 2),
        weight=fold(weight),
        heads=heads,
        next_state=next_state,
    )


def uniform(normal: Tensor) -> Tensor:
    """Standard normal → uniform in (0, 1), (F,)."""
    return torch.special.ndtr(normal).flatten()


def column(t: Tensor) -> Tensor:
    """(F,) beside frames (F, C, H, W)."""
    return t[:, None, None, None]

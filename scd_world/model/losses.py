"""The losses of a world model: weighted pixels, and state, reward and success of the step.

B batch, T steps, K noise draws, C H W frame, S state. All are plain means, never divided by the batch's own
weights: parts of a batch average to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from scd_world.model.config import ModelConfig
from scd_world.model.heads import LowDimHeads
from scd_world.model.noise import Noise
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.schema import DataSchema

DIFFERS = 0.1  # of 2, the range of a color: above it a pixel counts as changed, or as foreground


def pixel_loss(
    config: ModelConfig, background: Tensor, clip: Clip, noise: Noise, out: Tensor, t: Tensor
) -> Tensor:
    """Gives () the weighted square error of a network's output (K·B·T, C, H, W) at times t (K, B, T)."""
    x = clip.obs[:, 1:]
    out = rearrange(out.float(), "(k b t) c h w -> k b t c h w", b=x.shape[0], t=x.shape[1])
    target = x if config.predict == "x" else noise.x - x
    ramp = 1 - config.t_ramp * t[..., None, None, None]
    error = (ramp * (out - target).square()).mean(0)
    return (pixel_weight(config, background, clip) * clip.valid[:, :, None, None, None] * error).mean()


def pixel_weight(config: ModelConfig, background: Tensor, clip: Clip) -> Tensor:
    """Gives (B, T, C, H, W): robots are small in the image; what moves, what stands out counts more, in each
    camera by itself."""
    prev, x = clip.obs[:, :-1], clip.obs[:, 1:]
    changed, foreground = (differs(x, other).float() for other in (prev, background))
    return 1 + config.change_weight * changed + config.foreground_weight * foreground


def differs(x: Tensor, other: Tensor) -> Tensor:
    """Says where a camera's color is another one, (B, T, C, H, W)."""
    colors = (x - other).abs().unflatten(2, (-1, 3))
    return (colors.amax(3) > DIFFERS).repeat_interleave(3, dim=2)


def head_losses(
    schema: DataSchema, clip: Clip, heads: LowDimHeads.Output, next_state: Tensor, residual_scale: Tensor
) -> dict[str, Tensor]:
    """Gives the losses of what the schema has; errors of the state count in units of `residual_scale`
    (S,)."""
    losses = {}
    if schema.state:
        error = (next_state - clip.state[:, 1:]) / residual_scale
        # Absolute, not squared, but for the smallest errors: what is not pushed must stay still.
        loss = F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1, reduction="none").mean(-1)
        losses["state"] = (loss * clip.valid).mean()
    if schema.reward:
        losses["reward"] = F.mse_loss(heads.reward, clip.reward)
    if schema.success:
        losses["success"] = F.binary_cross_entropy_with_logits(heads.success, clip.success)
    return losses


def anchor_loss(clip: Clip, found: Tensor) -> Tensor:
    """Gives () how far what was found in the anchor, (B, T, C, H, W), is from the next frame."""
    error = (found.float() - clip.obs[:, 1:]).square().mean((2, 3, 4))
    return (error * clip.valid).mean()


def total_loss(config: ModelConfig, losses: Mapping[str, Tensor]) -> Tensor:
    """Gives () the weighted sum."""
    total = losses["pixels"]
    weights = {
        "anchor_attention": config.anchor_attention_weight,
        "state": config.state_weight,
        "reward": config.reward_weight,
        "success": config.success_weight,
    }
    for name, weight in weights.items():
        if name in losses:
            total = total + weight * losses[name]
    return total

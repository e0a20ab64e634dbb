"""Copy-last: image and state stay what they were. What does not beat this has learnt nothing.

Reward and success, which no frame says, are the two constants that fit the recordings best. It goes with no
state prior: the state, too, is the last one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.flow import FirstFrame
from scd_world.model.heads import LowDimHeads
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.noise import Noise
from scd_world.model.prior import StatePrior
from scd_world.model.world_model import Core, Encoded
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema


class ConstantHeads(LowDimHeads):
    """A state that stays, and one reward and one success for every step."""

    def __init__(self, state_size: int) -> None:
        nn.Module.__init__(self)
        self.state_size = state_size
        self.constant = nn.Parameter(torch.zeros(2))  # reward in model units, success as logit

    def forward(self, token: Tensor) -> LowDimHeads.Output:
        reward, success = (self.constant[i].expand(token.shape[:-1]) for i in range(2))
        return self.Output(token.new_zeros(*token.shape[:-1], self.state_size), reward, success)


class CopyLast(Core):
    heads: ConstantHeads
    learns_from_history = False

    def __init__(
        self, config: ModelConfig, schema: DataSchema, normalizer: Normalizer, prior: StatePrior
    ) -> None:
        super().__init__(config, schema)
        self.heads = ConstantHeads(len(schema.state))
        self.idle = nn.Parameter(torch.zeros(1))  # a training asks for a gradient, and nothing here has one

    def encode_clip(self, obs: Tensor, state_action: Tensor, delta_features: Tensor, noise: Noise) -> Encoded:
        return Encoded(state_action[..., None, :], obs)  # there is nothing to read: any tokens will do

    def denoise_clip(
        self, x_t: Tensor, t: Tensor, encoded: Encoded, state_action: Tensor, pixel_inputs: Tensor
    ) -> Tensor:
        still = pixel_inputs[..., : x_t.shape[-3], :, :].expand(x_t.shape)  # the last frame comes first
        at = t[..., None, None, None].clamp_min(1e-3)
        out = still if self.config.predict == "x" else (x_t - still) / at
        return out.flatten(0, 2) + 0 * (self.idle.sum() + self.heads.constant.sum())

    def empty_cache(self, rows: int, device: torch.device) -> RingKVCache:
        return RingKVCache(0, rows, 1, self.config.window, 0, 0, device)

    def encode_step(
        self, obs: Tensor, state_action: Tensor, delta_features: Tensor, cache: RingKVCache
    ) -> Encoded:
        cache.advance()
        return Encoded(state_action[..., None, :], obs)

    def render(
        self,
        encoded: Encoded,
        state_action: Tensor,
        pixel_inputs: Tensor,
        noise: Tensor,
        num_steps: int,
        first: FirstFrame | None = None,
    ) -> Tensor:
        return pixel_inputs[:, : noise.shape[1]]

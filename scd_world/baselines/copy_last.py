"""Copy-last: picture and state stay what they were. What does not beat this has learnt nothing.

Reward and success, which no frame says, are the two constants that fit the recordings best.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.model.config import ModelConfig
from scd_world.model.heads import Heads
from scd_world.model.kv_cache import RingCache
from scd_world.model.noise import Noise
from scd_world.model.rollout_state import Imagined
from scd_world.model.world_model import BaseModel, Predicted
from scd_world.prior.dynamics import Body
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.robot_data.schema import DataSchema


class CopyLast(BaseModel):
    def __init__(self, config: ModelConfig, schema: DataSchema, stats: Stats) -> None:
        super().__init__(config, schema, stats)
        self.sketch = None  # its picture is the last one
        self.heads = nn.Identity()  # there is nothing to read
        self.constant = nn.Parameter(torch.zeros(2))  # reward in model units, success as logit

    def predict(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor, body: Body.Output) -> Predicted:
        K, still = len(noise.t), clip.obs[:, :-1]
        out = still if self.config.predict == "x" else noise.x - still
        out = out.expand(K, *still.shape).flatten(0, 2)
        # A loss that nothing could lower has no gradient, and a training asks for one.
        t = self.noisy_frames(clip, noise)[1]
        pixels = self.pixel_error(clip, noise, out, t) + 0 * self.constant.sum()
        return Predicted(pixels, self.constants(clip.rew, clip.state[:, 1:]), clip.state[:, :-1])

    def imagine_history(self, clip: Clip, noise: Noise, obs: Tensor, state: Tensor) -> Tensor:
        return obs  # it does not look at it

    def constants(self, like: Tensor, state: Tensor) -> Heads.Output:
        reward, success = (self.constant[i].expand(like.shape) for i in range(2))
        return Heads.Output(torch.zeros_like(state), reward, success)

    def empty_cache(self, rows: int, device: torch.device) -> RingCache:
        return RingCache(0, rows, 1, self.config.window, 0, 0, device)

    def write(self, obs: Tensor, vector: Tensor, rates: Tensor, cache: RingCache) -> Tensor:
        cache.advance()
        return obs

    def said(self, h: Tensor) -> Tensor:
        return h

    def think(self, s: Imagined, act: Tensor) -> tuple[Tensor, Heads.Output, Tensor]:
        s.check()
        s.cache.advance()
        return s.obs, self.constants(s.reward, s.state), s.state

    def render(
        self, h: Tensor, cache: RingCache, vector: Tensor, seen: Tensor, noise: Tensor, num_steps: int
    ) -> Tensor:
        return seen

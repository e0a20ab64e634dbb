"""One-step regression: SCD without noise. The baseline of few-step samplers where the future is nearly
certain.

The same two networks; the decoder is given nothing to denoise and draws the frame of least square error, in
one pass. Where several futures are possible, that is their mean: blur.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scd_world.model.flow import FirstFrame
from scd_world.model.noise import Noise
from scd_world.model.scd import SCD
from scd_world.model.world_model import Encoded
from scd_world.robot_data.clip import Clip


class Regression(SCD):
    def noisy_frames(self, clip: Clip, noise: Noise) -> tuple[Tensor, Tensor]:
        """One empty version of each next frame."""
        return torch.zeros_like(noise.x[:1]), torch.ones_like(noise.t[:1])

    def render(
        self,
        encoded: Encoded,
        state_action: Tensor,
        pixel_inputs: Tensor,
        noise: Tensor,
        num_steps: int,
        first: FirstFrame | None = None,
    ) -> Tensor:
        """One decoder pass, whatever noise and number of steps are asked for."""
        if isinstance(first, Tensor):
            return first
        ones = torch.ones(len(noise), device=noise.device)
        nothing = torch.zeros_like(noise)
        drawn = self.decoder(nothing, ones, encoded.tokens, state_action, pixel_inputs).float()
        return drawn if first is None else first(drawn)

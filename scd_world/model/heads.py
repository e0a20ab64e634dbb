"""What is read off the context before a pixel is drawn: next state, reward, success."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from scd_world.model.layers import zero_init


class LowDimHeads(nn.Module):
    class Output(NamedTuple):
        state_residual: Tensor  # (…, S) what the state prior leaves, in units of its residual scale
        reward: Tensor  # (…,) model units
        success: Tensor  # (…,) logit

    def __init__(self, width: int, state_size: int) -> None:
        super().__init__()
        self.state_size = state_size
        # The last layer starts at zero: before training, the prior alone decides.
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), zero_init(nn.Linear(2 * width, state_size + 2))
        )

    @property
    def adds_nothing(self) -> bool:
        """Says whether it gives zeros whatever it reads: losses of weight 0 leave its last layer there."""
        return not any(parameter.any() for parameter in self.mlp[-1].parameters())

    def forward(self, token: Tensor) -> Output:
        """Reads the context's state token (…, D)."""
        out = self.mlp(token).float()
        return self.Output(out[..., : self.state_size], out[..., -2], out[..., -1])

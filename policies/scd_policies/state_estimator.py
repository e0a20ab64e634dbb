"""Eyes for a policy that reads the state: a small network finds `environment_state` in the picture.

So a scripted policy, or a clone, can be made to depend on what the pictures show and on nothing else: in the
imagination it then meets the imagined picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from scd_policies import regression
from scd_policies.policy import Policy
from scd_world.utils.precision import multiplies_bf16


class StateEstimator(nn.Module):
    """Pictures (B, H, W, 3) uint8 -> environment state (B, S), raw units.

    Convolutions, then where each channel is brightest (spatial softmax): places, not textures.
    """

    def __init__(self, state: regression.MinMaxScale, width: int = 64) -> None:
        super().__init__()
        self.state = state
        self.look = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, 2, 2), nn.GELU()),
            *(nn.Conv2d(16, 32, 3, 2, 1), nn.GELU()),
            *(nn.Conv2d(32, width, 3, 1, 2, dilation=2), nn.GELU()),
            *(nn.Conv2d(width, width, 3, 1, 4, dilation=4), nn.GELU()),
            nn.Conv2d(width, width, 1),
        )
        self.say = nn.Sequential(nn.Linear(2 * width, 256), nn.GELU(), nn.Linear(256, len(state.low)))

    def forward(self, pixels: Tensor) -> Tensor:
        x = rearrange(pixels, "b h w c -> b c h w").float() / 127.5 - 1
        with torch.autocast(x.device.type, torch.bfloat16, enabled=multiplies_bf16(x.device)):
            x = self.look(x)
        x = x.float()  # places need more digits
        share = rearrange(x, "b c h w -> b c (h w)").softmax(-1)
        rows, columns = (torch.linspace(-1, 1, size) for size in x.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1)  # (2, h w)
        places = rearrange(share @ grid.T, "b c two -> b (c two)")
        return self.state.back(self.say(places))


class EstimatedStatePolicy:
    """`policy`, shown the environment state that the network in `path` reads off the picture."""

    def __init__(self, policy: Policy, path: str | Path) -> None:
        about, weights = regression.load(path, "eyes")
        state = regression.MinMaxScale(weights["state.low"].numpy(), weights["state.high"].numpy())
        self._net, self._policy = StateEstimator(state, about["width"]), policy
        self._net.load_state_dict(weights)

    def reset(self, seeds: Sequence[int]) -> None:
        self._policy.reset(seeds)

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        pixels = obs["pixels"]
        if isinstance(pixels, dict):
            raise ValueError(f"these eyes look at one camera; observed are {sorted(pixels)}")
        with torch.inference_mode():
            seen = self._net(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return self._policy.act(obs | {"environment_state": seen})


def train_state_estimator(
    pixels: np.ndarray,
    state: np.ndarray,
    path: str | Path,
    updates: int = 3000,
    batch_size: int = 32,
    width: int = 64,
    seed: int = 0,
) -> float:
    """From pictures (N, H, W, 3) and the environment states (N, S) in them. Writes `path`, gives the loss."""
    torch.manual_seed(seed)
    net = StateEstimator(regression.MinMaxScale(state.min(0), state.max(0)), width)
    loss = regression.fit_regression(
        net, pixels, state.astype(np.float32), net.state, updates, batch_size=batch_size, seed=seed
    )
    regression.save(net.state_dict(), path, {"kind": "eyes", "width": width})
    return loss

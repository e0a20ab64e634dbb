"""A state estimator for policies that read the state: a small network finds `environment_state` in the image.

So a scripted or imitating policy can be made to depend on what the images show and on nothing else: in a
world it then acts on imagined images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from scd_policies import regression
from scd_policies.policy import Policy, ReportingPolicy, end_rows, replace_action
from scd_world.utils.precision import multiplies_bf16

KIND = "state_estimator"
FORMER_NAMES = {"look.": "features.", "say.": "readout."}  # of weights in files of earlier versions


class StateEstimator(nn.Module):
    """Estimates the environment state (B, S), in raw units, from images (B, H, W, 3) uint8.

    Convolutions, then where each channel is brightest (spatial softmax): positions, not textures.
    """

    def __init__(self, state: regression.MinMaxScale, width: int = 64) -> None:
        super().__init__()
        self.state = state
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 5, 2, 2), nn.GELU()),
            *(nn.Conv2d(16, 32, 3, 2, 1), nn.GELU()),
            *(nn.Conv2d(32, width, 3, 1, 2, dilation=2), nn.GELU()),
            *(nn.Conv2d(width, width, 3, 1, 4, dilation=4), nn.GELU()),
            nn.Conv2d(width, width, 1),
        )
        self.readout = nn.Sequential(nn.Linear(2 * width, 256), nn.GELU(), nn.Linear(256, len(state.low)))

    def forward(self, pixels: Tensor) -> Tensor:
        x = rearrange(pixels, "b h w c -> b c h w").float() / 127.5 - 1
        with torch.autocast(x.device.type, torch.bfloat16, enabled=multiplies_bf16(x.device)):
            x = self.features(x)
        x = x.float()  # positions need more digits
        weight = rearrange(x, "b c h w -> b c (h w)").softmax(-1)
        rows, columns = (torch.linspace(-1, 1, size) for size in x.shape[2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1)  # (2, h w)
        positions = rearrange(weight @ grid.T, "b c two -> b (c two)")
        return self.state.inverse(self.readout(positions))


class EstimatedStatePolicy:
    """Acts as `policy` does on the environment state that the network in file `path` sees in the image.

    Raises ValueError for a file of another kind, and for several cameras.
    """

    def __init__(self, policy: Policy, path: str | Path) -> None:
        about, saved = regression.load(path, KIND)
        weights = {renamed(name): value for name, value in saved.items()}
        state = regression.MinMaxScale(weights["state.low"].numpy(), weights["state.high"].numpy())
        self._net, self._policy = StateEstimator(state, about["width"]), policy
        self._net.load_state_dict(weights)

    def reset(self, seeds: Sequence[int]) -> None:
        self._policy.reset(seeds)

    def act(self, obs: dict[str, Any]) -> np.ndarray:
        if (pixels := obs.get("pixels")) is None:
            raise ValueError("a state estimator reads images, and none are observed: needs_images=true")
        if isinstance(pixels, dict):
            raise ValueError(f"a state estimator reads one camera; observed are {sorted(pixels)}")
        with torch.inference_mode():
            state = self._net(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return self._policy.act(obs | {"environment_state": state})

    def end_rows(self, over: np.ndarray) -> None:
        end_rows(self._policy, over)

    def replace_action(self, action: np.ndarray) -> None:
        replace_action(self._policy, action)

    @property
    def decision_info(self) -> dict[str, np.ndarray]:
        """What the policy tells of its decisions; nothing where it tells none."""
        return self._policy.decision_info if isinstance(self._policy, ReportingPolicy) else {}


def renamed(name: str) -> str:
    """Gives a weight's name as it is now."""
    for former, now in FORMER_NAMES.items():
        if name.startswith(former):
            return now + name.removeprefix(former)
    return name


def train_state_estimator(
    pixels: np.ndarray,
    state: np.ndarray,
    path: str | Path,
    updates: int = 3000,
    batch_size: int = 32,
    width: int = 64,
    seed: int = 0,
) -> float:
    """Trains on images (N, H, W, 3) uint8 and the environment states (N, S) that they show, in raw units.

    Writes the file `path`; gives the loss.
    """
    torch.manual_seed(seed)
    net = StateEstimator(regression.MinMaxScale(state.min(0), state.max(0)), width)
    loss = regression.fit_regression(
        net, pixels, state.astype(np.float32), net.state, updates, batch_size=batch_size, seed=seed
    )
    regression.save(net.state_dict(), path, {"kind": KIND, "width": width})
    return loss

"""Behaviour cloning without pictures: a small network from the state to the action recorded there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from scd_policies import regress
from scd_policies.policy import bounded_box, check_batch

KEYS = ("agent_pos", "environment_state")


class CloneNet(nn.Module):
    """State (…, S) -> action (…, A), raw units. Fourier features: contact is a matter of a few pixels."""

    def __init__(self, state: regress.Scale, action: regress.Scale, width: int = 256) -> None:
        super().__init__()
        self.state, self.action = state, action
        S, A = len(state.low), len(action.low)
        self.waves = nn.Linear(S, width)
        nn.init.normal_(self.waves.weight, std=1.0)
        nn.init.uniform_(self.waves.bias, -torch.pi, torch.pi)
        self.mlp = nn.Sequential(
            *(nn.Linear(S + width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            *(nn.Linear(width, width), nn.GELU()),
            nn.Linear(width, A),
        )

    def forward(self, state: Tensor) -> Tensor:
        x = self.state(state)
        return self.action.back(self.mlp(torch.cat([x, self.waves(x).sin()], dim=-1)))


class Clone:
    """Does what the network in the file `path` learnt; it has no memory and draws nothing."""

    def __init__(self, action_space: gymnasium.Space, path: str | Path) -> None:
        self._box = bounded_box(action_space)
        about, weights = regress.load(path, "clone")
        self._keys, self._net = about["keys"], _blank(weights, about["width"])
        self._net.load_state_dict(weights)
        if self._net.action.low.shape != self._box.shape:
            raise ValueError(
                f"{path} acts in {len(self._net.action.low)} numbers; this environment takes "
                f"{self._box.shape[0]}"
            )
        self._rows = 0

    def reset(self, seeds: Sequence[int]) -> None:
        self._rows = len(seeds)

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        missing = set(self._keys) - set(obs)
        if missing:
            raise ValueError(f"this clone needs {sorted(missing)}; observed are {sorted(obs)}")
        check_batch(obs, self._rows)
        state = np.concatenate([obs[key] for key in self._keys], axis=-1, dtype=np.float32)
        with torch.inference_mode():
            action = self._net(torch.from_numpy(state)).numpy()
        return np.clip(action, self._box.low, self._box.high).astype(self._box.dtype)


def learn_clone(
    state: dict[str, np.ndarray],
    action: np.ndarray,
    path: str | Path,
    updates: int = 8000,
    width: int = 256,
    seed: int = 0,
) -> float:
    """Clones recorded steps: state by observation key (N, …), action (N, A). Writes `path`, says the loss."""
    keys = [key for key in KEYS if key in state]
    inputs = np.concatenate([state[key] for key in keys], axis=-1, dtype=np.float32)
    torch.manual_seed(seed)
    net = CloneNet(_scale(inputs), _scale(action), width)
    loss = regress.fit(net, inputs, action.astype(np.float32), net.action, updates, seed=seed)
    regress.save(net, path, {"kind": "clone", "keys": keys, "width": width})
    return loss


def _scale(values: np.ndarray) -> regress.Scale:
    return regress.Scale(values.min(0), values.max(0))


def _blank(weights: dict[str, Tensor], width: int) -> CloneNet:
    """A network of the saved one's sizes, whose numbers are to be overwritten."""
    state, action = (
        regress.Scale(weights[f"{name}.low"].numpy(), weights[f"{name}.high"].numpy())
        for name in ("state", "action")
    )
    return CloneNet(state, action, width)

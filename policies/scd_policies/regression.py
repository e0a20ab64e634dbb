"""Supervised training of small networks on one CPU thread: from recorded arrays to one safetensors file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from scd_world.utils.atomic_folder import replace_file

FORMER_KINDS = {"eyes": "state_estimator", "clone": "nearest_neighbor"}  # in files of earlier versions


class MinMaxScale(nn.Module):
    """Scales raw units to [-1, 1] over a range (low, high) that is saved with the network, and back."""

    low: Tensor
    high: Tensor

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        super().__init__()
        # A dimension that never changed would be divided by zero.
        high = np.where(np.subtract(high, low) > 1e-6, high, np.add(low, 1))
        self.register_buffer("low", torch.as_tensor(low, dtype=torch.float32))
        self.register_buffer("high", torch.as_tensor(high, dtype=torch.float32))

    def forward(self, raw: Tensor) -> Tensor:
        return 2 * (raw - self.low) / (self.high - self.low) - 1

    def inverse(self, x: Tensor) -> Tensor:
        """Scales [-1, 1] back to raw units."""
        return self.low + (x + 1) / 2 * (self.high - self.low)


def fit_regression(
    net: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    scale: MinMaxScale,
    updates: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> float:
    """Fits net(inputs) to the targets, both (N, …) in raw units; errors count in units of `scale`.

    Gives the mean loss of the last tenth of the updates. AdamW; the rate rises, then falls to zero.
    """
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, updates, pct_start=0.05)
    late = []
    bar = tqdm(range(updates), unit="update", mininterval=10)
    for update in bar:
        rows = rng.integers(len(inputs), size=batch_size)
        predicted, target = net(torch.from_numpy(inputs[rows])), torch.from_numpy(targets[rows])
        # Absolute, not squared: of two ways around the block, the mean is none.
        loss = F.smooth_l1_loss(scale(predicted), scale(target), beta=0.02)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if 10 * (update + 1) > 9 * updates:
            late.append(loss.detach())
        if update % 100 == 0:
            bar.set_postfix(loss=f"{loss.item():.3g}", refresh=False)
    return float(torch.stack(late).mean())


def save(weights: dict[str, Tensor], path: str | Path, about: dict[str, Any]) -> None:
    """Writes weights and `about` (what it takes to build the network again) to a file, whole or not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in weights.items()}
    replace_file(path, lambda temp: save_file(weights, temp, metadata={"about": json.dumps(about)}))


def load(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads what `save` wrote: `about`, and the weights.

    Raises FileNotFoundError where there is no file, and ValueError where it is of another kind.
    """
    if not Path(path).is_file():
        what = "a folder, not a file" if Path(path).is_dir() else "no such file"
        raise FileNotFoundError(
            f"no {kind} at {Path(path).absolute()}: {what}; scd_policies.{kind}'s functions make one"
        )
    with safe_open(str(path), framework="pt") as file:
        about = json.loads((file.metadata() or {}).get("about", "{}"))
        found = FORMER_KINDS.get(about.get("kind"), about.get("kind", "something else"))
        if found != kind:
            raise ValueError(f"{path} holds {found!r}; expected {kind!r}")
        return about, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

"""Exponential moving average of the weights: the model that is evaluated and shipped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def warmed_up(decay: float, step: int) -> float:
    """The decay after `step` updates: early on, the average must forget the random start quickly."""
    return min(decay, (1 + step) / (10 + step))


class EMA:
    """A float32 average beside each parameter, laid out as the parameters are (sharded where they are)."""

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], decay: float) -> None:
        self.decay = decay
        self.average = {name: p.detach().float().clone() for name, p in parameters}

    @torch.no_grad()
    def update(self, parameters: Iterable[tuple[str, Tensor]], step: int) -> None:
        now = [p.detach().float() for _, p in parameters]
        torch._foreach_lerp_(list(self.average.values()), now, 1 - warmed_up(self.decay, step))

    def weights(self) -> dict[str, Tensor]:
        """Whole tensors by name. With sharded weights every process must ask."""
        return {name: a.full_tensor() if isinstance(a, DTensor) else a for name, a in self.average.items()}

    def load(self, weights: Mapping[str, Tensor], parameters: Mapping[str, Tensor] | None = None) -> None:
        """Takes what `weights` gave. parameters: those that are averaged; what older files do not name is as
        they are."""
        for name, average in self.average.items():
            if name not in weights and parameters is not None:
                average.copy_(parameters[name].detach())
                continue
            value = weights[name].to(average.device)
            if isinstance(average, DTensor):
                value = distribute_tensor(value, average.device_mesh, average.placements)
            average.copy_(value)

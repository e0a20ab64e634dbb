"""Muon (Jordan et al. 2024): momentum, turned into a step of one length in all directions of a matrix.

What is rare, a contact or an edge, AdamW hears late. torch's own Muon multiplies in bf16 alone, which a CPU
without instructions for it does thirty times slower than fp32; here matrices of one shape go together, in
bf16 where that is fast.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from scd_world.utils.precision import multiplies_bf16

# Of a quintic that drives all singular values towards 1, fast for small ones: five rounds leave .7 to 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """Of matrices only. Nesterov's momentum; a matrix taller than wide takes the longer step that keeps
    what comes out of it as large."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        if bad := [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]:
            raise ValueError(f"Muon steps matrices; got shapes {bad}: give those to AdamW")

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
            for p in params:
                shapes.setdefault((min(p.shape), max(p.shape)), []).append(p)
            for same in shapes.values():
                wide = torch.stack([self.direction(p, group["momentum"]) for p in same])
                for p, step in zip(same, orthogonal(wide), strict=True):
                    rows, columns = p.shape
                    step = step if rows <= columns else step.T
                    p.add_(step, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def direction(self, p: nn.Parameter, momentum: float) -> Tensor:
        """Nesterov's look ahead, wider than tall."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        mean = state["momentum"].lerp_(p.grad, 1 - momentum)
        ahead = p.grad.lerp(mean, momentum)
        return ahead if p.shape[0] <= p.shape[1] else ahead.T


def orthogonal(x: Tensor, rounds: int = ROUNDS) -> Tensor:
    """(n, r, c), r ≤ c → about U Vᵀ of each U S Vᵀ, by Newton and Schulz: S → a·S + b·S³ + c·S⁵."""
    y = x.bfloat16() if multiplies_bf16(x.device) else x.float()
    y = y / torch.linalg.matrix_norm(y, keepdim=True).clamp_min(1e-7)  # no singular value above 1
    for _ in range(rounds):
        gram = y @ y.mT
        y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), y, beta=A)
    return y.to(x.dtype)

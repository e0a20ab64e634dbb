"""Why a few-step student needs an autoregressive teacher, where both teachers are exact (docs/distill.md).

A video of two frames, one number each: the first is −1 or 1, the second the same nine times in ten, else its
opposite. The student is given the first frame and the second's noise, and learns in one step where the
teacher's path ends. The autoregressive teacher's path starts from just that. The bidirectional one moves
both frames together: where its second frame ends depends on the first one's noise too, which the student
never has, and the best that it can learn is the mean of several ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

POINTS = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
WEIGHTS = torch.tensor([0.45, 0.05, 0.05, 0.45])
SIGMA, STEPS = 0.05, 48


def velocity(x_t: Tensor, t: float, points: Tensor, weights: Tensor) -> Tensor:
    """Computes E[noise − x | x_t] of a mixture: x_t (N, d), points (P, d), weights (N, P)."""
    var = (1 - t) ** 2 * SIGMA**2 + t**2
    gap = x_t[:, None] - (1 - t) * points
    share = (weights.log() - gap.square().sum(-1) / (2 * var)).softmax(-1)[..., None]
    return (share * ((t - (1 - t) * SIGMA**2) / var * gap - points)).sum(1)


def path_end(noise: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    x = noise
    for i in range(STEPS):
        x = x - velocity(x, 1 - i / STEPS, points, weights) / STEPS
    return x


def autoregressive(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Samples the first frame, the second's noise, and where its path ends."""
    first = torch.randint(0, 2, (count, 1)) * 2.0 - 1
    noise, points = torch.randn(count, 1), torch.tensor([[-1.0], [1.0]])
    weights = torch.where(first == points.T, 0.9, 0.1)
    return first + SIGMA * torch.randn_like(first), noise, path_end(noise, points, weights)


def bidirectional(count: int) -> tuple[Tensor, Tensor, Tensor]:
    noise = torch.randn(count, 2)
    end = path_end(noise, POINTS, WEIGHTS.expand(count, -1))
    return end[:, :1], noise[:, 1:], end[:, 1:]


def learn(pairs: tuple[Tensor, Tensor, Tensor], updates: int = 1500) -> nn.Module:
    first, noise, end = pairs
    net = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(updates):
        rows = torch.randint(0, len(first), (512,))
        loss = (net(torch.cat([first[rows], noise[rows]], dim=-1)) - end[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def main() -> None:
    print("| teacher | student's error² to the path's end | frames further than 0.3 from any in the data |")
    print("|---|---|---|")
    for teacher in (autoregressive, bidirectional):
        for seed in range(3):
            torch.manual_seed(seed)
            student, (first, noise, end) = learn(teacher(20_000)), teacher(5_000)
            with torch.no_grad():
                predicted = student(torch.cat([first, noise], dim=-1))
            lost = ((predicted.abs() - 1).abs() > 0.3).float().mean()
            print(f"| {teacher.__name__} | {(predicted - end).square().mean():.3f} | {lost:.1%} |")


if __name__ == "__main__":
    main()

"""How an object that was found by sight goes on: dynamics in its own frame of reference.

How a thing moves depends on where it is touched, not on where it lies. So all that may touch it is looked at
from where it is, turned as it is turned, and where it goes is told in the same frame: a push that was seen in
one corner of the picture is known in all others. With a shift and a turn of the picture g, and x all that is
in it, the motion m obeys m(g x) = g m(x) by construction.

What may touch it is a point in the picture: of the robot a map of its state, which begins as the linear one
that tells where the object is while it moves; of another object its middle. What no point in a picture tells
(a gripper's width, its height) goes in as a few numbers that are learnt.

S state, A action; of it T numbers that were recorded, then those of each object (`scd_world/objects`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from scd_world.model.layers import zero_init
from scd_world.prior.fourier_mlp import FourierMLP
from scd_world.robot_data.linear_fit import SMALLEST_CHANGE, ridge
from scd_world.robot_data.normalizer import Normalizer, half_range

HIDDEN = 64
EXTRA = 4  # numbers that are no point in the picture
MOST_WEIGHT = 3.0  # usual changes: a step counts by how far the object went, and no more than that
LEAST_TOLD = 0.3  # share of where an object is that a fit has to tell, before it is trusted to be corrected
STEP = 6.0  # a step is this much shorter than the way between things


class ObjectDynamics(nn.Module):
    """Predicts where one object is next."""

    half_range: Tensor  # (N,) px: half the range of its numbers
    center: Tensor  # (N,) px
    delta_scale: Tensor  # (T,) usual change of what was recorded

    def __init__(
        self, normalizer: Normalizer, sizes: Sequence[int], which: int, width: int, layers: int
    ) -> None:
        """sizes: how many of the state's last numbers are each object's: 4, the row and column of its middle
        and of a second point of it, or 2, of its middle alone, where its turn cannot be told."""
        super().__init__()
        low, high = normalizer.state_low, normalizer.state_high
        told = len(low) - sum(sizes)
        ends = [told + sum(sizes[:i]) for i in range(len(sizes) + 1)]
        parts = [slice(*between) for between in pairwise(ends)]
        self.own = parts[which]
        self.turns = sizes[which] == 4
        self.register_buffer("half_range", half_range(low, high)[self.own], persistent=False)
        self.register_buffer("center", ((high + low) / 2)[self.own], persistent=False)
        self.far = max(self.half_range[:2].max().item(), 1.0) / 2  # px: unit of ways between things
        usual = normalizer.state_delta_rms[self.own] * self.half_range
        self.usual = max(usual.square().mean().sqrt().item(), SMALLEST_CHANGE)  # px: unit of a step
        self.points = nn.ModuleList([PointInPicture(slice(0, told))] if told else [])
        for part in parts[:which] + parts[which + 1 :]:
            other = PointInPicture(part)  # begins as its middle, in the same picture
            half, center = ((high - low) / 2)[part][:2], ((high + low) / 2)[part][:2]
            other.set(torch.diag(half) / self.far, (center - self.center[:2]) / self.far)
            self.points.append(other)
        actions = len(normalizer.action_low)
        self.extra = nn.Sequential(
            nn.Linear(2 * told + actions, HIDDEN), nn.GELU(), zero_init(nn.Linear(HIDDEN, EXTRA))
        )
        moves = 3 if self.turns else 2
        self.net = FourierMLP(6 * len(self.points) + EXTRA + moves, moves, width, layers)
        self.told = told
        delta = normalizer.state_delta_rms[:told].clamp_min(SMALLEST_CHANGE)
        self.register_buffer("delta_scale", delta, persistent=False)

    def forward(
        self, before: Tensor, state: Tensor, expected: Tensor, action: Tensor, bf16: bool = False
    ) -> Tensor:
        """Predicts its numbers (…, N), model units, from all states (…, S): one frame earlier, now, and what
        else is expected next; action (…, A)."""
        middle, arm = self.place(state)
        middle_before, arm_before = self.place(before)
        heading, heading_before = unit(arm), unit(arm_before)
        inputs = []
        for point in self.points:
            was, now, next_ = (self.far * point(x) + self.center[:2] for x in (before, state, expected))
            ways = now - middle, STEP * (now - was), STEP * (next_ - now)
            inputs += [seen_from(heading, way / self.far) for way in ways]
        recorded = slice(0, self.told)
        change = (expected - state)[..., recorded] / self.delta_scale
        inputs.append(self.extra(torch.cat([state[..., recorded], change.asinh(), action], -1)))
        inputs.append(seen_from(heading, middle - middle_before) / self.usual)
        if self.turns:
            length = torch.linalg.vector_norm(arm, dim=-1, keepdim=True)
            turned = seen_from(heading_before, heading)[..., 1:]
            inputs.append(turned * length / self.usual)
        move = self.usual * self.net(torch.cat(inputs, -1), bf16)
        middle = middle + turned_by(heading, move[..., :2])
        if not self.turns:
            return (middle - self.center) / self.half_range
        angle = move[..., 2:] / length.clamp_min(1e-6)
        tip = middle + turned_by(torch.cat([angle.cos(), angle.sin()], -1), arm)
        return (torch.cat([middle, tip], -1) - self.center) / self.half_range

    def place(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Gives its middle, and the way from there to its second point, (…, 2) each, px: along the rows where
        it does not turn."""
        points = state[..., self.own] * self.half_range + self.center
        if not self.turns:
            one = torch.ones_like(points[..., :1])
            return points, torch.cat([one, torch.zeros_like(one)], -1)
        return points[..., :2], points[..., 2:] - points[..., :2]

    @torch.no_grad()
    def fit(self, state: Tensor, after: Tensor) -> None:
        """Fits, in closed form, where in the picture the robot touches: states (R, S) and the next ones."""
        if not self.told or not len(state):
            return
        now, later = (self.place(x)[0] for x in (state, after))
        moved = torch.linalg.vector_norm(later - now, dim=-1) / self.usual
        where = (now - self.center[:2]) / self.far
        robot: Any = self.points[0]
        robot.fit(state, where, moved.clamp_max(MOST_WEIGHT))


class PointInPicture(nn.Module):
    """A point in the picture that follows from some numbers of the state: a linear map, and what a small
    network adds, for joints turn."""

    def __init__(self, part: slice) -> None:
        super().__init__()
        self.part, size = part, part.stop - part.start
        self.linear = nn.Linear(size, 2)
        self.residual = nn.Sequential(nn.Linear(size, HIDDEN), nn.GELU(), zero_init(nn.Linear(HIDDEN, 2)))

    def forward(self, state: Tensor) -> Tensor:
        """State (…, S) → (…, 2)"""
        numbers = state[..., self.part]
        return self.linear(numbers) + self.residual(numbers)

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Sets the linear map to one of the part's first numbers: weight (2, n), bias (2,)."""
        self.linear.weight.zero_()
        self.linear.weight[:, : weight.shape[1]] = weight
        self.linear.bias.copy_(bias)

    def fit(self, state: Tensor, where: Tensor, weight: Tensor) -> None:
        """Fits the linear map to places (R, 2), each of which counts by its weight (R,).

        A regression tells too little of what it does not know: it is the mean place of what is touched. The
        robot is *at* it, give or take, so the map is stretched until its answers go with the places, one for
        one (the classical estimator of calibration; Krutchkoff, 1967).
        """
        share = (weight / weight.sum().clamp_min(1e-9)).double()[:, None]
        numbers, where = state[:, self.part].double(), where.double()
        mean, mean_where = ((share * x).sum(0) for x in (numbers, where))
        root = (share * len(share)).sqrt()
        x, y = numbers - mean, where - mean_where
        linear, _ = ridge(root * x, root * y)  # (2, n)
        told, _ = ridge(root * y, root * (x @ linear.T))  # (2, 2): what of a place its answers tell
        left, how_much, right = torch.linalg.svd(told)
        linear = (right.mT / how_much.clamp_min(LEAST_TOLD)) @ left.mT @ linear
        self.set(linear.float(), (mean_where - linear @ mean).float())


def unit(way: Tensor) -> Tensor:
    return way / torch.linalg.vector_norm(way, dim=-1, keepdim=True).clamp_min(1e-6)


def seen_from(heading: Tensor, way: Tensor) -> Tensor:
    """Gives a way (…, 2) along a unit vector (…, 2), and across it."""
    along = (heading * way).sum(-1, keepdim=True)
    across = heading[..., :1] * way[..., 1:] - heading[..., 1:] * way[..., :1]
    return torch.cat([along, across], -1)


def turned_by(heading: Tensor, way: Tensor) -> Tensor:
    """Gives the way (…, 2) that is so along a unit vector, and so across it: undoes `seen_from`."""
    c, s = heading.split(1, -1)
    y, x = way.split(1, -1)
    return torch.cat([c * y - s * x, s * y + c * x], -1)

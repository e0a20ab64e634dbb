"""How far an imagined state may have strayed: copies of the body dream on beside it, each shaken a little.

Free motion forgives a shake; a contact that is only just made, or missed, drives the copies apart, as it
drives the imagination from what would really have happened. As in weather forecasts, how far the copies have
spread since the last recorded frame says how much to trust; a rising curve, measured by `fit_doubt.py` on
recordings that the body has not learnt from, turns it into the error to expect. It takes no pixel and no
further network.

B rows, M copies, S state, A action.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from scd_world.prior.dynamics import Body

COPIES = 16
SHAKE = 0.02  # deviation per step, in units of the state's usual change
PERIOD = 64  # steps after which the shakes repeat: the same for every row, so that no row depends on another
FLOOR = 1e-3  # model units: spreads below it are the same
KNOTS = 13
KNOWN = torch.linspace(math.log(FLOOR), 0.0, KNOTS)  # the knots before any are measured
BEYOND = 0.5  # slope past the last knot: spreads may grow for ever, errors end where the robot does


class Doubt(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, g = size, torch.Generator().manual_seed(0)
        self.register_buffer("shakes", torch.randn(PERIOD, COPIES, size, generator=g), persistent=False)
        # log spread at the knots, and log error there; until it is fitted, one is taken for the other
        self.curve = nn.Parameter(torch.stack([KNOWN, KNOWN]), requires_grad=False)

    def begin(self, before: Tensor, state: Tensor) -> Tensor:
        """The copies (B, M, 2·S + A) of a known state (B, S) and of what was a frame earlier (B, S + A): all
        the same."""
        return torch.cat([before, state], dim=-1)[:, None].expand(-1, COPIES, -1)

    def step(self, body: Body, copies: Tensor, act: Tensor, age: Tensor) -> Tensor:
        """The copies one step on, under the action (B, A). age (B,): steps since the state was known."""
        act = act[:, None].expand(-1, COPIES, -1)
        before, state = copies.tensor_split([copies.shape[-1] - self.size], dim=-1)
        after = body.move(before, state, act).state.float()
        shaken = after + SHAKE * body.line.change * self.shakes[age % PERIOD]
        return torch.cat([state, act, shaken], dim=-1)

    def spread(self, copies: Tensor) -> Tensor:
        """(B,) root mean square over copies and numbers, model units."""
        state = copies[..., copies.shape[-1] - self.size :]
        return (state - state.mean(1, keepdim=True)).square().mean((1, 2)).sqrt()

    def error(self, copies: Tensor) -> Tensor:
        """(B,) the error to expect, root mean square over the state's numbers, as a share of their ranges."""
        return self.expected(self.spread(copies)) / 2  # a range is 2 model units

    def expected(self, spread: Tensor) -> Tensor:
        """The error to expect of a spread, model units (…): the curve, straight between its knots."""
        x, (knots, errors) = (spread + FLOOR).log(), self.curve
        right = torch.bucketize(x, knots).clamp(1, KNOTS - 1)
        left = right - 1
        way = ((x - knots[left]) / (knots[right] - knots[left]).clamp_min(1e-6)).clamp(0, 1)
        inside = torch.lerp(errors[left], errors[right], way)
        return (inside + BEYOND * (x - knots[-1]).clamp_min(0)).exp()

    def _load_from_state_dict(self, weights: dict[str, Any], prefix: str, *rest: Any) -> None:
        upgrade(weights, prefix)
        super()._load_from_state_dict(weights, prefix, *rest)


def upgrade(weights: dict[str, Tensor], prefix: str) -> None:
    """What was saved when the curve was a straight line of logarithms, in place: its values at the knots."""
    if (line := weights.pop(f"{prefix}line", None)) is not None:
        weights[f"{prefix}curve"] = torch.stack([KNOWN.to(line), line[0] + line[1] * KNOWN.to(line)])

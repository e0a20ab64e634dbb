"""How far an imagined state may have strayed: copies of the body dream on beside it, each shaken a little.

Free motion forgives a shake; a contact that is only just made, or missed, drives the copies apart, as it
drives the imagination from what would really have happened. As in weather forecasts, how far the copies have
spread since the last recorded frame says how much to trust; a straight line (of logarithms, fitted to
recordings by `fit_doubt.py`) turns it into the error to expect. It takes no pixel and no further network.

B rows, M copies, S state, A action.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.body import Body

COPIES = 16
SHAKE = 0.02  # deviation per step, in units of the state's usual change
PERIOD = 64  # steps after which the shakes repeat: the same for every row, so that no row depends on another
FLOOR = 1e-3  # model units: spreads and errors below it are the same


class Doubt(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, g = size, torch.Generator().manual_seed(0)
        self.register_buffer("shakes", torch.randn(PERIOD, COPIES, size, generator=g), persistent=False)
        # log error = line[0] + line[1] · log spread
        self.line = nn.Parameter(torch.tensor([0.0, 1.0]), requires_grad=False)

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
        spread = (self.spread(copies) + FLOOR).log()
        return (self.line[0] + self.line[1] * spread).exp() / 2  # a range is 2 model units

"""The linear model finds a line where there is one, and claims nothing where there is none."""

from __future__ import annotations

import torch

from scd_world.dynamics import LinearDynamics, fit_linear
from scd_world.stats import Stats


def test_a_linear_system_is_found_exactly_and_noise_is_left(schema, stats):
    g = torch.Generator().manual_seed(0)
    was, state, after = (torch.rand(500, 3, generator=g) for _ in range(3))
    did, act = (torch.rand(500, 2, generator=g) for _ in range(2))
    before = torch.cat([was, did], dim=-1)
    # A damped servo: it keeps some of its velocity, which its last order tells too, and goes a third of
    # the way to its target.
    after[:, :2] = state[:, :2] + 0.5 * (state - was)[:, :2] + (act - state[:, :2]) / 3 + 0.1 * did
    change = (after - state).square().mean(0).sqrt()
    weight, rest = fit_linear(before, state, act, after, change)
    assert rest[0] < 1e-3 > rest[1]
    assert 0.5 < rest[2] < 1.0
    values = {name: getattr(stats, name) for name in Stats.__dataclass_fields__}
    values |= {"state_change": change, "linear": weight, "linear_rest": rest}
    out = LinearDynamics(Stats(**values))(before, state, act)
    torch.testing.assert_close(out.state[:, :2], after[:, :2], atol=1e-3, rtol=0)
    torch.testing.assert_close(out.features[:, :3], (state - was) / change)

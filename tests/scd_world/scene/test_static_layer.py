"""What nobody moves stays where it was shown."""

from __future__ import annotations

import itertools

import pytest
import torch

from scd_world.prior.config import RendererPretrainConfig
from scd_world.prior.fit_renderer import fit_renderer
from scd_world.prior.renderer import StateRenderer
from scd_world.scene.frames import FramesToDraw


def of_an_arm_and_a_block(count: int, generator: torch.Generator, alone: bool = False) -> FramesToDraw:
    """Pictures of a bar at the state's place, always near to a block, as of an arm that goes for it; alone:
    the bar is moved elsewhere, and the block stays."""
    block = torch.rand(count, generator=generator) * 1.4 - 0.7

    def picture(arm: torch.Tensor) -> torch.Tensor:
        columns, frames = torch.linspace(-1, 1, 24), -torch.ones(count, 3, 24, 24)
        frames[:, 0, :10] = torch.where((columns - arm[:, None]).abs() < 0.15, 1.0, -1.0)[:, None]
        frames[:, 2, 16:20] = torch.where((columns - block[:, None]).abs() < 0.15, 1.0, -1.0)[:, None]
        return frames

    near = [block + 0.2 * (torch.rand(count, generator=generator) - 0.5) for _ in range(2)]
    arm, shown_arm = (-block if alone else near[0]), near[1]
    state, shown_state = arm[:, None], shown_arm[:, None]
    return FramesToDraw(picture(arm), state, state, picture(shown_arm), torch.cat([shown_state] * 2, dim=1))


@pytest.mark.slow
def test_a_block_stays_where_it_was_shown_when_the_arm_is_moved_elsewhere():
    """In all recordings the arm is near to it; told by numbers where it lies, a renderer believes the arm."""
    errors = {}
    for static_layer in (False, True):
        torch.manual_seed(0)
        renderer = StateRenderer(
            1,
            *(-torch.ones(3, 24, 24), 6, 32, 32, 4),
            static_layer=static_layer,
            usual_change=torch.ones(1),
        )
        config, g = RendererPretrainConfig(steps=120, lr=1e-2), torch.Generator().manual_seed(0)
        batches = (of_an_arm_and_a_block(16, g) for _ in itertools.count())
        for _ in fit_renderer(renderer, lambda first, b=batches: b, 0, config, bf16=False):
            pass
        moved = of_an_arm_and_a_block(64, torch.Generator().manual_seed(1), alone=True)
        with torch.no_grad():
            drawn = renderer(moved.state, moved.prev, renderer.scene(moved.shown, moved.shown_state))
        errors[static_layer] = (drawn - moved.obs)[:, 2].square().mean().item()  # of the block
    unknown = (moved.obs[:, 2] - moved.obs[:, 2].mean(0)).square().mean().item()
    assert errors[True] < 0.15 * unknown < errors[False]

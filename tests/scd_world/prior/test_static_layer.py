"""What nobody moves stays where it was shown, and is seen from where a camera has gone."""

from __future__ import annotations

import itertools

import pytest
import torch

from scd_world.model.prior import UNSEEN, Scene
from scd_world.prior.config import RendererPretrainConfig
from scd_world.prior.fit_renderer import NEARER, FramesToDraw, fit_renderer, fit_view
from scd_world.prior.renderer import StateRenderer
from scd_world.prior.static_layer import StaticLayer, image_points, inverse

LAG = 0.4  # of a step that pictures are older than states


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


def of_a_camera_on_an_arm(count: int, generator: torch.Generator) -> FramesToDraw:
    """Pictures of a table that is another one in every episode, seen from where the state says."""
    waves = 2.0 * torch.randn(count, 3, 4, 2, generator=generator)
    phase = 6.0 * torch.rand(count, 3, 4, generator=generator)
    points = image_points(24, 24)[:2]

    def picture(place: torch.Tensor) -> torch.Tensor:
        seen = points + 0.3 * place[:, :, None]  # (F, 2, P)
        heights = (torch.einsum("fcwk,fkp->fcwp", waves, seen) + phase[..., None]).sin()
        return heights.mean(2).unflatten(-1, (24, 24))

    (state, last), (shown_state, shown_last) = (
        (2 * torch.rand(2, count, 2, generator=generator) - 1) for _ in range(2)
    )
    seen, shown_seen = state - LAG * (state - last), shown_state - LAG * (shown_state - shown_last)
    both = torch.cat([shown_state, shown_last], dim=1)
    return FramesToDraw(picture(seen), state, last, picture(shown_seen), both)


@pytest.mark.slow
@pytest.mark.parametrize("moves", [True, False])
def test_a_camera_moves_where_frames_are_nearer_so(moves):
    """Not where an arm moves in the picture, and never far from what lies there."""
    torch.manual_seed(0)
    make, size = (of_a_camera_on_an_arm, 2) if moves else (of_an_arm_and_a_block, 1)
    layer, g = StaticLayer(size, 3), torch.Generator().manual_seed(0)
    background = torch.zeros(1, 3, 24, 24)
    apart = [make(64, torch.Generator().manual_seed(1))]
    (ratio,) = fit_view(layer, background, (make(16, g) for _ in itertools.count()), apart, updates=300)
    assert layer.view.moves.tolist() == [float(moves)]
    assert (ratio < 0.5) if moves else (ratio > NEARER)
    if not moves:
        still = torch.rand(64, 3, 24, 24)
        state, last = apart[0].state, apart[0].prev
        scene = Scene(still[:, 0, 0, :0], layer.view(state, last), still)
        assert layer.seen_at(state, last, scene, background) is still
        assert layer.follow([still], state, last, scene) is None
    else:
        assert layer.view.lag.item() == pytest.approx(LAG, abs=0.1)


def test_what_was_shown_is_followed_by_cameras_that_ride_alone():
    """The second of two looks two cells further to the right now; nothing is known of where it did not."""
    layer = StaticLayer(1, 6)
    layer.view.set_moves(torch.tensor([0.0, 1.0]))
    layer.view.linear.weight.data[8 + 2] = 2 * 2 / 8  # the second camera's homography, row 0, column 2
    shown, now = torch.zeros(1, 1), -torch.ones(1, 1)
    frames = torch.rand(1, 2, 6, 8, 8)
    scene = Scene(shown[:, :0], layer.view(shown, shown), frames[:, 0])
    followed = layer.follow(frames.unbind(1), now, now, scene)
    assert (followed[:, :, :3] == UNSEEN).all()
    torch.testing.assert_close(followed[:, :, 3:, :, :6], frames[:, :, 3:, :, 2:])
    assert (followed[:, :, 3:, :, 6:] == UNSEEN).all()
    seen = layer.seen_at(now, now, scene, torch.full((1, 6, 8, 8), 0.5))
    torch.testing.assert_close(seen[:, :3], frames[:, 0, :3])
    torch.testing.assert_close(seen[:, 3:, :, :6], followed[:, 0, 3:, :, :6])
    assert (seen[:, 3:, :, 6:] == 0.5).all()


def test_a_homography_and_its_inverse():
    found = torch.eye(3) + 0.2 * torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(inverse(found) @ found, torch.eye(3).expand(5, 2, 3, 3), atol=1e-5, rtol=0)


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

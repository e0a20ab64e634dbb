"""What the state alone draws corrects what is imagined, as far as that was nearer to recordings."""

from dataclasses import replace

import pytest
import torch

from scd_world.model.world_model import FILTERED, WorldModel, observe_context
from scd_world.robot_data.clip import Clip
from scd_world.world.fit_filter import fit_filter
from scd_world.world.world import World
from tests.conftest import CONFIG, filled, make_clip, make_model

CONTEXT = 2


@pytest.fixture
def model(schema, stats) -> WorldModel:
    return filled(make_model(replace(CONFIG, state_filter=True), schema, stats)).eval().requires_grad_(False)


def rollout(model: WorldModel, clip: Clip, seed: int = 0) -> list[torch.Tensor]:
    """Imagines the clip's frames after those that are shown, with the noise of `fit_filter`."""
    generator, frames = torch.Generator().manual_seed(seed), []
    s = observe_context(model, clip, CONTEXT)
    for i in range(CONTEXT - 1, clip.num_steps):
        s = model.imagine(s, clip.action[:, i], torch.randn(s.obs.shape, generator=generator))
        frames.append(s.obs)
    return frames


def with_future(clip: Clip, frames: list[torch.Tensor]) -> Clip:
    return replace(clip, obs=torch.cat([clip.obs[:, :CONTEXT], torch.stack(frames, dim=1)], dim=1))


def test_until_it_is_measured_nothing_is_corrected(model, clip):
    before = rollout(model, clip)
    for p in model.prior.renderer.parameters():
        p.add_(torch.randn_like(p))
    torch.testing.assert_close(rollout(model, clip), before, rtol=0, atol=0)


def test_where_the_imagination_is_right_nothing_is_corrected(model, clip):
    fit_filter(model, with_future(clip, rollout(model, clip)), CONTEXT, seed=0)
    assert not model.filter_gain.any()


def test_where_the_drawing_is_right_it_is_taken(model, clip):
    model.filter_gain.fill_(1.0)
    drawn = rollout(model, clip)
    fit_filter(model, with_future(clip, drawn), CONTEXT, seed=0)
    torch.testing.assert_close(model.filter_gain, torch.ones(FILTERED))
    s = observe_context(model, clip, CONTEXT)
    s = model.imagine(s, clip.action[:, CONTEXT - 1], torch.randn_like(s.obs))
    torch.testing.assert_close(s.obs, model.prior.render(s.state))


def test_the_gain_is_the_one_of_least_error_where_something_was_recorded(model, clip):
    """Of the first step, whose past no gain has touched."""
    frame = rollout(model, clip)
    model.filter_gain.fill_(1.0)
    drawn = rollout(model, clip)[0]
    between = torch.lerp(frame[0], drawn, 0.3) + 0.01 * torch.randn_like(drawn)
    between[0] = drawn[0]  # of a row that ended with its context
    recorded = replace(with_future(clip, [between, *frame[1:]]), valid=torch.ones_like(clip.valid))
    recorded.valid[0] = 0.0
    fit_filter(model, recorded, CONTEXT, seed=0)
    assert model.filter_gain[0] == pytest.approx(0.3, abs=0.02)


def test_steps_beyond_those_measured_have_the_last_gain(model, schema):
    clip = make_clip(schema, B=3, T=5)
    fit_filter(model, clip, CONTEXT, seed=0)
    measured = clip.num_steps - CONTEXT + 1
    assert (model.filter_gain[measured:] == model.filter_gain[measured - 1]).all()
    state, late = torch.zeros(2, len(schema.state)), torch.tensor([FILTERED + 100, FILTERED - 1])
    first, second = (
        model.correct(clip.obs[:2, 0], state, late),
        model.correct(clip.obs[:2, 0], state, late.flip(0)),
    )
    torch.testing.assert_close(first, second)


def test_a_world_keeps_its_gains(model, schema, stats, world, tmp_path):
    model.filter_gain.copy_(torch.linspace(0, 0.5, FILTERED))
    folder = World(model, stats, world.starts).save(tmp_path / "world", weights="int8")
    again = World.load(folder)
    torch.testing.assert_close(again.model.filter_gain, model.filter_gain, rtol=0, atol=0)
    assert again.config.state_filter
    assert "filter_gain" not in make_model(CONFIG, schema, stats).state_dict()

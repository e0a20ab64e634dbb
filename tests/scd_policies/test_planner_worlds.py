"""Plans begin where an episode stands and go where the world would: state path, image path, history."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scd_policies.planners.config import PlannerConfig
from scd_policies.planners.history import History
from scd_policies.planners.imagination import (
    ImageImagination,
    StateImagination,
    open_imagination,
)
from scd_world.codec.codec import AutoencoderCodec
from scd_world.codec.config import CodecConfig
from scd_world.world.world import World
from tests.conftest import CONFIG, filled, make_model

SCORED = PlannerConfig(uncertainty_penalty=1.0)


def silence_heads(world: World) -> World:
    """What a world learns that is told where things are: its state loss is 0, and the heads stay at zero."""
    for parameter in world.model.core.heads.mlp[2].parameters():
        parameter.data.zero_()
    return world


def shown(world: World, frames: int, episode: int, last: int) -> History:
    """A planner's history after an environment showed the recorded frames 0 to `last`."""
    history = History(world.schema, frames, images=True, task=0)
    for frame in range(last + 1):
        start = world.starts.get(episode, frame, context=1)
        split = len(world.schema.agent_pos)
        history.observe(
            {
                "pixels": dict(zip(world.schema.cameras, start.pixels[0], strict=True)),
                "agent_pos": start.state[0, :split],
                "environment_state": start.state[0, split:],
            }
        )
        if frame < last:
            history.act(world.starts.action[world.starts.rows[episode, frame]])
    return history


@pytest.mark.parametrize("last", [0, 1, 2, 5])
def test_an_observed_moment_is_the_recorded_one_with_its_context(world, last):
    """Another window, or a missing step before it, would start from features that no training saw."""
    window = world.config.window
    ours, recorded = shown(world, window, 7, last).start(), world.starts.get(7, last, context=window)
    for name in ("pixels", "state", "action", "prev"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(recorded, name), err_msg=name)


@pytest.mark.parametrize("last", [0, 1, 5])
@torch.no_grad()
def test_the_state_path_is_the_worlds_own(world, last):
    """Without the previous step, the second projection or the ensemble's clock it would drift away."""
    silence_heads(world)
    on_a_circle = torch.tensor([[-1.0, 0, 0, 0, 1, 0, 0, 1, 0, 0]])  # x² + y² = 1, in part
    world.model.prior.dynamics.constraints.set(torch.zeros(3), torch.eye(3), on_a_circle)
    assert world.images_add_nothing
    path = open_imagination(world, SCORED, base_needs_images=False)
    assert isinstance(path, StateImagination)
    s = path.begin(shown(world, path.frames, 7, last).start(), copies=2, seed=0)
    rollout = world.reset([world.starts.get(7, last, world.config.window)] * 2)
    low, high = map(np.array, world.schema.action_bounds)
    rng = np.random.default_rng(0)
    for _ in range(4):
        action = rng.uniform(low, high, (2, 2)).astype(np.float32)
        rollout = world.step(rollout, action, torch.randn(2, *world.frame_shape))
        s, outcome = path.step(s, torch.from_numpy(action))
        expected, obs = world.outputs(rollout), path.observation(s)
        state = np.concatenate([obs["agent_pos"], obs["environment_state"]], axis=1)
        np.testing.assert_allclose(state, expected["state"], atol=1e-5)
        for name in ("reward", "success", "uncertainty"):
            np.testing.assert_allclose(getattr(outcome, name), expected[name], atol=1e-5, err_msg=name)
    assert (outcome.uncertainty > 0).all()


def test_where_images_count_the_whole_world_is_stepped(world):
    assert not world.images_add_nothing
    found = open_imagination(world, SCORED, base_needs_images=False)
    assert isinstance(found, ImageImagination)
    start = shown(world, found.frames, 7, 5).start()
    s = found.begin(start, copies=2, seed=0)
    recorded = world.starts.get(7, 5, 1)
    shown_now = found.observation(s)
    assert list(shown_now["pixels"]) == list(world.schema.cameras)
    np.testing.assert_array_equal(shown_now["pixels"]["wrist"][1], recorded.pixels[0, 1])
    action = torch.tensor([[0.5, 100.0]] * 2)
    s, outcome = found.step(s, action)
    rollout = world.reset([world.starts.get(7, 5, world.config.window)])
    rollout = world.step(rollout, action[:1].numpy(), torch.zeros(1, *world.frame_shape))
    expected = world.outputs(rollout)
    for name in ("reward", "success", "uncertainty"):  # read off the context: whatever noise it is drawn from
        np.testing.assert_allclose(getattr(outcome, name)[:1], expected[name], atol=1e-5, err_msg=name)
    drawn = found.observation(s)["pixels"]["top"]
    assert drawn.shape == (2, world.schema.height, world.schema.width, 3)
    assert (drawn[0] != drawn[1]).any(), "two copies are two draws"


def test_the_state_path_has_gradients_down_to_the_first_action(world):
    silence_heads(world)
    path = open_imagination(world, SCORED, base_needs_images=False)
    world.model.requires_grad_(False)  # as one that was loaded
    action = torch.tensor([[0.5, 100.0]], requires_grad=True)
    s = path.begin(shown(world, 2, 7, 3).start(), copies=1, seed=0)
    for _ in range(3):
        s, outcome = path.step(s, action)
    (slope,) = torch.autograd.grad(outcome.reward.sum() + outcome.success.sum(), action)
    assert torch.isfinite(slope).all()
    assert (slope != 0).all()


def test_a_base_that_looks_at_images_gets_them_whatever_the_heads_do(world):
    found = open_imagination(silence_heads(world), PlannerConfig(), base_needs_images=True)
    assert isinstance(found, ImageImagination)


def test_a_base_sees_what_the_environment_shows_detail_and_all(world, schema, stats):
    codec = AutoencoderCodec(CodecConfig("autoencoder", width=8), replace(schema, height=32, width=48))
    codec.unchanged.fill_(5.0)
    model = filled(make_model(replace(CONFIG, anchor_frame=True), schema, stats)).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (len(world.starts.pixels), 2, 32, 48, 3), np.uint8)
    world = World(model, stats, replace(world.starts, pixels=pixels), codec=codec)
    imagination = ImageImagination(world)
    s = imagination.begin(world.starts.get(7, 3, 3), 2, seed=0)
    s, _ = imagination.step(s, imagination.rest_action(world.starts.get(7, 3, 3)).expand(2, -1))
    seen = np.stack(list(imagination.observation(s)["pixels"].values()), axis=1)
    assert np.array_equal(seen, world.outputs(s.rollout)["pixels"])
    assert not np.array_equal(seen, codec.decode_pixels(s.rollout.obs).numpy())


def test_worlds_that_cannot_plan_are_refused_in_words(world, schema):
    blind = replace(schema, reward=False, success=False)
    silent = World(world.model, world.stats, world.starts, codec=replace_schema(world, blind))
    with pytest.raises(ValueError, match="neither reward nor success"):
        open_imagination(silent, PlannerConfig(), base_needs_images=False)
    with pytest.raises(ValueError, match="draws no images, and the base policy needs them"):
        open_imagination(world, PlannerConfig(state_only=True), base_needs_images=True)
    with pytest.raises(TypeError, match="a folder, a Hub id or a World"):
        open_imagination(3, PlannerConfig(), base_needs_images=False)


def replace_schema(world: World, schema):
    """The world's codec, as it would be of recordings with this schema."""
    codec = world.codec
    codec.schema = schema
    return codec


def test_worlds_without_a_prior_have_no_state_path_and_no_uncertainty(plain_world):
    with pytest.raises(ValueError, match="no state prior to roll out"):
        open_imagination(plain_world, PlannerConfig(state_only=True), base_needs_images=False)
    with pytest.raises(ValueError, match=r"uncertainty_penalty=1\.0, but this world has no state prior"):
        open_imagination(plain_world, SCORED, base_needs_images=False)
    found = open_imagination(plain_world, PlannerConfig(), base_needs_images=False)
    assert isinstance(found, ImageImagination)


def test_observations_of_another_robot_are_refused_in_words(world):
    history = History(world.schema, 2, images=False, task=0)
    with pytest.raises(ValueError, match="trained with 'environment_state'"):
        history.observe({"agent_pos": np.zeros(2)})
    with pytest.raises(ValueError, match=r"expects 1 finite ones, \['block'\]"):
        history.observe({"agent_pos": np.zeros(2), "environment_state": np.zeros(16)})
    looking = History(world.schema, 2, images=True, task=0)
    state = {"agent_pos": np.zeros(2), "environment_state": np.zeros(1)}
    with pytest.raises(ValueError, match="this planner needs images"):
        looking.observe(state)
    looking = History(world.schema, 2, images=True, task=0)
    with pytest.raises(ValueError, match=r"camera 'wrist' .* no such camera"):
        looking.observe(state | {"pixels": {"top": np.zeros((8, 12, 3), np.uint8)}})

"""What a batch becomes before it is learnt from: moved by what seed and step say, and by nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.robot_data.augmentation import shift
from scd_world.training.distributed import make_accelerator
from scd_world.training.learner import HEADS_ADD, Learner
from tests.conftest import CONFIG, SCHEMA, make_clip, make_model, make_stats


def learner(config, joints: tuple[float, ...] = (), **model) -> Learner:
    """Learns with a model of these settings. joints: which action each number of the state follows."""
    stats = make_stats(SCHEMA)
    if joints:
        stats = replace(stats, commanded_by=torch.tensor(joints))
    net = make_model(replace(CONFIG, foreground_weight=0.0, **model), SCHEMA, stats)
    return Learner(net, stats, config, make_accelerator(config))


@pytest.fixture
def moving(training):
    """A training that moves what it learns from."""
    config = training()
    model = replace(config.model, foreground_weight=0.0, state_filter=True, anchor_frame=True)
    return replace(config, model=model, random_shift=2, batch_size=8)


def moved_by(before, after) -> list[tuple[int, int]]:
    """By how much each clip was moved, found by trying."""
    tried = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
    moved = {by: shift(before.obs, torch.tensor([by] * len(before.obs))) for by in tried}
    return [next(by for by in tried if moved[by][i].equal(after.obs[i])) for i in range(len(before.obs))]


def test_a_batch_is_moved_by_its_seed_and_step_alone(moving):
    clip = make_clip(SCHEMA, B=8, T=3)
    one, two = learner(moving), learner(moving)
    noise = one.sample_noise(clip, 3).of_recordings()
    first = moved_by(clip, one.augment(clip, noise, 3))
    assert first == moved_by(clip, two.augment(clip, noise, 3))
    assert first != moved_by(clip, one.augment(clip, noise, 4))
    assert len(set(first)) > 1


def test_each_process_moves_its_rows_of_the_whole_batch(moving):
    clip = make_clip(SCHEMA, B=8, T=3)
    whole = learner(moving)
    noise = whole.sample_noise(clip, 0).of_recordings()
    all_of_them = whole.augment(clip, noise, 0)
    half = slice(4, 8)  # what the second of two processes is given
    whole.own_rows = lambda clip: half
    assert whole.augment(clip.rows(half), noise.rows(half), 0).obs.equal(all_of_them.obs[half])


def test_what_the_state_draws_into_stays_where_it_is(moving):
    """A drawing knows but one place: in moved self-rollouts it would correct the frame by another."""
    config = replace(moving, model=replace(moving.model, self_rollout_share=0.5))
    clip = make_clip(SCHEMA, B=8, T=3)
    drawn = learner(config, state_filter=True, anchor_frame=True)
    noise = replace(drawn.sample_noise(clip, 0), self_rollout=torch.arange(8) / 8)
    moved = moved_by(clip, drawn.augment(clip, noise, 0))
    assert moved[:4] == [(0, 0)] * 4
    assert any(by != (0, 0) for by in moved[4:])
    assert any(by != (0, 0) for by in moved_by(clip, learner(config).augment(clip, noise, 0))[:4])
    config = replace(moving, model=replace(moving.model, measured_share=0.5))
    drawn = learner(config, state_filter=True, anchor_frame=True, measured_share=0.5)
    noise = replace(drawn.sample_noise(clip, 0), measured=torch.arange(8) / 8)
    assert moved_by(clip, drawn.augment(clip, noise, 0)) == moved


def test_nothing_is_moved_where_it_is_known_what_a_camera_sees(moving, monkeypatch, caplog):
    clip = make_clip(SCHEMA, B=8, T=3)
    monkeypatch.setattr(PretrainedStatePrior, "carries", True)
    rides = learner(moving)
    assert "random_shift=2 is left out" in caplog.text
    noise = rides.sample_noise(clip, 3).of_recordings()
    assert rides.augment(clip, noise, 3) is clip


@pytest.mark.parametrize(("held", "older"), [([0.0, 1.0, 0.0], False), ([1.0, 1.0, 1.0], True)])
def test_a_training_of_before_goes_on_with_heads_that_add_to_joints(training, held, older):
    """They had learned to, beside joints that learned on."""
    one = learner(training(), joints=(1.0, -1.0, 0.0))
    weights = {
        name: value for name, value in one.model.state_dict().items() if name != HEADS_ADD or not older
    }
    two = learner(training(), joints=(1.0, -1.0, 0.0))
    two.load(weights, one.ema.weights(), {})
    assert two.model.prior.heads_add.tolist() == held
    assert two.average()[HEADS_ADD].tolist() == held  # which the next checkpoint says

"""What was pretrained of joints is held: neither a world's training nor its heads move them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scd_world.model.prior import PriorPrediction
from scd_world.model.world_model import WorldModel
from tests.conftest import CONFIG, PRIOR, SCHEMA, filled, make_clip, make_model, make_stats

JOINTS = torch.tensor([1.0, -1.0, 0.0])  # numbers 0 and 2 of the state follow commands of their own


@pytest.fixture
def model() -> WorldModel:
    return filled(make_model(CONFIG, SCHEMA, replace(make_stats(SCHEMA), commanded_by=JOINTS), PRIOR))


def added(model: WorldModel) -> list[bool]:
    """Says of each number of the state whether the heads change what the prior says of it."""
    state = torch.zeros(1, 3)
    prior = PriorPrediction(state, state[:, :0], torch.zeros(1), torch.zeros(1))
    tokens = torch.randn(1, 1, CONFIG.width, generator=torch.Generator().manual_seed(0))
    after = model.combine_with_prior(tokens, prior)[1]
    return (after != model.prior.project(state)).squeeze(0).tolist()


def test_heads_add_nothing_to_joints(model):
    assert added(model) == [False, True, False]


def test_weights_of_before_keep_what_their_heads_had_learned(model):
    """Such a world's joints had gone on learning beside the heads: both belong together."""
    older = {name: value for name, value in model.state_dict().items() if not name.endswith("heads_add")}
    model.load_state_dict(older)
    assert added(model) == [True, True, True]
    assert "prior.heads_add" in model.state_dict()  # and are saved as such


def test_a_worlds_training_leaves_joints_as_they_are(model):
    clip = make_clip(SCHEMA, B=2, T=4)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.SGD(model.requires_grad_(True).parameters(), lr=0.1, weight_decay=0.1)
    model.loss(clip, model.sample_noise(clip, torch.Generator().manual_seed(0)))[0].backward()
    optimizer.step()
    same = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    joints = {name for name in before if name.startswith("prior.dynamics.joints.")}
    assert joints
    assert joints <= same
    assert "prior.dynamics.residual_net.embed.weight" not in same  # what is no joint's goes on learning
    assert "core.heads.mlp.0.weight" not in same

from __future__ import annotations

import itertools

import pytest
import torch

from scd_world.prior.config import PriorConfig, PriorTrainConfig
from scd_world.prior.pretraining_report import renderer_result
from scd_world.renderers.config import RendererPretrainConfig
from scd_world.renderers.convolutional import ConvRenderer
from scd_world.renderers.fit import fit_renderer


@pytest.mark.parametrize("frame", [(24, 32), (23, 9), (8, 8)])
def test_before_it_has_learnt_there_is_the_background_alone(frame):
    background = torch.rand(6, *frame) * 2 - 1
    drawn = ConvRenderer(3, background, channels=4)(torch.randn(5, 3))
    torch.testing.assert_close(drawn, background.expand(5, -1, -1, -1))


@pytest.mark.slow
def test_joints_of_a_chain_are_drawn_where_no_training_picture_had_them():
    """Two links that turn: what is drawn of new angles is nearer than the mean picture, many times over."""

    def links(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        angle = 2 * torch.rand(count, 2, generator=torch.Generator().manual_seed(seed)) - 1
        way = torch.stack([angle[:, 0], angle.sum(1)], 1)
        ends = torch.stack([way.cos(), way.sin()], -1).cumsum(1) * 4.0
        y, x = torch.meshgrid(torch.arange(16.0) - 4, torch.arange(16.0) - 8, indexing="ij")
        far = (y - ends[..., :1, None]).square() + (x - ends[..., 1:, None]).square()  # (F, 2, 16, 16)
        picture = 2 * torch.exp(-far / 4).amax(1, keepdim=True) - 1
        return angle, picture.expand(-1, 3, -1, -1)

    state, obs = links(1024, 0)
    torch.manual_seed(0)
    renderer = ConvRenderer(2, obs.mean(0), channels=16)
    config = RendererPretrainConfig(steps=300, batch_size=64)

    def frames(first: int):
        for i in itertools.count(first):
            lot = torch.randint(len(state), (config.batch_size,), generator=torch.Generator().manual_seed(i))
            yield state[lot], obs[lot]

    losses = [float(loss) for loss in fit_renderer(renderer, frames, 0, config, bf16=False)]
    assert len(losses) == 300
    new_state, new_obs = links(64, 1)
    (result,) = renderer_result(renderer, new_state, new_obs)
    assert result.value > result.baseline_value + 8  # dB


def test_a_world_without_one_is_saved_as_before_there_were_any():
    assert "renderer_channels" not in PriorConfig().as_saved
    assert PriorTrainConfig(renderer_channels=8).architecture().as_saved["renderer_channels"] == 8

"""The four ways in which a decoder learns of its context."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scd_world.model.config import FUSIONS, ModelConfig
from scd_world.model.world_model import WorldModel
from tests.conftest import CONFIG, filled, make_model

WAYS = [(fusion, added) for fusion in FUSIONS for added in (True, False) if added or fusion != "none"]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}{', added' if way[1] else ''}")
def model(request, schema, stats) -> WorldModel:
    fusion, added = request.param
    config = replace(CONFIG, fusion=fusion, add_context=added, noise_samples=2)
    return filled(make_model(config, schema, stats))


def inputs(model: WorldModel, F: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "x_t": torch.randn(F, 6, 8, 12, generator=g, requires_grad=True),
        "t": torch.rand(F, generator=g, requires_grad=True),
        "ctx": torch.randn(F, model.core.num_tokens, 32, generator=g, requires_grad=True),
        "state_action": torch.randn(F, 5, generator=g, requires_grad=True),
        "pixel_inputs": torch.randn(F, 12, 8, 12, generator=g, requires_grad=True),
    }


def test_a_frame_depends_on_all_it_is_given_and_on_no_other_frame(model):
    given = inputs(model)
    out = model.core.decoder(**given)
    for grad in torch.autograd.grad(out[1].square().sum(), tuple(given.values())):
        assert (grad.reshape(4, -1).abs().amax(1) > 0).tolist() == [False, True, False, False]


def test_every_context_token_counts(model):
    given = inputs(model)
    (grad,) = torch.autograd.grad(model.core.decoder(**given).square().sum(), given["ctx"])
    assert (grad.abs().amax((0, 2)) > 0).all()


def test_a_prepared_context_serves_all_denoising_steps_and_all_draws(model):
    given = inputs(model)
    x_t, t, seen = given["x_t"], given["t"], given["pixel_inputs"]
    prepared = model.core.decoder.prepare(given["ctx"], given["state_action"])
    singly = [
        model.core.decoder(**(given | {"x_t": x, "t": time})) for x, time in ((x_t, t), (2 * x_t, t / 2))
    ]
    for x, time, wanted in ((x_t, t, singly[0]), (2 * x_t, t / 2, singly[1])):
        torch.testing.assert_close(
            model.core.decoder.denoise(x, time, prepared, seen), wanted, atol=2e-3, rtol=1e-3
        )
    both = torch.cat([x_t, 2 * x_t]), torch.cat([t, t / 2])
    drawn = model.core.decoder.denoise(*both, prepared.repeat(2), torch.cat([seen, seen]))
    torch.testing.assert_close(drawn, torch.cat(singly), atol=2e-3, rtol=1e-3)


def test_the_context_of_one_way_is_blind_to_time_and_noise(schema, stats):
    model = make_model(replace(CONFIG, fusion="one_way"), schema, stats)
    given = inputs(model)
    prepared = model.core.decoder.prepare(given["ctx"], given["state_action"])
    assert prepared.prefix_tokens.shape[2] == 0
    assert len(prepared.ctx_kv) == CONFIG.decoder_layers
    assert all(keys.shape[2] == model.core.num_tokens for keys, _ in prepared.ctx_kv)


def test_what_a_denoising_step_costs(schema, stats):
    """Of the blocks' work: one_way moves half of the tokens of concat, channel and none nearly half."""
    work = {}
    for fusion in FUSIONS:
        model = make_model(replace(CONFIG, fusion=fusion, width=128, head="patch"), schema, stats)
        given = {
            name: value[:, :6] if name == "pixel_inputs" else value for name, value in inputs(model).items()
        }
        given["ctx"] = torch.randn(4, model.core.num_tokens, 128)
        prepared = model.core.decoder.prepare(given["ctx"], given["state_action"])
        with FlopCounterMode(display=False) as counter:
            model.core.decoder.denoise(given["x_t"], given["t"], prepared, given["pixel_inputs"])
        work[fusion] = counter.get_total_flops()
    assert work["one_way"] < 0.65 * work["concat"]
    assert work["none"] < work["channel"] < 0.75 * work["concat"]


def test_a_loss_and_a_rollout(model, clip):
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    loss, _ = model.loss(clip, noise)
    loss.backward()
    used = {name for name, p in model.core.decoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name for name, _ in model.core.decoder.blocks.named_parameters(prefix="blocks")} <= used
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    assert model.imagine(s, clip.action[:, 0], noise.x[0, :, 0], 2).obs.isfinite().all()


def test_nothing_to_go_by_is_refused():
    with pytest.raises(ValueError, match="knows nothing of the past"):
        ModelConfig(fusion="none", add_context=False)
    with pytest.raises(ValueError, match="expected one of concat, one_way"):
        ModelConfig(fusion="twoway")

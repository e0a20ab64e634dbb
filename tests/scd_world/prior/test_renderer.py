from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from scd_datasets.store.loader import WindowLoader
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.store import WindowStore
from scd_world.prior.config import PriorConfig, RendererPretrainConfig
from scd_world.prior.fit_renderer import FramesToDraw, fit_renderer, renderer_loss
from scd_world.prior.pretraining_report import renderer_result
from scd_world.prior.renderer import StateRenderer, cell_grid
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.pretrain import frames_to_draw
from tests.conftest import make_model


def bars(count: int, size: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """States (F, 4): place and turn (cosine, sine) of a white bar; pictures (F, 3, size, size) of it."""
    g = torch.Generator().manual_seed(seed)
    place, angle = torch.rand(count, 2, generator=g) - 0.5, 6.3 * torch.rand(count, generator=g)
    state = torch.cat([place, angle.cos()[:, None], angle.sin()[:, None]], dim=1)
    rows, columns, _ = cell_grid(size, size, 1)
    y, x = rows - place[:, :1], columns - place[:, 1:]
    along = y * angle.cos()[:, None] + x * angle.sin()[:, None]
    across = x * angle.cos()[:, None] - y * angle.sin()[:, None]
    inside = torch.sigmoid(30 * (0.5 - along.abs())) * torch.sigmoid(30 * (0.15 - across.abs()))
    return state, (2 * inside - 1).view(count, 1, size, size).expand(-1, 3, -1, -1)


def alone(state: torch.Tensor, obs: torch.Tensor) -> FramesToDraw:
    """Frames whose episodes show nothing else."""
    return FramesToDraw(obs, state, state, obs, state)


def frames_of(store: WindowStore, stats: Normalizer, batch_size: int):
    """Batches from a number on, as a training gives them."""
    loader = WindowLoader(store, np.arange(len(store.lengths)), batch_size, 1, seed=0)

    def frames(first: int) -> Iterator[FramesToDraw]:
        for i in itertools.count(first):
            yield frames_to_draw(loader.batch(i), stats, torch.device("cpu"))

    return frames


def test_before_it_has_learnt_there_is_the_background_alone():
    background = torch.rand(6, 8, 12) * 2 - 1
    drawn = StateRenderer(3, background, parts=4)(torch.randn(5, 3))
    share = torch.sigmoid(torch.tensor(2.0))
    torch.testing.assert_close(drawn, (share * background).expand(5, -1, -1, -1))


@pytest.mark.slow
def test_a_part_that_turns_is_learnt_from_single_frames():
    """And drawn where no training picture had it: the error is a fraction of leaving it out."""
    state, obs = bars(512)
    torch.manual_seed(0)
    renderer = StateRenderer(4, torch.full((3, 24, 24), -1.0), parts=8, width=32, hidden=32)
    optimizer = torch.optim.AdamW(renderer.parameters(), lr=1e-2)
    config, g = (
        RendererPretrainConfig(foreground_weight=2.0, cell_share=0.5),
        torch.Generator().manual_seed(0),
    )
    for update in range(400):
        lot = torch.randint(512, (16,))
        loss = renderer_loss(renderer, alone(state[lot], obs[lot]), config, g)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - update / 400)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state, obs = bars(32, seed=1)
    with torch.no_grad():
        error = (renderer(state) - obs).square().mean()
    assert error < 0.1 * (obs + 1).square().mean()
    (result,) = renderer_result(renderer, alone(state, obs))
    assert result.value > result.baseline_value + 10  # dB
    assert not result.failed
    with torch.no_grad():
        renderer.mlp[-1].bias += 30 * (torch.arange(16) >= 12)  # it has gone out: background alone
    (nothing,) = renderer_result(renderer, alone(state, obs))
    assert nothing.failed


@pytest.mark.slow
def test_what_no_state_tells_is_read_off_another_frame_of_the_episode():
    """In some episodes the light is on, in others not: nobody is told."""
    config = RendererPretrainConfig(steps=200, foreground_weight=0.0, cell_share=0.5, lr=1e-2)

    def episodes(seed: int) -> FramesToDraw:
        (state, obs), (shown_state, shown) = (bars(16, seed=2 * seed + i) for i in range(2))
        light = torch.rand(16, 1, 1, 1, generator=torch.Generator().manual_seed(seed)) - 0.5
        obs, shown = (light + (picture + 1) / 8 for picture in (obs, shown))
        return FramesToDraw(obs, state, state, shown, torch.cat([shown_state, shown_state], dim=1))

    def batches(first: int) -> Iterator[FramesToDraw]:
        return (episodes(i) for i in itertools.count(first))

    torch.manual_seed(0)
    renderer = StateRenderer(4, torch.zeros(3, 24, 24), 8, 32, 32, 2, usual_change=torch.ones(4))
    for _ in fit_renderer(renderer, batches, 0, config, bf16=False):
        pass
    unseen = episodes(10_000)
    with torch.no_grad():
        scene = renderer.scene(unseen.shown, unseen.shown_state)
        others = scene._replace(features=scene.features.roll(1, 0))
        drawn, of_others = (renderer(unseen.state, unseen.prev, s) for s in (scene, others))
    unknown = (unseen.obs - unseen.obs.mean(0)).square().mean()
    assert (drawn - unseen.obs).square().mean() < 0.3 * unknown
    assert (of_others - unseen.obs).square().mean() > unknown


def test_without_a_scene_the_state_alone_is_drawn_as_before():
    torch.manual_seed(0)
    plain = StateRenderer(3, torch.zeros(3, 8, 8), parts=2)
    names = set(plain.state_dict())
    assert plain.scene(torch.rand(2, 3, 8, 8), torch.rand(2, 6)).features.shape == (2, 0)
    more = StateRenderer(3, torch.zeros(3, 8, 8), parts=2, scene_features=5, usual_change=torch.ones(3))
    new = set(more.state_dict()) - names
    assert new == {name for name in more.state_dict() if name.startswith("scene_encoder.")}
    assert new
    scene = more.scene(torch.rand(2, 3, 8, 8), torch.rand(2, 6))
    assert scene.features.shape == (2, 5)
    assert (scene.features.abs() < 1).all()
    assert scene.still.shape == (2, 0, 8, 8)
    layered = StateRenderer(3, torch.zeros(3, 8, 8), 2, scene_features=5, static_layer=True)
    assert {name.split(".")[0] for name in set(layered.state_dict()) - set(more.state_dict())} == {
        "static_layer",
        "cameras",
        "heights",
    }


@pytest.mark.parametrize("rides", [False, True])
def test_a_renderer_from_before_it_knew_of_chains_of_joints(rides):
    """It opens where no camera rides, and draws as it did; where one does it is said what to do."""
    torch.manual_seed(0)
    now = StateRenderer(3, torch.zeros(3, 8, 8), 2, scene_features=5, static_layer=True)
    before = {
        name: value + 0.1
        for name, value in now.state_dict().items()
        if not name.startswith(("cameras.", "heights."))
    }
    before |= {f"static_layer.view.{name}": torch.rand(8) for name in ("linear.bias", "lag")}
    before["static_layer.view.moves"] = torch.tensor([float(rides)])
    if rides:
        with pytest.raises(RuntimeError, match="Train it anew"):
            now.load_state_dict(before)
    else:
        now.load_state_dict(before)
        assert torch.equal(now.state_dict()["static_layer.out.bias"], before["static_layer.out.bias"])
        assert not now.cameras.any_moves


def test_a_renderer_whose_static_layer_told_the_heights_sees_as_it_did():
    torch.manual_seed(0)
    now, of_before = (
        StateRenderer(3, torch.zeros(3, 8, 8), 2, scene_features=5, static_layer=True) for _ in range(2)
    )
    with torch.no_grad():
        for parameter in of_before.parameters():
            parameter.normal_()
    for own, shared in zip(of_before.heights.layers, of_before.static_layer.layers, strict=True):
        own.load_state_dict(shared.state_dict())
    of_before.cameras.set_moves(torch.ones(1))
    before = of_before.state_dict()
    for name in [name for name in before if name.startswith("heights.")]:
        value = before.pop(name)
        if name.startswith("heights.out."):
            before[name.replace("heights.out.", "static_layer.height.")] = value
    now.load_state_dict(before)
    shown, state = torch.rand(2, 3, 8, 8), torch.rand(2, 6)
    one, other = (renderer.scene(shown, state) for renderer in (now, of_before))
    assert one.height.abs().max() > 0
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_frame_of_reference_moves_with_its_place_and_turns_with_its_turn():
    """conj(d)(z − p): a pixel that moves and turns as the part does keeps its coordinates."""
    renderer = StateRenderer(4, torch.zeros(3, 8, 8), parts=1)
    with torch.no_grad():
        renderer.pose_linear.weight.copy_(torch.eye(4)[[2, 3, 0, 1]])  # state: place, then turn
        renderer.pose_linear.bias.zero_()
    point = torch.tensor([0.3, -0.2])  # in the part's own frame
    states, pixels = [], []
    for angle, place in [(0.0, (0.0, 0.0)), (1.0, (0.4, -0.3)), (2.5, (-0.5, 0.1))]:
        c, s = np.cos(angle), np.sin(angle)
        states.append([*place, c, s])
        pixels.append([place[0] + c * point[0] - s * point[1], place[1] + s * point[0] + c * point[1], 1.0])
    frames = renderer.part_transforms(torch.tensor(states, dtype=torch.float32))  # (3, 2, 3)
    here = (frames @ torch.tensor(pixels, dtype=torch.float32)[:, :, None])[..., 0]
    torch.testing.assert_close(here, point.expand(3, 2), atol=1e-6, rtol=0)


def test_bf16_does_not_move_what_is_drawn():
    state, obs = bars(8)
    renderer = StateRenderer(4, obs.mean(0), parts=4)
    with torch.no_grad():
        plain = renderer.part_transforms(state)
        with torch.autocast("cpu", torch.bfloat16):
            renderer.mlp[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
            seen: list[torch.Tensor] = []
            renderer(state)
            renderer.mlp[0]._forward_pre_hooks.clear()
    waves = (
        renderer.coord_embed.weight @ plain @ renderer.cell_grid + renderer.coord_embed.bias[:, None]
    ).sin()
    torch.testing.assert_close(seen[0], waves.transpose(1, 2), atol=1e-5, rtol=0)


def test_it_is_held_while_the_world_learns_and_reaches_the_picture(model, clip):
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    model.requires_grad_(True)
    loss, _ = model.loss(clip, noise)
    loss.backward()
    assert all(weight.grad is None for weight in model.prior.renderer.parameters())
    with torch.no_grad():
        model.prior.renderer.mlp[-1].bias += 1.0
        assert model.loss(clip, noise)[0] != loss


@pytest.mark.parametrize("parts", [0, 4])
def test_stepping_draws_the_imagined_state(model, stats, parts):
    model = make_model(model.config, model.schema, stats, PriorConfig(renderer_parts=parts))
    seen: list[torch.Tensor] = []
    model.core.decoder.pixel_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    C, H, W = model.schema.channels, model.schema.height, model.schema.width
    first = torch.rand(2, C, H, W) * 2 - 1
    s = model.initial(first, torch.rand(2, 3))
    after = model.imagine(s, torch.rand(2, 2), torch.randn(2, C, H, W))
    torch.testing.assert_close(seen[0][:, :C], first)
    if parts:
        torch.testing.assert_close(seen[0][:, C:], model.prior.renderer(after.state))
    else:
        assert seen[0].shape[1] == C


def test_no_state_no_renderer(model):
    schema = replace(model.schema, agent_pos=(), environment_state=())
    assert make_model(model.config, schema, Normalizer.neutral(schema)).prior.renderer is None


@pytest.mark.slow
def test_fitting_lowers_the_loss_and_leaves_the_same_weights_each_time(slide_store):
    store = WindowStore.open(slide_store)
    episodes = np.arange(len(store.lengths))
    stats, config = compute_stats(store, episodes), RendererPretrainConfig(steps=200, batch_size=8, lr=1e-2)

    def fitted() -> tuple[list[float], StateRenderer]:
        torch.manual_seed(0)
        renderer = StateRenderer(1, stats.background, parts=4, width=32, hidden=32)
        frames = frames_of(store, stats, config.batch_size)
        return [float(loss) for loss in fit_renderer(renderer, frames, 0, config, bf16=False)], renderer

    (losses, renderer), (again, other) = fitted(), fitted()
    assert losses == again
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    for a, b in zip(renderer.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_share_of_the_cells_tells_the_loss_of_all():
    """Those that stand out are looked at more often, and weigh less for it."""
    state, obs = bars(4)
    torch.manual_seed(0)
    renderer, g = StateRenderer(4, torch.full((3, 24, 24), -1.0), parts=4), torch.Generator().manual_seed(0)
    torch.nn.init.normal_(renderer.mlp[-1].weight, std=0.1)
    config = RendererPretrainConfig(foreground_weight=3.0, cell_share=0.2)
    with torch.no_grad():
        few = torch.stack([renderer_loss(renderer, alone(state, obs), config, g) for _ in range(400)])
        differs = (obs + 1).abs() > 0.1
        whole = ((1 + 3 * differs) * (renderer(state) - obs).square()).mean()
    torch.testing.assert_close(few.mean(), whole, rtol=0.02, atol=0)
    assert few.std() < 0.5 * whole


def test_a_gradient_that_blows_itself_up_is_clipped(slide_store, monkeypatch):
    """The largest that an update has seen, whatever the picture is like."""
    store, seen = WindowStore.open(slide_store), []
    episodes = np.arange(len(store.lengths))
    stats = compute_stats(store, episodes)
    renderer = StateRenderer(1, stats.background, parts=4, width=32, hidden=32)
    step = torch.optim.AdamW.step

    def note(optimizer, *args, **kwargs):
        grads = [p.grad for p in renderer.parameters() if p.grad is not None]
        seen.append(torch.stack([g.norm() for g in grads]).norm().item())
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    with torch.no_grad():
        renderer.coord_embed.weight *= 30  # far too fine waves
        renderer.mlp[-1].weight.normal_()
    config = RendererPretrainConfig(steps=3, batch_size=8)
    list(fit_renderer(renderer, frames_of(store, stats, 8), 0, config, bf16=False))
    assert len(seen) == 2 * 3  # what bends has an optimizer of its own
    assert max(seen) < 0.101

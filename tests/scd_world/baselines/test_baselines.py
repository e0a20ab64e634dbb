"""The baselines: dense caches, causality by gradients, histories, and that all of them train and step."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import pytest
import torch

import scd_envs  # noqa: F401 (registers the ids)
from scd_datasets.config import DataConfig
from scd_world.baselines.diffusion_forcing import LEVEL
from scd_world.baselines.far import CLEAN_TIME
from scd_world.model.config import ARCHITECTURES, ModelConfig
from scd_world.model.world_model import WorldModel
from scd_world.robot_data.clip import Clip, previous_state_action
from scd_world.training.trainer import train
from scd_world.world.world import World
from tests.conftest import CONFIG, filled, make_model

TINY = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=4, window=3, num_steps=2)
DENSE = ("causal_dit", "far", "far_long", "diffusion_forcing")
LONG = {"patch": 1, "near_window": 2}  # 8 × 12 pixels in 2 × 3 coarse tokens; two frames of three near


def make(kind: str, schema, stats, **changes) -> WorldModel:
    changes |= LONG if kind == "far_long" else {}
    return filled(make_model(replace(CONFIG, architecture=kind, **changes), schema, stats)).eval()


def read(model: WorldModel, obs: torch.Tensor, clip: Clip):
    """A clip's history as it stands when stepping: h (B, T, M, D), and the layers' keys and values."""
    state = clip.state[:, :-1]
    prior = model.prior(previous_state_action(state, clip.action, clip.prev), state, clip.action)
    shown, t = model.core.remembered(obs.flatten(0, 1))
    shown, t = shown.unflatten(0, obs.shape[:2]), t.unflatten(0, obs.shape[:2])
    h, memory = model.core.net.read(
        shown, t, torch.cat([state, clip.action], -1), model.append_task(prior.delta_features, clip.task)
    )
    return model.core.norm(h), memory


@pytest.mark.parametrize("kind", DENSE)
def test_dense_cached_equals_dense_uncached_also_past_the_window(kind, schema, stats, clip):
    """The ring against one pass over the clip: what the heads read, and each drawn frame."""
    model = make(kind, schema, stats)
    T, x = clip.num_steps, torch.randn(1, *clip.obs[:, 1:].shape)
    t = torch.full((1, *clip.action.shape[:2]), 0.7)
    vector = torch.cat([clip.state[:, 1:], clip.action], -1)
    with torch.no_grad():
        h, memory = read(model, clip.obs[:, :-1], clip)
        seen = model.pixel_inputs(clip.obs[:, :-1], clip.state[:, 1:], clip.anchor)
        drawn = model.core.net.denoise_clip(x, t, vector, seen, memory).unflatten(0, (len(clip.action), T))
        s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
        assert model.config.window < T
        for i in range(T):
            stepped, _, _ = model.encode_and_predict(s, clip.action[:, i])
            torch.testing.assert_close(stepped.tokens, h[:, i], rtol=1e-4, atol=1e-4)
            now = model.core.net.now(s.cache)
            for _ in range(2):  # a denoising step leaves nothing behind that the next one could see
                out = model.core.net.denoise(x[0, :, i], t[0, :, i], vector[:, i], seen[:, i], now)
            torch.testing.assert_close(out, drawn[:, i], rtol=1e-3, atol=1e-3)
            following = {"obs": clip.obs[:, i + 1], "state": clip.state[:, i + 1]}
            s = replace(
                s, **following, prev=torch.cat([s.state, clip.action[:, i]], dim=-1), steps=s.cache.steps
            )


@pytest.mark.parametrize("kind", DENSE)
def test_a_dense_frame_sees_its_past_and_itself_alone(kind, schema, stats, clip):
    """By gradients, exactly, with one layer: the frame after frame i sees `window` frames up to i."""
    model = make(kind, schema, stats, encoder_layers=1, decoder_layers=0)
    obs = clip.obs[:, :-1].clone().requires_grad_()
    x = torch.randn(2, *clip.obs[:, 1:].shape, requires_grad=True)
    h, memory = read(model, obs, clip)
    vector = torch.cat([clip.state[:, 1:], clip.action], -1)
    seen = model.pixel_inputs(clip.obs[:, :-1], clip.state[:, 1:], clip.anchor)
    out = model.core.net.denoise_clip(x, torch.rand(x.shape[:3]), vector, seen, memory)
    out, W, T = out.unflatten(0, x.shape[:3]), model.config.window, clip.num_steps
    for i in range(T):
        own, past = torch.autograd.grad(out[1, 0, i].square().sum(), (x, obs), retain_graph=True)
        reached = own.flatten(3).abs().amax(-1) > 0
        assert reached.nonzero().tolist() == [[1, 0, i]]
        reached = past.flatten(2).abs().amax(-1) > 0
        assert reached[0].tolist() == [0 <= i - j < W for j in range(T)]
        assert not reached[1:].any()
        (past,) = torch.autograd.grad(h[:, i].square().sum(), obs, retain_graph=True)
        assert (past.flatten(2).abs().amax((0, 2)) > 0).tolist() == [0 <= i - j <= W for j in range(T)]


def test_histories(schema, stats, clip):
    """Clean; one in ten clean, and the others at levels of their own; all at levels of their own."""
    many = torch.Generator().manual_seed(0)
    clip = Clip(**{name: value.repeat(40, *[1] * (value.ndim - 1)) for name, value in vars(clip).items()})
    obs = clip.obs[:, :-1]
    shown, t = (m := make("causal_dit", schema, stats)).core.show_history(obs, m.sample_noise(clip, many))
    assert torch.equal(shown, obs)
    assert not t.any()
    shown, t = (m := make("far", schema, stats)).core.show_history(obs, m.sample_noise(clip, many))
    clean = t == CLEAN_TIME
    assert clean.float().mean().item() == pytest.approx(0.1, abs=0.04)
    assert torch.equal(shown[clean], obs[clean])
    assert ((t[~clean] > 0) & (t[~clean] < 1)).all()
    distance = (shown - obs).abs().flatten(2).mean(-1)
    assert torch.corrcoef(torch.stack([distance[~clean], t[~clean]]))[0, 1] > 0.9
    assert (m.core.remembered(obs[:, 0])[1] == CLEAN_TIME).all()
    shown, t = (m := make("diffusion_forcing", schema, stats)).core.show_history(
        obs, m.sample_noise(clip, many)
    )
    assert t.std() > 0.2
    shown, t = m.core.remembered(obs[:, 0])
    assert torch.equal(shown, (1 - LEVEL) * obs[:, 0] + LEVEL * m.core.history_noise)


def test_a_long_memory_costs_a_fraction_and_stays_flat(schema, stats, clip):
    model, whole = make("far_long", schema, stats, window=32), make("far", schema, stats, window=32, patch=1)
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    memory = s.cache.keys.data_ptr(), s.cache.nbytes
    assert s.cache.nbytes < 0.2 * whole.initial(clip.obs[:, 0], clip.state[:, 0]).cache.nbytes
    for _ in range(4):
        s = model.imagine(s, clip.action[:, 0], clip.obs[:, 1], 1)
    assert (s.cache.keys.data_ptr(), s.cache.nbytes) == memory
    branch = s.fork()
    one, other = (model.imagine(x, clip.action[:, 0], clip.obs[:, 1], 1) for x in (s, branch))
    assert torch.equal(one.obs, other.obs)


def test_a_frame_whose_patches_cannot_be_joined_is_refused(schema, stats):
    with pytest.raises(ValueError, match="far_long joins 4 × 4 patches, and 2 × 3"):
        make_model(replace(CONFIG, architecture="far_long"), schema, stats)


@pytest.mark.parametrize("kind", DENSE)
def test_all_layers_run_at_every_denoising_step_and_once_for_the_clean_frame(kind, schema, stats, clip):
    model, runs = make(kind, schema, stats), []
    for i, block in enumerate(model.core.net.blocks):
        block.register_forward_hook(lambda *_, i=i: runs.append(i))
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    model.imagine(s, clip.action[:, 0], torch.randn_like(clip.obs[:, 0]), num_steps=7)
    assert runs == list(range(4)) * 8


def test_regression_needs_no_noise_and_one_pass(schema, stats, clip):
    model, runs = make("regression", schema, stats), []
    model.core.decoder.register_forward_hook(lambda *_: runs.append(1))
    frames = [
        model.imagine(
            model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev),
            clip.action[:, 0],
            torch.randn_like(clip.obs[:, 0]),
            num_steps=steps,
        ).obs
        for steps in (1, 9)
    ]
    assert torch.equal(*frames)
    assert len(runs) == 2
    noise = model.sample_noise(clip, torch.Generator())
    other = replace(noise, x=-noise.x, t=-noise.t)
    assert model.loss(clip, noise)[0] == model.loss(clip, other)[0]


def test_copy_last_copies(schema, stats, clip):
    model = make("copy_last", schema, stats)
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    for i in range(clip.num_steps):
        s = model.imagine(s, clip.action[:, i], torch.randn_like(s.obs))
    assert torch.equal(s.obs, clip.obs[:, 0])
    assert torch.equal(s.state, clip.state[:, 0])
    still = replace(
        clip, obs=clip.obs[:, :1].expand_as(clip.obs), state=clip.state[:, :1].expand_as(clip.state)
    )
    _, parts = model.loss(
        still, replace(model.sample_noise(still, torch.Generator()), corruption_level=torch.zeros(3))
    )
    assert parts["pixels"] == 0
    assert parts["state"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"architecture": kind} for kind in ARCHITECTURES] + [{"encoder_layers": 0}],
    ids=[*ARCHITECTURES, "no encoder"],
)
def test_every_baseline_trains_saves_loads_and_steps_in_the_environment(training, changes):
    config = replace(TINY, **changes)
    folder = train(training(model=config, steps=1, eval_windows=2))
    world = World.load(folder)
    assert world.config == config
    env = gymnasium.make("scd_world/World-v0", world=str(folder))
    obs, _ = env.reset(seed=0)
    first = obs["pixels"].copy()
    for _ in range(5):
        obs, *_ = env.step(env.action_space.sample())
    if world.config.architecture == "copy_last":
        assert (obs["pixels"] == first).all()


@pytest.mark.parametrize("kind", ["causal_dit", "regression", "copy_last"])
def test_pictures_and_actions_alone_are_enough(training, blind_store, kind):
    config = training(
        model=replace(TINY, architecture=kind), data=DataConfig(kind="zarr", root=str(blind_store)), steps=1
    )
    assert World.load(train(config)).config.architecture == kind


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="architecture='gan': expected one of scd"):
        ModelConfig(architecture="gan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "far", "guidance": 1.5}, "architecture=far has none"),
        ({"architecture": "regression", "predict": "v"}, "set predict=x"),
    ],
)
def test_what_a_baseline_cannot_do_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(head="patch", copy_last=False, **changes)

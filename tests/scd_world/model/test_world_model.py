"""Causality, the cache, noise draws, guidance: what makes the model separable, tested on filled weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scd_world.model.config import ACTION_IN, ModelConfig
from scd_world.model.flow import denoising_times
from scd_world.model.losses import pixel_weight
from scd_world.model.noise import Noise, corrupt_history
from scd_world.model.world_model import WorldModel
from scd_world.prior.config import PriorConfig
from scd_world.robot_data.clip import Clip, previous_state_action
from tests.conftest import CONFIG, PRIOR, filled, make_model


def quiet(model: WorldModel, clip: Clip, **changes: torch.Tensor) -> Noise:
    """Noise with which the history stays as recorded."""
    noise = model.sample_noise(clip, torch.Generator().manual_seed(2))
    return replace(
        noise,
        state=torch.zeros_like(noise.state),
        corruption_level=torch.zeros_like(noise.corruption_level),
        **changes,
    )


def encode(model: WorldModel, clip: Clip) -> torch.Tensor:
    """h (B, T, M, D) of a clip."""
    state = clip.state[:, :-1]
    prior = model.prior(previous_state_action(state, clip.action, clip.prev), state, clip.action)
    return model.core.encoder(clip.obs[:, :-1], torch.cat([state, clip.action], -1), prior.delta_features)


def with_config(model: WorldModel, **changes) -> WorldModel:
    model.config = replace(model.config, **changes)
    return model


def test_encoder_sees_its_window_and_nothing_else(model, clip):
    """By gradients, exactly: one layer reads its window alone, and never what comes later."""
    obs = clip.obs[:, :-1].clone().requires_grad_()
    act = clip.action.clone().requires_grad_()
    model.core.encoder.blocks = model.core.encoder.blocks[:1]
    zeros = clip.state[:, :-1]
    h = model.core.encoder(obs, torch.cat([zeros, act], -1), torch.cat([zeros, zeros], -1))
    for i in range(clip.num_steps):
        grads = torch.autograd.grad(h[:, i].square().sum(), (obs, act), retain_graph=True)
        for grad in grads:
            reached = grad.flatten(2).abs().amax((0, 2)) > 0
            assert reached.tolist() == [0 <= i - j < model.config.window for j in range(clip.num_steps)]


def test_a_frame_is_predicted_from_its_past_alone(model, clip):
    """The loss on frame i + 1 must not move when later frames and actions do."""
    noise = quiet(model, clip)
    h = encode(model, clip)
    later = replace(
        clip,
        obs=torch.cat([clip.obs[:, :3], -clip.obs[:, 3:]], 1),
        state=torch.cat([clip.state[:, :3], -clip.state[:, 3:]], 1),
        action=torch.cat([clip.action[:, :3], -clip.action[:, 3:]], 1),
    )
    changed = encode(model, later)
    torch.testing.assert_close(h[:, :3], changed[:, :3], rtol=0, atol=0)
    assert (h[:, 3:] - changed[:, 3:]).abs().max() > 0.1
    only_first = replace(clip, valid=torch.tensor([1.0, 0, 0, 0, 0]).expand(3, 5))
    a = model.loss(only_first, noise)[1]["pixels"]
    b = model.loss(replace(only_first, obs=torch.cat([clip.obs[:, :2], -clip.obs[:, 2:]], 1)), noise)[1][
        "pixels"
    ]
    assert a == b > 0


def test_stepping_equals_the_full_forward_pass_also_past_the_window(model, clip):
    full = encode(model, clip)
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    with torch.no_grad():
        for i in range(clip.num_steps):
            encoded, _, _ = model.encode_and_predict(s, clip.action[:, i])
            torch.testing.assert_close(encoded.memory, full[:, i], rtol=1e-4, atol=1e-5)
            s = replace(
                s,
                obs=clip.obs[:, i + 1],
                state=clip.state[:, i + 1],
                prev=torch.cat([s.state, clip.action[:, i]], dim=-1),
                steps=s.cache.steps,
            )


def test_the_encoder_runs_once_and_the_decoder_num_steps_times(model, clip, monkeypatch):
    passes = {"encoder": 0, "decoder": 0}

    def counted(name, call):
        def wrapped(*args):
            passes[name] += 1
            return call(*args)

        return wrapped

    monkeypatch.setattr(model.core.encoder, "step", counted("encoder", model.core.encoder.step))
    monkeypatch.setattr(model.core.decoder, "denoise", counted("decoder", model.core.decoder.denoise))
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    model.imagine(s, clip.action[:, 0], torch.randn_like(clip.obs[:, 0]), num_steps=7)
    assert passes == {"encoder": 1, "decoder": 7}


def test_decoder_frames_are_independent(model, clip):
    F, M = 4, model.core.num_tokens
    x, ctx = torch.randn(F, 6, 8, 12, requires_grad=True), torch.randn(F, M, 32, requires_grad=True)
    seen = torch.randn(F, 12, 8, 12, requires_grad=True)  # last frame and the prior's drawing
    out = model.core.decoder(x, torch.rand(F), ctx, torch.randn(F, 5), seen)
    for grad in torch.autograd.grad(out[1].square().sum(), (x, ctx, seen)):
        assert (grad.flatten(1).abs().amax(1) > 0).tolist() == [False, True, False, False]


def test_draws_are_the_mean_of_single_draws(model, clip):
    noise = quiet(with_config(model, noise_samples=3), clip)
    together = model.loss(clip, noise)[0]
    singly = [
        model.loss(clip, replace(noise, t=noise.t[k : k + 1], x=noise.x[k : k + 1]))[0] for k in range(3)
    ]
    torch.testing.assert_close(together, torch.stack(singly).mean())


def test_a_noisier_frame_counts_less_with_a_ramp(model, clip):
    noise = quiet(model, clip)
    for normal in (-2.0, 2.0):
        noisy = replace(noise, t=torch.full_like(noise.t, normal))
        plain, ramped = (with_config(model, t_ramp=r).loss(clip, noisy)[1]["pixels"] for r in (0.0, 0.9))
        t = torch.sigmoid(torch.tensor(model.config.t_mean + model.config.t_std * normal))
        assert (ramped / plain).item() == pytest.approx(1 - 0.9 * t.item(), rel=1e-4)


def test_context_noise_acts_in_training_only_and_at_unit_scale(model, clip):
    g = torch.Generator().manual_seed(0)
    noise = model.sample_noise(clip, g)
    assert model.loss(clip, noise)[0] != model.loss(clip, replace(noise, ctx=-noise.ctx))[0]
    h = encode(model, clip)
    clean, shaken = (
        model.core.perturb_context(1000 * h, 0.0),
        model.core.perturb_context(1000 * h, 0.05 * noise.ctx),
    )
    assert (shaken - clean).div(model.core.ctx_scale).std().item() == pytest.approx(0.05, rel=0.05)

    def frame(eta: float) -> torch.Tensor:
        s = with_config(model, ctx_noise=eta).initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
        return model.imagine(s, clip.action[:, 0], clip.obs[:, 1], 2).obs

    assert torch.equal(frame(0.0), frame(0.7))


def test_own_history_replaces_the_past_of_some_clips_with_what_stepping_would_show(model, clip):
    noise = quiet(model, clip, self_rollout=torch.tensor([0.1, 0.9, 0.3]))
    obs = model.self_rollout_history(
        clip, noise, *corrupt_history(model.config, clip, noise, model.prior.delta_scale)
    )
    assert torch.equal(obs, clip.obs[:, :-1])  # a share of 0: nothing
    with_config(model, self_rollout_share=0.5)
    obs = model.self_rollout_history(
        clip, noise, *corrupt_history(model.config, clip, noise, model.prior.delta_scale)
    )
    assert torch.equal(obs[1], clip.obs[1, :-1])
    assert torch.equal(obs[:, 0], clip.obs[:, 0])
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    for i in range(clip.num_steps - 1):
        s = model.imagine(s, clip.action[:, i], noise.x[0].roll(1, 1)[:, i])
        for row in (0, 2):
            torch.testing.assert_close(obs[row, i + 1], s.obs[row], atol=1e-4, rtol=1e-4)
        s = replace(s, state=clip.state[:, i + 1])  # the picture is its own, the state the recorded one
    loss, _ = model.loss(clip, noise)
    parts = [model.loss(clip.rows(row), noise.rows(row))[0] for row in (slice(0, 1), slice(1, 3))]
    recorded = model.loss(clip, noise.of_recordings())[0]
    assert recorded == with_config(model, self_rollout_share=0.0).loss(clip, noise)[0] != loss
    with_config(model, self_rollout_share=0.5)
    # One process and several learn the same.
    torch.testing.assert_close(parts[0] / 3 + parts[1] * 2 / 3, loss, rtol=1e-3, atol=0)


def test_own_history_costs_as_much_as_the_clips_that_have_one(model, clip):
    def operations(share: float) -> int:
        with_config(model, self_rollout_share=share)
        noise = quiet(model, clip, self_rollout=torch.tensor([0.1, 0.9, 0.6]))
        with FlopCounterMode(display=False) as counted:
            model.self_rollout_history(clip, noise, clip.obs[:, :-1], clip.state[:, :-1])
        return counted.get_total_flops()

    assert operations(0.5) < 0.4 * operations(1.0)


def test_the_anchor_is_the_last_frame_that_was_shown_and_draws_along(schema, stats, clip):
    model = filled(make_model(replace(CONFIG, anchor_frame=True, skip_connection=True), schema, stats))
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    assert torch.equal(s.anchor, clip.obs[:, 0])
    s = replace(s, detail=torch.ones_like(s.obs))
    s = model.observe(s, clip.action[:, 0], clip.obs[:, 1], clip.state[:, 1])
    assert torch.equal(s.anchor, clip.obs[:, 1])
    assert s.detail.numel() == 0  # of another frame
    noise = torch.randn_like(s.obs)
    other = replace(s.fork(), anchor=s.anchor.roll(1, 0))
    after, otherwise = (model.imagine(at, clip.action[:, 1], noise) for at in (s, other))
    assert torch.equal(after.anchor, clip.obs[:, 1])
    assert not torch.equal(after.obs, otherwise.obs)
    assert torch.equal(after.state, otherwise.state)


def test_training_looks_at_the_anchor_as_stepping_does(schema, stats, clip):
    model = filled(make_model(replace(CONFIG, anchor_frame=True), schema, stats))
    noise = quiet(model, clip)
    losses = [model.loss(replace(clip, anchor=a), noise)[0] for a in (clip.anchor, clip.anchor.roll(1, 0))]
    assert losses[0] != losses[1]
    assert model.initial(clip.obs[:, 0], clip.state[:, 0]).anchor.shape == clip.anchor.shape
    plain = filled(make_model(CONFIG, schema, stats))
    assert plain.initial(clip.obs[:, 0], clip.state[:, 0]).anchor.numel() == 0


def test_what_is_looked_up_in_the_anchor_goes_by_where_it_was_seen(schema, stats, clip):
    """The state of the anchor stays with it, tells in training and in stepping, and only of the picture."""
    config = replace(CONFIG, anchor_frame=True, anchor_attention=True)
    model = filled(make_model(config, schema, stats))
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    s = model.observe(s, clip.action[:, 0], clip.obs[:, 1], clip.state[:, 1])
    where = torch.cat([clip.state[:, 1], clip.before_each[:, 1]], dim=-1)
    assert torch.equal(s.anchor_state, where)
    noise = torch.randn_like(s.obs)
    other = replace(s.fork(), anchor_state=-s.anchor_state)
    after, otherwise = (model.imagine(at, clip.action[:, 1], noise) for at in (s, other))
    assert torch.equal(after.anchor_state, where)
    assert not torch.equal(after.obs, otherwise.obs)
    assert torch.equal(after.state, otherwise.state)
    fixed = quiet(model, clip)
    here, there = (
        model.loss(replace(clip, anchor_state=to), fixed)[1] for to in (clip.state[:, 0], clip.state[:, 3])
    )
    assert here["pixels"] != there["pixels"]
    assert here["state"] == there["state"]
    plain = filled(make_model(replace(CONFIG, anchor_frame=True), schema, stats))
    assert plain.initial(clip.obs[:, 0], clip.state[:, 0]).anchor_state.numel() == 0


def test_in_training_a_frame_is_drawn_as_stepping_draws_it(schema, stats, clip):
    """With the same context, anchor and noisy frame, the decoder says the same."""
    model = filled(make_model(replace(CONFIG, anchor_frame=True, anchor_attention=True), schema, stats))
    obs, state = clip.obs[:, :-1], clip.state[:, :-1]
    noise = quiet(model, clip, ctx=torch.zeros_like(quiet(model, clip).ctx))
    encoded, _, following = model.encode_clip(clip, noise, obs, state)
    given = model.append_task(torch.cat([following, clip.action], -1), clip.task)
    x_t, t = torch.randn(1, *obs.shape), torch.full((1, *obs.shape[:2]), 0.7)
    found = model.look_up(following, clip.action, clip.anchor, clip.anchor_state)
    seen = model.pixel_inputs(obs, following, clip.anchor, found)
    whole = model.core.denoise_clip(x_t, t, encoded, given, seen).unflatten(0, obs.shape[:2])
    s = model.initial(obs[:, 0], state[:, 0], clip.prev, clip.task)
    s = replace(s, anchor=clip.anchor, anchor_state=clip.anchor_state)
    one, _, next_state = model.encode_and_predict(s, clip.action[:, 0])
    found = model.look_up(next_state, clip.action[:, 0], s.anchor, s.anchor_state)
    alone = model.core.decoder(
        x_t[0, :, 0],
        t[0, :, 0],
        one.tokens,
        given[:, 0],
        model.pixel_inputs(s.obs, next_state, s.anchor, found),
    )
    torch.testing.assert_close(alone, whole[:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("warp", [False, True])
def test_a_camera_that_rides_sees_last_frame_and_anchor_from_where_it_goes(
    schema, stats, clip, monkeypatch, warp
):
    """In training as in stepping; one that stands sees them as they were. A head that moves the last frame
    moves what is seen from there, and has the frame as it was besides."""
    config = replace(CONFIG, state_filter=True, anchor_frame=True, warp=warp)
    prior = PriorConfig(renderer_parts=2, scene_features=3, static_layer=True)
    model = filled(make_model(config, schema, stats, prior)).eval().requires_grad_(False)
    seen = []
    inputs = model.pixel_inputs
    monkeypatch.setattr(model, "pixel_inputs", lambda *given: seen.append(inputs(*given)) or seen[-1])

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        seen.clear()
        noise = quiet(model, clip, ctx=torch.zeros_like(quiet(model, clip).ctx))
        model.loss(clip, noise)
        s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev, clip.task)
        before = clip.anchor_state.tensor_split([clip.state.shape[-1]], dim=-1)
        s = replace(s, **model.look_at(clip.anchor, *before)._asdict())
        model.imagine(s, clip.action[:, 0], noise.x[0, :, 0])
        return seen[0][:, 0], seen[1]

    learned, stepped = both()
    raw = torch.cat([clip.obs[:, 0], clip.anchor], dim=1)
    torch.testing.assert_close(learned, raw)
    torch.testing.assert_close(stepped, raw)
    model.prior.renderer.cameras.set_moves(torch.tensor([1.0, 0.0]))
    learned, stepped = both()
    torch.testing.assert_close(stepped, learned, rtol=0, atol=1e-2)  # of noise, looked up by cubics
    assert torch.isclose(stepped, learned, rtol=1e-3, atol=1e-4).float().mean() > 0.999
    if warp:
        last, stepped = stepped.tensor_split([6], dim=1)
        torch.testing.assert_close(last, clip.obs[:, 0])
        stepped = torch.cat([stepped[:, 6:], stepped[:, :6]], dim=1)  # first the last frame
    rides, stands = (torch.arange(12).view(4, 3)[i::2].flatten() for i in (0, 1))
    torch.testing.assert_close(stepped[:, stands], raw[:, stands])
    assert not torch.isclose(stepped[:, rides], raw[:, rides], atol=1e-3).all()


def test_guidance_of_one_costs_and_changes_nothing(model, clip, monkeypatch):
    def frame(g: float) -> torch.Tensor:
        s = with_config(model, guidance=g, ctx_noise=0.3).initial(clip.obs[:, 0], clip.state[:, 0])
        return model.imagine(s, clip.action[:, 0], clip.obs[:, 1], 2).obs

    plain, almost, strong = frame(1.0), frame(1.0 + 1e-6), frame(2.0)
    torch.testing.assert_close(plain, almost, atol=1e-3, rtol=0)
    assert (plain - strong).abs().max() > 1e-2
    calls = []
    denoise = model.core.decoder.denoise
    monkeypatch.setattr(model.core.decoder, "denoise", lambda *a: calls.append(1) or denoise(*a))
    frame(1.0)
    assert len(calls) == 2


def test_the_same_imagined_cannot_be_stepped_twice(model, clip):
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    branch = s.fork()
    x, act = clip.obs[:, 1], clip.action[:, 0]
    first = model.imagine(s, act, x, 1)
    with pytest.raises(RuntimeError, match="fork"):
        model.imagine(s, act, x, 1)
    again = model.imagine(branch, act, x, 1)
    assert torch.equal(first.obs, again.obs)
    assert torch.equal(first.cache.keys, again.cache.keys)


def test_the_cache_is_flat(model, clip):
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    keys, size = s.cache.keys.data_ptr(), s.cache.nbytes
    for _ in range(20):
        s = model.imagine(s, clip.action[:, 0], clip.obs[:, 1], 1)
    assert (s.cache.keys.data_ptr(), s.cache.nbytes) == (keys, size)
    L, W, D = 2, model.config.window, 32
    assert size == 2 * L * W * model.core.num_tokens * D * 4 * len(clip.obs)


def test_the_last_step_of_an_episode_teaches_success_but_no_pixels(model, clip):
    """There is no frame after it: what stands there is a repetition and must not be learnt."""
    noise = quiet(model, clip)
    cut = replace(clip, valid=torch.tensor([1.0, 1, 1, 1, 0]).expand(3, 5))
    other = replace(cut, obs=torch.cat([clip.obs[:, :-1], -clip.obs[:, -1:]], 1), state=clip.state.clone())
    other.state[:, -1] = 9.0
    one, two = model.loss(cut, noise)[1], model.loss(other, noise)[1]
    assert all(torch.equal(one[name], two[name]) for name in ("pixels", "state"))
    flipped = replace(cut, success=torch.cat([cut.success[:, :-1], 1 - cut.success[:, -1:]], 1))
    assert model.loss(flipped, noise)[1]["success"] != one["success"]


@pytest.mark.slow
def test_a_frame_that_is_a_function_of_the_last_action_is_learnt(stats, schema):
    """o' = f(a) and nothing else: an action that is off by one step leaves nothing to learn from."""
    B, T = 8, 4
    torch.manual_seed(0)
    config = ModelConfig(
        width=32,
        heads=2,
        encoder_layers=1,
        decoder_layers=1,
        patch=4,
        window=2,
        fourier_octaves=2,
        state_noise=0.0,
    )
    model = make_model(config, schema, stats)
    g = torch.Generator().manual_seed(0)

    def make() -> Clip:
        act = torch.rand(B, T, 2, generator=g) * 2 - 1
        obs = torch.zeros(B, T + 1, 6, 8, 12)
        obs[:, 1:] = act[:, :, :1, None, None]
        state = torch.zeros(B, T + 1, 3)
        state[:, 1:, 0] = act[..., 1]
        nothing, task = torch.zeros(B, T), torch.zeros(B, dtype=torch.long)
        prev, valid = torch.zeros(B, 3 + 2), torch.ones(B, T)
        return Clip(obs, state, prev, act, nothing, nothing, valid, task, obs[:, 0], state[:, 0])

    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, fused=True)
    for _ in range(200):
        loss, _parts = model.loss(clip := make(), model.sample_noise(clip, g))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clip = make()
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    for i in range(T):
        s = model.imagine(s, clip.action[:, i], torch.randn(B, 6, 8, 12, generator=g), 4)
    error = (s.obs - clip.obs[:, -1]).abs().mean()
    assert error < 0.15, f"mean error {error:.3f}; predicting grey gives {clip.obs[:, -1].abs().mean():.3f}"
    assert (s.state[:, 0] - clip.state[:, -1, 0]).abs().mean() < 0.15


@pytest.mark.parametrize("prior", ["state", "none"])
@pytest.mark.parametrize("change", [{"cameras": ("one",)}, {"environment_state": ()}])
def test_other_robots(schema, stats, change, prior):
    """One camera; no state at all; no reward, no success."""
    from tests.conftest import make_clip, make_stats

    schema = replace(schema, **change, reward=False, success=False)
    if "environment_state" in change:
        schema = replace(schema, agent_pos=())
    config = ModelConfig(width=32, heads=2, encoder_layers=1, decoder_layers=1, patch=4)
    model = make_model(config, schema, make_stats(schema), PriorConfig(kind=prior))
    clip = make_clip(schema, 2, 3)
    loss, parts = model.loss(clip, model.sample_noise(clip, torch.Generator()))
    assert set(parts) == ({"pixels", "state"} if schema.state else {"pixels"})
    loss.backward()
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    assert model.imagine(s, clip.action[:, 0], torch.randn_like(clip.obs[:, 0])).obs.isfinite().all()


def test_a_patch_that_does_not_divide_the_frame_is_refused(schema, stats):
    with pytest.raises(ValueError, match="patch=5 does not divide the frame 8×12"):
        make_model(ModelConfig(width=32, heads=2, patch=5), schema, stats)


@pytest.mark.parametrize("action_in", ACTION_IN)
def test_the_action_reaches_the_networks_that_are_given_it_and_no_other(schema, stats, clip, action_in):
    """By what comes out, not by gradients: the change that the prior expects tells the action without one."""
    model = filled(make_model(replace(CONFIG, action_in=action_in), schema, stats))
    other = replace(clip, action=clip.action.roll(1, 0))
    h = encode(model, clip)
    assert torch.equal(h, encode(model, other)) == (action_in == "decoder")

    obs, state, half = clip.obs[:, 0], clip.state[:, 1], torch.full((len(clip.action),), 0.5)
    ctx, seen = model.core.perturb_context(h[:, 0], 0.0), model.pixel_inputs(obs, state, obs)
    drawn, otherwise = (
        model.core.unguided_velocity(ctx, torch.cat([state, act[:, 0]], dim=-1), seen)(obs, half, half)
        for act in (clip.action, other.action)
    )
    assert torch.equal(drawn, otherwise) == (action_in == "encoder")


@pytest.mark.parametrize("sees_commands", [True, False])
@pytest.mark.parametrize("kind", ["state", "none"])
def test_a_joint_is_drawn_by_where_it_is_and_not_by_its_command(schema, stats, clip, sees_commands, kind):
    """With dynamics that answer to nothing the same state follows, and the same picture, but by the other
    action. Without a prior nothing but the command says where a joint goes."""
    stats = replace(stats, commanded_by=torch.tensor([1.0, -1.0, -1.0]))  # ay moves x, and ax anything
    config = replace(CONFIG, sees_commands=sees_commands, anchor_frame=True, state_filter=True)
    model = filled(make_model(config, schema, stats, replace(PRIOR, kind=kind, scene_features=4)))
    if kind == "state":
        model.filter.strength.fill_(1.0)
        for values in model.prior.dynamics.state_dict().values():
            values.zero_()
        for values in model.core.heads.parameters():
            values.data.zero_()

    def drawn(turned: int | None = None) -> torch.Tensor:
        """Gives a picture and a loss, one number of all actions being turned round."""
        action = clip.action.clone()
        if turned is not None:
            action[..., turned] *= -1
        s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
        for i in range(2):  # the second frame is drawn by the first action, too
            s = model.imagine(s, action[:, i], torch.zeros_like(clip.obs[:, 0]))
        loss, _ = model.loss(replace(clip, action=action), quiet(model, clip))
        return torch.cat([s.obs.flatten(), loss.detach()[None]])

    hidden = kind == "state" and not sees_commands
    assert torch.equal(drawn(turned=1), drawn()) == hidden
    assert (drawn(turned=0) - drawn()).abs().max() > 1e-3


def test_what_is_learnt_goes_on_from_what_a_filter_measures(schema, stats, clip):
    """Noise is added to a frame between the recorded and the measured one, in a share of the clips and where
    stepping goes on from such a frame: not before the first denoising step has ended."""
    config = replace(CONFIG, state_filter=True, anchor_frame=True, measured_share=0.5)
    model = filled(make_model(config, schema, stats)).eval()
    B, T = clip.action.shape[:2]
    uniform = torch.tensor([0.0, 0.25, 0.75])
    ends = denoising_times(config.num_steps, config.t_shift)[1]
    t = torch.tensor([ends, ends + 0.01]).view(2, 1, 1).expand(2, B, T)
    off = model.off_measured(clip, uniform)
    part = model.measured_part(off[:, 1:], uniform, t)
    shown = model.look_at(clip.anchor, *clip.anchor_state.tensor_split([clip.state.shape[-1]], dim=-1))
    for i in range(T):
        drawn = model.draw(clip.state[:, i + 1], clip.before_each[:, i + 1], shown)
        m = model.filter.measured(drawn, shown, clip.task).frame
        way = torch.tensor([1.0, 0.5, 0.0])[:, None, None, None]
        expected = (1 - ends) * way * (m - clip.obs[:, i + 1])
        torch.testing.assert_close(part[0, :, i], expected, atol=1e-5, rtol=1e-4)
    assert not part[1].any()
    assert not off[2].any()  # a clip that learns from recordings alone
    noise = quiet(model, clip, measured=uniform)
    loss, _ = model.loss(clip, noise)
    assert loss != model.loss(clip, noise.of_recordings())[0]
    assert quiet(make_model(CONFIG, schema, stats), clip).measured is None
    with pytest.raises(ValueError, match="set state_filter=true"):
        replace(CONFIG, measured_share=0.5)


def test_the_past_too_is_what_a_filter_measures(schema, stats, clip):
    """After some steps no recorded frame is left to look back at: in one half of the clips that go on from
    what is measured, their past is between the recorded and the measured one."""
    config = replace(CONFIG, state_filter=True, anchor_frame=True, measured_share=0.5, frame_blend=0.0)
    model = filled(make_model(config, schema, stats)).eval()
    seen, encode = [], model.core.encode_clip

    def look(obs, *given):
        seen.append(obs)
        return encode(obs, *given)

    model.core.encode_clip = look
    uniform, level = torch.tensor([0.0, 0.25, 0.75]), torch.tensor([0.4, 0.75, 1.0])
    model.loss(clip, replace(quiet(model, clip, measured=uniform), corruption_level=level))
    off = model.off_measured(clip, uniform)[:, :-1]
    past = clip.obs[:, :-1]
    assert seen[0][0].equal(past[0])  # goes on from what is measured, after a recorded past
    torch.testing.assert_close(seen[0][1], past[1] + 0.5 * off[1])
    assert off[1].abs().max() > 0.01
    assert seen[0][2].equal(past[2])
    clip = replace(clip, anchor=clip.obs[:, 0], anchor_state=torch.cat([clip.state[:, 0], clip.prev], dim=-1))
    first = model.off_measured(clip, uniform)[:, 0]
    torch.testing.assert_close(
        first, torch.zeros_like(first), atol=1e-5, rtol=0
    )  # of itself a frame is known


def test_where_an_action_cannot_go_is_refused():
    with pytest.raises(ValueError, match="expected one of both, encoder, decoder"):
        ModelConfig(action_in="nowhere")
    with pytest.raises(ValueError, match="causal_dit has no encoder"):
        ModelConfig(architecture="causal_dit", action_in="encoder")


def test_without_a_prior_there_is_no_part_of_one(schema, stats, clip):
    """Plain SCD: in the class, the weights and what a step costs; the heads alone move the state."""
    model = make_model(CONFIG, schema, stats, PriorConfig(kind="none"))
    assert not [name for name in model.state_dict() if not name.startswith("core.")]
    assert not list(model.prior.parameters())
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    s = model.imagine(s, clip.action[:, 0], torch.randn_like(clip.obs[:, 0]))
    assert torch.equal(s.state, clip.state[:, 0])  # untrained heads say nothing
    assert s.ensemble.shape[1] == 0
    assert model.prior.expected_error(s.ensemble).isnan().all()
    loss, parts = model.loss(clip, model.sample_noise(clip, torch.Generator().manual_seed(0)))
    assert set(parts) == {"pixels", "state", "reward", "success"}
    loss.backward()
    assert filled(model).imagine(s, clip.action[:, 1], clip.obs[:, 1]).state.sub(s.state).abs().amax() > 0


def test_without_a_prior_the_action_is_masked_and_the_task_is_not(schema, stats, clip):
    """The encoder's features are then the task alone: masking an expected change may not touch it."""
    two = replace(schema, tasks=("one", "other"))
    model = filled(make_model(replace(CONFIG, action_in="decoder"), two, stats, PriorConfig(kind="none")))
    state_action = torch.cat([clip.state[:, :-1], clip.action], -1)
    one, other = (torch.tensor([[task]]).expand(3, 5, 2).float() for task in ([1.0, 0.0], [0.0, 1.0]))
    h = [model.core.encode(clip.obs[:, :-1], state_action, task) for task in (one, other)]
    assert (h[0] - h[1]).abs().max() > 1e-3


def test_what_moves_counts_more_in_the_camera_that_sees_it(clip):
    """A wrist's camera, all of whose pixels change, made all pixels of a still one count as much."""
    config = replace(CONFIG, change_weight=7.0, foreground_weight=0.0)
    obs = torch.zeros(1, 3, 6, 4, 4)
    obs[:, 1:, 4] = 1  # of the second camera all, one color
    obs[:, 1:, 0, 1, 2] = 1  # of the first camera one pixel
    weight = pixel_weight(config, torch.zeros(6, 4, 4), replace(clip.rows(slice(0, 1)), obs=obs))
    assert (weight[0, 0, 3:] == 8).all()
    assert (weight[0, 0, :3] == 8).sum() == 3
    assert (weight[0, 0, :3, 1, 2] == 8).all()
    assert (weight[0, 1] == 1).all()  # nothing moves any more

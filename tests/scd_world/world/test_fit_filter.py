"""What the state alone draws corrects what is imagined, as far as that was nearer to recordings."""

import math
from dataclasses import replace

import pytest
import torch
from tqdm import tqdm

from scd_world.model import world_model
from scd_world.model.filter import (
    OPEN,
    STEPS,
    WHOLE,
    Drawn,
    Measured,
    StateFilter,
    by_camera,
    drawing_error,
    gaussian,
    kalman_gain,
    motion_of,
)
from scd_world.model.prior import UNSEEN, ShownFrame
from scd_world.model.rollout_state import Shown
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.prior.config import PriorConfig
from scd_world.robot_data.clip import Clip
from scd_world.world import fit_filter as fitting
from scd_world.world.fit_filter import FEWEST, Rollouts, fit_filter
from scd_world.world.world import World
from tests.conftest import CONFIG, filled, make_clip, make_model

CONTEXT = 2
FILTERED = replace(CONFIG, state_filter=True, anchor_frame=True)


@pytest.fixture
def both(schema, stats) -> WorldModel:
    """A model whose filter corrects what is first seen, and the frame that comes of it."""
    return filled(make_model(FILTERED, schema, stats)).eval().requires_grad_(False)


@pytest.fixture
def model(both, monkeypatch) -> WorldModel:
    """One whose filter corrects frames alone."""
    monkeypatch.setattr(fitting, "fit_first_strength", lambda *_: None)
    return both


@pytest.fixture
def clip(clip) -> Clip:
    return replace(clip, valid=torch.ones_like(clip.valid))


def rollout(model: WorldModel, clip: Clip, seed: int = 0) -> list[torch.Tensor]:
    """Imagines the clip's frames after those that are shown, with the noise of `fit_filter`."""
    generator, frames = torch.Generator().manual_seed(seed), []
    s = observe_context(model, clip, CONTEXT)
    for i in range(CONTEXT - 1, clip.num_steps):
        s = model.imagine(s, clip.action[:, i], torch.randn(s.obs.shape, generator=generator))
        frames.append(s.obs)
    return frames


def measure(model: WorldModel, clip: Clip) -> None:
    fit_filter(model, clip, CONTEXT, seed=0, decode=lambda obs: obs)


def rollouts(clip: Clip) -> Rollouts:
    return Rollouts(clip, CONTEXT, 0, lambda obs: obs, tqdm(disable=True))


def costs_of(costs: list[float], off: tuple[float, ...] = (0.0, 0.0)) -> torch.Tensor:
    """What two cameras' pictures cost, and how far off they are, (2, V)."""
    return torch.tensor([costs, off])


def state_there(clip: Clip, i: int) -> torch.Tensor:
    """(B, 2·S + A)"""
    return torch.cat([clip.state[:, i], clip.before_each[:, i]], dim=-1)


def measured_as(drawn: torch.Tensor, shown: Shown, age: torch.Tensor | None = None) -> Measured:
    """What a filter is told where what is drawn is all that it knows."""
    age = torch.zeros(len(drawn)).long() if age is None else age
    return Measured(drawn, drawn, shown, age, torch.zeros(len(drawn)))


def shown_as(anchor: torch.Tensor, drawn: torch.Tensor) -> Shown:
    """A frame that was shown, and what was drawn of it."""
    error = drawing_error(anchor, drawn)
    known = Shown.undrawn(anchor, anchor[:, 0, 0, :0])
    return known._replace(anchor_drawn=drawn, drawing_error=error, unaided_error=error)


def with_future(clip: Clip, frames: list[torch.Tensor]) -> Clip:
    return replace(clip, obs=torch.cat([clip.obs[:, :CONTEXT], torch.stack(frames, dim=1)], dim=1))


@pytest.mark.parametrize(("seconds", "rows"), [(math.inf, 12), (80.0, 12), (40.5, 6), (0.0, FEWEST)])
def test_as_many_rows_are_measured_as_there_is_time_for(model, schema, monkeypatch, seconds, rows):
    """By a clock on which every step takes a second: 20 rollouts of 4 steps."""
    clip, clock = make_clip(schema, B=12, T=5), iter(range(100))
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: next(clock))
    measured = fit_filter(model, clip, CONTEXT, 0, lambda obs: obs, seconds)
    assert measured == rows
    assert model.filter.error_weights.any()


def test_until_it_is_measured_nothing_is_corrected(model, clip):
    before = rollout(model, clip)
    for p in model.prior.renderer.parameters():
        p.add_(torch.randn_like(p))
    torch.testing.assert_close(rollout(model, clip), before, rtol=0, atol=0)


def test_where_the_imagination_is_right_nothing_is_corrected(model, clip):
    measure(model, with_future(clip, rollout(model, clip)))
    assert not model.filter.strength.any()


def test_where_the_drawing_is_right_it_is_taken(model, clip, monkeypatch):
    monkeypatch.setattr(fitting, "REACHES", (1e-9,))  # of nothing that was shown: the drawing alone
    model.filter.reach.fill_(1e-9)
    model.filter.strength.fill_(1e6)
    model.filter.farthest.fill_(1e6)
    drawn = rollout(model, clip)
    s = observe_context(model, clip, CONTEXT)
    s = model.imagine(s, clip.action[:, CONTEXT - 1], torch.randn_like(s.obs))
    torch.testing.assert_close(s.obs, model.prior.render(s.state), atol=1e-4, rtol=0)
    measure(model, with_future(clip, drawn))
    off = observe_context(model, clip, CONTEXT).drawing_error
    assert (model.filter.strength / (model.filter.strength + off.amax(0)) > 0.9).all()


def test_the_strength_is_the_one_of_least_error_where_something_was_recorded(model, clip, monkeypatch):
    """Of the first step, whose past nothing has corrected; of a row that ended with its context nothing."""
    monkeypatch.setattr(fitting, "REACHES", (0.3,))
    monkeypatch.setattr(fitting, "WIDTHS", (0.0,))
    monkeypatch.setattr(fitting, "SHARES", (1.0,))
    plain = rollout(model, clip)
    model.filter.reach.fill_(0.3)
    model.filter.strength.fill_(0.04)
    model.filter.farthest.fill_(1e6)
    between = rollout(model, clip)[0]
    spoilt = between.clone()
    spoilt[0] = plain[0][0]
    recorded = replace(with_future(clip, [spoilt, *plain[1:]]), valid=clip.valid.clone())
    recorded.valid[0] = 0.0
    measure(model, recorded)
    torch.testing.assert_close(model.filter.strength[0], torch.full((2,), 0.04), rtol=0.2, atol=0)
    assert (model.filter.strength >= 0).all()


def test_a_strength_may_fall_again(model, clip, monkeypatch):
    """Recorded is what comes of drawings that are taken whole at first, and not at all from then on."""
    monkeypatch.setattr(fitting, "UNSHARP", 0.0)
    for name, value in (("reach", 0.3), ("farthest", 1e6), ("strength", 0.0)):
        getattr(model.filter, name).fill_(value)
    model.filter.strength[:2] = WHOLE
    recorded = with_future(clip, rollout(model, clip))
    fitting.fit_strength(model, rollouts(recorded))
    assert (model.filter.strength[:2] > 0.5 * WHOLE).all()
    assert (model.filter.strength[2:] < 1e-3).all()


def test_steps_beyond_those_measured_are_corrected_as_the_last_one(model, schema):
    clip = make_clip(schema, B=3, T=5)
    measure(model, clip)
    measured = clip.num_steps - CONTEXT + 1
    assert (model.filter.strength[measured:] == model.filter.strength[measured - 1]).all()
    model.filter.strength[-1] = 0.1
    model.filter.farthest.fill_(1e6)
    late = torch.tensor([STEPS + 100, STEPS - 1, STEPS])
    obs, last, drawn, *shown = clip.obs[:1, :5].expand(3, -1, -1, -1, -1).unbind(1)
    once = model.filter(obs, last, torch.ones(3), measured_as(drawn, shown_as(*shown), late)).frame
    torch.testing.assert_close(once, once[:1].expand_as(once))
    assert not torch.equal(once, obs)


def test_the_scene_that_is_drawn_is_the_one_that_was_shown_last(schema, stats, clip, world, tmp_path):
    """In measuring, stepping and training; and a world keeps what it is read by."""
    prior = PriorConfig(renderer_parts=2, scene_features=3, static_layer=True)
    model = filled(make_model(FILTERED, schema, stats, prior)).eval().requires_grad_(False)
    measure(model, clip)
    assert (model.filter.farthest == OPEN).all()  # it is trusted of poses unlike all others, too
    cameras = model.prior.renderer.cameras
    cameras.set_moves(torch.tensor([1.0, 0.0]))
    cameras.lag.fill_(0.5)
    model.filter.strength.fill_(1e12)
    model.filter.reach.fill_(1e-9)  # of nothing that was shown: the drawing alone
    model.filter.kernel.copy_(gaussian(0.0))
    model.filter.still.zero_()
    s = observe_context(model, clip, CONTEXT)
    scene = model.prior.scene(clip.obs[:, CONTEXT - 1], state_there(clip, CONTEXT - 1))
    assert scene.features.shape == (len(clip.obs), 3)
    s = model.imagine(s, clip.action[:, CONTEXT - 1], torch.randn_like(s.obs))
    torch.testing.assert_close(s.obs, model.prior.render(s.state, s.prev, scene), atol=1e-4, rtol=0)
    again = World.load(World(model, stats, world.starts).save(tmp_path / "world"))
    assert again.prior_config.scene_features == 3
    assert again.prior_config.static_layer
    scenes = [m.prior.scene(clip.obs[:, 0], state_there(clip, 0)) for m in (again.model, model)]
    torch.testing.assert_close(*scenes)
    followed = [m.draw(s.state, s.prev, s.shown).followed for m in (again.model, model)]
    torch.testing.assert_close(*followed)
    rides = (followed[0] != UNSEEN).flatten(3).any(3).any(1)
    assert rides[:, :3].any()
    assert not rides[:, 3:].any()


def test_where_it_is_known_what_moved_no_reach_is_asked(schema, stats, clip, world, tmp_path):
    """What is measured is what dense motion makes of the shown frame; and a world keeps it."""
    prior = PriorConfig(renderer_parts=2, scene_features=3, static_layer=True, motion_channels=8)
    model = filled(make_model(FILTERED, schema, stats, prior)).eval().requires_grad_(False)
    model.filter.reach.fill_(0.123)
    measure(model, clip)
    assert (model.filter.reach == 0.123).all()
    s = observe_context(model, clip, CONTEXT)
    seen = model.measure(s.state, s.prev, s.shown, s.steps_since_observed)
    there = ShownFrame(s.anchor, s.anchor_state, s.anchor_drawn)
    moved, log_error = model.prior.move_shown(seen.drawn, s.state, s.prev, there, None)
    torch.testing.assert_close(seen.frame, moved)
    torch.testing.assert_close(seen.log_error, log_error.mean(1))
    assert seen.log_error.std() > 0
    assert not torch.equal(seen.frame, seen.drawn)
    again = World.load(World(model, stats, world.starts).save(tmp_path / "world"))
    assert again.prior_config.motion_channels == 8
    torch.testing.assert_close(
        again.model.measure(s.state, s.prev, s.shown, s.steps_since_observed).frame, seen.frame
    )


def test_a_drawing_that_was_far_off_corrects_little():
    """Each camera by itself; and where the drawing says that nothing has changed, what was shown is kept."""
    corrects = StateFilter(cameras=2)
    corrects.strength.fill_(0.05)
    corrects.reach.fill_(0.1)
    corrects.farthest.fill_(2.0)
    g = torch.Generator().manual_seed(0)
    anchor, drawn, obs = torch.rand(3, 1, 6, 8, 8, generator=g)
    shown_drawn = anchor.clone()
    shown_drawn[:, 3:] += 1.0  # the second camera's
    last, motion, first = torch.zeros_like(obs), torch.ones(1), torch.zeros(1, dtype=torch.long)
    shown = shown_as(anchor, shown_drawn)
    measured = corrects.measured(Drawn(drawn, None), shown, first)
    frame = corrects(obs, last, motion, measured).frame
    torch.testing.assert_close(frame[:, :3], drawn[:, :3])  # was right where it was seen: it is taken
    far = (frame - obs)[:, 3:].abs().mean() / (drawn - obs)[:, 3:].abs().mean()
    assert far < 0.1
    corrects.farthest[1] = 0.4
    gated = corrects(obs, last, motion, measured).frame
    assert torch.equal(gated[:, 3:], obs[:, 3:])  # farther off than ever when the strength was measured
    assert torch.equal(gated[:, :3], frame[:, :3])
    still = corrects.measured(Drawn(shown_drawn, None), shown, first)
    torch.testing.assert_close(still.frame, anchor)
    assert still.drawn is shown_drawn


def test_what_a_drawing_does_not_know_is_seen_where_it_lies_now():
    """A camera has gone on by two cells; what rides along on the left stays where it was in the picture."""
    corrects = StateFilter(cameras=1)
    corrects.reach.fill_(0.1)
    g = torch.Generator().manual_seed(0)
    anchor, shown_drawn = torch.rand(2, 1, 3, 8, 12, generator=g)
    rides = torch.arange(12) < 4

    def gone(frame: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(12) < 2, UNSEEN, frame.roll(2, dims=-1))

    def now(frame: torch.Tensor) -> torch.Tensor:
        return torch.where(rides, frame, gone(frame))

    followed = torch.stack([gone(anchor), gone(shown_drawn)], dim=1)

    def measured(followed: torch.Tensor | None) -> torch.Tensor:
        drawn, shown = Drawn(now(shown_drawn), followed), shown_as(anchor, shown_drawn)
        return corrects.measured(drawn, shown, torch.zeros(1).long()).frame

    found = measured(followed)
    sure = torch.ones(12, dtype=torch.bool)
    sure[3:5] = False  # likeness is a mean over three places
    torch.testing.assert_close(found[..., sure], now(anchor)[..., sure], atol=1e-3, rtol=0)
    as_it_was = measured(None)
    torch.testing.assert_close(as_it_was[..., :3], anchor[..., :3], atol=1e-3, rtol=0)
    assert (as_it_was - now(anchor))[..., 5:].abs().mean() > 10 * (found - now(anchor))[..., 5:].abs().mean()


def test_what_is_right_in_the_large_alone_is_corrected_in_the_large(model, clip, monkeypatch):
    """A recording that differs from what was imagined by a coarse correction: its grain is the imagined."""
    monkeypatch.setattr(fitting, "REACHES", (0.3,))
    monkeypatch.setattr(fitting, "WIDTHS", (0.0, 2.0))
    model.filter.reach.fill_(0.3)
    model.filter.farthest.fill_(1e6)
    model.filter.grain.zero_()  # of a world from before: measured anew it takes grain, too
    for width in (2.0, 0.0):
        model.filter.kernel.copy_(gaussian(width))
        model.filter.strength.fill_(1.0)
        measure(model, with_future(clip, rollout(model, clip)))
        assert torch.equal(model.filter.kernel, gaussian(width).expand(2, -1))
        assert model.filter.grain == 1


@pytest.mark.parametrize("seen", [slice(0, 6), slice(6, 12)])
def test_what_is_seen_decides_whether_the_drawing_is_taken(model, clip, monkeypatch, seen):
    """The left half was recorded as it is drawn, the right one as it is imagined; a codec shows one alone."""
    monkeypatch.setattr(fitting, "REACHES", (1e-9,))  # of nothing that was shown: the drawing alone
    plain = rollout(model, clip)
    for name, value in (("reach", 1e-9), ("strength", 1e6), ("farthest", 1e6)):
        getattr(model.filter, name).fill_(value)
    halves = [
        torch.cat([d[..., :6], p[..., 6:]], dim=-1) for d, p in zip(rollout(model, clip), plain, strict=True)
    ]
    fit_filter(model, with_future(clip, halves), CONTEXT, seed=0, decode=lambda obs: obs[..., seen])
    taken = model.filter.strength.min() == fitting.STRENGTHS[-1]
    assert bool(taken) == (seen.start == 0)


def test_each_camera_gets_the_blur_and_the_share_that_serve_it_most(model, clip, monkeypatch):
    told = iter([[5.9, 5.1], [5.3, 5.4], [5.4, 5.4]])

    def fit_strength(model, *_):
        model.filter.strength += 1.0
        return costs_of(next(told))

    monkeypatch.setattr(fitting, "fit_strength", fit_strength)
    monkeypatch.setattr(fitting, "WIDTHS", (0.0, 2.0, 4.0))
    monkeypatch.setattr(fitting, "REACHES", (0.3,))
    costs = {0.5: [1.1, 3.0], 1.0: [2.0, 2.0], 0.25: [1.2, 3.0], 0.0: [1.4, 3.0]}

    def corrected_cost(model, rollouts, strength):
        return costs_of(costs.get(strength[0, 0].item() / 2.0, [9.0, 9.0]))

    monkeypatch.setattr(fitting, "corrected_cost", corrected_cost)
    measure(model, clip)
    assert torch.equal(model.filter.kernel, torch.stack([gaussian(2.0), gaussian(0.0)]))
    assert torch.equal(model.filter.strength, torch.tensor([[0.5, 1.0]]).expand(STEPS, -1))


@pytest.mark.parametrize(
    ("costs", "others", "reach"),
    [
        ([5.0, 5.04, 4.98, 5.02], [3.0, 3.0, 3.0, 2.0], (0.6, 0.6)),  # all about as good: the largest
        ([5.2, 4.8, 4.9, 5.1], [3.0, 2.7, 3.1, 2.6], (0.3, 0.6)),  # each camera its own
        ([5.0, 5.3, 4.0, 4.0], [3.0, 3.3, 2.0, 2.0], (0.08, 0.15)),  # no further than the first that is worse
    ],
)
def test_the_reach_is_the_largest_that_serves_a_rollout_as_well(
    model, clip, monkeypatch, costs, others, reach
):
    """From that on which serves single frames: none that keeps less of what was shown."""
    tried = []

    def fit_strength(model, rollouts):
        tried.append(model.filter.reach.tolist())
        model.filter.strength.fill_(len(tried))
        return costs_of([costs[len(tried) - 1], others[len(tried) - 1]])

    monkeypatch.setattr(fitting, "fit_strength", fit_strength)
    found = fitting.fit_reach(model.filter, model, rollouts(clip), torch.tensor([3, 4]))
    for camera, each in enumerate(([0.08, 0.15, 0.3, 0.6], [0.15, 0.3, 0.6, 0.6])):
        assert [t[camera] for t in tried] == pytest.approx(each[: len(tried)])
        assert model.filter.reach[camera].item() == pytest.approx(reach[camera])
        number = found.strength[0, camera].int().item() - 1
        assert tried[number][camera] == pytest.approx(reach[camera])
        assert found.cost[0, camera] == pytest.approx((costs, others)[camera][number])


def test_the_largest_reach_is_tried_whatever_serves_single_frames(model, clip, monkeypatch):
    monkeypatch.setattr(fitting, "fit_strength", lambda *_: torch.zeros(2, 2))
    fitting.fit_reach(model.filter, model, rollouts(clip), torch.tensor([0, 2]))
    assert model.filter.reach.tolist() == pytest.approx([0.6, 0.6])


def test_the_first_correction_says_where_denoising_begins(both, clip):
    """It is as strong as recorded frames say: of two cameras one was recorded as it is drawn when denoising
    begins at the drawing, the other one as it is drawn from noise alone."""
    corrects = both.filter
    corrects.farthest.fill_(OPEN)
    corrects.reach.fill_(0.3)
    alone = rollout(both, clip)
    corrects.set_first_strength(torch.full((2,), WHOLE))
    begun = rollout(both, clip)
    assert all((a - b).abs().mean() > 1e-3 for a, b in zip(alone, begun, strict=True))
    recorded = [torch.cat([b[:, :3], a[:, 3:]], dim=1) for a, b in zip(alone, begun, strict=True)]
    corrects.strength.zero_()
    fitting.fit_first_strength(corrects, both, rollouts(with_future(clip, recorded)))
    gain = kalman_gain(corrects.first_strength, observe_context(both, clip, CONTEXT).drawing_error)
    assert (gain[:, 0] > 0.9).all()
    assert not gain[:, 1].any()


def test_with_one_denoising_step_what_is_first_seen_is_the_frame(both, clip):
    both.config = replace(both.config, num_steps=1)
    both.filter.farthest.fill_(OPEN)
    both.filter.set_first_strength(torch.full((2,), WHOLE))
    s = observe_context(both, clip, CONTEXT)
    last, s = s, both.imagine(s, clip.action[:, CONTEXT - 1], torch.randn_like(s.obs))
    measured = fitting.measured_of(both, s, last).frame.clamp(-1, 1)
    torch.testing.assert_close(s.obs, measured, atol=1e-4, rtol=0)


def test_where_the_drawing_is_taken_whole_the_first_step_asks_no_decoder(both, clip, monkeypatch):
    """The frames are those of a correction that looks at what the first step sees; in training, where some
    rows are corrected by nothing, each is looked at."""
    corrects, asked = both.filter, []
    denoise = both.core.decoder.denoise
    monkeypatch.setattr(both.core.decoder, "denoise", lambda *given: asked.append(1) or denoise(*given))
    corrects.farthest.fill_(OPEN)

    def drawn(strength: float, other: float) -> tuple[torch.Tensor, int]:
        asked.clear()
        corrects.set_first_strength(torch.tensor([strength, other]))
        return torch.stack(rollout(both, clip)), len(asked)

    steps, frames = both.config.num_steps, clip.num_steps - CONTEXT + 1
    whole, calls = drawn(1e6, 1e6)
    assert calls == (steps - 1) * frames
    both.load_state_dict(both.state_dict())
    assert corrects.first == "whole"
    both.train()
    looked, calls = drawn(1e6, 1e6)
    assert calls == steps * frames
    torch.testing.assert_close(whole, looked, atol=1e-4, rtol=0)
    both.eval()
    nothing, calls = drawn(0.0, 0.0)
    assert calls == steps * frames
    assert (nothing - whole).abs().max() > 0.05
    assert drawn(WHOLE, 0.1)[1] == steps * frames
    corrects.farthest.fill_(1.0)  # a gate that may shut, for a row by itself
    assert drawn(WHOLE, WHOLE)[1] == steps * frames


def test_a_frame_that_was_shown_is_looked_at_once(schema, stats, clip, monkeypatch):
    """Its scene and its drawing stay until another one is shown, of whichever row."""
    prior = PriorConfig(renderer_parts=2, scene_features=3, static_layer=True)
    model = filled(make_model(FILTERED, schema, stats, prior)).eval().requires_grad_(False)
    s = observe_context(model, clip, CONTEXT)
    anchor, state, prev = (
        clip.obs[:, CONTEXT - 1],
        clip.state[:, CONTEXT - 1],
        clip.before_each[:, CONTEXT - 1],
    )
    scene = model.prior.scene(anchor, torch.cat([state, prev], dim=-1))
    torch.testing.assert_close(s.shown.scene, scene)
    drawn = model.prior.render(state, prev, scene)
    torch.testing.assert_close(s.anchor_drawn, drawn)
    torch.testing.assert_close(s.drawing_error, drawing_error(anchor, drawn))
    bare = model.prior.render(state, prev, scene._replace(still=scene.still[:, :0]))
    torch.testing.assert_close(s.unaided_error, drawing_error(anchor, bare))
    assert not torch.allclose(s.unaided_error, s.drawing_error)
    looked = []
    monkeypatch.setattr(model.prior, "scene", lambda *given: looked.append(given) or scene)
    after = model.imagine(s, clip.action[:, 1], torch.randn_like(s.obs))
    assert not looked
    torch.testing.assert_close(after.shown, s.shown, rtol=0, atol=0)


def test_a_blur_keeps_what_is_coarse_and_takes_what_is_fine():
    corrects = StateFilter(cameras=2)
    even = torch.ones(1, 6, 8, 12)
    fine = even * torch.tensor([1.0, -1.0]).repeat(6)
    both = (even + fine).clone()
    assert torch.equal(corrects.coarse(both), both)  # until it is measured there is none
    corrects.kernel[1] = gaussian(2.0)
    out = corrects.coarse(both)
    assert torch.equal(out[:, :3], both[:, :3])
    torch.testing.assert_close(out[:, 3:, :, 4:8], even[:, 3:, :, 4:8], atol=0.05, rtol=0)
    upright = corrects.coarse(both.mT).mT  # both axes alike
    torch.testing.assert_close(upright, out)


def test_the_grain_of_a_drawing_is_taken_with_the_square_of_the_gain():
    """All of it where the drawing is trusted wholly; a filter of before takes none."""
    corrects = StateFilter(cameras=1)
    g = torch.Generator().manual_seed(0)
    obs, drawn = torch.rand(2, 1, 3, 16, 16, generator=g)
    corrects.reach.fill_(1e-9)
    corrects.farthest.fill_(OPEN)
    corrects.kernel.copy_(gaussian(2.0))
    shown = shown_as(obs, obs)._replace(drawing_error=torch.ones(1, 1))  # so that the gain is P / (P + 1)

    def corrected(strength: float) -> torch.Tensor:
        corrects.strength.fill_(strength)
        return corrects(obs, obs, torch.ones(1), measured_as(drawn, shown)).frame

    torch.testing.assert_close(corrected(1e9), drawn)
    coarse = corrects.coarse(drawn - obs)
    torch.testing.assert_close(corrected(1.0), obs + 0.5 * coarse + 0.25 * (drawn - obs - coarse))
    before = {name: value for name, value in corrects.state_dict().items() if name != "grain"}
    corrects.load_state_dict(before)
    torch.testing.assert_close(corrected(1.0), obs + 0.5 * coarse)


@pytest.mark.parametrize("keeps", [True, False])
def test_where_recordings_rest_the_frame_before_is_kept(model, clip, monkeypatch, keeps):
    """The first row's state rests; whether its picture does the recordings tell, and other rows go on."""
    for module in (world_model, fitting):
        monkeypatch.setattr(module, "motion_of", lambda last, state, usual: torch.tensor([0.015, 1.0, 1.0]))
    plain = rollout(model, clip)
    recorded = [frame.clone() for frame in plain]
    if keeps:
        for frame in recorded:
            frame[0] = clip.obs[0, CONTEXT - 1]
    measure(model, with_future(clip, recorded))
    assert model.filter.still.item() == pytest.approx(0.02 if keeps else 0.0)
    for frame, was in zip(rollout(model, clip), plain, strict=True):
        torch.testing.assert_close(frame[1:], was[1:])
        assert torch.equal(frame[0], clip.obs[0, CONTEXT - 1]) == keeps


def test_a_frame_that_is_imagined_no_nearer_than_the_one_before_is_not_asked_for(model, clip, monkeypatch):
    """It would drift: a hundredth of the error is not worth a change, a tenth is."""
    for module in (world_model, fitting):
        monkeypatch.setattr(module, "motion_of", lambda last, state, usual: torch.full((3,), 0.015))
    plain, shown = rollout(model, clip), clip.obs[:, CONTEXT - 1]
    for share, still in ((0.501, 0.02), (0.55, 0.0)):  # of the way from the frame before to the imagined one
        recorded = with_future(clip, [shown + share * (plain[0] - shown), *plain[1:]])
        recorded.valid[:, CONTEXT:] = 0.0
        model.filter.still.zero_()
        model.filter.strength.zero_()
        assert fitting.fit_still(model, rollouts(recorded)) == pytest.approx(still)


def test_what_moves_less_than_it_rests_is_kept_in_training_too(model, clip):
    model.filter.still.fill_(1e6)
    s = observe_context(model, clip, CONTEXT)
    again = model.imagine(s, clip.action[:, CONTEXT - 1], torch.randn_like(s.obs))
    assert torch.equal(again.obs, s.obs)
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    noise = replace(noise, corruption_level=torch.ones(len(clip.obs)))  # none that nothing corrects
    frames = model.roll_out(clip, noise, clip.obs[:, :-1], clip.state[:, :-1])
    assert torch.equal(frames, frames[:, :1].expand_as(frames))


def test_motion_is_one_where_each_dimension_goes_on_as_usual():
    usual, last = torch.tensor([0.1, 2.0]), torch.zeros(3, 2)
    state = torch.tensor([[0.0, 0.0], [0.1, -2.0], [0.2, 0.0]])
    torch.testing.assert_close(motion_of(last, state, usual), torch.tensor([0.0, 1.0, 2**0.5]))


def test_a_filter_from_before_keeps_nothing_blurs_nothing_and_tells_no_error(model):
    weights = model.state_dict()
    for name in ("still", "kernel", "error_weights", "first_strength"):
        del weights[f"filter.{name}"]
    model.filter.still.fill_(0.1)
    model.filter.set_first_strength(torch.full((2,), 0.1))
    model.filter.error_weights.fill_(0.1)
    model.filter.kernel.copy_(gaussian(2.0))
    model.load_state_dict(weights)
    assert model.filter.still == 0
    assert torch.equal(model.filter.kernel, gaussian(0.0).expand(2, -1))
    assert not model.filter.first_strength.any()
    assert model.filter.first == "none"
    assert not model.tells_image_error


def test_a_filter_from_before_a_change_told_of_the_error_does_not_ask_for_it(model):
    weights = model.state_dict()
    weights["filter.error_weights"] = torch.tensor([-3.0, 0.3, 0.2, 0.1])
    model.load_state_dict(weights)
    torch.testing.assert_close(model.filter.error_weights, torch.tensor([-3.0, 0.3, 0.2, 0.1, 0.0, 0.0]))


def test_the_error_to_expect_is_the_error_of_the_pictures_where_it_was_measured(model, clip):
    """On the average; later steps are farther off here, and it says so. Stepping is what was measured."""
    g = torch.Generator().manual_seed(1)
    frames = [
        frame + 0.02 * 2**k * torch.randn(frame.shape, generator=g)
        for k, frame in enumerate(rollout(model, clip))
    ]
    recorded = with_future(clip, frames)
    assert not model.tells_image_error
    measure(model, recorded)
    assert model.tells_image_error
    generator, told, errors = torch.Generator().manual_seed(0), [], []
    s = observe_context(model, recorded, CONTEXT)
    assert not s.image_error.any()  # it was shown
    for i in range(CONTEXT - 1, clip.num_steps):
        s = model.imagine(s, clip.action[:, i], torch.randn(s.obs.shape, generator=generator))
        told.append(s.image_error)
        errors.append((s.obs - recorded.obs[:, i + 1]).square().mean((1, 2, 3)).sqrt() / 2)
    told, errors = torch.stack(told), torch.stack(errors)
    torch.testing.assert_close(told.mean(), errors.mean(), rtol=1e-3, atol=0)
    assert (told.diff(dim=0) > 0).all()
    s = model.observe(s, clip.action[:, 0], clip.obs[:, 1], clip.state[:, 1])
    assert not s.image_error.any()


def test_what_tells_of_an_error_never_makes_it_smaller():
    """Nor does what tells nothing; and what tells it is found."""
    told = torch.rand(500, 4, generator=torch.Generator().manual_seed(0))
    told[:, 0] = 1.0
    errors = (-3 + 1.5 * told[:, 1] - 0.5 * told[:, 2]).exp()
    w = fitting.least_squares_of_logarithm(told, errors)
    assert 1.3 < w[1] < 1.5
    assert w[2] == 0
    assert 0 <= w[3] < 0.1
    torch.testing.assert_close((told @ w).exp().mean(), errors.mean(), rtol=1e-3, atol=0)
    assert not fitting.least_squares_of_logarithm(told[:0], errors[:0]).any()


def test_what_is_always_the_same_tells_nothing_of_an_error():
    """Of a robot that never moved, no drawing changes but by rounding."""
    told = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    told[:, 0] = 1.0
    errors = (-3 + told[:, 1]).exp()
    told[:, 2] = -5.5 + 1e-7 * errors
    w = fitting.least_squares_of_logarithm(told, errors)
    assert w[2] < 0.1
    torch.testing.assert_close((told @ w).exp().mean(), errors.mean(), rtol=1e-3, atol=0)


def test_the_error_to_expect_grows_with_what_tells_of_it():
    """With the step, with how far off the drawing was, with how far it is from what was imagined, and with
    how much it says has changed, of any camera, and with how far off what was moved is expected to be."""
    corrects = StateFilter(cameras=2)
    obs = torch.rand(1, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    step, off, far = torch.zeros(1, dtype=torch.long), torch.full((1, 2), 1e-4), torch.full_like(obs, 0.1)

    def expected(step, off, far, changed, log_error=0.0):
        shown = shown_as(obs, obs)._replace(unaided_error=off)
        measured = measured_as(obs + changed, shown, step)._replace(log_error=torch.tensor([log_error]))
        told = corrects.error_features(measured, far)
        return corrects.expected_error(told)

    assert expected(step, off, far, far) == 1.0  # it was not measured
    corrects.error_weights.copy_(torch.tensor([-1.0, 0.3, 0.2, 0.1, 0.15, 0.5]))
    least = expected(step, off, far, far)
    assert 0 < least < 1
    of_one = torch.tensor([[4.0, 1.0]])
    farther = far * of_one.repeat_interleave(3, 1)[..., None, None]
    assert expected(step + 3, off, far, far) == pytest.approx(least.item() * 4**0.3)
    assert expected(step, off * of_one.square() ** 2, far, far) > least
    assert expected(step, off, farther, far) > least
    assert expected(step, off, far, farther) > least
    assert expected(step, off, far, far, math.log(4.0)) == pytest.approx(least.item() * 2**0.5)
    assert expected(step + 10**6, off, far, far) == 1.0


def test_a_world_keeps_its_filter(model, schema, stats, world, tmp_path):
    model.filter.strength.copy_(torch.linspace(0, 0.5, STEPS)[:, None])
    model.filter.reach.fill_(0.2)
    model.filter.error_weights.copy_(torch.tensor([-3.0, 0.25, 0.0, 0.1, 0.2, 0.3]))
    folder = World(model, stats, world.starts).save(tmp_path / "world", weights="int8")
    again = World.load(folder)
    torch.testing.assert_close(again.model.filter.state_dict(), model.filter.state_dict(), rtol=0, atol=0)
    assert again.config.state_filter
    assert make_model(CONFIG, schema, stats).filter is None
    with pytest.raises(ValueError, match="state_filter=true"):
        measure(make_model(CONFIG, schema, stats), make_clip(schema, B=1, T=3))


def test_some_of_the_rollouts_that_are_learnt_from_are_not_corrected(model, clip):
    """Where the gate is shut a model has to stand by itself."""
    noise = model.sample_noise(clip, torch.Generator().manual_seed(0))
    noise = replace(noise, corruption_level=torch.tensor([0.0, 0.9, 0.9]))
    obs, state = clip.obs[:, :-1], clip.state[:, :-1]
    plain = model.roll_out(clip, noise, obs, state)
    model.filter.strength.fill_(0.1)
    model.filter.farthest.fill_(1e6)
    corrected = model.roll_out(clip, noise, obs, state)
    torch.testing.assert_close(corrected[0], plain[0], rtol=0, atol=1e-6)
    assert all((corrected[row, 1:] - plain[row, 1:]).abs().amax() > 1e-3 for row in (1, 2))


def test_each_row_s_error_counts_beside_its_uncorrected_one():
    """A row that went ten times as far astray has no more to say than the others; of errors that nobody sees
    none has."""
    g = torch.Generator().manual_seed(0)
    *toward, missing = torch.randn(3, 3, 6, 8, 8, generator=g)
    rows, valid = torch.tensor([1.0, 10.0, 0.3])[:, None, None, None], torch.ones(3, 1)
    gain = torch.linspace(0, 1, 5)[:, None, None].expand(5, 3, 2)
    plain = fitting.errors_at(gain, toward, missing, valid)
    torch.testing.assert_close(plain[0], torch.full((2,), 3.0))  # uncorrected, each row is as it was
    halfway = by_camera((0.5 * toward[0] + 0.25 * toward[1] - missing).square()) / by_camera(missing.square())
    torch.testing.assert_close(plain[2], halfway.sum(0))
    scaled = fitting.errors_at(gain, [rows * part for part in toward], rows * missing, valid)
    torch.testing.assert_close(scaled, plain)
    unseen = fitting.errors_at(gain, [1e-4 * part for part in toward], 1e-4 * missing, valid)
    assert unseen.abs().max() < 1e-3 * plain.abs().max()


def test_of_two_wishes_each_strength_weighs_how_near_and_how_sharp(model, clip, monkeypatch):
    """The more grain counts, the more of it is left, and the farther off the frames are."""
    model.filter.reach.fill_(0.3)
    model.filter.farthest.fill_(1e6)
    found = []
    monkeypatch.setattr(fitting, "SHARP", 0.0)  # nothing is sharp enough
    for grain in (0.0, 100.0):
        monkeypatch.setattr(fitting, "UNSHARP", grain)
        fitting.fit_strength(model, rollouts(clip))
        frames = rollout(model, clip)
        recorded = clip.obs[:, CONTEXT:].unbind(1)
        error = sum(by_camera((x - y).square()).mean(0) for x, y in zip(frames, recorded, strict=True))
        sharpness = [sum(fitting.sharpness_of(x).mean(0) for x in some) for some in (frames, recorded)]
        found.append((error, fitting.unsharpness(*sharpness)))
    (error, unsharp), (error_with, unsharp_with) = found
    assert (error < error_with).all()
    assert (unsharp > unsharp_with).all()


def test_frames_may_be_as_soft_as_their_pictures_are_sharp(model, clip, monkeypatch):
    """A codec that draws all frames equally sharp: from the second step on that is known of them."""
    model.filter.farthest.fill_(1e6)
    monkeypatch.setattr(fitting, "of_least_cost", lambda cost, strengths: strengths[0].expand(2))

    def equally_sharp(obs):
        return obs / fitting.sharpness_of(obs).repeat_interleave(3, dim=1)[..., None, None]

    def judged(decode) -> torch.Tensor:
        """Gives the sharpness that frames are judged to have that nothing corrects, beside recorded ones."""
        asked = []
        unsharpness = fitting.unsharpness
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "unsharpness", lambda *two: asked.append(two) or unsharpness(*two))
            fitting.fit_strength(model, replace(rollouts(clip), decode=decode))
        return torch.stack([found[0] / wanted[0] for found, wanted in asked if found.ndim == 2])

    plain, through_codec = judged(lambda obs: 3 * obs), judged(equally_sharp)
    torch.testing.assert_close(judged(lambda obs: obs), plain, rtol=1e-3, atol=0.0)
    assert torch.equal(plain[0], through_codec[0])
    assert (plain[1:].log() > 0.05).all()
    assert (through_codec[1:].log().abs() < 0.5 * plain[1:].log()).all()


def test_a_picture_is_sharp_enough_within_fifteen_percent_of_the_recorded_one():
    found = torch.tensor([1.0, 1.14, 1 / 1.14, 1.15 * torch.e, torch.e**-1 / 1.15])
    torch.testing.assert_close(
        fitting.unsharpness(found, torch.ones(5)), torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0])
    )


def test_pictures_are_unlike_by_their_structure_each_camera_for_itself():
    """A blurred one as well as one that lies elsewhere; a row without a recorded frame has no say."""
    recorded = torch.rand(2, 6, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    corrects = StateFilter(cameras=2)
    corrects.kernel[1] = gaussian(2.0)
    moved = recorded.clone()
    moved[:, :3] = recorded[:, :3].roll(2, dims=-1)
    moved[1] = 0.0
    blurred = fitting.unlike(corrects.coarse(recorded), recorded, torch.ones(2, 1))
    elsewhere = fitting.unlike(moved, recorded, torch.tensor([[1.0], [0.0]]))
    assert blurred[0] == elsewhere[1] == 10 * math.log10(fitting.EVEN)
    assert blurred[1] > -3
    assert elsewhere[0] > -3
    expected = fitting.unlike(moved[:1, :3], recorded[:1, :3], torch.ones(1, 1))
    torch.testing.assert_close(elsewhere[:1], expected)


def test_a_blur_costs_more_than_a_draw_as_sharp_as_what_was_recorded():
    """Though it is more alike; and a little less sharp costs nothing more."""
    draw = torch.Generator().manual_seed(0)
    recorded, other = (torch.rand(2, 3, 24, 32, generator=draw) * 2 - 1 for _ in range(2))
    told, rows = 0.4 * recorded, torch.ones(2, 1)
    blur, sample, duller = told, told + 0.84**0.5 * other, 0.9 * recorded
    alike = [fitting.unlike(frames, recorded, rows).item() for frames in (blur, sample, duller)]
    cost = [
        fitting.picture_cost(frames.half(), recorded, rows)[0][0].item() for frames in (blur, sample, duller)
    ]
    assert alike[0] < alike[1]
    assert cost[0] > cost[1]
    assert cost[2] == pytest.approx(alike[2], abs=0.01)
    assert not fitting.picture_cost(blur, recorded, torch.zeros(2, 1))


def test_what_is_sharp_and_wrong_is_not_taken_before_what_is_soft_and_right(clip):
    """Though it costs less, for nothing that is near is sharp; each camera for itself: of the second one that
    as sharp is right as well."""
    draw = torch.Generator().manual_seed(0)
    recorded, other = (torch.rand(2, 6, 24, 32, generator=draw) * 2 - 1 for _ in range(2))
    wrong = torch.cat([other[:, :3], recorded[:, 3:]], dim=1)
    tried = [fitting.picture_cost(x, recorded, torch.ones(2, 1))[0] for x in (wrong, 0.3 * recorded)]
    assert (tried[0][0] < tried[1][0]).all()
    judged = rollouts(clip).judged(tried)
    assert fitting.first_of_good(judged).tolist() == [1, 0]
    assert fitting.last_of_good(judged).tolist() == [1, 0]


def test_the_nearest_is_that_of_all_that_was_tried(clip):
    """By stages, each of them 2 dB farther off, one would end far from it; what is left at last is taken."""
    rolled = rollouts(clip)
    rolled.tried.append(costs_of([5.0, 5.0], (-30.0, -30.0)))
    near, far, none = (
        costs_of([cost, cost], (off, -20.0)) for cost, off in [(3, -28.5), (1, -27.5), (2, -10)]
    )
    judged = rolled.judged([near, far, none])
    assert judged[:, 0].tolist() == [3.0, math.inf, math.inf]
    assert judged[:, 1].tolist() == [3.0, 1.0, 2.0]  # as far off as each other, farther than what was tried


def test_a_cost_that_is_no_number_is_never_the_least(clip):
    judged = rollouts(clip).judged([costs_of([1.0, math.nan]), costs_of([math.nan, 1.0])])
    assert fitting.first_of_good(judged).tolist() == fitting.last_of_good(judged).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("off", "taken"), [((-20.0, -20.0), 2.0), ((-18.1, -18.1), 2.0), ((-17.9, -20.0), 0.0)]
)
def test_what_serves_may_be_no_more_than_two_decibels_farther_off(model, clip, monkeypatch, off, taken):
    """Of widths of the blur, too: a camera's is the one that costs least, if it is near enough."""
    found = iter([costs_of([5.0, 5.0], (-20.0, -20.0)), costs_of([4.0, 4.0], off)])
    monkeypatch.setattr(fitting, "fit_strength", lambda *_: next(found))
    monkeypatch.setattr(fitting, "WIDTHS", (0.0, 2.0))
    plain = fitting.strengths_found(model, rollouts(clip))
    fitting.fit_width(model.filter, model, rollouts(clip), plain)
    assert torch.equal(model.filter.kernel, torch.stack([gaussian(taken), gaussian(2.0)]))


def test_a_camera_that_is_covered_has_no_say(model, clip):
    """Its pictures are black, imagined as recorded, and have neither error nor sharpness."""
    frames = with_future(clip, [frame + 0.1 for frame in rollout(model, clip)])
    fit_filter(
        model, frames, CONTEXT, 0, lambda obs: torch.cat([obs[:, :3], -torch.ones_like(obs[:, 3:])], 1)
    )
    assert all(torch.isfinite(value).all() for value in model.filter.state_dict().values())
    assert model.tells_image_error


def test_how_sharp_frames_are_does_not_depend_on_how_many_are_looked_at_together(monkeypatch):
    frames, *toward = torch.randn(3, 3, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    gain, valid = torch.rand(5, 3, 2), torch.tensor([[1.0], [0.0], [1.0]])
    together = fitting.sharpness_at(gain, toward, frames, valid)
    monkeypatch.setattr(fitting, "AT_ONCE", 1)
    torch.testing.assert_close(fitting.sharpness_at(gain, toward, frames, valid), together)
    g = gain[3].repeat_interleave(3, 1)[..., None, None]
    by_hand = (frames + g * toward[0] + g**2 * toward[1])[[0, 2]]
    torch.testing.assert_close(together[3], fitting.sharpness_of(by_hand).sum(0))


def test_from_the_step_on_from_which_it_serves_a_drawing_is_taken_whole(model, clip, monkeypatch):
    """Each camera from its own, as late as it serves as well; the first as found and never."""
    model.filter.strength.fill_(1e-4)
    whole = fitting.STRENGTHS[-1].item()
    costs = {(1e-4, 1e-4): [1.0, 1.0], (1e-4, whole): [2.0, 0.5], (whole, whole): [2.0, 0.7]}

    def corrected_cost(model, rollouts, strength):
        assert (strength.diff(dim=0) >= 0).all()
        told = next(
            told for ends, told in costs.items() if strength[[0, 12], 0].tolist() == pytest.approx(ends)
        )
        return costs_of(told)

    monkeypatch.setattr(fitting, "SHARES", (1.0,))
    monkeypatch.setattr(fitting, "corrected_cost", corrected_cost)
    fitting.fit_share(model.filter, model, rollouts(clip))
    found = model.filter.strength
    assert (found[:, 0] == 1e-4).all()
    step = fitting.WHOLE_FROM[0]
    assert (found[:step, 1] == 1e-4).all()
    assert (found[step:, 1] == whole).all()


def test_of_the_strengths_a_share_is_taken_by_whole_rollouts(model, clip, monkeypatch):
    """Step by step the whole is found; the least that serves a rollout as well as any is taken."""
    wholes, fit = [], fitting.fit_strength

    def remember(*given):
        found = fit(*given)
        wholes.append(model.filter.strength.clone())
        return found

    monkeypatch.setattr(fitting, "fit_strength", remember)
    monkeypatch.setattr(fitting, "WIDTHS", (0.0,))
    monkeypatch.setattr(fitting, "REACHES", (0.3,))
    measure(model, clip)
    chosen, (whole,) = model.filter.strength.clone(), wholes
    assert whole.any()
    shares = [share * whole for share in fitting.SHARES]
    costs = [fitting.corrected_cost(model, rollouts(clip), each) for each in shares]
    for camera, good in enumerate(fitting.as_good(rollouts(clip).judged(costs)).T.tolist()):
        assert torch.equal(chosen[:, camera], shares[good.index(True)][:, camera])


def test_of_first_corrections_that_serve_as_well_the_strongest_is_taken(both, clip, monkeypatch):
    """The decoder goes on from there."""
    both.filter.farthest.fill_(OPEN)
    told = iter([[5.0, 5.0], [5.1, 4.5], [5.15, 4.8]])
    monkeypatch.setattr(fitting, "rollout_cost", lambda *_: costs_of(next(told)))
    fitting.fit_first_strength(both.filter, both, rollouts(clip))
    off = observe_context(both, clip, CONTEXT).drawing_error.mean(0)
    torch.testing.assert_close(both.filter.first_strength, torch.tensor([WHOLE, off[1].item()]))


def test_a_step_beyond_every_episode_is_measured_by_none(both, clip):
    """Windows of short episodes are those episodes, and a decoder may be asked for no picture at all."""
    valid = torch.ones_like(clip.valid)
    valid[:, -1] = 0.0

    def decode(obs: torch.Tensor) -> torch.Tensor:
        assert len(obs)
        return obs

    assert fit_filter(both, replace(clip, valid=valid), CONTEXT, seed=0, decode=decode)
    assert both.filter is not None
    assert both.filter.error_weights.isfinite().all()
    assert both.filter.error_weights.any()

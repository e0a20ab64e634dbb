"""Distillation trains large steps, moves nothing that it should not, and resumes to the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scd_datasets.config import DataConfig
from scd_world.codec.config import CodecConfig
from scd_world.distill import dmd, steps
from scd_world.distill.config import DistillConfig
from scd_world.distill.consistency import Consistency, leap, path_end
from scd_world.distill.distill import Distiller, distill
from scd_world.distill.dmd import DistributionMatching
from scd_world.distill.meanflow import MeanFlow, average_and_target, sample_bilinear, stretch
from scd_world.distill.objective import read_clip, render_clip
from scd_world.distill.self_rollout import SelfRollout
from scd_world.distill.steps import steps_table
from scd_world.metrics.image import sharpness
from scd_world.model.filter import OPEN
from scd_world.model.flow import euler_sample_interval
from scd_world.model.pixel_heads import Warp
from scd_world.model.world_model import WorldModel
from scd_world.training.config import TrainConfig
from scd_world.training.learner import Learner
from scd_world.training.trainer import train
from scd_world.world.fit_filter import fit_filter
from scd_world.world.world import World
from tests.conftest import CONFIG, PRIOR, SCHEMA, filled, make_model, make_stats

# ---- a flow whose velocity is known ------------------------------------------------------------------


def two_points(x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The exact velocity towards data at −1 and 1 (deviation 0.1), each coordinate by itself."""
    t = t[:, None, None, None]
    at, var = torch.tensor([-1.0, 1.0]), (1 - t) ** 2 * 0.01 + t**2
    gap = x_t[..., None] - (1 - t)[..., None] * at
    share = (-(gap**2) / (2 * var[..., None])).softmax(-1)
    x = (share * (at + ((1 - t) * 0.01 / var)[..., None] * gap)).sum(-1)
    noise = (share * (t / var)[..., None] * gap).sum(-1)
    return noise - x


class Toy(nn.Module):
    """The exact velocity, and a small network that learns what a large step adds to it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        inputs = torch.cat([x_t[:, :, 0, 0], t[:, None], s[:, None]], dim=-1)
        return two_points(x_t, t, s) + self.net(inputs)[:, :, None, None]


def consistency_loss(toy: Toy, x: Tensor, noise: Tensor) -> Tensor:
    t = torch.randint(1, 25, (len(x),)) / 24
    x_t, end = path_end(two_points, toy, x, noise, t, t - 1 / 24, 1 / 24)
    return (leap(toy, x_t, t) - end).square().mean()


def meanflow_loss(toy: Toy, x: Tensor, noise: Tensor) -> Tensor:
    t = torch.rand(len(x)).clamp_min(0.01)
    x_t = (1 - t)[:, None, None, None] * x + t[:, None, None, None] * noise
    u, target = average_and_target(toy, x_t, t, t * stretch(torch.rand(len(x))), two_points(x_t, t, t))
    return (u - target).square().mean()


@pytest.mark.slow
@pytest.mark.parametrize("loss", [consistency_loss, meanflow_loss])
def test_one_distilled_step_ends_where_many_small_ones_do(loss):
    """One undistilled step from noise ends at the mean of the data, where there are none."""
    toy = Toy()
    optimizer = torch.optim.Adam(toy.parameters(), 3e-3)
    for _ in range(600):
        x = torch.randint(0, 2, (256, 2, 1, 1)) * 2.0 - 1 + 0.1 * torch.randn(256, 2, 1, 1)
        optimizer.zero_grad()
        loss(toy, x, torch.randn_like(x)).backward()
        optimizer.step()
    noise = torch.randn(512, 2, 1, 1)
    end = euler_sample_interval(two_points, noise, 100)
    with torch.no_grad():
        undistilled, distilled = (
            (euler_sample_interval(f, noise, 1) - end).square().mean().sqrt() for f in (two_points, toy)
        )
    assert undistilled > 0.9
    assert distilled < 0.5 * undistilled


def test_a_warp_moves_alike_with_a_forward_derivative_and_without():
    image, where = torch.randn(2, 3, 5, 7), 2.4 * torch.rand(2, 4, 6, 2) - 1.2  # beyond the border, too
    torch.testing.assert_close(sample_bilinear(image, where), Warp.sample(image, where), atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", [MeanFlow, partial(Consistency, grid=8)])
def test_a_world_that_warps_can_be_distilled(clip, objective):
    model = filled(make_model(replace(CONFIG, warp=True, skip_connection=True), SCHEMA, make_stats(SCHEMA)))
    learner = objective(student(model), model)
    loss, _ = learner(clip, learner.sample_noise(clip, torch.Generator().manual_seed(3)))
    loss.backward()
    warp = next(part for part in learner.model.modules() if isinstance(part, Warp))
    assert warp.offset.weight.grad.abs().sum() > 0


def test_the_forward_derivative_is_the_one_of_finite_differences(model, clip):
    model = student(model)
    batch = read_clip(model, clip, noise_for(model, clip))
    field, F = batch.field(model), len(batch.x)
    t, s, v, step = torch.full((F,), 0.7), torch.full((F,), 0.3), torch.randn_like(batch.x), 1e-4
    x_t = batch.noise
    with torch.no_grad():
        ahead = field(x_t + step * v, t + step, s)
        behind = field(x_t - step * v, t - step, s)
        u = field(x_t, t, s)
    finite = (ahead - behind) / (2 * step)
    same, target = average_and_target(field, x_t, t, s, v)
    assert (same.detach() - u).norm() < 1e-3 * u.norm()  # another attention kernel
    change = (v - target) / 0.4
    off = (change - finite).flatten(1).norm(dim=1) / finite.flatten(1).norm(dim=1)
    assert off.median() < 0.03  # of frames; a random network bends sharply at a few
    assert not target.requires_grad


def test_a_decoder_of_intervals_embeds_time_smoothly(model):
    """The derivative of a fast ripple says nothing about where the path leads."""
    moved = {}
    for name, decoder in {"plain": model.core.decoder, "smooth": student(model).core.decoder}.items():
        now, soon = (decoder.time(torch.tensor([t])) for t in (0.5, 0.503))
        moved[name] = ((soon - now).norm() / now.norm()).item()
    assert moved["smooth"] < 0.2 * moved["plain"]


# ---- what learns, and what does not ------------------------------------------------------------------


def student(teacher: WorldModel, **changes: object) -> WorldModel:
    """A copy of the teacher whose decoder takes the time where a step ends."""
    model = make_model(replace(teacher.config, average_velocity=True, **changes), SCHEMA, make_stats(SCHEMA))
    model.load_state_dict(teacher.state_dict(), strict=False)
    return model


def noise_for(model: WorldModel, clip):
    return model.sample_noise(clip, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("trained", [False, True])
def test_where_a_step_ends_matters_once_it_was_trained(model, clip, trained):
    """A new student takes its teacher's velocity all the way."""
    learner = filled(student(model)) if trained else student(model)
    batch = read_clip(learner, clip, noise_for(learner, clip))
    t = torch.full((len(batch.x),), 0.9)
    with torch.no_grad():
        near, far = (batch.field(learner)(batch.noise, t, torch.full_like(t, s)) for s in (0.8, 0.0))
    assert ((near - far).abs().max() > 1e-3) == trained


@pytest.mark.parametrize("kind", [Consistency, MeanFlow, SelfRollout, DistributionMatching])
def test_only_a_rollout_trains_the_encoder(model, clip, kind):
    learner, teacher = (
        student(model, self_rollout_share=1.0, noise_samples=3),
        filled(make_model(CONFIG, SCHEMA, make_stats(SCHEMA))),
    )
    objective = kind(learner, teacher, 12) if kind is Consistency else kind(learner, teacher)
    if kind is DistributionMatching:
        for parameter in objective.critic.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    loss, _ = objective(clip, objective.sample_noise(clip, torch.Generator().manual_seed(0)))
    loss.backward()
    moved = {name for name, p in learner.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert any(name.startswith("core.decoder.blocks") for name in moved)
    assert any(name.startswith("core.encoder.") for name in moved) == (
        kind in (SelfRollout, DistributionMatching)
    )
    assert all(p.grad is None for p in teacher.parameters())


def test_a_critic_learns_its_decoder_and_as_long_as_it_is_its_teacher_nothing_moves(model, clip):
    learner = student(model, self_rollout_share=1.0, noise_samples=3)
    objective = DistributionMatching(learner, filled(make_model(CONFIG, SCHEMA, make_stats(SCHEMA))))
    noise = objective.sample_noise(clip, torch.Generator().manual_seed(0))
    _, losses = objective(clip, noise)
    losses["pixels"].backward(retain_graph=True)
    assert all(p.grad is None or not p.grad.any() for p in learner.core.decoder.parameters())
    losses["critic"].backward()
    learnt = {name for name, p in objective.critic.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt
    assert all(name.startswith("core.decoder.") for name in learnt)
    assert all(p.grad is None or not p.grad.any() for p in learner.parameters())


@pytest.mark.parametrize("commands", [True, False])
def test_a_student_learns_by_the_frames_that_it_is_stepped_to(clip, commands):
    """Told the same: a joint's command only where that is drawn by; and corrected at the same place."""
    config = replace(CONFIG, sees_commands=commands, anchor_frame=True, state_filter=True, noise_samples=1)
    stats = replace(make_stats(SCHEMA), commanded_by=torch.tensor([1.0, -1.0, -1.0]))
    model = filled(make_model(config, SCHEMA, stats)).eval()
    model.filter.set_first_strength(torch.full_like(model.filter.first_strength, 0.1))
    model.filter.farthest.fill_(OPEN)
    noise = replace(noise_for(model, clip), corruption_level=torch.ones(len(clip.obs)))
    noise = noise.of_recordings()
    clip = replace(clip, anchor=clip.obs[:, 0], anchor_state=torch.cat([clip.state[:, 0], clip.prev], dim=-1))
    model.config = replace(model.config, frame_blend=0.0, state_noise=0.0)
    _, drawn = render_clip(model, clip, noise)
    s = model.initial(clip.obs[:, 0], clip.state[:, 0], clip.prev)
    stepped = model.imagine(s, clip.action[:, 0], noise.x[0, :, 0]).obs
    first = drawn.unflatten(0, clip.action.shape[:2])[:, 0]
    torch.testing.assert_close(first.clamp(-1, 1), stepped, atol=1e-5, rtol=1e-4)
    model.filter.set_first_strength(torch.zeros_like(model.filter.first_strength))
    _, uncorrected = render_clip(model, clip, noise)
    assert (uncorrected - drawn).abs().max() > 1e-3


def test_frames_move_from_where_the_critic_sees_them_to_where_the_teacher_does(model, clip, monkeypatch):
    """A teacher that knows the frames to be bright, and a critic that knows the student's to be dark."""
    objective = DistributionMatching(student(model, noise_samples=3), deepcopy(model))
    seen = {id(objective.teacher): 0.5, id(objective.critic): -0.5}
    monkeypatch.setattr(dmd, "denoised", lambda batch, net, x_t, t: torch.full_like(x_t, seen[id(net)]))
    noise = objective.sample_noise(clip, torch.Generator().manual_seed(0))
    x = torch.full_like(noise.x[:1].flatten(0, 2), -0.5)
    step = objective.direction(None, x, dmd.thirds(noise)[1])
    assert torch.equal(step, -torch.ones_like(x))  # descent goes up, by the distance's own size
    assert [len(part.x) for part in dmd.thirds(noise)] == [1, 1, 1]


def test_the_end_of_the_last_stretch_is_the_frame_itself():
    x, noise = torch.randn(4, 2, 1, 1), torch.randn(4, 2, 1, 1)
    never = two_points, lambda *_: torch.full_like(x, torch.nan)
    t = torch.full((4,), 1 / 48)
    x_t, end = path_end(*never, x, noise, t, torch.zeros(4), 1 / 48)
    torch.testing.assert_close(end, x_t - two_points(x_t, torch.full((4,), 1 / 48), torch.zeros(4)) / 48)


# ---- whole runs --------------------------------------------------------------------------------------


@pytest.fixture
def distillation(training, tmp_path: Path) -> Callable[..., DistillConfig]:
    """A trained world, and the config of a distillation of it that takes a second."""
    world = train(training("teacher", steps=4))
    data: DataConfig = training().data

    def build(out: str, **changes: object) -> DistillConfig:
        values = {
            "data": data,
            "steps": 6,
            "batch_size": 4,
            "sequence_length": 4,
            "device": "cpu",
            "precision": "fp32",
            "log_every": 2,
            "eval_every": 100,
            "eval_windows": 4,
            "checkpoint_every": 3,
            "num_start_states": 2,
            "report_windows": 0,
        }
        return DistillConfig(world=str(world), out=str(tmp_path / out), **(values | changes))

    return build


def tensors(config: DistillConfig) -> dict[str, Tensor]:
    folder = Path(config.out) / "checkpoints/last"
    parts = ("weights", "ema", "optimizer")
    return {f"{p}/{k}": v for p in parts for k, v in load_file(folder / f"{p}.safetensors").items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["consistency", "meanflow", "dmd"])
def test_a_resumed_distillation_equals_a_straight_one_bit_for_bit(distillation, method, monkeypatch):
    """The consistency target is the average of the weights: it must come back as it was."""
    straight, broken = distillation("straight", method=method), distillation("broken", method=method)
    distill(straight)
    with monkeypatch.context() as patch:
        update = Learner.update

        def crash(self, windows, step, *how):
            if step == 4:
                raise RuntimeError("crash")
            return update(self, windows, step, *how)

        patch.setattr(Learner, "update", crash)
        with pytest.raises(RuntimeError, match="crash"):
            distill(broken)
    distill(broken)
    a, b = tensors(straight), tensors(broken)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name

    teacher, made = World.load(straight.world), World.load(Path(straight.out) / "world")
    before, after = teacher.model.state_dict(), made.model.state_dict()
    moved = {name for name, value in after.items() if name not in before or not value.equal(before[name])}
    assert moved
    assert all(name.startswith("core.decoder.") for name in moved) == (method != "dmd")


@pytest.mark.slow
def test_a_students_filter_is_measured_anew(training, tmp_path, monkeypatch, short_filter_windows):
    model, prior = (
        replace(training().model, state_filter=True, anchor_frame=True),
        replace(training().prior, calibration_share=0.4),
    )
    teacher = World.load(train(training("teacher", model=model, prior=prior)))
    teacher.model.filter.strength.fill_(0.123)
    teacher.model.filter.error_weights.fill_(0.123)
    spoilt = teacher.save(tmp_path / "spoilt")
    config = DistillConfig(
        world=str(spoilt), out=str(tmp_path / "student"), data=training().data, steps=2, batch_size=4,
        sequence_length=4, device="cpu", precision="fp32", report_windows=0, method="dmd", num_start_states=2,
    )  # fmt: skip

    def corrects_something(model, *given, **named):
        rows = fit_filter(model, *given, **named)
        model.filter.strength.clamp_(min=0.2)
        return rows

    monkeypatch.setattr("scd_world.training.trainer.fit_filter", corrects_something)
    after = World.load(distill(config)).model.filter
    assert not (after.strength == torch.tensor(0.123)).any()
    assert after.error_weights.any()
    assert not (after.error_weights == torch.tensor(0.123)).any()
    seen, draw = [], dmd.render_clip

    def watch(model, *given):
        seen.append(model.filter.strength.any().item())
        return draw(model, *given)

    monkeypatch.setattr(dmd, "render_clip", watch)
    distill(replace(config, steps=3))  # on from the end, where it was measured
    assert seen == [False]


@pytest.mark.slow
def test_the_report_sets_the_new_world_beside_its_teacher_and_others(distillation, monkeypatch):
    config = distillation("run", steps=1, report_windows=4, report_horizon=4, report_steps=[1, 2])
    config = replace(config, compare_worlds={"the same": config.world})
    world = World.load(distill(config))
    assert world.config.num_steps == 1
    assert world.provenance["distilled"]["method"] == "consistency"
    assert world.provenance["parent"] == World.load(config.world).provenance
    measured = json.loads((Path(config.out) / "steps.json").read_text())["measured"]
    assert list(measured) == ["teacher", "consistency", "the same"]
    for key in ("psnr_h1", "psnr_h4", "likeness", "sharpness"):
        assert measured["the same"]["2"][key] == measured["teacher"]["2"][key]
    assert measured["teacher"]["2"]["likeness"] > 50  # to itself
    assert {"steps.png", "steps.md"} <= {path.name for path in Path(config.out).iterdir()}

    again = []
    monkeypatch.setattr(steps, "measure", lambda *given, real=steps.measure: again.append(1) or real(*given))
    distill(config)
    assert not again  # nothing is another one
    distill(replace(config, report_windows=3))
    assert len(again) == 6  # of three worlds in one and in two steps


@pytest.mark.slow
def test_a_student_can_start_from_another_one_of_its_teacher(distillation, monkeypatch):
    first = distillation("first", steps=2, num_steps=2)
    begun = World.load(distill(first)).model.state_dict()
    config = distillation("then", method="dmd", num_steps=2, steps=1, init=f"{first.out}/world")
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-12))
    after = World.load(distill(config)).model.state_dict()
    for name, value in begun.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_world_lies_where_asked_between_its_teacher_and_what_was_learned(distillation, monkeypatch):
    """A finished run gives another one at once, and has learned what it has."""
    config = distillation("run", method="dmd", num_steps=2, steps=2)
    whole = World.load(distill(config))
    learned = tensors(config)
    measured, fit = [], Distiller.evaluate
    monkeypatch.setattr(Distiller, "evaluate", lambda self: (measured.append(1), fit(self)))
    half = World.load(distill(replace(config, interpolation=0.5)))
    assert measured  # of what it is now
    again = len(measured)
    assert World.load(distill(replace(config, interpolation=0.5))).fingerprint == half.fingerprint
    assert len(measured) == again
    assert half.provenance["distilled"]["interpolation"] == 0.5
    teacher, moved = World.load(config.world), 0
    for (name, mean), a, b in zip(
        half.model.named_parameters(), teacher.model.parameters(), whole.model.parameters(), strict=True
    ):
        torch.testing.assert_close(mean, (a + b) / 2, msg=name)
        moved += not a.equal(b)
    assert moved
    for name, value in tensors(config).items():
        assert torch.equal(value, learned[name]), name
    assert distill(config)
    assert World.load(Path(config.out) / "world").fingerprint == whole.fingerprint


def test_worlds_of_a_report_have_names_of_their_own():
    with pytest.raises(ValueError, match="compare_worlds names dmd, teacher"):
        DistillConfig(world="w", out="o", method="dmd", compare_worlds={"dmd": "a", "teacher": "b", "c": "d"})


def test_how_many_windows_reach_a_step_is_said_where_not_all_do():
    row = {"psnr_h1": 30.0, "psnr_h16": 20.0, "likeness": 40.0, "sharpness": 1.0, "ms": 3.0}
    text = steps_table({"a": {1: row | {"windows_h1": 5, "windows_h16": 4}}}, "5 windows")
    assert "| PSNR at 1 |" in text
    assert "| PSNR at 16 (4 of them) |" in text


@pytest.mark.parametrize(("num_steps", "said"), [(1, False), (2, True)])
def test_that_as_many_steps_are_no_faster_is_said(distillation, caplog, num_steps, said):
    config = distillation("run", num_steps=num_steps, steps=1)
    teacher = World.load(config.world)
    teacher.model.config = replace(teacher.config, num_steps=2)
    config = replace(config, world=str(teacher.save(Path(config.out).parent / "two steps")))
    distill(config)
    assert ("the teacher takes 2 itself: the new world will be no faster" in caplog.text) == said


def test_what_draws_in_other_steps_has_nothing_between():
    with pytest.raises(ValueError, match=r"interpolation=0\.5: .*rollout, dmd"):
        DistillConfig(world="w", out="o", interpolation=0.5)
    with pytest.raises(ValueError, match="interpolation=3"):
        DistillConfig(world="w", out="o", method="dmd", interpolation=3)


@pytest.mark.slow
def test_a_run_goes_on_with_the_teacher_it_began_with(distillation, training):
    config = distillation("run", steps=1)
    distill(config)
    other = train(training("other", steps=1, seed=5))
    with pytest.raises(ValueError, match="teacher"):
        distill(replace(config, world=str(other), steps=2))


def test_every_setting_that_a_training_has_too_reaches_it():
    """But for num_steps, which goes into the student's model, and init, which is the teacher by default."""
    shared = {f.name for f in fields(DistillConfig)} & {f.name for f in fields(TrainConfig)}
    shared -= {"num_steps", "init"}
    config = DistillConfig(world="w", out="o")
    training = config.training(CONFIG, PRIOR, CodecConfig(), "digest", 0.2)
    assert "self_rollout_start" in shared
    assert training.prior.calibration_share == 0.2  # nor does the student learn from these
    for name in shared:
        assert getattr(training, name) == getattr(config, name), name


def test_the_student_of_a_guided_teacher_is_not_guided_again():
    config = DistillConfig(world="w", out="o")
    guided = replace(CONFIG, guidance=1.5)
    assert config.student(guided).guidance == 1.0
    assert replace(config, method="rollout").student(guided).guidance == 1.5
    assert asdict(config.training(guided, PRIOR, CodecConfig(), "abc", None))["teacher"] == "abc"


def test_a_blurred_frame_has_weaker_edges():
    frame = torch.rand(1, 3, 8, 8)
    assert sharpness(nn.functional.avg_pool2d(frame, 3, 1, 1)) < sharpness(frame)

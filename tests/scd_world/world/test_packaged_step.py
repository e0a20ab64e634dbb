"""A step that was compiled is the model's step, is found again by the same world alone, and fails safely.

One test compiles in earnest, for half a minute: torch made C++ of a step once that no compiler took. In the
others what stands for compiled code is the step itself.
"""

import os
import shutil
from dataclasses import replace

import pytest
import torch

from scd_world.model.rollout_state import RolloutState
from scd_world.world import packaged_step
from scd_world.world.compiled_step import Stepper
from scd_world.world.packaged_step import CHANGED, PackagedStep, StepOfTensors, inputs, parts
from tests.conftest import CONFIG, filled, make_model
from tests.scd_world.world.test_compiled_step import SCENE, begin, equal, noise_of


@pytest.fixture
def as_it_is(monkeypatch):
    """No compiler: the step itself is "compiled", and kept under its name. Gives the names, as they come."""
    made = []

    def keep(path, step, s):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("code")
        made.append(path.name)
        kept[path] = step
        return step

    kept = {}
    monkeypatch.setattr(packaged_step, "compile_to", keep)
    monkeypatch.setattr(packaged_step, "load", lambda path: kept[path])
    return made


def close(one: RolloutState, other: RolloutState) -> None:
    for name in RolloutState.PER_ROW:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4)
    for name, value in parts(other.cache).items():
        torch.testing.assert_close(getattr(one.cache, name), value, rtol=1e-4, atol=1e-4)
    assert one.steps == other.steps


@pytest.mark.longest
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.timeout(900)  # a C++ compiler on a busy machine
def test_compiled_in_earnest_it_steps_like_the_model_past_the_window(schema, stats, clip, monkeypatch):
    from torch._inductor.cpu_vec_isa import VecISA

    monkeypatch.setattr(VecISA, "check_build", lambda *_: True)  # trying what it can takes half a minute
    small = replace(CONFIG, encoder_layers=1, decoder_layers=1, state_filter=True, anchor_frame=True)
    model = filled(make_model(small, schema, stats, replace(SCENE, motion_channels=8)))
    model.filter.strength.fill_(0.1)
    model.filter.farthest.fill_(1e6)
    plain, s, stepper = begin(model, clip), begin(model, clip), Stepper(model)
    with torch.no_grad():
        for i in range(clip.num_steps):
            plain = model.imagine(plain, clip.action[:, i], noise_of(clip, i), 1)
            s = stepper(s, clip.action[:, i], noise_of(clip, i), 1, compiled=True)
            close(s, plain)
    assert [type(graph) for graph in stepper.graphs.values()] == [PackagedStep]
    monkeypatch.setattr(packaged_step, "compile_to", None)  # a second time it is found
    again = PackagedStep(model, s, 1)(s.fork(), clip.action[:, 0], noise_of(clip, 0))
    close(again, model.imagine(s, clip.action[:, 0], noise_of(clip, 0), 1))


def test_it_is_the_models_step_and_leaves_what_is_shown_alone(model, clip, as_it_is):
    plain, s, stepper = begin(model, clip), begin(model, clip), Stepper(model)
    for i in range(clip.num_steps):
        shown, kept = s.obs, s.obs.clone()
        plain = model.imagine(plain, clip.action[:, i], noise_of(clip, i), 2)
        s = stepper(s, clip.action[:, i], noise_of(clip, i), 2, compiled=True)
        assert equal(s, plain)
        assert torch.equal(shown, kept)
    assert len(as_it_is) == 1


def test_an_outdated_one_is_refused(model, clip, as_it_is):
    s = begin(model, clip)
    step = PackagedStep(model, s, 1)
    step(s, clip.action[:, 0], noise_of(clip, 0))
    with pytest.raises(RuntimeError, match="stepped on already"):
        step(s, clip.action[:, 0], noise_of(clip, 0))


def test_tensors_are_laid_out_as_the_code_takes_for_granted(model, clip):
    s = begin(model, clip)
    turned = replace(s, obs=s.obs.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
    given = inputs(turned, clip.action[:, 0], noise_of(clip, 0))
    assert not turned.obs.is_contiguous()
    assert all(value.is_contiguous() for value in given)
    assert given[-3].data_ptr() in {
        value.data_ptr() for value in parts(s.cache).values()
    }  # in place, no copy


def test_a_cache_that_is_laid_out_otherwise_is_written_too(model, clip, as_it_is):
    plain, s, stepper = begin(model, clip), begin(model, clip), Stepper(model)
    s.cache.keys = s.cache.keys.transpose(0, 1).contiguous().transpose(0, 1)
    assert not s.cache.keys.is_contiguous()
    for i in range(3):
        plain = model.imagine(plain, clip.action[:, i], noise_of(clip, i), 1)
        s = stepper(s, clip.action[:, i], noise_of(clip, i), 1, compiled=True)
        close(s, plain)


def test_code_is_found_by_the_same_step_alone(schema, stats, model, clip, as_it_is):
    s = begin(model, clip)
    PackagedStep(model, s, 1)
    PackagedStep(model, s, 1)
    assert len(as_it_is) == 1
    PackagedStep(model, s, 2)
    PackagedStep(model, begin(model, clip, [0]), 1)
    with torch.autocast("cpu", torch.bfloat16):
        PackagedStep(model, s, 1)
    PackagedStep(make_model(replace(CONFIG, t_shift=0.5), schema, stats), s, 1)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    PackagedStep(model, s, 1)
    assert len(set(as_it_is)) == 6


def test_code_that_steps_otherwise_is_not_used(model, clip, as_it_is, monkeypatch, caplog):
    """torch's compilers have been wrong: what they make is tried first."""

    def wrong(path, step, s):
        def run(values):
            after = step(values)
            after[CHANGED.index("state")] = after[CHANGED.index("state")] + 0.1
            return after

        return run

    monkeypatch.setattr(packaged_step, "compile_to", wrong)
    s, stepper = begin(model, clip), Stepper(model)
    s = stepper(s, clip.action[:, 0], noise_of(clip, 0), 1, compiled=True)
    assert equal(s, model.imagine(begin(model, clip), clip.action[:, 0], noise_of(clip, 0), 1))
    assert "compiled, a step's state is 0.1 from the model's" in caplog.text


def test_a_cache_that_is_written_otherwise_is_noticed(model, clip):
    s = begin(model, clip)
    step = StepOfTensors(model, s, 1)

    def run(values):
        after = step(values)
        values[len(packaged_step.READ)].zero_()
        return after

    assert not step.disagreement(step, s)
    assert "keys" in step.disagreement(run, s)
    assert s.steps == s.cache.steps == 0  # and what was tried left no trace


def test_a_damaged_file_is_made_anew(model, clip, monkeypatch, as_it_is, tmp_path):
    s = begin(model, clip)
    PackagedStep(model, s, 1)

    def damaged(path):
        raise RuntimeError("not a package")

    monkeypatch.setattr(packaged_step, "load", damaged)
    PackagedStep(model, s, 1)
    assert len(as_it_is) == 2


def test_what_cannot_be_compiled_is_stepped_as_it_is(model, clip, monkeypatch, caplog):
    def no_compiler(path, step, s):
        raise RuntimeError("no C++ compiler\n" + "and a thousand lines more\n" * 1000)

    monkeypatch.setattr(packaged_step, "compile_to", no_compiler)
    s, stepper = begin(model, clip), Stepper(model)
    s = stepper(s, clip.action[:, 0], noise_of(clip, 0), 1, compiled=True)
    assert equal(s, model.imagine(begin(model, clip), clip.action[:, 0], noise_of(clip, 0), 1))
    assert "no C++ compiler" in caplog.text
    assert "more" not in caplog.text


def test_what_was_used_longest_ago_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(packaged_step, "KEPT", 2)
    monkeypatch.setattr(packaged_step, "load", lambda path: path)
    for age, name in enumerate(("oldest", "older", "old", "new")):
        path = tmp_path / f"{name}.pt2"
        path.touch()
        os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "another").touch()
    assert packaged_step.find(tmp_path / "oldest.pt2") is not None  # used again
    packaged_step.forget(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"oldest.pt2", "new.pt2", "another"}

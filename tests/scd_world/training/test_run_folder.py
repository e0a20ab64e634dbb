"""What a training may go on from, and what it may not."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scd_world.codec.config import CodecTrainConfig
from scd_world.distill.config import Distillation
from scd_world.model.config import MODELS, ModelConfig, of_file
from scd_world.prior.config import PriorConfig
from scd_world.training.checkpoint import Checkpoints
from scd_world.training.config import TrainConfig
from scd_world.training.run_folder import UNKNOWN_TEACHER, RunFolder, check_continuation


def test_a_distillation_goes_on_with_its_own_teacher_or_one_that_format_3_cannot_tell():
    config = Distillation(out="run", teacher="a digest")
    for teacher in ("a digest", UNKNOWN_TEACHER):
        training = {"fingerprint": "f", "config": asdict(config) | {"teacher": teacher}}
        assert check_continuation(training, config, "f", Path("run")) == []
    training = {"fingerprint": "f", "config": asdict(config) | {"teacher": "another digest"}}
    with pytest.raises(ValueError, match=r"holds another training .*teacher: another digest before"):
        check_continuation(training, config, "f", Path("run"))


@pytest.mark.parametrize("model", ["small", "nano"])
def test_a_run_from_before_the_gate_had_a_bound_goes_on_as_it_was_or_is_refused(model):
    """With convolutions there is no gate: nothing changed. With patches the weights mean another thing."""
    config = TrainConfig(out="run", model=MODELS[model])
    training = {"fingerprint": "f", "config": asdict(config)}
    for younger in ("bounded_gate", "warp", "sees_commands"):
        del training["config"]["model"][younger]
    if model == "small":
        assert check_continuation(training, config, "f", Path("run")) == []
        return
    with pytest.raises(ValueError, match=r"model\.bounded_gate: False before, True now"):
        check_continuation(training, config, "f", Path("run"))
    unbounded = replace(config, model=replace(config.model, bounded_gate=False))
    assert check_continuation(training, unbounded, "f", Path("run")) == []


def test_a_run_from_before_the_renderer_had_a_width_or_a_scene_goes_on_as_it_was():
    config = TrainConfig(out="run")
    training = {"fingerprint": "f", "config": asdict(config)}
    for younger in ("renderer_width", "scene_features", "static_layer", "motion_channels", "motion"):
        del training["config"]["prior"][younger]
    assert check_continuation(training, config, "f", Path("run")) == []
    wider = replace(config, prior=replace(config.prior, renderer_width=192))
    with pytest.raises(ValueError, match=r"prior\.renderer_width: 96 before, 192 now"):
        check_continuation(training, wider, "f", Path("run"))


def test_a_world_says_of_its_parts_what_older_ones_did_not_know_only_where_it_differs():
    new = {"objects", "renderer_width", "scene_features", "static_layer", "motion_channels"}
    assert not new & PriorConfig().as_saved.keys()
    wanted = PriorConfig(
        objects=(4,), renderer_width=192, scene_features=12, static_layer=True, motion_channels=8
    )
    assert new <= wanted.as_saved.keys()
    assert PriorConfig(**wanted.as_saved) == wanted
    assert PriorConfig(**PriorConfig().as_saved) == PriorConfig()
    assert "sees_commands" not in ModelConfig().as_saved
    for config in (ModelConfig(), ModelConfig(sees_commands=False)):
        assert ModelConfig(**of_file(config.as_saved)) == config


def test_another_world_to_begin_with_is_refused_once_the_run_has_begun(tmp_path, monkeypatch):
    """It was said to be changed, was not read, and stood in the provenance from then on."""
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(out="run", init="a/world")
    training = {"fingerprint": "f", "config": asdict(config)}
    with pytest.raises(ValueError, match=r"init=b/world for a/world, whose weights have learned on since"):
        check_continuation(training, replace(config, init="b/world"), "f", Path("run"))
    check_continuation(training, replace(config, init=str(tmp_path / "a" / "world")), "f", Path("run"))
    check_continuation(training, replace(config, init=None), "f", Path("run"))


def test_a_checkpoint_that_a_kill_left_hidden_is_found(tmp_path):
    """Between two renames the old folder lies beside its place, and the new one is not there yet."""
    run = RunFolder(tmp_path)
    (run.checkpoints / ".step_00000004.scd-old").mkdir(parents=True)
    (run.checkpoints / ".step_00000002.scd-old").mkdir()
    (run.checkpoints / "step_00000002").mkdir()
    run.world.mkdir()
    assert run.has_checkpoints
    with run.locked():
        assert [path.name for path in Checkpoints(run.checkpoints).found()] == [
            "step_00000004", "step_00000002",
        ]  # fmt: skip
    assert (run.checkpoints / ".step_00000002.scd-old").exists()


def test_shares_of_a_time_budget_leave_some_for_the_world():
    codec = CodecTrainConfig(kind="autoencoder", time_share=0.6)
    TrainConfig(out="run", codec=codec)  # of no limited time
    TrainConfig(out="run", codec=replace(codec, time_share=0.1), time_budget=60)
    TrainConfig(out="run", codec=codec, time_budget=60, init="a/world")  # which has all that learns before it
    with pytest.raises(ValueError, match=r"codec\.time_share=0\.6 and those of prior\.dynamics"):
        TrainConfig(out="run", codec=codec, time_budget=60)

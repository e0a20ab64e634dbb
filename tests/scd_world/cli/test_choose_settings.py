"""What scd-train settles by the data and the device, where the command line leaves it open."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scd_datasets.config import CheckConfig, SourceConfig
from scd_datasets.sources.images import common_size
from scd_datasets.store.store import WindowStore
from scd_world.cli import choose_settings as choosing
from scd_world.cli.choose_settings import (
    Choice,
    Recording,
    can_compile,
    choose,
    choose_image_size,
    choose_settings,
    choose_speed,
    enough_steps,
    fitting_patch,
    with_choices,
)
from scd_world.codec.config import CodecTrainConfig
from scd_world.model.config import MODELS
from scd_world.training.config import TrainConfig


def begin(config: TrainConfig) -> None:
    """Leaves what a run of these settings does that has come to a checkpoint."""
    out = Path(config.out)
    (out / "checkpoints" / "step_00000001").mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(asdict(config)))


BLIND = Recording(96, 128, environment_state=False, frames=16_200)


def test_where_a_simulator_tells_the_state_nothing_is_changed():
    assert choose(Recording(96, 96, environment_state=True, frames=1000), {}, "cpu") == {}
    assert choose(BLIND, {"codec": "identity"}, "cpu") == {}
    assert choose(BLIND, {"codec.kind": "identity"}, "cuda") == {}


def test_where_things_are_looked_for_the_state_is_known():
    assert choose(BLIND, {"codec.objects": "1"}, "cpu") == {}
    assert choose(BLIND, {"codec.objects": "0"}, "cpu")["codec.kind"].value == "autoencoder"
    both = choose(BLIND, {"codec.objects": "1", "codec.kind": "autoencoder"}, "cpu")
    assert "model.warp" in both
    assert "codec.objects" not in both


def test_what_one_camera_finds_another_does_not_know():
    choices = choose(BLIND._replace(cameras=2), {"codec.objects": "1"}, "cpu")
    assert choices["codec.kind"].value == "autoencoder"
    assert "several" in choices["codec.kind"].why
    assert choices["model.state_filter"].value is True
    assert "codec.objects" not in choices


def test_a_run_that_looks_for_things_goes_on_without_being_told_again(training, tmp_path):
    config = training(codec=CodecTrainConfig(objects=1))
    begin(config)
    assert choose_settings(training(), {}).codec == config.codec


def test_a_patch_in_pixels_means_pixels():
    """Commands that were right before there was a codec do what they did, and say what else there is."""
    choices = choose(BLIND, {"model.patch": "16"}, "cpu")
    assert list(choices) == ["codec.kind"]
    assert choices["codec.kind"].value == "identity"
    assert "latents" in choices["codec.kind"].why
    assert "model.patch" not in choose(BLIND, {"model.patch": "8", "codec": "autoencoder"}, "cpu")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (96, 128), (256, 256), (96, 256)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_latents_of_any_size_get_about_as_many_tokens(height, width, device):
    choices = choose(Recording(height, width, environment_state=False, frames=1000), {}, device)
    patch = choices["model.patch"].value
    tokens = height * width / (4 * patch) ** 2
    assert choices["codec.kind"].value == "autoencoder"
    share = tokens / {"cpu": 64, "cuda": 192}[device]
    assert share < 2.5
    assert share > 1 / 2.5 or patch == 2  # as fine as it gets


def test_what_was_given_is_left_alone(training, slide_store, caplog):
    caplog.set_level(logging.INFO)
    config = training(codec=CodecTrainConfig("autoencoder"))
    chosen = choose_settings(config, {"codec": "autoencoder", "model.patch": "8", "optimizer.lr": "1e-3"})
    assert chosen.model == replace(
        config.model,
        patch=8,
        change_weight=0.0,
        foreground_weight=0.0,
        warp=True,
        anchor_frame=True,
        skip_connection=True,
        t_shift=0.15,
        frame_blend=0.0,
        sees_commands=False,
        state_filter=True,
        measured_share=0.5,
    )
    assert chosen.optimizer == config.optimizer
    assert chosen.codec == config.codec
    assert "model.warp=True (what was seen can be moved instead of drawn anew)" in caplog.text
    assert "model.patch" not in caplog.text


@pytest.mark.parametrize(
    ("device", "seconds", "rate"),
    [("cpu", 3600.0, 1e-3), ("cpu", 7201.0, 5e-4), ("cpu", None, 5e-4), ("cuda", 3600.0, 3e-4)],
)
def test_few_updates_take_larger_steps(training, monkeypatch, device, seconds, rate):
    monkeypatch.setattr("scd_world.cli.choose_settings.device_kind", lambda _: device)
    config = training(codec=CodecTrainConfig("autoencoder"), time_budget=seconds)
    assert choose_settings(config, {"codec": "autoencoder"}).optimizer.lr == rate


@pytest.mark.parametrize(
    "given",
    [
        {"prior": "none"},
        {"prior.renderer_parts": "0"},
        {"model.anchor_frame": "False"},
        {"model.state_filter": "no"},
    ],
)
def test_nothing_is_drawn_that_would_correct_nothing(training, given):
    config = training(codec=CodecTrainConfig("autoencoder"))
    chosen = choose_settings(config, {"codec": "autoencoder"})
    assert chosen.model.state_filter
    assert chosen.prior.renderer_parts > 0
    assert chosen.prior.scene_features > 0
    assert chosen.prior.static_layer
    assert chosen.prior.motion_channels > 0
    assert "prior.static_layer" not in choose(BLIND, {"prior.scene_features": "0"}, "cpu")
    choices = choose(BLIND, {"codec": "autoencoder", **given}, "cpu")
    assert choices.get("prior.renderer_parts", Choice(0, "")).value == 0
    assert not {"prior.scene_features", "prior.static_layer", "prior.motion_channels"} & choices.keys()
    assert not choices.get("model.state_filter", Choice(False, "")).value


@pytest.mark.parametrize(
    "given", [{"prior.static_layer": "false"}, {"prior.scene_features": "0"}, {"prior.motion_channels": "0"}]
)
def test_motion_is_left_out_with_what_it_needs(training, given):
    """With prior.static_layer=false a training was refused for motion that nobody had asked for."""
    choices = choose(BLIND, {"codec": "autoencoder", **given}, "cpu")
    assert not {"prior.motion_channels", "prior.dynamics.time_share"} & choices.keys()
    assert "prior.dynamics.time_share" in choose(BLIND, {"codec": "autoencoder"}, "cpu")


def test_a_head_that_cannot_move_anything_is_not_asked_to(training):
    nano = choose_settings(training(model=MODELS["nano"]), {"model": "nano", "codec": "autoencoder"})
    assert not any(
        (nano.model.warp, nano.model.anchor_frame, nano.model.skip_connection, nano.model.state_filter)
    )
    assert nano.model.change_weight == 0
    assert nano.prior.scene_features == 0
    assert not nano.prior.static_layer
    assert not nano.prior.motion_channels


def test_a_run_goes_on_as_it_began(training, tmp_path):
    """Be it with another device, or with a version that would choose otherwise."""
    config = training()
    begun = with_choices(config, {"codec.kind": "autoencoder", "model.patch": 2, "model.change_weight": 3.0})
    begin(begun)
    again = choose_settings(config, {})
    assert again == begun
    settings = asdict(training())
    del settings["codec"]  # a run of a version that had none
    (tmp_path / "run/config.json").write_text(json.dumps(settings))
    assert choose_settings(config, {}) == config


def test_a_training_that_starts_from_a_world_has_its_model(world, training, tmp_path):
    folder = str(world.save(tmp_path / "world"))
    config = training(init=folder, model=MODELS["small"])
    chosen = choose_settings(config, {"model.num_steps": "7"})
    assert chosen.model == replace(world.config, num_steps=MODELS["small"].num_steps)
    assert chosen.codec.kind == "identity"
    assert chosen.prior.renderer_parts == world.prior_config.renderer_parts


def test_a_training_that_starts_from_a_world_is_resumed_by_the_same_command(world, training, tmp_path):
    """With that world's model, whether it is still there or not, and with what the run chose beside it."""
    folder = str(world.save(tmp_path / "before"))
    config = replace(training(init=folder), model=MODELS["small"])
    given = {"optimizer.lr": "3e-4", "model.num_steps": "4"}
    config = with_choices(config, {"model.num_steps": 4})
    first = choose_settings(config, given)
    begin(replace(first, steps=77))
    shutil.rmtree(folder)
    again = choose_settings(config, given)
    assert again.model == first.model == replace(world.config, num_steps=4)
    assert again.steps == 77
    assert choose_settings(replace(config, init=None), given) == again  # it need not be named once more


def test_a_run_without_a_checkpoint_chooses_as_if_there_were_none(training):
    config = training(codec=CodecTrainConfig("autoencoder"))
    anew = choose_settings(config, {"codec": "autoencoder"})
    begin(replace(anew, steps=77))
    assert choose_settings(config, {"codec": "autoencoder"}).steps == 77
    (Path(config.out) / "checkpoints" / "step_00000001").rmdir()
    assert choose_settings(config, {"codec": "autoencoder"}) == anew


def test_data_that_cannot_be_read_is_left_to_whoever_reads_it(training):
    config = training(data=replace(training().data, root="nowhere"))
    assert choose_settings(config, {}) == config


def test_nested_settings_are_changed_by_name():
    config = with_choices(TrainConfig(out="o"), {"model.width": 64, "model.heads": 1, "sequence_length": 5})
    assert (config.model.width, config.model.heads, config.sequence_length) == (64, 1, 5)


@pytest.mark.parametrize(
    ("device", "given", "settings", "compiles"),
    [
        ("cuda", {}, {}, True),
        ("cpu", {}, {}, False),
        ("cuda", {"compile": "false"}, {}, False),
        ("cuda", {}, {"time_budget": 300.0}, False),  # a third of it would be set-up
        ("cuda", {}, {"time_limit": 300.0, "time_budget": 7200.0}, False),
    ],
)
def test_a_gpu_compiles_where_the_time_is_worth_it(training, monkeypatch, device, given, settings, compiles):
    monkeypatch.setattr("scd_world.cli.choose_settings.can_compile", lambda: True)
    assert bool(choose_speed(replace(training(), **settings), given, device)) == compiles


def test_nothing_is_compiled_without_a_compiler_or_in_several_processes(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for name in ("cc", "gcc", "clang"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert can_compile()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not can_compile()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert not can_compile()


@pytest.mark.parametrize(
    ("frames", "batch_size", "sequence_length", "steps"),
    [
        (16_200, 16, 8, 7594),
        (16_200, 16, 16, 3797),
        (16_200, 8, 4, 20_000),
        (1_000, 16, 8, 3000),  # a few recordings are soon known by heart, and still take so long to be learnt
    ],
)
def test_recordings_are_gone_over_about_sixty_times(training, frames, batch_size, sequence_length, steps):
    config = training(batch_size=batch_size, sequence_length=sequence_length)
    assert enough_steps(frames, config).value == steps


def test_frames_that_are_held_out_are_not_counted(training, slide_store, caplog):
    caplog.set_level(logging.INFO)
    config = training(codec=CodecTrainConfig("autoencoder"), batch_size=1, sequence_length=1)
    chosen = choose_settings(config, {"codec": "autoencoder"})
    learnt_from = round(0.75 * WindowStore.open(str(slide_store), in_memory=False).lengths.sum())
    assert f"60 passes over {learnt_from:,} frames" in caplog.text
    assert chosen.steps == max(3000, learnt_from * 60)
    assert choose_settings(config, {"codec": "autoencoder", "steps": "8"}).steps == config.steps
    assert choose_settings(training(), {"codec": "identity"}).steps == config.steps


def test_a_run_goes_on_for_as_many_steps_as_were_chosen(training):
    config = training(codec=CodecTrainConfig("autoencoder"), batch_size=1, sequence_length=1)
    begun = choose_settings(config, {"codec": "autoencoder"})
    begin(begun)
    assert choose_settings(config, {"codec": "autoencoder", "batch_size": "2"}).steps == begun.steps


SIZES = (84, 84), (100, 100), (120, 160), (90, 158), (64, 64), (128, 128), (96, 128), (128, 160)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_patch_divides_the_frames(size, told, device, monkeypatch):
    """84 × 84 and 120 × 160 are common, and were refused with what had been chosen for them."""

    def resized(patch: int, shorter: int | None) -> tuple[int, int]:
        return common_size([size], shorter, patch)

    recorded = Recording(*size, environment_state=told, frames=1000, resized=resized)
    monkeypatch.setattr(choosing, "recording", lambda _: recorded)
    monkeypatch.setattr(choosing, "device_kind", lambda _: device)
    config = choose_settings(TrainConfig(out="nowhere"), {})
    height, width = resized(config.patch_pixels, config.data.image_size)
    assert height % config.patch_pixels == width % config.patch_pixels == 0
    assert 16 <= height * width / config.patch_pixels**2 <= 768
    known = told and size != (90, 158)  # what a simulator tells is drawn in pixels of any size
    assert config.data.image_size is None or not known


def test_a_size_is_chosen_where_it_is_not_given_and_frames_are_still_to_be_read(monkeypatch):
    def recorded(_) -> Recording:
        return Recording(84, 84, False, 9, resized=lambda patch, shorter: (shorter or 84, shorter or 84))

    monkeypatch.setattr(choosing, "recording", recorded)
    config = TrainConfig(out="nowhere", device="cpu")
    assert choose_settings(config, {}).data.image_size == 96
    for name in ("data.image_size", "model.patch"):
        assert choose_settings(config, {name: "1"}).data.image_size is None
    monkeypatch.setattr(choosing, "recording", lambda _: recorded(_)._replace(resized=None))  # of a store
    assert choose_settings(config, {}).data.image_size is None


def test_a_store_that_no_usual_patch_divides_is_trained_on_slowly(monkeypatch, caplog):
    """It cannot be resized, and 300 tokens are four times what a CPU is given; it was refused."""
    monkeypatch.setattr(choosing, "recording", lambda _: Recording(120, 160, False, 9))
    with caplog.at_level(logging.INFO):
        assert choose_settings(TrainConfig(out="nowhere", device="cpu"), {}).model.patch == 2
    assert "300 tokens for 64: another size suits this device better, scd-data" in caplog.text


@pytest.mark.parametrize(
    ("size", "device", "chosen"),
    [((120, 160), "cpu", 96), ((120, 160), "cuda", None), ((47, 61), "cuda", 96), ((96, 128), "cpu", None)],
)
def test_scd_data_prepares_the_size_that_scd_train_would_read(size, device, chosen, monkeypatch, caplog):
    def resized(patch: int, shorter: int | None) -> tuple[int, int]:
        return common_size([size], shorter, patch)

    recorded = Recording(*size, environment_state=False, frames=1000, resized=resized)
    monkeypatch.setattr(choosing, "recording", lambda _: recorded)
    monkeypatch.setattr(choosing, "device_kind", lambda _: device)
    config = CheckConfig(data=SourceConfig(root="nowhere"))
    with caplog.at_level(logging.INFO):
        assert choose_image_size(config, {}).data.image_size == chosen
    assert ("data.image_size=96" in caplog.text) == (chosen is not None)
    assert choose_image_size(config, {"data.image_size": "47"}) == config


def test_a_patch_for_frames_that_are_resized_is_one_of_their_size_with_it():
    """Their longer side is the next multiple of whatever patch is taken."""
    resized = Recording(100, 132, False, 9, resized=lambda patch, _: (100, round(132 / patch) * patch))
    (choice,) = fitting_patch(resized, 1, 64).values()
    assert choice.value == 20  # 100 × 140


def test_a_run_goes_on_at_the_size_that_was_chosen(tmp_path):
    config = TrainConfig(out=str(tmp_path), device="cpu")
    begin(replace(config, data=replace(config.data, image_size=96)))
    assert choose_settings(config, {}).data.image_size == 96

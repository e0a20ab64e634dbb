"""A training is one and the same however it is interrupted, divided, or resumed; nothing ends it badly."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scd_world.training.trainer as trainer_module
from scd_datasets.config import DataConfig
from scd_datasets.store.statistics import compute_stats
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.model.config import ModelConfig
from scd_world.model.filter import FIRST_REACH
from scd_world.model.world_model import WorldModel, observe_context
from scd_world.optim.pretraining import PretrainStage
from scd_world.prior.config import DynamicsPretrainConfig, PriorTrainConfig
from scd_world.robot_data.clip import Clip
from scd_world.training import pretrain, validation
from scd_world.training.checkpoint import TENSORS, Checkpoints
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import make_accelerator
from scd_world.training.learner import Learner, check_division
from scd_world.training.pretrain import Pretraining
from scd_world.training.run_folder import RunFolder
from scd_world.training.trainer import Trainer, train
from scd_world.training.validation import compare, compare_state, copies, past_its_best
from scd_world.utils.interruption import Interrupted
from scd_world.world.fit_filter import Rollouts, fit_first_reach
from scd_world.world.world import World
from tests.conftest import CONFIG, SCHEMA, make_clip, make_model, make_stats
from tests.scd_world.conftest import SLIDE, slide_episode

TINY = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, patch=8, window=4, num_steps=1)


def final(config) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint."""
    folder = Path(config.out) / "checkpoints/last"
    return {
        f"{name}/{k}": v for name in TENSORS for k, v in load_file(folder / f"{name}.safetensors").items()
    }


def log(config) -> list[dict]:
    return [json.loads(line) for line in (Path(config.out) / "log.jsonl").open()]


def assert_equal(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


def assert_close(a: dict, b: dict) -> None:
    """Up to the order of sums; random states belong to processes and may differ."""
    for name, value in a.items():
        if not name.startswith("rng"):
            torch.testing.assert_close(value, b[name], atol=1e-5, rtol=0)


def at_step(monkeypatch, step: int, act) -> None:
    """Calls `act()` before update number `step`."""
    update = Learner.update

    def patched(self, windows, number, *how):
        if number == step:
            act()
        return update(self, windows, number, *how)

    monkeypatch.setattr(Learner, "update", patched)


def raise_crash() -> None:
    raise RuntimeError("crash")


def train_and_crash(monkeypatch, config, step: int) -> None:
    """Trains up to update number `step`, and crashes before it."""
    with monkeypatch.context() as patch:
        at_step(patch, step, raise_crash)
        with pytest.raises(RuntimeError, match="crash"):
            train(config)


@pytest.mark.slow
def test_a_resumed_run_equals_a_straight_one_bit_for_bit(training, monkeypatch):
    straight, broken = training("straight"), training("broken")
    train(straight)
    train_and_crash(monkeypatch, broken, 6)
    assert Checkpoints(Path(broken.out) / "checkpoints").newest().step == 4
    torch.manual_seed(99)  # the global generators come from the checkpoint too
    train(broken)
    assert_equal(final(straight), final(broken))
    assert [line["step"] for line in log(broken)] == [
        2,
        4,
        6,
        8,
        8,
    ]  # what the crashed run wrote past its checkpoint is gone


@pytest.mark.slow
def test_a_run_goes_on_with_or_without_joints_as_it_was_begun(training, monkeypatch):
    """One network for all numbers of the state was all there was."""
    old, new = training("old"), training("new")
    for config, first in ((old, -1.0), (new, 0.0)):

        def commands(
            prev: torch.Tensor, state: torch.Tensor, *rest: object, first: float = first
        ) -> torch.Tensor:
            return torch.tensor([first] + [-1.0] * (state.shape[1] - 1))

        monkeypatch.setattr("scd_datasets.store.statistics.find_commands", commands)
        train_and_crash(monkeypatch, config, 6)
    worlds = [World.load(train(config)) for config in (old, new)]
    assert [world.stats.joints.tolist() for world in worlds] == [[], [0]]
    assert [world.model.prior.dynamics.joints is None for world in worlds] == [True, False]


def test_what_was_pretrained_of_joints_is_held_from_then_on(training, monkeypatch):
    monkeypatch.setattr("scd_datasets.store.statistics.find_commands", lambda *_: torch.tensor([0.0]))
    short, long = (World.load(train(training(f"{steps}", steps=steps))) for steps in (4, 8))
    joints = [dict(world.model.prior.dynamics.joints.named_parameters()) for world in (short, long)]
    for name, value in joints[0].items():
        assert torch.equal(value, joints[1][name])
    assert joints[0]["nets.out"].any()  # which begins at zero
    assert not torch.equal(short.model.core.heads.mlp[0].weight, long.model.core.heads.mlp[0].weight)


@pytest.mark.slow
def test_a_filter_is_measured_once_all_is_learnt_and_kept(
    training, caplog, monkeypatch, short_filter_windows
):
    caplog.set_level("INFO")
    model = replace(TINY, state_filter=True, anchor_frame=True, measured_share=0.5)
    prior = replace(training().prior, calibration_share=0.4, scene_features=3)
    config, first = training(model=model, prior=prior), []

    def remember(*given):
        fit_first_reach(*given)
        first.append(given[0].filter.reach.clone())

    monkeypatch.setattr("scd_world.training.trainer.fit_first_reach", remember)
    measured = World.load(train(config)).model.filter
    assert measured.farthest.any()  # it may come out that nothing is to be corrected
    assert measured.error_weights.any()
    assert (first[0] != FIRST_REACH).all()  # there is something to learn to go on from
    assert "filter: measured on 6 windows of episodes that are not learnt from" in caplog.text
    again = World.load(train(config))  # resumed at its end
    for name, value in again.model.filter.state_dict().items():
        assert torch.equal(value, measured.state_dict()[name]), name
    assert len(first) == 1  # not where a run goes on
    caplog.clear()
    train(replace(config, steps=config.steps + 4))
    assert "filter: measured on 6 windows" in caplog.text  # anew, of weights that have learnt on
    caplog.clear()
    alone = training("alone", model=model, prior=replace(prior, calibration_share=0.0))
    assert World.load(train(alone)).model.filter.error_weights.any()
    assert "windows of episodes that were learnt from, for there is no other" in caplog.text
    caplog.clear()
    monkeypatch.setattr(Pretraining, "filter_episodes", np.zeros(0, int))
    unmeasured = World.load(train(replace(alone, out=f"{alone.out}_short"))).model.filter
    assert not any(
        getattr(unmeasured, name).any() for name in ("strength", "first_strength", "error_weights")
    )
    assert "no episode has more than eval_context=4 frames to measure it on" in caplog.text


@pytest.mark.slow
def test_a_filter_is_measured_on_what_is_longer_than_what_is_shown(training):
    """Of the episodes that are set apart, or else of the others."""
    config = training(prior=replace(training().prior, calibration_share=0.4))
    store = WindowStore.open(config.data.root)
    pretraining = Pretraining(config, store, Path(config.out), make_accelerator(config))
    lengths, (first, *others) = pretraining.store.lengths, pretraining.apart
    assert pretraining.filter_episodes.tolist() == pretraining.apart.tolist()
    for short, expected in [(others, [first]), (pretraining.apart, pretraining.episodes)]:
        lengths[short] = pretraining.config.eval_context
        del pretraining.filter_episodes
        assert pretraining.filter_episodes.tolist() == list(expected)


@pytest.mark.slow
def test_a_world_is_trained_of_pictures_and_actions_alone(training, blind_store):
    """With what `scd-train` chooses by itself: there is no state that could be drawn."""
    data = DataConfig(kind="zarr", root=str(blind_store), holdout=0.25)
    prior = replace(training().prior, scene_features=3, static_layer=True)
    for name in ("scd", "copy_last"):
        model = replace(
            TINY, architecture=name, state_filter=True, anchor_frame=True, measured_share=0.5, head="conv"
        )
        world = World.load(train(training(name, data=data, model=model, prior=prior, steps=2)))
        assert world.model.filter is None


@pytest.mark.slow
def test_the_uncertainty_that_is_measured_at_the_end_is_the_worlds(training, monkeypatch):
    """It is measured once more where the dynamics have learned on, and averaged with nothing of before."""
    measured, fit = [], Pretraining.calibrate

    def calibrate(self, prior, *given):
        prior.uncertainty.calibration_curve.fill_(-float(len(measured)))
        measured.append(fit)
        return True

    monkeypatch.setattr(Pretraining, "calibrate", calibrate)
    world = World.load(train(training(prior=replace(training().prior, calibration_share=0.4))))
    assert len(measured) == 2
    assert (world.model.prior.uncertainty.calibration_curve == -1).all()


def test_a_world_whose_uncertainty_was_measured_on_what_it_learned_says_so(training):
    """In its card; of one that has episodes set apart there is nothing to say."""
    for name, share in (("none", 0.0), ("some", 0.4)):
        world = World.load(train(training(name, prior=replace(training().prior, calibration_share=share))))
        assert ("its uncertainty is too small" in world.card) == (name == "none")


def test_reward_and_success_are_pretrained_whatever_the_dynamics_are(training, caplog):
    caplog.set_level("INFO")
    train(training(prior=replace(training().prior, dynamics=DynamicsPretrainConfig(steps=0)), steps=1))
    assert "square error of success" in caplog.text
    assert "dynamics" not in caplog.text


@pytest.mark.slow
def test_a_run_goes_on_in_the_units_that_it_began_with(training, monkeypatch):
    """Whatever would be measured today: its weights learnt in those, and its joints are those of then."""
    config = training()
    monkeypatch.setattr("scd_datasets.store.statistics.find_commands", lambda *_: torch.tensor([0.0]))
    train_and_crash(monkeypatch, config, 6)
    monkeypatch.setattr("scd_datasets.store.statistics.find_commands", lambda *_: torch.tensor([-1.0]))
    assert World.load(train(config)).stats.joints.tolist() == [0]


@pytest.mark.slow
def test_a_time_budget_holds_the_measuring_of_the_filter_too(training, monkeypatch, short_filter_windows):
    monkeypatch.setattr(Trainer, "seconds_so_far", lambda self: float(self.step))
    model = replace(TINY, state_filter=True, anchor_frame=True)
    for name, each, updates in (("filtered", model, 41), ("alone", TINY, 51)):
        config = training(name, model=each, steps=10**6, time_budget=50.0, eval_every=1000)
        assert World.load(train(config)).provenance["steps"] == updates


def test_too_short_a_budget_is_said_at_its_end(training, caplog, monkeypatch):
    """It ended as if all had gone well, with a world of two updates."""
    monkeypatch.setattr(Trainer, "seconds_so_far", lambda self: 10.0 * self.step)
    config = training(steps=10**6, time_budget=30.0)
    train(config)
    said = "only 4 update(s) of the world were made in time_budget=30, "
    assert said in caplog.text
    assert "give it 75 times as long" in caplog.text
    caplog.clear()
    monkeypatch.setattr(Trainer, "fewest_updates", 4)
    train(replace(config, out=f"{config.out}_again"))
    assert "update(s)" not in caplog.text


def test_what_is_learnt_by_heart_is_said(training, caplog):
    assert past_its_best({}) is None
    assert past_its_best({1000: 0.5, 2500: 0.4, 3000: 0.41}) is None  # not for long
    assert past_its_best({1000: 0.4, 2000: 0.402, 3000: 0.404}) is None
    said = past_its_best({1000: 0.45, 3000: 0.4392, 6000: 0.4571, 6346: 0.462})
    assert said is not None
    assert "lowest at step 3000 (0.4392) and is 0.462 at step 6346" in said
    config = training(steps=2, eval_every=1)
    train(config)
    assert "by heart" not in caplog.text
    losses = {1: 0.1, 2: 1.0, 4: 1.0}
    with (Path(config.out) / "log.jsonl").open("w") as file:
        file.writelines(json.dumps({"step": k, "eval/loss": v}) + "\n" for k, v in losses.items() if k < 3)
    train(replace(config, steps=4))
    assert "held-out episodes: the loss was lowest at step 1 (0.1)" in caplog.text


def test_a_filter_that_would_draw_nothing_is_refused(training):
    for prior in (PriorTrainConfig(kind="none"), PriorTrainConfig(renderer_parts=0)):
        with pytest.raises(ValueError, match="draws nothing: set prior=state"):
            training(model=replace(TINY, state_filter=True, anchor_frame=True), prior=prior)


def test_a_scene_that_would_be_read_off_nothing_is_refused(training):
    with pytest.raises(ValueError, match=r"scene_features=4 .*set prior\.scene_features=0"):
        training(prior=PriorTrainConfig(scene_features=4))


@pytest.mark.slow
def test_more_steps_go_on_from_the_end(training):
    train(training(steps=4))
    before = time.monotonic()
    train(training(steps=6))
    training_json = json.loads((Path(training().out) / "checkpoints/last/training.json").read_text())
    assert training_json["step"] == 6
    assert 0 < training_json["seconds"] < 60 + time.monotonic() - before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint_and_a_world(training, monkeypatch, number):
    config = training(checkpoint_every=100)
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Interrupted, match=rf"{number.name} at step 3 of 8; .* goes on") as end:
            train(config)
    assert end.value.status == 128 + number
    assert Checkpoints(Path(config.out) / "checkpoints").newest().step == 3
    assert World.load(Path(config.out) / "world").provenance["steps"] == 3
    assert signal.getsignal(number) == handler
    train(config)
    straight = training("straight", checkpoint_every=100)
    train(straight)
    assert_equal(final(config), final(straight))


@pytest.mark.slow
def test_a_signal_in_the_last_update_but_one_is_no_end(training, monkeypatch):
    config = training(checkpoint_every=100)
    with monkeypatch.context() as patch:
        at_step(patch, config.steps - 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=r"SIGTERM at step 7 of 8"):
            train(config)
    assert Checkpoints(Path(config.out) / "checkpoints").newest().step == 7


@pytest.mark.slow
def test_a_signal_while_the_filter_is_measured_leaves_it_to_the_next_call(
    training, monkeypatch, caplog, short_filter_windows
):
    """What was learnt is saved before; and what is measured is measured once."""
    caplog.set_level("INFO")
    model = replace(TINY, state_filter=True, anchor_frame=True)
    config = training(model=model, prior=replace(training().prior, calibration_share=0.4))
    began = Rollouts.start

    def interrupt(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return began(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "start", interrupt)
        with pytest.raises(Interrupted, match=r"SIGTERM at step 8 of 8; .* goes on"):
            train(config)
    assert "filter: measured" not in caplog.text
    folder = Path(config.out)
    kept = Checkpoints(folder / "checkpoints").newest()
    assert kept.step == 8
    assert not World.load(folder / "world").model.tells_image_error
    assert World.load(train(config)).model.tells_image_error
    assert "filter: measured on 6 windows" in caplog.text
    measured = Checkpoints(folder / "checkpoints").newest()
    assert measured.weights["filter.error_weights"].any()
    learnt = next(name for name in kept.weights if name.endswith("weight"))
    assert torch.equal(measured.weights[learnt], kept.weights[learnt])
    caplog.clear()
    before = (folder / "world" / "model.safetensors").read_bytes()
    train(replace(config, time_limit=1e-3))  # nothing is left to do
    assert "measured" not in caplog.text
    assert (folder / "world" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_a_run_that_resumes(training):
    config = training(steps=10**6, checkpoint_every=1, eval_every=10**6)
    process = launch(config)
    folder = Path(config.out) / "checkpoints"
    wait_for(lambda: len(list(folder.glob("step_*[0-9]"))) > 1, process)
    process.kill()
    process.join()
    step = Checkpoints(folder).newest().step
    train(replace(config, steps=step + 2))
    assert Checkpoints(folder).newest().step == step + 2


@pytest.mark.slow
def test_a_second_trainer_is_refused(training):
    config = training()
    with RunFolder(config.out).locked(), pytest.raises(OSError, match="another trainer is at work in"):
        train(config)
    train(config)


def test_another_model_in_the_same_folder_is_refused(training):
    train(training(steps=2))
    wider = replace(training().model, width=32)
    with pytest.raises(ValueError, match=r"model\.width: 16 before, 32 now"):
        train(training(model=wider))


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"scene_features": 3, "static_layer": True}, {"scene_features": 3}),
        (
            {"scene_features": 3, "static_layer": True, "motion_channels": 8},
            {"scene_features": 3, "static_layer": True},
        ),
        ({"calibration_share": 0.0}, {"calibration_share": 0.4}),  # other episodes, and so other units
    ],
)
def test_a_prior_of_another_make_in_the_same_folder_is_refused(training, before, now):
    model = replace(TINY, state_filter=True, anchor_frame=True)
    config = training(model=model, steps=1)
    (name,) = before.keys() - now.keys() or now
    train(replace(config, prior=replace(config.prior, **before)))
    with pytest.raises(ValueError, match=rf"holds another training \(prior\.{name}: "):
        train(replace(config, prior=replace(config.prior, **now)))


@pytest.mark.slow
def test_other_data_in_the_same_folder_are_refused(training, other_store):
    train(training(steps=2))
    with pytest.raises(ValueError, match="trained on other data"):
        train(training(data=replace(training().data, root=str(other_store))))


@pytest.mark.slow
def test_a_time_limit_ends_with_a_checkpoint_and_a_world(training, monkeypatch):
    def from_here_on(self, model):  # on a busy machine the limit may pass before the first update
        self.call_started = time.monotonic()
        return Learner(model, self.stats, self.config, self.accelerator)

    monkeypatch.setattr(Trainer, "make_learner", from_here_on)
    config = training(steps=10**6, time_limit=3.0)
    world = World.load(train(config))
    assert 0 < world.provenance["steps"] < 10**6


@pytest.mark.slow
def test_what_is_measured_in_the_end_is_left_to_the_next_call_where_the_time_is_over(training, caplog):
    """A filter takes minutes: a job that ends by its own time_limit would be killed over it."""
    caplog.set_level("INFO")
    config = training(steps=1, time_limit=1e-3)
    train(config)
    assert "time_limit at step 1 of 1" in caplog.text
    assert "left to the next call" in caplog.text
    newest = Checkpoints(Path(config.out) / "checkpoints").newest
    assert not newest().training["measured"]
    train(config)
    assert "finished at step 1 of 1" in caplog.text
    assert newest().training["measured"]


@pytest.mark.slow
def test_a_time_limit_counts_what_opening_the_data_took(training, monkeypatch):
    def slow(*args, **kwargs):
        time.sleep(1.1)
        return open_store(*args, **kwargs)

    open_store = trainer_module.open_store
    monkeypatch.setattr(trainer_module, "open_store", slow)
    for calls in (1, 2):  # each gets on, however long opening takes
        world = World.load(train(training(steps=10**6, time_limit=1.0)))
        assert world.provenance["steps"] == calls


@pytest.mark.slow
def test_a_time_budget_ends_the_training_with_a_small_learning_rate(training, monkeypatch):
    monkeypatch.setattr(Trainer, "seconds_so_far", lambda self: float(self.step))
    config = training(steps=10**6, time_budget=10.0, log_every=1, checkpoint_every=10**6)
    train(config)
    rates = [line["lr"] for line in log(config) if "lr" in line]
    assert max(rates) == pytest.approx(config.optimizer.lr)
    assert rates[-1] == pytest.approx(config.optimizer.lr * config.optimizer.min_lr_ratio)
    assert "eval/psnr_h1" in log(config)[-1]
    before = final(config)
    train(config)  # the budget is spent
    assert_equal(before, final(config))


@pytest.mark.slow
def test_a_world_that_was_not_written_is_written_by_the_next_call(training):
    world = train(training())
    shutil.rmtree(world)
    World.load(train(training()))


def test_pixels_alone_without_state_reward_or_held_out_episodes(training, blind_store):
    data = DataConfig(kind="zarr", root=str(blind_store), holdout=0)
    for steps in (4, 6):
        world = World.load(train(training(data=data, steps=steps)))
    assert world.schema.state == ()


def poison(monkeypatch, steps: range) -> None:
    sample_noise = Learner.sample_noise

    def patched(self, clip, step):
        noise = sample_noise(self, clip, step)
        return replace(noise, x=noise.x * float("nan")) if step in steps else noise

    monkeypatch.setattr(Learner, "sample_noise", patched)


@pytest.mark.slow
def test_an_update_that_is_not_finite_is_skipped_and_counted(training, monkeypatch):
    config = training(steps=4, log_every=1, checkpoint_every=1, keep_checkpoints=9)
    poison(monkeypatch, range(1, 3))
    train(config)
    folder = Path(config.out) / "checkpoints"
    for part in ("weights", "optimizer"):
        before, after, next_one = (load_file(folder / f"step_{i:08d}/{part}.safetensors") for i in (1, 3, 4))
        assert_equal(before, after)
        assert any(not torch.equal(after[name], next_one[name]) for name in after)
    lines = log(config)
    assert [line["skipped"] for line in lines if "skipped" in line] == [0, 1, 2, 2]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_three_in_a_row_stop_the_run_with_the_windows_to_look_at(training, monkeypatch):
    config = training(steps=12, log_every=1)
    poison(monkeypatch, range(5, 12))
    with pytest.raises(FloatingPointError, match="updates 5 to 7 were not finite"):
        train(config)
    assert Checkpoints(Path(config.out) / "checkpoints").newest().step == 4
    dump = json.loads((Path(config.out) / "not_finite_00000007.json").read_text())
    assert list(dump["windows"]) == ["5", "6", "7"]
    assert len(dump["windows"]["5"]) == config.batch_size


@pytest.mark.slow
def test_parts_of_a_batch_give_the_same_update(training):
    whole, parts = training("whole", steps=3), training("parts", steps=3, grad_accumulation=2)
    train(whole)
    train(parts)
    assert_close(final(whole), final(parts))


def test_a_batch_that_does_not_divide_is_refused(training):
    """Three windows in two parts would leave one out without a word."""
    check_division(training(batch_size=8, grad_accumulation=2), num_processes=2)
    with pytest.raises(ValueError, match="batch_size=6 must divide by 2 process"):
        check_division(training(batch_size=6, grad_accumulation=2), num_processes=2)


def test_what_a_store_cannot_do_is_refused(training):
    """Pictures of a window store have the size that it was built with."""
    with pytest.raises(ValueError, match=r"data\.image_size.*scd-data"):
        train(training(data=replace(training().data, image_size=8)))


def test_a_horizon_that_no_window_reaches_is_not_measured(slide_store):
    """The frame after an episode's last action was not recorded: no PSNR of it, and no NaN in the log."""
    store = WindowStore.open(slide_store)
    stats = compute_stats(store, np.arange(8))
    windows = store.windows(np.arange(8), np.full(8, 21), 3)
    clip = Clip.from_windows({k: torch.from_numpy(v) for k, v in windows.items()}, stats)
    model = make_model(TINY, store.schema, stats)
    s = observe_context(model, clip, 3)
    measured = [
        compare(s.obs, clip.obs[:, i + 1], s.obs, clip.valid[:, i].bool(), 1)
        | compare_state(s, clip, i, stats, 1)
        for i in (2, 1)
    ]
    assert measured[0] == {}
    assert np.isfinite(list(measured[1].values())).all()
    assert "eval/state_error_h1" in measured[1]


@pytest.mark.slow
def test_pictures_that_never_move_are_warned_of(training, monkeypatch, caplog):
    """They were one column of a log among others, equal to copy-last's to the digit."""
    train(training("moves"))
    assert "imagined pictures" not in caplog.text
    monkeypatch.setattr(
        WorldModel, "imagine", lambda self, s, action, noise, steps: self.observe(s, action, s.obs, s.state)
    )
    train(training("still"))
    assert "held-out episodes, step 8: the imagined pictures never move, and the recorded" in caplog.text


def test_a_model_that_equals_copying_is_called_that_where_there_is_something_to_see(slide_store):
    store = WindowStore.open(slide_store)
    stats = compute_stats(store, np.arange(8))
    windows = store.windows(np.arange(8), np.zeros(8, int), 4)
    clip = Clip.from_windows({k: torch.from_numpy(v) for k, v in windows.items()}, stats)
    s = observe_context(make_model(TINY, store.schema, stats), clip, 2)

    def said(obs: torch.Tensor, still: torch.Tensor) -> str | None:
        return copies(compare(obs, clip.obs[:, 2], still, clip.valid[:, 1].bool(), 1))

    truth, touched = clip.obs[:, 2], s.obs.clone()
    touched[:, 0, 0, 0] += 0.02  # one value by 2.5 gray levels
    assert "never move" in said(s.obs, s.obs)
    assert "as good as a copy" in said(touched, s.obs)
    assert said(truth, s.obs) is None
    assert said(truth, truth) is None  # nothing moves


@pytest.mark.slow
def test_two_processes_equal_one(training):
    one, two = training("one"), training("two")
    processes = launch_two(two)
    train(one)
    finish(processes)
    assert_close(final(one), final(two))
    losses = [[line["loss"] for line in log(config) if "loss" in line] for config in (one, two)]
    np.testing.assert_allclose(*losses, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scd", "causal_dit"])
def test_one_process_goes_on_as_two_that_share_the_weights(training, kind):
    """FSDP2 loads whole tensors and writes whole tensors: a run may change its processes when it resumes.

    Both models have blocks whose keys and values are used beside their output.
    """
    model = replace(TINY, architecture=kind)
    one, two = training("one", model=model), training("two", model=model, fsdp=True)
    train(one)
    shutil.copytree(one.out, two.out, symlinks=True)
    shutil.rmtree(Path(two.out) / "checkpoints/step_00000008")
    finish(launch_two(two))
    assert_close(final(one), final(two))


SHARD = """
from scd_world.training.distributed import distribute, make_accelerator
torch.manual_seed(int(environment["RANK"]))
net = distribute(torch.nn.Linear(4, 4), make_accelerator(config), fsdp=True)
whole = {name: value.full_tensor().detach() for name, value in net.named_parameters()}
torch.save(whole, config.out + environment["RANK"])
"""


@pytest.mark.slow
def test_what_is_sharded_is_the_first_processes_whatever_the_others_learnt(training):
    """A stage may end by the clock, and no two processes' clocks agree."""
    config = training()
    finish(launch_two(config, SHARD))
    torch.manual_seed(0)
    first = dict(torch.nn.Linear(4, 4).named_parameters())
    for rank in "01":
        found = torch.load(config.out + rank)
        assert all(torch.equal(found[name], value) for name, value in first.items())


@pytest.mark.slow
def test_the_log_says_what_a_trainer_wants_to_know(training, monkeypatch):
    config = training(eval_every=4)
    monkeypatch.setattr(validation, "HORIZONS", (1, 4, 16))
    train(config)
    lines = log(config)
    update = next(line for line in lines if "loss" in line)
    assert {
        "loss_pixels", "loss_state", "grad_norm", "lr", "steps_per_s", "frames_per_s", "waiting", "skipped",
    } <= set(update)  # fmt: skip
    evaluation = next(line for line in lines if "eval/psnr_h1" in line)
    assert {"eval/action_sensitivity", "eval/psnr_h16", "eval/psnr_copy_h16", "eval/state_error_h4"} <= set(
        evaluation
    )
    assert 0 <= update["waiting"] <= 1
    assert list((Path(config.out) / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_the_world_has_the_averaged_weights_and_held_out_starts(training):
    config = training()
    world = World.load(train(config))
    learnt = {name for name, _ in world.model.named_parameters()}
    for name, value in world.model.state_dict().items():
        kept = final(config)[f"{'ema' if name in learnt else 'weights'}/{name}"]
        assert torch.equal(value, kept), name
    _, held_out = WindowStore.open(config.data.root).split(config.data.holdout)
    assert set(world.starts.addresses[:, 0]) <= set(held_out.tolist())
    assert (world.starts.addresses[:, 1] == 0).any()
    s = world.reset([world.starts.get(*world.starts.addresses[-1], context=2)])
    s = world.step(s, np.zeros((1, 1), np.float32), torch.zeros(1, *world.frame_shape))
    assert world.outputs(s)["pixels"].shape == (1, 1, 16, 16, 3)


@pytest.mark.slow
def test_a_training_can_start_from_a_world(training, tmp_path):
    world = World.load(train(training(steps=2)))
    config = training(steps=1, out=str(tmp_path / "tuned"), init=str(Path(training(steps=2).out) / "world"))
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-12))
    tuned = World.load(train(config))
    assert tuned.provenance["parent"] == world.provenance  # evaluation asks what it has seen
    for name, weight in world.model.state_dict().items():
        torch.testing.assert_close(final(config)[f"weights/{name}"], weight, atol=1e-6, rtol=0)
    shutil.move(config.init, tmp_path / "elsewhere")
    resumed = World.load(train(replace(config, steps=2)))  # a resumed run asks for that world no more
    assert resumed.provenance["parent"] == world.provenance
    shutil.move(tmp_path / "elsewhere", config.init)
    wider = replace(config, out=str(tmp_path / "wider"), model=replace(config.model, width=64))
    with pytest.raises(ValueError, match="other shapes"):
        train(wider)


@pytest.mark.slow
def test_a_world_that_is_trained_further_keeps_its_units(training, tmp_path, caplog):
    """Its weights mean them: with those of the new recordings, all that it knows would be a little off."""
    first = World.load(train(training(steps=1)))
    wide = tmp_path / "wide.zarr"
    write_store(wide, SLIDE, [replace(e, state=2 * e.state) for e in map(slide_episode, range(4))])
    config = training(out="tuned", steps=1, init=str(tmp_path / "run" / "world"))
    config = replace(config, data=DataConfig(kind="zarr", root=str(wide), holdout=0.25))
    train(config)
    tuned = World.load(train(replace(config, steps=2, init=None)))  # goes on, though init= is not given again
    for name, value in vars(first.stats).items():
        assert torch.equal(getattr(tuned.stats, name), value), name
    assert "state of " in caplog.text
    assert "lies outside the range" in caplog.text


@pytest.mark.slow
def test_a_grown_recording_whose_held_out_episodes_were_learnt_before_is_warned_of(
    training, tmp_path, caplog
):
    """What is held out of more episodes may have trained the world that a training starts from."""
    caplog.set_level("INFO")

    def written(count: int) -> None:
        shutil.rmtree(tmp_path / "grows.zarr", ignore_errors=True)
        write_store(tmp_path / "grows.zarr", SLIDE, map(slide_episode, range(count)))

    def held_out(count: int) -> set[int]:
        return set(
            WindowStore.split(SimpleNamespace(lengths=range(count), episode_index=range(count)), 0.25)[1]
        )

    sizes = ((few, more) for few in range(4, 20) for more in range(few + 1, 20))
    few, more = next((a, b) for a, b in sizes if {i for i in held_out(b) - held_out(a) if i < a})
    data = DataConfig(kind="zarr", root=str(tmp_path / "grows.zarr"), holdout=0.25)
    written(few)
    world = train(replace(training("first", steps=1), data=data))
    train(replace(training("same", steps=1, init=str(world)), data=data))
    assert "flatters" not in caplog.text
    caplog.clear()
    other = replace(data, holdout=0.5)
    train(replace(training("other", steps=1, init=str(world)), data=other))
    assert "data.holdout is another" in caplog.text
    caplog.clear()
    written(more)
    late = {i for i in held_out(more) - held_out(few) if i < few}
    train(replace(training("then", steps=1, init=str(world)), data=data))
    assert f"WARNING: {len(late)} of " in caplog.text
    assert f"({', '.join(map(str, sorted(late)))}): what is measured on them flatters" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("init_pretrain", [False, True])
def test_stages_go_on_from_a_world_where_that_is_asked_for(training, tmp_path, init_pretrain):
    first = World.load(train(training(steps=1))).model
    config = training(out="on", steps=8, init=str(tmp_path / "run" / "world"), init_pretrain=init_pretrain)
    on = World.load(train(config)).model
    pairs = zip(
        on.prior.renderer.parameters(), first.prior.renderer.parameters(), strict=True
    )  # held but for its stage
    assert all(torch.equal(p, q) for p, q in pairs) is not init_pretrain


@pytest.mark.slow
def test_another_worlds_weights_cannot_be_added_to_a_training_that_has_begun(training, tmp_path):
    world = str(Path(training("first").out) / "world")
    train(training("first", steps=1))
    train(training("second", steps=1))
    with pytest.raises(ValueError, match="did not begin with another world's weights"):
        train(training("second", steps=2, init=world))


def test_another_prior_than_the_worlds_is_named_and_leaves_nothing_to_a_later_training(training):
    """Statistics left behind without a checkpoint once made the next training skip the prior's fits."""
    world = str(Path(train(training("first", steps=1))))
    without = training("second", steps=1, prior=PriorTrainConfig(kind="none"), init=world)
    with pytest.raises(ValueError, match="set prior=state"):
        train(without)
    clean, wider = training("clean", steps=1), training("second", steps=1, init=world)
    with pytest.raises(ValueError, match="other shapes"):
        train(replace(wider, model=replace(wider.model, width=32)))  # after the statistics are copied
    assert (Path(wider.out) / "stats.safetensors").is_file()
    train(clean)
    train(training("second", steps=1))
    assert_close(final(clean), final(wider))


def test_a_patch_that_does_not_fit_a_store_is_refused_before_anything_is_learnt(training, monkeypatch):
    monkeypatch.setattr(trainer_module, "Trainer", lambda *_: pytest.fail("it has begun"))
    config = training(model=replace(TINY, patch=5))
    with pytest.raises(ValueError, match=r"patch=5 does not divide the frame 16×16"):
        train(config)


@pytest.mark.slow
def test_a_budget_that_is_left_is_not_said_to_be_used_up(training, caplog):
    caplog.set_level("INFO")
    config = training(steps=3, time_budget=1e6)
    train(config)
    caplog.clear()
    train(replace(config, steps=5, time_limit=1e-3))
    assert "time_limit at step 4 of 5" in caplog.text


def test_another_prior_in_the_same_folder_is_refused(training):
    config = training(steps=1)
    train(config)
    for prior in (replace(config.prior, width=48), PriorTrainConfig(kind="none")):
        with pytest.raises(ValueError, match=r"holds another training \(prior\."):
            train(replace(config, prior=prior))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["copy_last", "causal_dit"])
def test_what_has_nothing_to_learn_from_resumes(training, blind_store, tmp_path, architecture):
    """A parameter that never has a gradient has no moments in a checkpoint."""
    state_alone = tmp_path / "state.zarr"
    write_store(state_alone, replace(SLIDE, reward=False, success=False), map(slide_episode, range(4)))
    for name, store in {"blind": blind_store, "state": state_alone}.items():
        data = DataConfig(kind="zarr", root=str(store), holdout=0.25)
        config = training(name, data=data, steps=2, model=replace(TINY, architecture=architecture))
        train(config)
        train(replace(config, steps=3))
        assert World.load(Path(config.out) / "world").provenance["steps"] == 3


def test_whatever_waits_for_a_gradient_gets_one(training):
    """Teleoperation records no reward and no success: DDP would wait for the gradients of what tells them."""
    for recorded in (False, True):
        schema = replace(SCHEMA, reward=recorded, success=recorded)
        model = make_model(CONFIG, schema, make_stats(schema))
        Learner(model, make_stats(schema), training(), make_accelerator(training()))
        clip = make_clip(schema, B=2, T=3)
        model.loss(clip, model.sample_noise(clip, torch.Generator().manual_seed(0)))[0].backward()
        waiting = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert waiting == []


@pytest.mark.slow
def test_stages_are_not_run_again_after_a_kill(training, monkeypatch, tmp_path):
    """They may have taken most of the time; until the first checkpoint nothing else would hold them."""
    given = []

    def counted(name):
        fit = getattr(pretrain, name)

        def counting(*arguments, **named):
            for loss in fit(*arguments, **named):
                given.append(name)
                yield loss

        monkeypatch.setattr(pretrain, name, counting)

    for name in ("fit_dynamics", "fit_outcome", "fit_renderer"):
        counted(name)
    straight = World.load(train(training(out="straight"))).model.state_dict()
    assert set(given) == {"fit_dynamics", "fit_outcome", "fit_renderer"}
    with monkeypatch.context() as killed:
        killed.setattr(Learner, "update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(training())
    given.clear()
    weights = World.load(train(training())).model.state_dict()
    assert given == []
    for name, value in weights.items():
        assert torch.equal(value, straight[name]), name
    assert not RunFolder(tmp_path / "run").pretraining.exists()


@pytest.mark.slow
def test_motion_that_learns_otherwise_after_a_kill_leaves_the_stages_before_it(training, monkeypatch):
    model = replace(TINY, state_filter=True, anchor_frame=True)
    prior = replace(training().prior, scene_features=3, static_layer=True, motion_channels=8)
    config = training(model=model, prior=prior)
    with monkeypatch.context() as killed:
        killed.setattr(Learner, "update", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config)
    given = []
    for name in ("fit_dynamics", "fit_renderer", "fit_motion"):
        fit = getattr(pretrain, name)

        def counted(*arguments, name=name, fit=fit, **named):
            for loss in fit(*arguments, **named):
                given.append(name)
                yield loss

        monkeypatch.setattr(pretrain, name, counted)
    train(replace(config, prior=replace(prior, motion=replace(prior.motion, lr=2e-3))))
    assert set(given) == {"fit_motion"}


@pytest.mark.parametrize("reward", [False, True])
def test_what_was_not_recorded_takes_no_time_to_learn(training, caplog, reward):
    caplog.set_level("INFO")
    config = training()
    store = WindowStore.open(config.data.root)
    store.schema = replace(store.schema, reward=reward, success=False)
    Trainer(config, store, RunFolder(config.out), make_accelerator(config))
    assert "dynamics, held-out episodes" in caplog.text
    assert ("outcome" in caplog.text) == reward


@pytest.mark.parametrize("update", [1, 2])  # in the middle of a stage, and its last one
def test_a_signal_while_pretraining_keeps_the_stage(training, monkeypatch, update):
    config, straight = training(steps=3), training("straight", steps=3)
    with monkeypatch.context() as patch:
        step = PretrainStage._update

        def interrupt(self, *how):
            if self.update == update:
                os.kill(os.getpid(), signal.SIGINT)
            return step(self, *how)

        patch.setattr(PretrainStage, "_update", interrupt)
        with pytest.raises(Interrupted, match=f"dynamics is kept up to update {update + 1}, and"):
            train(config)
    train(config)
    train(straight)
    assert_equal(final(config), final(straight))


def test_a_stage_leaves_no_gradient_to_the_first_update(training):
    """AdamW makes a whole step of the smallest one: reward and success were off for good afterwards."""
    config = training()
    run = RunFolder(config.out)
    model = Trainer(config, WindowStore.open(config.data.root), run, make_accelerator(config)).learner.model
    assert [name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()] == []


@pytest.mark.slow
def test_recorded_histories_come_first(training):
    """What can be copied is copied exactly there: from imagined frames alone that cannot be learnt."""

    def losses(own_history: float) -> list[float]:
        model = replace(TINY, self_rollout_share=own_history)
        config = training(f"own_{own_history}", model=model, self_rollout_start=0.5, log_every=1)
        train(config)
        return [line["loss"] for line in log(config) if "loss" in line]

    recorded, imagined = losses(0.0), losses(1.0)
    assert recorded[:3] == imagined[:3]
    assert all(a != b for a, b in zip(recorded[4:], imagined[4:], strict=True))


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(training):
    """What cannot overfit four windows does not get its gradients."""
    config = training(steps=80)
    run = RunFolder(config.out)
    run.path.mkdir()
    trainer = Trainer(config, WindowStore.open(config.data.root), run, make_accelerator(config))
    windows = trainer.loader.batch(0)
    losses = [trainer.learner.update(windows, step, 5e-3)[0]["loss"].item() for step in range(config.steps)]
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])


def launch(config: TrainConfig, work: str = "train(config)", **environment: str) -> BaseProcess:
    """Another process that trains `config`, or does other `work` with it. What it has to import was imported
    once, for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scd_world.training.trainer"])
    code = "import os, torch\nos.environ |= environment\ntorch.set_num_threads(1)\n" + work
    names = {"train": train, "config": config, "environment": environment}
    process = context.Process(target=exec, args=(code, names), daemon=True)
    process.start()
    return process


def launch_two(config: TrainConfig, work: str = "train(config)") -> list[BaseProcess]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    both = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return [launch(config, work, RANK=rank, LOCAL_RANK=rank, **both) for rank in "01"]


def finish(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0


def wait_for(ready: Callable[[], bool], process: BaseProcess, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process.is_alive(), "the process ended by itself"
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def test_a_folder_of_somebody_elses_is_refused_before_any_work(training, monkeypatch):
    """It was overwritten, and the refusal came after the training."""
    config = training()
    out = Path(config.out)
    (out / "world").mkdir(parents=True)
    for name in ("config.json", "log.jsonl", "world/mine.txt"):
        (out / name).write_text("{}")
    monkeypatch.setattr(trainer_module, "open_store", lambda *_: pytest.fail("work was done"))
    with pytest.raises(
        ValueError, match=r"holds config\.json, log\.jsonl, world, which scd-train has not written"
    ):
        train(config)
    assert sorted(path.name for path in out.rglob("*")) == ["config.json", "log.jsonl", "mine.txt", "world"]
    assert (out / "config.json").read_text() == "{}"


def test_a_finished_world_without_its_checkpoints_is_not_trained_over(training):
    world = train(training(steps=2))
    before = (world / "model.safetensors").read_bytes()
    shutil.rmtree(world.parent / "checkpoints")
    with pytest.raises(ValueError, match=r"the checkpoints that led to it are gone: .* init="):
        train(training(steps=2))
    assert (world / "model.safetensors").read_bytes() == before

"""A training whose codec is learnt first: kept, resumed, handed on, and the recording as latents."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import scd_envs  # noqa: F401 registers the environments
from scd_datasets.config import DataConfig
from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.codec.codec import AutoencoderCodec
from scd_world.codec.config import CodecConfig, CodecTrainConfig
from scd_world.distill.config import DistillConfig
from scd_world.distill.distill import distill
from scd_world.evaluation.config import EvaluateConfig
from scd_world.evaluation.evaluate import evaluate
from scd_world.robot_data.normalizer import decode_pixels
from scd_world.training import latents
from scd_world.training.config import TrainConfig
from scd_world.training.latents import latent_store
from scd_world.training.trainer import train
from scd_world.utils.atomic_folder import DamagedFolder, write_manifest
from scd_world.world.world import World
from tests.scd_world.conftest import SLIDE, TINY, slide_episode
from tests.scd_world.training.test_trainer import assert_equal, final, train_and_crash

LEARNT = CodecTrainConfig("autoencoder", width=4, steps=3, batch_size=4)
CPU, EVERY = torch.device("cpu"), np.arange(8)


@pytest.fixture
def coded(training) -> Callable[..., TrainConfig]:
    """As `training`, with latents of 4 × 4 cells."""

    def build(out: str = "run", **changes: object) -> TrainConfig:
        values = {"codec": LEARNT, "model": replace(TINY, patch=2), "steps": 4, "checkpoint_every": 2}
        return training(out, **(values | changes))

    return build


@pytest.fixture
def codec() -> AutoencoderCodec:
    return AutoencoderCodec(CodecConfig("autoencoder", width=4), SLIDE)


# ---- the recording as latents ------------------------------------------------------------------------


def test_a_latent_store_holds_every_frame_encoded_and_all_else_as_it_was(slide_store, codec, tmp_path):
    store = WindowStore.open(slide_store)
    made = latent_store(store, codec, tmp_path / "latents.zarr", CPU, EVERY)
    for episode, frame in ((0, 0), (3, 23), (7, 11)):
        place = np.array([episode]), np.array([frame])
        recorded, latent = store.windows(*place, 1), made.windows(*place, 1)
        expected = decode_pixels(codec.encode(torch.from_numpy(recorded.pop("pixels"))))
        assert np.array_equal(latent.pop("pixels"), expected)
        for name, value in recorded.items():
            np.testing.assert_array_equal(value, latent[name], err_msg=name)
    assert np.array_equal(store.episode_index, made.episode_index)


def test_it_is_encoded_once_and_anew_for_another_codec(slide_store, codec, tmp_path, monkeypatch):
    store, out = WindowStore.open(slide_store), tmp_path / "latents.zarr"
    first = latent_store(store, codec, out, CPU, EVERY).fingerprint
    with monkeypatch.context() as patch:
        patch.setattr(latents, "encode", None)  # whoever calls it fails
        assert latent_store(store, codec, out, CPU, EVERY).fingerprint == first
        elsewhere = latent_store(store, codec, tmp_path / "elsewhere.zarr", CPU, EVERY)  # found by its digest
        assert elsewhere.fingerprint == first
    other = AutoencoderCodec(codec.config, SLIDE)
    assert latent_store(store, other, out, CPU, EVERY).fingerprint != first


def test_the_identity_needs_no_store_of_its_own(world, slide_store, tmp_path):
    store = WindowStore.open(slide_store)
    assert latent_store(store, world.codec, tmp_path / "latents.zarr", CPU, EVERY) is store
    assert not (tmp_path / "latents.zarr").exists()


# ---- training ----------------------------------------------------------------------------------------


def test_a_world_of_latents_shows_what_the_robot_sees(coded, tmp_path):
    folder = train(coded())
    world = World.load(folder)
    assert world.schema == SLIDE
    assert (world.model.schema.height, world.frame_shape) == (4, (3, 4, 4))
    made = json.loads((folder / "config.json").read_text())
    assert made["codec"] == {"kind": "autoencoder", "width": 4, "found": []}
    assert {"psnr", "worst_psnr", "ssim"} == made["provenance"]["codec"].keys()
    assert f"come back at {made['provenance']['codec']['psnr']:.1f} dB" in (folder / "README.md").read_text()
    env = gymnasium.make("scd_world/World-v0", world=str(folder), device="cpu")
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    assert obs["pixels"].shape == (16, 16, 3)
    obs, *_ = env.step(env.action_space.sample())
    assert obs["pixels"].shape == (16, 16, 3)


def test_saved_and_loaded_it_draws_the_same_and_damage_is_named(coded, tmp_path):
    folder = train(coded())
    world = World.load(folder)
    again = World.load(world.save(tmp_path / "again"))
    assert again.fingerprint == world.fingerprint
    frames = torch.rand(2, 3, 4, 4)
    assert torch.equal(world.codec.decode(frames), again.codec.decode(frames))
    world.codec.network.encoder[1].weight.data.fill_(torch.nan)
    world.save(tmp_path / "again")
    with pytest.raises(DamagedFolder, match=r"codec.safetensors holds numbers that are not finite"):
        World.load(tmp_path / "again")
    world.codec = AutoencoderCodec(CodecConfig("autoencoder", width=8), SLIDE)
    world.codec.config = CodecConfig("autoencoder", width=4)
    world.save(tmp_path / "again")
    with pytest.raises(DamagedFolder, match=r"weights of another codec than its config.json"):
        World.load(tmp_path / "again")


def test_a_resumed_run_equals_a_straight_one_and_learns_no_codec_twice(coded, monkeypatch):
    straight, broken = coded("straight"), coded("broken")
    train(straight)
    train_and_crash(monkeypatch, broken, 3)
    monkeypatch.setattr(latents, "learn_codec", None)
    train(broken)
    assert_equal(final(straight), final(broken))
    worlds = [World.load(Path(config.out) / "world") for config in (straight, broken)]
    assert worlds[0].codec.fingerprint == worlds[1].codec.fingerprint


def test_other_settings_are_learnt_anew_before_a_checkpoint_and_refused_after(coded, monkeypatch):
    train_and_crash(monkeypatch, coded(), 0)
    wider = replace(LEARNT, width=6)
    folder = train(coded(codec=wider))
    assert World.load(folder).codec.config.width == 6
    with pytest.raises(ValueError, match=r"codec\.width: 6 before, 4 now"):
        train(coded(steps=6))


def test_a_codec_of_before_objects_could_be_sought_is_not_learnt_twice(coded, monkeypatch):
    train_and_crash(monkeypatch, coded(), 0)
    folder = Path(coded().out) / "codec"
    kept = json.loads((folder / "codec.json").read_text())
    assert kept["depends_on"]["codec"].pop("objects") == 0
    (folder / "codec.json").write_text(json.dumps(kept))
    write_manifest(folder)
    monkeypatch.setattr(latents, "learn_codec", None)
    train(coded())


def test_a_world_hands_its_codec_on(coded, training, monkeypatch, slide_store):
    """To a training that starts from it, and to its student."""
    folder = train(coded())
    first = World.load(folder)
    monkeypatch.setattr(latents, "learn_codec", None)
    second = World.load(train(coded("second", init=str(folder))))
    assert second.codec.fingerprint == first.codec.fingerprint
    assert torch.equal(second.stats.background, first.stats.background)
    with pytest.raises(ValueError, match=r"codec=autoencoder and this training codec=identity"):
        train(training("third", init=str(folder)))
    config = DistillConfig(
        world=str(folder), out=str(folder.parent / "student"), data=coded().data, steps=2, batch_size=2,
        sequence_length=4, device="cpu", report_windows=2, report_horizon=2, report_steps=[1],
    )  # fmt: skip
    student = World.load(distill(config))
    assert student.codec.fingerprint == first.codec.fingerprint
    assert student.schema == first.schema


@pytest.mark.parametrize("kind", ["identity", "autoencoder"])
def test_a_world_that_began_as_another_is_of_the_data_that_it_learnt_from(coded, kind, tmp_path):
    """Not of the first one's: its tasks and its horizon are what an environment goes by."""
    settings = {} if kind == "autoencoder" else {"codec": CodecTrainConfig(), "model": TINY}
    folder = train(coded(**settings))
    schema = replace(SLIDE, horizon=7, tasks=("push on",))
    write_store(tmp_path / "new.zarr", schema, (slide_episode(50 + i, 7) for i in range(8)))
    data = DataConfig(kind="zarr", root=str(tmp_path / "new.zarr"), holdout=0.25)
    world = World.load(train(coded("second", init=str(folder), data=data, eval_context=2, **settings)))
    assert world.schema == schema
    assert (world.model.schema.horizon, world.model.schema.tasks) == (7, ("push on",))


def test_an_evaluation_compares_with_the_recording_and_not_with_the_codec(coded, tmp_path):
    """Copying the last frame needs no codec: its figures are those of a world of pixels."""
    reports = []
    for out, config in (("a", coded("a")), ("b", coded("b", codec=CodecTrainConfig(), model=TINY))):
        settings = EvaluateConfig(
            world=str(train(config)), out=str(tmp_path / f"evaluation_{out}"), data=config.data, windows=2,
            horizon=3, context=2, sweep_starts=0, num_videos=1, device="cpu",
        )  # fmt: skip
        evaluate(settings)
        reports.append(json.loads((tmp_path / f"evaluation_{out}" / "report.json").read_text()))
    curves = [report["curves"] for report in reports]
    assert curves[0]["psnr_copy"] == curves[1]["psnr_copy"]
    assert curves[0]["psnr_imagined"] != curves[1]["psnr_imagined"]


def test_an_odd_patch_is_refused_before_anything_is_read(coded):
    with pytest.raises(ValueError, match=r"model.patch=1: with codec=autoencoder it counts cells"):
        coded(model=replace(TINY, patch=1))

"""What was saved in format 3 opens with one warning, and steps as it did: a world that the old code wrote."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from scd_world.training.checkpoint import read
from scd_world.training.config import TrainConfig
from scd_world.utils.checks import from_dict
from scd_world.world import World
from scd_world.world.format3 import upgrade_name

ASSETS = Path(__file__).parents[2] / "assets"


def played(world: World) -> dict[str, np.ndarray]:
    """Five steps as the old code took them when the outputs beside the world were written."""
    s = world.reset([world.starts.get(4, 2, 3)])
    g = torch.Generator().manual_seed(0)
    for i in range(5):
        action = np.array([[0.5 * (-1) ** i, 100.0 * i]], np.float32)
        s = world.step(s, action, torch.randn(1, *world.frame_shape, generator=g), 2)
    return world.outputs(s)


def assert_as_it_was(found: dict[str, np.ndarray]) -> None:
    with np.load(ASSETS / "world_format3_outputs.npz") as then:
        assert set(found) == set(then)
        assert np.abs(found["pixels"].astype(int) - then["pixels"]).max() <= 1  # another processor may round
        for name in set(then) - {"pixels"}:
            np.testing.assert_allclose(found[name], then[name], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_world_of_format_3_steps_as_it_did_and_is_written_anew(tmp_path):
    with pytest.warns(UserWarning, match="world of format 3: it opens as it is") as caught:
        world = World.load(ASSETS / "world_format3")
    assert len(caught) == 1
    assert_as_it_was(played(world))
    assert world.model.prior.dynamics.constraints.any
    made = world.provenance
    assert (made["extra_datasets"], made["sequence_length"], made["parent"]["sequence_length"]) == (
        ["more"],
        4,
        4,
    )
    folder = world.save(tmp_path / "anew")
    assert json.loads((folder / "config.json").read_text())["format"] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = World.load(folder)
    assert_as_it_was(played(again))
    assert again.provenance == made


def test_a_checkpoint_of_format_3_is_read_under_the_names_of_today(tmp_path, caplog):
    """Weights, averages and moments; the settings, so that what goes on with them finds nothing changed."""
    weights = {"body.net.into.weight": torch.ones(2), "decoder.pixels_in.bias": torch.ones(1)}
    weights["doubt.line"] = torch.tensor([0.5, 1.0])
    files = {"weights": weights, "ema": weights, "rng": {}}
    files["optimiser"] = {f"{name}/exp_avg": value for name, value in weights.items()}
    for name, tensors in files.items():
        save_file(tensors, tmp_path / f"{name}.safetensors")
    config = json.loads((ASSETS / "train_format3.json").read_text())
    training = {"step": 3, "prepared": 2.0, "measured": {}, "ancestor": None, "config": config}
    (tmp_path / "training.json").write_text(json.dumps(training))
    found = read(tmp_path)
    assert "checkpoint of format 3" in caplog.text
    kept = {"prior.dynamics.residual_net.embed.weight", "core.decoder.patch_embed.bias"}
    assert set(found.weights) == set(found.ema) == kept | {"prior.uncertainty.calibration_curve"}
    knots, errors = found.weights["prior.uncertainty.calibration_curve"]
    assert torch.equal(errors, knots + 0.5)
    assert {f"{name}/exp_avg" for name in kept} <= set(found.optimizer)
    assert (found.training["pretrain_seconds"], found.training["eval"], found.training["parent"]) == (
        2.0,
        {},
        None,
    )
    settings = from_dict(TrainConfig, found.training["config"])
    assert settings.sequence_length == config["clip_steps"]
    assert settings.prior.layers == config["model"]["body_layers"]
    assert settings.prior.dynamics.rollout_length == config["body"]["unroll"]
    assert settings.prior.outcome.lr == config["body"]["lr"]


def test_new_names_stay_as_they_are():
    for name in (
        "core.decoder.position",
        "prior.renderer.mlp.0.weight",
        "core.net.known_state_embed.mlp.0.bias",
    ):
        assert upgrade_name(name) == name

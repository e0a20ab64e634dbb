"""Every preset builds, a typo or a wrong type fails before any work, --help needs no torch."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch
from hydra import compose, initialize
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

import scd_world.cli.run_command  # noqa: F401 (registers the configs)
from scd_datasets.config import DataConfig
from scd_world.cli.endings import plain_errors
from scd_world.model.config import BOUNDS, MODELS, REAL_BOUNDS
from scd_world.optim.config import OptimizerConfig
from scd_world.optim.optimizer import make_optimizer
from scd_world.optim.schedule import learning_rate
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.training.config import TrainConfig
from scd_world.utils.atomic_folder import DamagedFolder
from scd_world.utils.checks import from_dict
from tests.conftest import make_model


def composed(*overrides: str) -> TrainConfig:
    with initialize(version_base="1.3", config_path=None):
        return OmegaConf.to_object(compose("train", list(overrides)))


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_builds(name, schema_of):
    schema, stats = schema_of(48)
    with torch.device("meta"):
        model = make_model(MODELS[name], schema, stats)
    assert sum(p.numel() for p in model.parameters()) > 1e5


def test_presets_grow():
    sizes = [(c.width, c.encoder_layers + c.decoder_layers) for c in MODELS.values()]
    assert sizes == sorted(sizes)
    assert all(c.encoder_layers >= 2 * c.decoder_layers for c in MODELS.values())


def test_the_command_line_gives_dataclasses():
    config = composed("out=x", "model=nano", "model.window=5", "data=zarr", "data.root=d", "steps=7")
    assert isinstance(config, TrainConfig)
    assert config.model.width == MODELS["nano"].width
    assert (config.model.window, config.data, config.steps) == (5, DataConfig(kind="zarr", root="d"), 7)


@pytest.mark.parametrize("typo", ["stepz=3", "model.widht=3", "optimizer.betas=1", "data=zar", "model=smal"])
def test_a_typo_fails(typo):
    with pytest.raises(ConfigCompositionException):
        composed("out=x", typo)


@pytest.mark.parametrize("wrong", ["steps=many", "model.width=1.5", "optimizer.lr=fast"])
def test_a_wrong_type_fails(wrong):
    with pytest.raises(ConfigCompositionException):
        composed("out=x", wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("steps=0", "steps=0: expected"),
        ("device=tpu", "expected one of auto, cpu, cuda"),
        ("data.holdout=2", "between 0 and 0.9"),
        ("optimizer.decay_share=1", "warmup"),
        ("grad_accumulation=3", "must divide"),
        ("prior.dynamics.time_share=0.8", "leave none for the world"),
        ("model.predict=y", "expected 'x'"),
        *((f"model.{name}=-1", f"model.{name}=-1: expected a number between") for name in BOUNDS),
        *((f"model.{name}=-101", f"model.{name}=-101.0: expected a number between") for name in REAL_BOUNDS),
        ("model.heads=0", "model.heads=0"),
        ("model.window=1000000000", "between 1 and 4096"),
        ("num_start_states=0", "num_start_states=0"),
        ("seed=-1", "seed=-1"),
        ("time_budget=0", "time_budget=0"),
        ("time_limit=-1", "time_limit=-1"),
        ("num_steps=0", "num_steps=0"),
        ("prior.outcome.batch_size=1", "between 2 and"),
        ("prior.dynamics.init_noise=nan", "init_noise=nan: expected a number between"),
    ],
)
def test_a_wrong_value_fails(wrong, message):
    with pytest.raises(ValueError, match=message):
        composed("out=x", wrong)


def test_out_is_required():
    with pytest.raises(MissingMandatoryValue):
        composed()


def test_config_survives_json():
    config = composed("out=x", "model=micro", "time_limit=3")
    assert from_dict(TrainConfig, asdict(config)) == config
    with pytest.raises(ValueError, match="TrainConfig has no speed"):
        from_dict(TrainConfig, {"out": "x", "speed": 1})


def test_help_imports_no_torch():
    code = "import sys, scd_world.cli.run_command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_learning_rate_rises_stays_and_falls():
    config = OptimizerConfig(lr=1.0, warmup_share=0.1, decay_share=0.5, min_lr_ratio=0.01)
    rates = [learning_rate(config, (step + 1) / 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:50] == [1.0] * 41
    assert rates[74] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[50:]))


def test_the_decoder_learns_at_its_own_rate(schema_of):
    model = make_model(MODELS["nano"], *schema_of(16))
    others, decoder = make_optimizer(model, OptimizerConfig(decoder_lr_ratio=3.0)).param_groups
    assert decoder["scale"] == 3 * others["scale"]
    assert len(decoder["params"]) == len(list(model.core.decoder.parameters()))
    assert len(decoder["params"]) + len(others["params"]) == len(list(model.parameters()))


@pytest.fixture
def schema_of():
    def build(size: int) -> tuple[DataSchema, Normalizer]:
        one = ("a",)
        schema = DataSchema(one, size, size, one, (), one, (-1.0,), (1.0,), 10, (), True, True, 9)
        return schema, Normalizer.neutral(schema)

    return build


@pytest.mark.parametrize("kind", [DamagedFolder, BlockingIOError, FloatingPointError])
def test_what_a_user_can_cure_ends_a_command_with_its_message_alone(kind, capsys, monkeypatch):
    """A damaged store, a folder that another trainer holds, gradients that are not finite."""
    monkeypatch.delenv("SCD_DEBUG", raising=False)
    with pytest.raises(SystemExit), plain_errors():
        raise kind("what came, and the cure")
    assert capsys.readouterr().err == "error: what came, and the cure\n"

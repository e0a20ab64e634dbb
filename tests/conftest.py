"""A tiny world for everybody: two cameras, a frame that is not square, every weight filled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before torch is imported, and for every process that a test starts: several threads that wait for each other
# on a busy machine can cost forty times the work.
os.environ["OMP_NUM_THREADS"] = "1"
# Where no bytecode is wanted beside the sources, as in many containers, each process that imports torch or
# LeRobot would compile them anew, for five to fifteen seconds: it is kept in a folder of its own.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    folder = Path(__file__).parents[1] / ".pytest_cache" / "bytecode"
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    sys.dont_write_bytecode = False

import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from scd_world.model.config import ModelConfig
from scd_world.model.world_model import WorldModel
from scd_world.prior.config import PriorConfig
from scd_world.prior.state_prior import PretrainedStatePrior
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.robot_data.schema import DataSchema
from scd_world.robot_data.trajectories import StateTrajectories
from scd_world.world.build_model import build_model
from scd_world.world.starts import StartStates
from scd_world.world.world import World

SCHEMA = DataSchema(
    cameras=("top", "wrist"),
    height=8,
    width=12,
    agent_pos=("x", "y"),
    environment_state=("block",),
    action=("ax", "ay"),
    action_low=(-2.0, 0.0),
    action_high=(2.0, 512.0),
    fps=10,
    tasks=("push",),
    reward=True,
    success=True,
    horizon=30,
)
CONFIG = ModelConfig(
    width=32,
    heads=2,
    encoder_layers=2,
    decoder_layers=2,
    patch=4,
    window=3,
    fourier_octaves=3,
    num_steps=2,
)


PRIOR = PriorConfig(renderer_parts=4)


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _stores_of_this_test_alone(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SCD_CACHE", str(tmp_path_factory.mktemp("cache")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("longest") is None)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """only("train"): from here on Hydra knows the settings of this command alone, as in the command's own
    process: it copies all that it knows dozens of times."""
    from hydra.core.config_store import ConfigStore

    from scd_world.cli.run_command import COMMANDS

    store = ConfigStore.instance()
    everything = store.repo

    def narrow(command: str) -> None:
        others = {f"{name}{end}.yaml" for name in COMMANDS if name != command for end in ("", "_schema")}
        monkeypatch.setattr(store, "repo", {k: node for k, node in everything.items() if k not in others})

    return narrow


@pytest.fixture
def schema() -> DataSchema:
    return SCHEMA


@pytest.fixture
def stats() -> Normalizer:
    return make_stats(SCHEMA)


@pytest.fixture
def model(stats: Normalizer) -> WorldModel:
    return filled(make_model(CONFIG, SCHEMA, stats))


@pytest.fixture
def clip() -> Clip:
    return make_clip(SCHEMA, B=3, T=5)


@pytest.fixture
def world(model: WorldModel, stats: Normalizer) -> World:
    rng = np.random.default_rng(0)
    lengths = {4: 6, 7: 9}  # episode: frames
    addresses = np.array([(e, f) for e, n in lengths.items() for f in range(n)], np.int64)
    F, V = len(addresses), len(SCHEMA.cameras)
    starts = StartStates(
        pixels=rng.integers(0, 256, (F, V, SCHEMA.height, SCHEMA.width, 3), np.uint8),
        state=rng.uniform(-1, 1, (F, len(SCHEMA.state))).astype(np.float32),
        action=rng.uniform(SCHEMA.action_low, SCHEMA.action_high, (F, len(SCHEMA.action))).astype(np.float32),
        addresses=addresses,
    )
    return World(model.eval(), stats, starts, card="# tiny\n")


def make_stats(schema: DataSchema) -> Normalizer:
    return replace(
        Normalizer.neutral(schema),
        state_low=torch.full((len(schema.state),), -1.0),
        state_high=torch.full((len(schema.state),), 3.0),
        action_low=torch.tensor(schema.action_low),
        action_high=torch.tensor(schema.action_high),
        reward_mean=torch.tensor(0.5),
        reward_std=torch.tensor(2.0),
    )


def make_clip(schema: DataSchema, B: int, T: int, seed: int = 0) -> Clip:
    g = torch.Generator().manual_seed(seed)
    return Clip(
        obs=torch.rand(B, T + 1, schema.channels, schema.height, schema.width, generator=g) * 2 - 1,
        state=torch.rand(B, T + 1, len(schema.state), generator=g) * 2 - 1,
        prev=torch.rand(B, len(schema.state) + len(schema.action), generator=g) * 2 - 1,
        action=torch.rand(B, T, len(schema.action), generator=g) * 2 - 1,
        reward=torch.randn(B, T, generator=g),
        success=(torch.rand(B, T, generator=g) > 0.5).float(),
        valid=torch.ones(B, T),
        task=torch.arange(B) % max(len(schema.tasks), 1),
        anchor=torch.rand(B, schema.channels, schema.height, schema.width, generator=g) * 2 - 1,
        anchor_state=torch.rand(B, 2 * len(schema.state) + len(schema.action), generator=g) * 2 - 1,
    )


def make_recorded(state, action, reward, success, starts, lengths) -> StateTrajectories:
    """Rows of episodes, each beginning at rest under an action of 0: state (F, S), action (F, A)."""
    prev = torch.cat([state, action], dim=-1).roll(1, 0)
    prev[starts] = torch.cat([state, torch.zeros_like(action)], dim=-1)[starts]
    return StateTrajectories(state, prev, action, reward, success, starts, lengths)


def make_model(
    config: ModelConfig, schema: DataSchema, normalizer: Normalizer, prior: PriorConfig = PRIOR
) -> WorldModel:
    return build_model(config, prior, schema, normalizer)


def filled(model: WorldModel) -> WorldModel:
    """Zero-initialised gates would let every test of causality and of the cache pass with nothing in it.

    Dynamics and renderer at full size would be chaos when rolled out, and rounding would show.
    """
    g = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.startswith("prior.uncertainty."):
            continue  # a curve rises
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 25
        size = 0.3 if name.startswith(("prior.dynamics.", "prior.renderer.")) else 1.0
        parameter.data.copy_(size * torch.randn(parameter.shape, generator=g) / fan_in**0.5)
    if isinstance(model.prior, PretrainedStatePrior):
        linear = model.prior.dynamics.linear
        linear.weight.copy_(torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(0)) / 10)
        linear.residual.fill_(0.5)
    return model


@pytest.fixture(scope="session")
def save_policy(tmp_path_factory) -> Callable[..., Path]:
    """save_policy("act", shapes): a tiny policy with random weights in a folder, as LeRobot saves one.

    shapes: LeRobot's key → shape, pictures (C, H, W), with `action`. Its actions are spread over [-1, 1].
    """
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies import get_policy_class, make_policy_config, make_pre_post_processors

    layers = {"n_encoder_layers": 1, "n_decoder_layers": 1, "dim_model": 16, "n_heads": 2}
    small = {
        "act": {"chunk_size": 4, "n_action_steps": 3, "dim_feedforward": 16, "use_vae": False, **layers},
        "diffusion": {
            "horizon": 8,
            "n_action_steps": 3,
            "down_dims": (16, 32),
            "diffusion_step_embed_dim": 16,
            "num_train_timesteps": 4,
            "use_group_norm": True,
            "spatial_softmax_num_keypoints": 4,
        },
    }

    def kind(key: str) -> FeatureType:
        kinds = {"action": FeatureType.ACTION, "observation.environment_state": FeatureType.ENV}
        return FeatureType.VISUAL if ".image" in key else kinds.get(key, FeatureType.STATE)

    def save(policy: str, shapes: dict[str, tuple[int, ...]]) -> Path:
        torch.manual_seed(0)
        features = {key: PolicyFeature(kind(key), shape) for key, shape in shapes.items()}
        config = make_policy_config(
            policy,
            input_features={key: feature for key, feature in features.items() if key != "action"},
            output_features={"action": features["action"]},
            pretrained_backbone_weights=None,  # the default downloads
            device="cpu",
            push_to_hub=False,
            **small[policy],
        )
        flat = {key: (shape[0], 1, 1) if len(shape) == 3 else shape for key, shape in shapes.items()}
        values = {"mean": 0.0, "std": 0.5, "min": -1.0, "max": 1.0}
        stats = {
            key: {name: torch.full(shape, value) for name, value in values.items()}
            for key, shape in flat.items()
        }
        folder = tmp_path_factory.mktemp(policy)
        made = [get_policy_class(policy)(config), *make_pre_post_processors(config, dataset_stats=stats)]
        for part in made:
            part.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(params=["tmpfs", "limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder on a real file system of 256 KiB; or one where no file may be larger than 128 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if request.param == "limit":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, hard))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a file system, and not in every container")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)

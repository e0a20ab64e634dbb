"""A world as one of LeRobot's environments: what `--env.type=scd_world --env.world=…` makes.

This package exists for LeRobot alone, so it imports LeRobot at once; nothing else of ours imports it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import yaml
from draccus import ParsingError
from gymnasium.vector import AutoresetMode, VectorEnv
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig, parser
from lerobot.envs import EnvConfig, env_to_policy_features
from lerobot.processor import (
    ObservationProcessorStep,
    PolicyProcessorPipeline,
    ProcessorStep,
    RenameObservationsProcessorStep,
)
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_IMAGE, OBS_IMAGES, OBS_STATE
from lerobot.utils.feature_utils import dataset_to_policy_features

from scd_envs.settings import open_world, task_index
from scd_envs.vector_env import WorldVectorEnv
from scd_policies.lerobot_compat import check_fit, for_camera, policy_shapes, resize, warn_proportions
from scd_world.robot_data.schema import DataSchema, ImageRegion
from scd_world.world.world import World, find_folder
from scd_world.world.world_config import read_config

STATES = {"agent_pos": (FeatureType.STATE, OBS_STATE), "environment_state": (FeatureType.ENV, OBS_ENV_STATE)}
RESIZE_HINT = "--env.observation_height={} --env.observation_width={}"


@EnvConfig.register_subclass("scd_world")
@dataclass
class WorldEnvConfig(EnvConfig):
    """Configures a world as an environment to evaluate policies in.

    world: its folder or Hub id.
    device: where it is loaded; "auto": CUDA where there is one.
    num_steps, horizon, success_threshold, clip_actions, task: as for `scd_envs.settings.Settings`; actions
    are clipped here by default, so that one wild action does not end an evaluation of hours.
    observation_height, observation_width: size in px to which images are resized for the policy.

    features_map: the observation's key → LeRobot's; by default the key that the world's own dataset had.

    `fps` and `features` are the world's own, read from its config.json.
    """

    world: str = ""
    device: str = "auto"
    num_steps: int | None = None
    horizon: int | None = None
    success_threshold: float = 0.5
    clip_actions: bool = True
    observation_height: int | None = None
    observation_width: int | None = None
    task: str | None = None
    fps: int = 0
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with preserve_error_message():
            self.read_world()

    def read_world(self) -> None:
        """Takes what the world defines; ValueError or FileNotFoundError where that fails."""
        if not self.world:
            raise ValueError("which world? Give --env.world=<folder or hub id of a world>")
        if (self.observation_height is None) != (self.observation_width is None):
            raise ValueError(
                "observation_height and observation_width go together; got "
                f"{self.observation_height} and {self.observation_width}"
            )
        schema = read_schema(self.world)
        if self.fps not in (0, round(schema.fps)):
            raise ValueError(f"the world {self.world} has {schema.fps} frames per second; got fps={self.fps}")
        if self.task is not None:
            task_index(self.task, schema.tasks)
        elif len(schema.tasks) == 1:
            self.task = schema.tasks[0]  # of several, each start has its own
        self.fps = round(schema.fps)  # LeRobot knows whole rates alone
        size = self.observation_size or (schema.height, schema.width)
        self.features, names = features_of(schema, size)
        if unknown := sorted(set(self.features_map) - set(names)):
            raise ValueError(f"features_map names {unknown}; the world {self.world} has {list(names)}")
        self.features_map = names | self.features_map
        if parser.parse_arg("dataset.repo_id"):  # lerobot-train makes its environments hours later
            check_policy_fits(self)

    @property
    def observation_size(self) -> tuple[int, int] | None:
        """Gives the (height, width) of the policy's images, where they are not the world's."""
        if self.observation_height is None or self.observation_width is None:
            return None
        return self.observation_height, self.observation_width

    @property
    def package_name(self) -> str:
        return "scd_envs"

    @property
    def gym_id(self) -> str:
        return "scd_world/World-v0"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Gives what `gymnasium.make(cfg.gym_id, **cfg.gym_kwargs)` takes for a single environment."""
        return {"world": self.world, "device": self.device, **self.settings}

    @property
    def settings(self) -> dict[str, Any]:
        names = ("num_steps", "horizon", "success_threshold", "clip_actions", "task")
        return {name: value for name, value in asdict(self).items() if name in names}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """Makes one environment whose rows are one batch of the model; without workers, whatever
        `use_async_envs` says.

        LeRobot sums one step more than an episode has. Rows that are over stay frozen here (DISABLED
        autoreset: reward 0, the same is_success), which makes its scores exact.
        """
        check_policy_fits(self)
        folder = find_folder(self.world)
        warn_of_no_outcome(read_schema(self.world))
        world = loaded_world(folder, self.device, (folder / "manifest.json").stat().st_mtime_ns)
        envs = WorldVectorEnv(world, n_envs, autoreset_mode=AutoresetMode.DISABLED, **self.settings)
        return {self.type: {0: envs}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        steps: list[ProcessorStep] = []
        schema = read_schema(self.world)
        if self.observation_size:
            for camera, size in schema.recorded_sizes.items():
                warn_proportions(camera, size, self.observation_size)
            steps.append(ResizeImages(*self.observation_size, schema.views))
        # LeRobot names images after the observation's keys; the data may have called its cameras otherwise.
        made = names_by_lerobot(schema)
        steps.append(RenameObservationsProcessorStep({made[key]: self.features_map[key] for key in made}))
        return PolicyProcessorPipeline(steps=steps), PolicyProcessorPipeline(steps=[])


@dataclass
class ResizeImages(ObservationProcessorStep):
    """Resizes images to the policy's size: its cameras may have been sharper, and it knows no letterbox."""

    height: int
    width: int
    views: dict[str, ImageRegion]  # camera → where its image lies in the world's frame

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        size = (self.height, self.width)
        return {
            key: resize(value, size, for_camera(key, self.views)) if key.startswith(OBS_IMAGE) else value
            for key, value in observation.items()
        }

    def transform_features(self, features: dict) -> dict:
        """Changes nothing: the environment's config gives the features with this step in mind."""
        return features


def features_of(schema: DataSchema, size: tuple[int, int]) -> tuple[dict[str, PolicyFeature], dict[str, str]]:
    """Gives the observation's keys with their shapes, and the dataset's names for them."""
    images = image_keys(schema)
    features = {key: PolicyFeature(FeatureType.VISUAL, (*size, 3)) for key in images.values()}
    for key, (kind, _) in STATES.items():
        if count := len(getattr(schema, key)):
            features[key] = PolicyFeature(kind, (count,))
    features[ACTION] = PolicyFeature(FeatureType.ACTION, (len(schema.action),))
    recorded = {images[camera]: name for camera, name in schema.lerobot_keys.items()}
    return features, names_by_lerobot(schema) | recorded | {ACTION: ACTION}


def image_keys(schema: DataSchema) -> dict[str, str]:
    """Gives camera → the observation's key of its images."""
    lone = len(schema.cameras) == 1
    return {camera: "pixels" if lone else f"pixels/{camera}" for camera in schema.cameras}


def names_by_lerobot(schema: DataSchema) -> dict[str, str]:
    """Gives the observation's key → what `lerobot.envs.preprocess_observation` calls it."""
    states = {key: name for key, (_, name) in STATES.items() if getattr(schema, key)}
    return states | {
        key: OBS_IMAGE if key == "pixels" else f"{OBS_IMAGES}.{camera}"
        for camera, key in image_keys(schema).items()
    }


def read_schema(world: str) -> DataSchema:
    """Reads the schema of a world on disk or on the Hub, without its model."""
    return read_config(find_folder(world)).schema


@lru_cache(maxsize=1)
def loaded_world(folder: Path, device: str, written: int) -> World:
    """Loads a world once: training makes and closes its environments at every evaluation.

    written: when the folder was written, in ns; another time means another world.
    """
    return open_world(folder, device)


@contextmanager
def preserve_error_message() -> Iterator[None]:
    """Raises a configuration's errors as the parser's own: LeRobot shows the messages of no others."""
    try:
        yield
    except (ValueError, OSError) as error:
        if parser.parse_arg("env.type") is None:  # not made from a command line
            raise
        raise ParsingError(str(error)) from error


def warn_of_no_outcome(schema: DataSchema) -> None:
    """Warns where LeRobot will print figures of what the world does not predict."""
    figures = {"success": "pc_success", "reward": "avg_sum_reward and avg_max_reward"}
    for outcome, printed in figures.items():
        if not getattr(schema, outcome):
            warnings.warn(
                f"this world predicts no {outcome}, since its recordings had none: LeRobot's {printed} will "
                "be 0, and mean nothing",
                stacklevel=3,
            )


def check_policy_fits(config: WorldEnvConfig) -> None:
    """Raises ValueError where the command line's policy does not fit the world, before anything is loaded.

    LeRobot gives environments neither policy nor dataset, so the command line is read once more, as LeRobot
    itself does. A policy that is trained from scratch needs what its dataset has, or of that what
    `--policy.input_features` names: with another image size it would be evaluated without a warning. Where a
    configuration file may hold more than the command line, nothing is checked.
    """
    if parser.parse_arg("config_path"):
        return
    given = shapes_of(env_to_policy_features(config))
    if path := parser.parse_arg("policy.path"):
        overrides = parser.get_cli_overrides("policy") or []
        wanted = policy_shapes(PreTrainedConfig.from_pretrained(path, cli_overrides=overrides))
        rename = yaml.safe_load(parser.parse_arg("rename_map") or "{}")
        check_fit(wanted, given, rename, lambda found: f"--rename_map='{json.dumps(found)}'", RESIZE_HINT)
    elif repo_id := parser.parse_arg("dataset.repo_id"):
        inputs = dataset_features(repo_id)
        if chosen := yaml.safe_load(parser.parse_arg("policy.input_features") or "{}"):
            inputs = {key: inputs[key] for key in inputs if key in {*chosen, ACTION}}
        # LeRobot takes no rename map here: the environment's own names are what can be changed.
        check_fit(
            shapes_of(inputs),
            given,
            {},
            partial(features_map_hint, config),
            RESIZE_HINT,
            partial(inputs_hint, inputs),
        )


def shapes_of(features: Mapping[str, PolicyFeature]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(feature.shape) for key, feature in features.items()}


def features_map_hint(config: WorldEnvConfig, found: Mapping[str, str]) -> str:
    """Writes how the environment is told the dataset's names. found: its own present name → the dataset's."""
    changed = {key: found[name] for key, name in config.features_map.items() if name in found}
    return f"--env.features_map='{json.dumps(changed)}'"


def inputs_hint(inputs: Mapping[str, PolicyFeature], kept: Collection[str]) -> str:
    """Writes how a policy is trained on some of the dataset's features alone."""
    chosen = {
        key: {"type": feature.type.name, "shape": list(feature.shape)}
        for key, feature in inputs.items()
        if key in kept and feature.type is not FeatureType.ACTION
    }
    return f"--policy.input_features='{json.dumps(chosen)}'"


def dataset_features(repo_id: str) -> dict[str, PolicyFeature]:
    """Gives inputs and action of a policy that lerobot-train makes for this dataset."""
    from lerobot.datasets import LeRobotDatasetMetadata  # seconds that lerobot-eval need not spend

    meta = LeRobotDatasetMetadata(
        repo_id, parser.parse_arg("dataset.root"), parser.parse_arg("dataset.revision")
    )
    return dataset_to_policy_features(meta.features)

"""A world as one of LeRobot's environments: what `--env.type=scd_world --env.world=…` makes.

This package exists for LeRobot alone, so it imports LeRobot at once; nothing else of ours imports it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
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

from scd_envs.settings import open_world
from scd_envs.vector_env import WorldVectorEnv
from scd_policies.lerobot_fit import check_fit, policy_shapes, resized
from scd_world.schema import DataSchema
from scd_world.world import World, find_folder


@EnvConfig.register_subclass("scd_world")
@dataclass
class WorldEnvConfig(EnvConfig):
    """Evaluation of a policy in the imagination of a world.

    world: its folder or hub id.
    device: where it is loaded; "auto": CUDA where there is one.
    num_steps, horizon, success_threshold, clip_actions: as for `scd_envs.settings.Settings`; actions are
    clipped here unless told otherwise, so that one wild action does not end an evaluation of hours.
    observation_height, observation_width: pictures are resized to this before the policy sees them.

    `fps`, `features`, `features_map` and `task` are the world's own, read from its config.json.
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

    def __post_init__(self) -> None:
        if not self.world:
            raise ValueError("which world? Give --env.world=<folder or hub id of a world>")
        if (self.observation_height is None) != (self.observation_width is None):
            raise ValueError(
                "observation_height and observation_width go together; got "
                f"{self.observation_height} and {self.observation_width}"
            )
        schema = read_schema(self.world)
        if self.fps not in (0, schema.fps):
            raise ValueError(f"the world {self.world} has {schema.fps} frames per second; got fps={self.fps}")
        if self.task and self.task not in schema.tasks:
            raise ValueError(
                f"the world {self.world} knows the tasks {list(schema.tasks)}; got {self.task!r}"
            )
        self.fps = schema.fps
        self.task = self.task or next(iter(schema.tasks), None)
        size = self.picture_size or (schema.height, schema.width)
        self.features, self.features_map = features_of(schema, size)

    @property
    def picture_size(self) -> tuple[int, int] | None:
        """(height, width) that the policy is shown, where it is not the world's."""
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
        """What `gymnasium.make(cfg.gym_id, **cfg.gym_kwargs)` takes for a single environment."""
        return {"world": self.world, "device": self.device, **self.settings}

    @property
    def settings(self) -> dict[str, Any]:
        names = ("num_steps", "horizon", "success_threshold", "clip_actions")
        return {name: value for name, value in asdict(self).items() if name in names}

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, VectorEnv]]:
        """One environment whose rows are one batch of the model: no workers, so `use_async_envs` is moot.

        LeRobot sums one step more than an episode has. Rows that are over stay frozen here (DISABLED
        autoreset: reward 0, the same is_success), which makes its scores exact.
        """
        check_policy_argument(self)
        folder = find_folder(self.world, None)
        world = loaded_world(folder, self.device, (folder / "manifest.json").stat().st_mtime_ns)
        made = WorldVectorEnv(world, n_envs, autoreset_mode=AutoresetMode.DISABLED, **self.settings)
        return {self.type: {0: made}}

    def get_env_processors(self) -> tuple[PolicyProcessorPipeline, PolicyProcessorPipeline]:
        steps: list[ProcessorStep] = []
        # LeRobot takes a lone picture for `observation.image`; the data may have called it otherwise.
        if (key := self.features_map.get("pixels", OBS_IMAGE)) != OBS_IMAGE:
            steps.append(RenameObservationsProcessorStep({OBS_IMAGE: key}))
        if self.picture_size:
            steps.append(ResizePictures(*self.picture_size))
        return PolicyProcessorPipeline(steps=steps), PolicyProcessorPipeline(steps=[])


@dataclass
class ResizePictures(ObservationProcessorStep):
    """A policy's cameras may have been sharper than the world's."""

    height: int
    width: int

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        size = (self.height, self.width)
        return {
            key: resized(value, size) if key.startswith(OBS_IMAGE) else value
            for key, value in observation.items()
        }

    def transform_features(self, features: dict) -> dict:
        """Features are stated by the environment's config, which knows this step."""
        return features


def features_of(schema: DataSchema, size: tuple[int, int]) -> tuple[dict[str, PolicyFeature], dict[str, str]]:
    """The observation's keys with their shapes, and LeRobot's names for them."""
    features = {ACTION: PolicyFeature(FeatureType.ACTION, (len(schema.action),))}
    names = {ACTION: ACTION}
    for camera in schema.cameras:
        key = "pixels" if len(schema.cameras) == 1 else f"pixels/{camera}"
        features[key] = PolicyFeature(FeatureType.VISUAL, (*size, 3))
        lone = key == "pixels" and camera == "image"
        names[key] = OBS_IMAGE if lone else f"{OBS_IMAGES}.{camera}"
    for key, kind, name in (
        ("agent_pos", FeatureType.STATE, OBS_STATE),
        ("environment_state", FeatureType.ENV, OBS_ENV_STATE),
    ):
        if count := len(getattr(schema, key)):
            features[key] = PolicyFeature(kind, (count,))
            names[key] = name
    return features, names


def read_schema(world: str) -> DataSchema:
    """The schema of a world on disk or on the Hub, without its model."""
    config = json.loads((find_folder(world, None) / "config.json").read_text(encoding="utf-8"))
    return DataSchema.from_dict(config["schema"])


@lru_cache(maxsize=1)
def loaded_world(folder: Path, device: str, written: int) -> World:
    """Loaded once: training makes and closes its environments at every evaluation.

    `written` is when the folder was; another time means another world.
    """
    return open_world(folder, device)


def check_policy_argument(config: WorldEnvConfig) -> None:
    """ValueError where the policy of the command line does not fit the world: before anything is loaded.

    LeRobot hands environments no policy, so the command line is read once more, as LeRobot itself does. Where
    a configuration file may say more than the command line, nothing is checked.
    """
    path = parser.parse_arg("policy.path")
    if path is None or parser.parse_arg("config_path"):
        return
    policy = PreTrainedConfig.from_pretrained(path, cli_overrides=parser.get_cli_overrides("policy") or [])
    rename = yaml.safe_load(parser.parse_arg("rename_map") or "{}")
    check_fit(
        policy_shapes(policy),
        {key: tuple(feature.shape) for key, feature in env_to_policy_features(config).items()},
        rename,
        say_rename="--rename_map='{}'",
        say_resize="--env.observation_height={} --env.observation_width={}",
    )

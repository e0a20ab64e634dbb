"""A planner behind the interface of LeRobot's policies. B rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from lerobot.policies import PreTrainedPolicy
from torch import Tensor

from lerobot_env_scd_world.config import STATES, image_keys, names_by_lerobot
from lerobot_env_scd_world.configuration_scd_planner import LEARNS_NOTHING, ScdPlannerConfig
from scd_envs.settings import open_world
from scd_policies import make
from scd_world.robot_data.schema import DataSchema


class ScdPlannerPolicy(PreTrainedPolicy):
    """Plans in a world, wherever LeRobot takes a policy: in its evaluation of any environment whose actions
    and observations are those of the world's recordings.

    `planner` is the policy itself; its `decision_info` tells what the last plans promised, and how long they
    took. Raises ValueError for settings that it does not take, and for other actions than the world's.
    """

    config_class = ScdPlannerConfig
    name = "scd_planner"

    def __init__(self, config: ScdPlannerConfig, **_: Any) -> None:
        super().__init__(config)
        self.config: ScdPlannerConfig = config
        world = open_world(config.world, config.device or "auto")
        self.schema = world.schema
        low, high = (np.array(bound, np.float32) for bound in self.schema.action_bounds)
        wanted = config.action_feature
        if wanted is not None and tuple(wanted.shape) != low.shape:
            raise ValueError(
                f"the environment takes actions {tuple(wanted.shape)}, and {config.world} was trained on "
                f"{low.shape}, {list(self.schema.action)}: plan in a world of this robot's own recordings"
            )
        space = gymnasium.spaces.Box(low, high)
        self.planner: Any = make(config.planner, space, world=world, **config.settings)
        self.started, self.rows = config.seed, 0

    def reset(self) -> None:
        """Begins new episodes, as many as the next observation has rows."""
        self.rows = 0

    def select_action(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """Gives raw actions (B, A) for what is observed by LeRobot's names, images float (B, 3, H, W) in
        [0, 1]."""
        obs = to_observation(batch, self.schema)
        if not self.rows:
            self.rows = len(next(value for value in obs.values() if isinstance(value, np.ndarray)))
            self.planner.reset(range(self.started, self.started + self.rows))
            self.started += self.rows
        # LeRobot plays without gradients, by which some planners search.
        with torch.inference_mode(False), torch.enable_grad():
            action = self.planner.act(obs)
        return torch.from_numpy(np.asarray(action, np.float32))

    def predict_action_chunk(self, batch: dict[str, Tensor], **_: Any) -> Tensor:
        """Gives the next action as a chunk of one, (B, 1, A): a plan is made anew as its world says."""
        return self.select_action(batch)[:, None]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict | None]:
        raise NotImplementedError(LEARNS_NOTHING)

    def get_optim_params(self) -> dict:
        raise NotImplementedError(LEARNS_NOTHING)


def to_observation(batch: Mapping[str, Any], schema: DataSchema) -> dict[str, Any]:
    """Gives what is observed as our environments show it: the inverse of `preprocess_observation`, whether
    the images go by LeRobot's names or by those of the recordings. ValueError where the world knows a state,
    and there is none."""
    obs: dict[str, Any] = {key: to_numpy(batch[name]) for key, (_, name) in STATES.items() if name in batch}
    if schema.state and not obs:
        raise ValueError(f"a planner needs {[name for _, name in STATES.values()]}; got {sorted(batch)}")
    made, images = names_by_lerobot(schema), {}
    for camera, key in image_keys(schema).items():
        names = (schema.lerobot_keys.get(camera, made[key]), made[key])
        if found := [name for name in names if name in batch]:
            images[camera] = to_pixels(batch[found[0]])
    if images:
        obs["pixels"] = images if len(schema.cameras) > 1 else images[schema.cameras[0]]
    return obs


def to_numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().float().numpy()


def to_pixels(images: Tensor) -> np.ndarray:
    """Converts float (B, 3, H, W) in [0, 1] back to uint8 (B, H, W, 3)."""
    return np.round(to_numpy(images) * 255).astype(np.uint8).transpose(0, 2, 3, 1)

"""Meta-World's arm for `scd-record`: a user's simulator and policy, in one file.

    pip install 'lerobot[metaworld]'
    export PYTHONPATH=recipes/meta_world MUJOCO_GL=egl  # osmesa renders without a GPU
    scd-record env=meta_world:MetaWorld-v0 policy=meta_world:Expert out=data/push

A Sawyer arm (Yu et al. 2019) at 80 Hz, seen as by LeRobot's own `metaworld` environment, and by its wrist.
Its scripted experts solve all fifty tasks; degraded ones and random walks add failures to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import metaworld
import mujoco
import numpy as np
from gymnasium import spaces
from lerobot.envs.metaworld import TASK_DESCRIPTIONS, TASK_POLICY_MAPPING

CAMERAS = ("corner2", "gripperPOV")
HAND, OBJECT, GOAL = slice(0, 4), slice(4, 11), slice(36, 39)  # of Meta-World's 39 numbers
COSTLY = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)  # 80 of 100 ms without a GPU


class MetaWorld(gymnasium.Env):
    """One of the fifty tasks; object and goal lie elsewhere in every episode, which ends with success.

    `pixels` {corner2, gripperPOV} (size, size, 3) uint8 · `agent_pos` (4,) hand and gripper ·
    `environment_state` (10,) the object's position and quaternion, the goal. Action (4,) in [-1, 1]: up to a
    centimetre each way, and the grip.
    """

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 80}

    def __init__(self, task: str = "push-v3", size: int = 96, cameras: Sequence[str] = CAMERAS) -> None:
        """cameras: without any it is fast: `scd-record env_kwargs='{render_images:false,cameras:[]}'`."""
        self.task, self.cameras = task, cameras
        one = metaworld.MT1(task, seed=42)
        self._env = one.train_classes[task]()
        self._env.set_task(one.train_tasks[0])
        self._env.model.cam_pos[2] = [0.75, 0.075, 0.7]  # corner2, where LeRobot has it
        self._env._freeze_rand_vec, self._env.seeded_rand_vec = False, True
        self._renderer: Any = None
        self.action_space = spaces.Box(-1, 1, (4,), np.float32)
        image = spaces.Box(0, 255, (size, size, 3), np.uint8)
        pixels: dict[str, gymnasium.Space] = {}
        if cameras:
            pixels["pixels"] = spaces.Dict(dict.fromkeys(cameras, image))
        low_dim: dict[str, gymnasium.Space] = {
            key: spaces.Box(-np.inf, np.inf, (n,), np.float32)
            for key, n in {"agent_pos": 4, "environment_state": 10}.items()
        }
        self.observation_space = spaces.Dict(pixels | low_dim)
        self._size = size

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._env.seed(seed)
        raw, _ = self._env.reset(seed=seed)
        return self._observation(raw), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        raw, reward, _, truncated, info = self._env.step(np.asarray(action, np.float32))
        success = bool(info["success"])
        return self._observation(raw), float(reward), success, bool(truncated), {"is_success": success}

    def render(self) -> np.ndarray:
        return self._images()[self.cameras[0]]

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()

    def _observation(self, raw: np.ndarray) -> dict[str, Any]:
        low_dim = {"agent_pos": raw[HAND], "environment_state": np.concatenate([raw[OBJECT], raw[GOAL]])}
        pixels = {"pixels": self._images()} if self.cameras else {}
        return pixels | {key: value.astype(np.float32) for key, value in low_dim.items()}

    def _images(self) -> dict[str, np.ndarray]:
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self._env.model, self._size, self._size)
            for flag in COSTLY:
                self._renderer.scene.flags[flag] = False
        images = {}
        for camera in self.cameras:
            self._renderer.update_scene(self._env.data, camera)
            image = self._renderer.render()
            upside_down = camera == "corner2"
            images[camera] = image[::-1, ::-1].copy() if upside_down else image
        return images


class Expert:
    """Meta-World's scripted policy for a task: it is given where the object is and where it should go."""

    def __init__(self, action_space: spaces.Box, task: str = "push-v3") -> None:
        self._box, self._expert = action_space, TASK_POLICY_MAPPING[task]()
        self.description = TASK_DESCRIPTIONS[task]

    def reset(self, seeds: Sequence[int]) -> None:
        pass  # its actions depend on the observation alone

    def act(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        raw = np.zeros((len(obs["agent_pos"]), 39))
        raw[:, HAND] = obs["agent_pos"]
        raw[:, OBJECT], raw[:, GOAL] = obs["environment_state"][:, :7], obs["environment_state"][:, 7:]
        actions = np.stack([np.asarray(self._expert.get_action(row)) for row in raw])
        return actions.clip(self._box.low, self._box.high).astype(np.float32)


gymnasium.register("MetaWorld-v0", entry_point=MetaWorld)

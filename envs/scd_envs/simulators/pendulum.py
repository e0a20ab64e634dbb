"""Pendulum: Gymnasium's Pendulum-v1, observed as a small image of large shapes; fast, learned in minutes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.pendulum import PendulumEnv

BACKGROUND = np.array([255.0, 255.0, 255.0])
ROD = np.array([204.0, 77.0, 77.0])  # Pendulum-v1's own red
AXLE = np.array([0.0, 0.0, 0.0])
LENGTH, THICKNESS, AXLE_RADIUS = 0.36, 0.09, 0.045  # shares of the image's side


class Pendulum(gymnasium.Env):
    """Simulates a rod to swing up and keep there. The image shows the angle only: never the torque.

    ## Observation
    `pixels` (size, size, 3) uint8 · `agent_pos` (3,) cos θ, sin θ, θ̇ in rad/s, θ = 0 upright.

    ## Action
    (1,) torque in [-2, 2] N·m, at 20 Hz.

    ## Reset
    `options={"agent_pos": (3,)}` starts exactly there. `render_images=False` leaves `pixels` out.
    """

    # Pendulum-v1's dt is .05 s
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(self, size: int = 32, render_mode: str = "rgb_array", render_images: bool = True) -> None:
        self.render_mode = render_mode
        self.size, self.render_images = size, render_images
        self._physics = PendulumEnv()
        self.action_space = self._physics.action_space
        pixels = {"pixels": spaces.Box(0, 255, (size, size, 3), np.uint8)} if render_images else {}
        self.observation_space = spaces.Dict(pixels | {"agent_pos": self._physics.observation_space})
        axis = (np.arange(size) + 0.5) / size - 0.5
        self._x, self._y = np.meshgrid(axis, -axis)  # y points up; the axle is at (0, 0)
        axle = _cover(np.hypot(self._x, self._y) - AXLE_RADIUS, size)
        self._axle_cover, self._axle_color = 1 - axle, axle * AXLE

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if set(options) - {"agent_pos"}:
            raise ValueError(f"Pendulum's only reset option is agent_pos; got {sorted(options)}")
        self._physics.reset(seed=int(self.np_random.integers(2**31)))
        if options:
            self._physics.state = _state(options["agent_pos"])
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (1,) or not np.isfinite(action).all():
            raise ValueError(f"Pendulum's action is one finite torque in [-2, 2]; got {action!r}")
        _, reward, *_ = self._physics.step(action)
        return self._observe(), float(reward), False, False, {}

    def render(self) -> np.ndarray:
        theta = self._physics.state[0]
        tip_x, tip_y = -LENGTH * np.sin(theta), LENGTH * np.cos(theta)
        # Distance to the segment from the axle to the tip; a pixel is covered as far as it lies inside.
        along = np.clip((self._x * tip_x + self._y * tip_y) / LENGTH**2, 0, 1)
        distance = np.hypot(self._x - along * tip_x, self._y - along * tip_y)
        rod = _cover(distance - THICKNESS, self.size)
        image = BACKGROUND + rod * (ROD - BACKGROUND)
        return (image * self._axle_cover + self._axle_color + 0.5).astype(np.uint8)

    def _observe(self) -> dict[str, np.ndarray]:
        theta, speed = self._physics.state
        agent_pos = np.array([np.cos(theta), np.sin(theta), speed], dtype=np.float32)
        return ({"pixels": self.render()} if self.render_images else {}) | {"agent_pos": agent_pos}


def _cover(signed_distance: np.ndarray, size: int) -> np.ndarray:
    """Gives how much of each pixel lies inside a shape: (size, size, 1) in [0, 1], linear over one pixel."""
    return np.clip(0.5 - signed_distance * size, 0, 1)[..., None]


def _state(agent_pos: Any) -> np.ndarray:
    values = np.asarray(agent_pos, dtype=np.float64)
    if values.shape != (3,) or not np.isfinite(values).all() or not 0.9 < np.hypot(*values[:2]) < 1.1:
        raise ValueError(f"Pendulum's agent_pos is (cos θ, sin θ, θ̇) with cos² + sin² = 1; got {agent_pos!r}")
    return np.array([np.arctan2(values[1], values[0]), values[2]])

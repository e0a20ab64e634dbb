"""PushT: gym-pusht with image, agent and block keypoints in one observation, and a reset to any state."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from gymnasium import spaces

from scd_world.utils.rigid_fit import rigid_fit

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import cv2
    from gym_pusht.envs.pusht import PushTEnv

# The T's eight corners in its own frame, in the order of `environment_state` (x0, y0, x1, y1, …).
T_KEYPOINTS = np.array(
    [[-60, 0], [60, 0], [60, 30], [-60, 30], [-15, 30], [15, 30], [15, 120], [-15, 120]], dtype=np.float64
)
GOAL_POSE = np.array([256.0, 256.0, np.pi / 4])

# The disc obeys targets inside [0, 512] without overshoot, so it never leaves that square; the block can be
# squeezed through the thin walls, at most by its own length beyond the disc.
BLOCK_REACH = 160.0


def block_pose(keypoints: np.ndarray) -> np.ndarray:
    """Fits the T's pose to keypoints (…, 16) in px: (…, 3), x, y of its origin in px and angle in (-π, π]."""
    points = np.asarray(keypoints, dtype=np.float64).reshape(-1, 8, 2)
    z = points[..., 0] + 1j * points[..., 1]
    m = T_KEYPOINTS[:, 0] + 1j * T_KEYPOINTS[:, 1]
    centroid, turn = rigid_fit(z, m - m.mean())
    origin = centroid - turn * m.mean()
    pose = np.stack([origin.real, origin.imag, np.angle(turn)], axis=-1)
    return pose.reshape(*np.shape(keypoints)[:-1], 3)


def block_keypoints(pose: np.ndarray) -> np.ndarray:
    """Gives the keypoints (…, 16) in px of a pose (…, 3): the inverse of `block_pose`."""
    x, y, angle = np.moveaxis(np.asarray(pose, dtype=np.float64), -1, 0)
    z = (x + 1j * y)[..., None] + np.exp(1j * angle)[..., None] * (T_KEYPOINTS[:, 0] + 1j * T_KEYPOINTS[:, 1])
    return np.stack([z.real, z.imag], axis=-1).reshape(*z.shape[:-1], 16)


class PushT(PushTEnv):
    """Simulates a T to push into a green T; an episode succeeds, and ends, when more than 95 % is covered.

    ## Observation
    `pixels` (size, size, 3) uint8 · `agent_pos` (2,) px of 512 · `environment_state` (16,) the T's keypoints.

    ## Action
    (2,) the disc's target position in [0, 512]², reached by a PD controller at 10 Hz.

    ## Reset
    `options={"agent_pos": (2,), "environment_state": (16,)}` starts exactly there, with the disc at rest or
    at `"agent_velocity"` (2,) in px/s; one of the two keys alone leaves the other to the seed.

    `render_images=False` leaves `pixels` out: rendering takes four fifths of a step.
    """

    def __init__(self, size: int = 96, render_mode: str = "rgb_array", render_images: bool = True) -> None:
        super().__init__(
            obs_type="environment_state_agent_pos",
            render_mode=render_mode,
            observation_width=size,
            observation_height=size,
        )
        low, high = -BLOCK_REACH, 512 + BLOCK_REACH
        pixels = {"pixels": spaces.Box(0, 255, (size, size, 3), np.uint8)} if render_images else {}
        self.render_images = render_images
        self.observation_space = spaces.Dict(
            pixels
            | {
                "agent_pos": spaces.Box(0, 512, (2,), np.float32),
                "environment_state": spaces.Box(low, high, (16,), np.float32),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        options = options or {}
        unknown = set(options) - {"agent_pos", "agent_velocity", "environment_state"}
        if unknown:
            raise ValueError(
                f"PushT cannot reset to {sorted(unknown)}; its options are agent_pos, agent_velocity and "
                "environment_state"
            )
        obs, info = super().reset(seed=seed)
        if not options:
            return obs, info
        self._place(options)
        return self.get_obs(), self._get_info() | {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (2,) or not np.isfinite(action).all():
            raise ValueError(f"PushT's action is a finite (x, y) in [0, 512]; got {action!r}")
        obs, reward, terminated, truncated, info = super().step(action)
        info["is_success"] = bool(info["is_success"])
        return obs, float(reward), bool(terminated), truncated, info

    def get_obs(self) -> dict[str, np.ndarray]:
        pixels = {"pixels": self._image()} if self.render_images else {}
        return pixels | {
            "agent_pos": np.array(self.agent.position, dtype=np.float32),
            "environment_state": self.get_keypoints(self._block_shapes).astype(np.float32).ravel(),
        }

    def _place(self, options: dict[str, Any]) -> None:
        agent_pos = np.array(self.agent.position)
        keypoints = self.get_keypoints(self._block_shapes).ravel()
        self._setup()  # a new space: contacts of the seed's own start must not linger
        if "agent_pos" in options:
            agent_pos = _vector(options, "agent_pos", 2)
        if "environment_state" in options:
            keypoints = _vector(options, "environment_state", 16)
        self.agent.position = agent_pos.tolist()
        if "agent_velocity" in options:
            self.agent.velocity = _vector(options, "agent_velocity", 2).tolist()
        x, y, angle = block_pose(keypoints).tolist()
        # The angle first: it turns the block about its center of gravity, which moves the origin.
        self.block.angle = angle
        self.block.position = (x, y)
        # No physics step, which would push overlapping bodies apart; rendering needs the shapes' new places.
        self.space.reindex_shapes_for_body(self.agent)
        self.space.reindex_shapes_for_body(self.block)

    def _image(self) -> np.ndarray:
        """Renders gym-pusht's own image, bit for bit, resized from the surface's memory (BGRA rows)."""
        screen = self._draw()
        width, height = screen.get_size()
        bgra = np.frombuffer(screen.get_buffer(), np.uint8).reshape(height, width, 4)
        small = cv2.resize(bgra, (self.observation_width, self.observation_height))
        return np.ascontiguousarray(small[..., 2::-1])


def _vector(options: dict[str, Any], key: str, size: int) -> np.ndarray:
    value = np.asarray(options[key], dtype=np.float64)
    if value.shape != (size,) or not np.isfinite(value).all():
        raise ValueError(f"PushT's reset option {key!r} must be {size} finite values; got {options[key]!r}")
    return value

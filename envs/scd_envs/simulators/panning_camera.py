"""A camera that pans along a table: what leaves the view and comes back must be what it was.

Nothing on the table moves, so that whatever an imagination changes there is a failure of its memory.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

TABLE = np.array([222.0, 214.0, 200.0])
STRIPE = np.array([205.0, 195.0, 180.0])  # every half view, so that empty places differ
OBJECTS, RADIUS = 4, 0.16  # how many, and how large as a share of the view's side
FASTEST = 0.12  # views per step
SHAPES = ("disc", "square", "triangle")


class PanningCamera(gymnasium.Env):
    """Simulates a view of a table three views wide, with four things of random shape, color and place.

    ## Observation
    `pixels` (size, size, 3) uint8 · `agent_pos` (1,) where the view's left edge is, in views, 0 to 2.

    ## Action
    (1,) speed to the right in [-1, 1], of .12 views per step, at 10 Hz.

    ## Reset
    `options={"agent_pos": (1,)}` begins with the view there. `render_images=False` leaves `pixels` out.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(self, size: int = 48, render_mode: str = "rgb_array", render_images: bool = True) -> None:
        self.render_mode = render_mode
        self.size, self.render_images = size, render_images
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        pixels = {"pixels": spaces.Box(0, 255, (size, size, 3), np.uint8)} if render_images else {}
        self.observation_space = spaces.Dict(pixels | {"agent_pos": spaces.Box(0, 2, (1,), np.float32)})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        options = options or {}
        if set(options) - {"agent_pos"}:
            raise ValueError(f"PanningCamera's only reset option is agent_pos; got {sorted(options)}")
        rng = self.np_random
        # One in each quarter: they never hide one another.
        x = (np.arange(OBJECTS) + rng.uniform(0.25, 0.75, OBJECTS)) * 3 / OBJECTS
        y = rng.uniform(RADIUS, 1 - RADIUS, OBJECTS)
        self.places = np.stack([x, y], axis=1)
        self.colors = rng.uniform(20, 235, (OBJECTS, 3))
        self.shapes = rng.integers(len(SHAPES), size=OBJECTS)
        self.left = place(options["agent_pos"]) if options else float(rng.uniform(0, 2))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (1,) or not np.isfinite(action).all():
            raise ValueError(f"PanningCamera's action is one finite speed in [-1, 1]; got {action!r}")
        self.left = float(np.clip(self.left + FASTEST * np.clip(action[0], -1, 1), 0, 2))
        return self._observe(), 0.0, False, False, {}

    def render(self) -> np.ndarray:
        axis = (np.arange(self.size) + 0.5) / self.size
        x, y = np.meshgrid(self.left + axis, axis)
        stripe = (np.abs((2 * x) % 1 - 0.5) < 0.06)[..., None]
        image = np.where(stripe, STRIPE, TABLE)
        for (at_x, at_y), color, shape in zip(self.places, self.colors, self.shapes, strict=True):
            inside = np.clip(0.5 - distance(SHAPES[shape], x - at_x, y - at_y) * self.size, 0, 1)[..., None]
            image = image + inside * (color - image)
        return (image + 0.5).astype(np.uint8)

    def _observe(self) -> dict[str, np.ndarray]:
        agent_pos = np.array([self.left], dtype=np.float32)
        return ({"pixels": self.render()} if self.render_images else {}) | {"agent_pos": agent_pos}


def distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Gives how far outside of a shape around (0, 0) places are; negative inside."""
    if shape == "disc":
        return np.hypot(x, y) - RADIUS
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * RADIUS
    return np.maximum(y, 0.866 * np.abs(x) - 0.5 * y) - 0.6 * RADIUS


def place(value: Any) -> float:
    values = np.asarray(value, dtype=np.float64)
    if values.shape != (1,) or not np.isfinite(values).all() or not 0 <= values[0] <= 2:
        raise ValueError(f"PanningCamera's agent_pos is one number of views, 0 to 2; got {value!r}")
    return float(values[0])

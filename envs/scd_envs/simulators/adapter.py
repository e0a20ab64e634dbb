"""Any gymnasium environment with pictures, under the keys that this project records and imagines."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STATE_KEYS = ("agent_pos", "environment_state")
PICTURES = (
    'a uint8 (H, W, 3) picture, a dict with one (or a dict of them) under "pixels", or a vector beside '
    'render_mode="rgb_array"'
)
NUMBERS = 'a vector, or a dict with one under "agent_pos"'


class _StandardObservation(gymnasium.ObservationWrapper):
    """Renames and casts: `pixels` uint8, `agent_pos` and `environment_state` float32, nothing else."""

    def __init__(self, env: gymnasium.Env, size: int | None, fps: int | None, render_images: bool) -> None:
        super().__init__(env)
        self._size, self._render_images = size, render_images
        inner = env.observation_space
        if _is_picture(inner) and render_images:
            self._pick = lambda obs: {"pixels": obs}
            inner = spaces.Dict(pixels=inner)
        elif _is_vector(inner) and not render_images:
            self._pick = lambda obs: {"agent_pos": obs}
            inner = spaces.Dict(agent_pos=inner)
        elif isinstance(inner, spaces.Dict) and (
            _has_pictures(inner.spaces.get("pixels")) if render_images else "agent_pos" in inner.spaces
        ):
            self._pick = lambda obs: obs
        else:
            expected = PICTURES if render_images else NUMBERS
            raise ValueError(f"{env} observes {inner}; expected {expected}. Wrap it.")
        _check_box(env, "action", env.action_space)
        found = {"pixels": _map_pictures(inner["pixels"], self._small_space)} if render_images else {}
        for key in STATE_KEYS:
            if key in inner.spaces:
                _check_box(env, key, inner[key])
                box = inner[key]
                found[key] = spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32))
        self.observation_space = spaces.Dict(found)
        fps = fps or env.metadata.get("render_fps")
        if not fps:
            raise ValueError(f"{env} does not say its rate in metadata['render_fps']; pass fps=")
        self.metadata = {**env.metadata, "render_fps": round(fps)}

    def observation(self, observation: Any) -> dict[str, Any]:
        obs = self._pick(observation)
        found = {"pixels": _map_pictures(obs["pixels"], self._small)} if self._render_images else {}
        for key in STATE_KEYS:
            if key in self.observation_space.spaces:
                found[key] = np.asarray(obs[key], dtype=np.float32)
        return found

    def _small_space(self, box: spaces.Box) -> spaces.Box:
        height, width = (self._size, self._size) if self._size else box.shape[:2]
        return spaces.Box(0, 255, (height, width, 3), np.uint8)

    def _small(self, picture: np.ndarray) -> np.ndarray:
        if self._size is None:
            return np.asarray(picture)
        import cv2

        return cv2.resize(np.asarray(picture), (self._size, self._size), interpolation=cv2.INTER_AREA)


def adapt(
    gym_id: str, size: int | None = None, fps: int | None = None, render_images: bool = True, **kwargs: Any
) -> gymnasium.Env:
    """`gymnasium.make(gym_id, **kwargs)` with observations `pixels` and, where there are any, the state keys.

    An environment that observes a vector is rendered: its vector becomes `agent_pos`, its picture `pixels`.
    `size`: side in px that pictures are resized to; `fps`: the rate, where its metadata does not say it;
    `render_images=False`: the numbers alone, as fast as the simulator computes them.
    """
    env = gymnasium.make(gym_id, **kwargs)
    if _is_vector(env.observation_space) and render_images:
        env.close()
        env = gymnasium.make(gym_id, **{"render_mode": "rgb_array", **kwargs})
        env = gymnasium.wrappers.AddRenderObservation(
            env, render_only=False, render_key="pixels", obs_key="agent_pos"
        )
    return _StandardObservation(env, size, fps, render_images)


def _is_picture(space: Any) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[-1] == 3
    )


def _has_pictures(space: Any) -> bool:
    if isinstance(space, spaces.Dict):
        return len(space.spaces) > 0 and all(_is_picture(camera) for camera in space.spaces.values())
    return _is_picture(space)


def _is_vector(space: Any) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def _map_pictures(pixels: Any, change: Any) -> Any:
    """`change` applied to the one picture or to each camera's (arrays or their spaces)."""
    if isinstance(pixels, spaces.Dict):
        return spaces.Dict({name: change(box) for name, box in pixels.spaces.items()})
    if isinstance(pixels, dict):
        return {name: change(picture) for name, picture in pixels.items()}
    return change(pixels)


def _check_box(env: gymnasium.Env, what: str, space: Any) -> None:
    if not _is_vector(space):
        raise ValueError(
            f"{env}: its {what} is {space}; expected a one-dimensional Box; wrap the environment."
        )

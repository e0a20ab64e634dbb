"""Any Gymnasium environment with images, under the keys that this project records and imagines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from scd_envs.simulators import NAMES

STATE_KEYS = ("agent_pos", "environment_state")
WITH_IMAGES = (
    'a uint8 (H, W, 3) image, a dict with one (or a dict of them) under "pixels", or a vector beside '
    'render_mode="rgb_array"'
)
WITHOUT_IMAGES = 'a vector, or a dict with one under "agent_pos"'


class _StandardObservation(gymnasium.ObservationWrapper):
    """Renames and casts: `pixels` uint8, `agent_pos` and `environment_state` float32, nothing else."""

    def __init__(self, env: gymnasium.Env, size: int | None, fps: float | None, render_images: bool) -> None:
        super().__init__(env)
        self._size, self._render_images = size, render_images
        inner = env.observation_space
        self._pick: Callable[[Any], Any]
        if _is_image(inner) and render_images:
            self._pick = lambda obs: {"pixels": obs}
            found = spaces.Dict(pixels=inner)
        elif _is_vector(inner) and not render_images:
            self._pick = lambda obs: {"agent_pos": obs}
            found = spaces.Dict(agent_pos=inner)
        elif isinstance(inner, spaces.Dict) and (
            _has_images(inner.spaces.get("pixels")) if render_images else "agent_pos" in inner.spaces
        ):
            self._pick = lambda obs: obs
            found = inner
        else:
            expected = WITH_IMAGES if render_images else WITHOUT_IMAGES
            raise ValueError(f"{env} observes {inner}; expected {expected}. Wrap it.")
        _check_box(env, "action", env.action_space)
        entries = {"pixels": _map_images(found["pixels"], self._resized_space)} if render_images else {}
        for key in STATE_KEYS:
            if key in found.spaces:
                box = _check_box(env, key, found[key])
                entries[key] = spaces.Box(box.low.astype(np.float32), box.high.astype(np.float32))
        self.observation_space = self._entries = spaces.Dict(entries)
        fps = fps or env.metadata.get("render_fps")
        if not fps:
            raise ValueError(f"{env} has no rate in metadata['render_fps']; give one, env_kwargs={{fps: 10}}")
        fps = int(fps) if fps == int(fps) else float(fps)  # Gymnasium's is a whole number
        self.metadata = {**env.metadata, "render_fps": max(1, round(fps)), "fps": fps}

    def step(self, action: Any) -> Any:
        obs, reward, *ended, info = super().step(action)
        number = np.asarray(reward)
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise ValueError(
                f"{self.env} gives the reward {reward!r}; expected one number: wrap it, so that step() gives "
                "their sum, or the one that counts"
            )
        return obs, float(number.item()), *ended, info

    def observation(self, observation: Any) -> dict[str, Any]:
        obs = self._pick(observation)
        found = {"pixels": _map_images(obs["pixels"], self._resized)} if self._render_images else {}
        for key in STATE_KEYS:
            if key in self._entries.spaces:
                found[key] = np.asarray(obs[key], dtype=np.float32)
        return found

    def _resized_space(self, box: spaces.Box) -> spaces.Box:
        height, width = (self._size, self._size) if self._size else box.shape[:2]
        return spaces.Box(0, 255, (height, width, 3), np.uint8)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self._size is None:
            return np.asarray(image)
        import cv2

        return cv2.resize(np.asarray(image), (self._size, self._size), interpolation=cv2.INTER_AREA)


def adapt(
    gym_id: str, size: int | None = None, fps: float | None = None, render_images: bool = True, **kwargs: Any
) -> gymnasium.Env:
    """Makes `gymnasium.make(gym_id, **kwargs)` observe `pixels` and, where there are any, the state keys.

    An environment that observes a vector is rendered: its vector becomes `agent_pos`, its image `pixels`.
    size: side in px that images are resized to; None: as they are.
    fps: frames per second, where its metadata does not give them.
    render_images: False: the state alone, as fast as the simulator computes it.

    Raises ValueError where there is none of this id, or it observes, or acts in, something else.
    """
    env = _make(gym_id, kwargs)
    if _is_vector(env.observation_space) and render_images:
        env.close()
        env = _make(gym_id, {"render_mode": "rgb_array", **kwargs})
        env = gymnasium.wrappers.AddRenderObservation(
            env, render_only=False, render_key="pixels", obs_key="agent_pos"
        )
    return _StandardObservation(env, size, fps, render_images)


def _make(gym_id: str, kwargs: dict[str, Any]) -> gymnasium.Env:
    """Makes a registered environment; ValueError, with Gymnasium's own advice, where there is none."""
    try:
        return gymnasium.make(gym_id, **kwargs)
    except (gymnasium.error.Error, ImportError) as error:
        raise ValueError(
            f"no environment {gym_id!r}: {error} There are {', '.join(NAMES)}, and the ids of registered "
            "Gymnasium environments, also as module:id, the module being imported first"
        ) from error


def _is_image(space: Any) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[-1] == 3
    )


def _has_images(space: Any) -> bool:
    if isinstance(space, spaces.Dict):
        return len(space.spaces) > 0 and all(_is_image(camera) for camera in space.spaces.values())
    return _is_image(space)


def _is_vector(space: Any) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def _map_images(pixels: Any, change: Any) -> Any:
    """Applies `change` to the one image or to each camera's (arrays or their spaces)."""
    if isinstance(pixels, spaces.Dict):
        return spaces.Dict({name: change(box) for name, box in pixels.spaces.items()})
    if isinstance(pixels, dict):
        return {name: change(image) for name, image in pixels.items()}
    return change(pixels)


def _check_box(env: gymnasium.Env, what: str, space: Any) -> spaces.Box:
    if not _is_vector(space):
        raise ValueError(
            f"{env}: its {what} is {space}; expected a one-dimensional Box; wrap the environment."
        )
    return space

"""Stable-Baselines3's vector environment over a world's rows: one batched model steps them all.

It needs the extra `sb3`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from scd_envs.vector_env import WorldVectorEnv

Indices = None | int | Iterable[int]


class WorldVecEnv(VecEnv):
    """Gives Stable-Baselines3 the rows of a `WorldVectorEnv`, as its `DummyVecEnv` would give single ones.

        envs = gymnasium.make_vec("scd_world/PushT-v0", num_envs=64, autoreset_mode="SameStep")
        PPO("MultiInputPolicy", WorldVecEnv(gymnasium.wrappers.vector.RescaleAction(envs, -1.0, 1.0)))

    Observations are dicts of arrays (B, …); several cameras' keys are `pixels/<name>`, because SB3 takes no
    dict inside a dict. Rewards are float32. A row that is over begins again in the same step: its info is the
    episode's last one, with `terminal_observation`, and the new one's is in `reset_infos`.
    `TimeLimit.truncated` stands in every info. Seeds and options (`set_options`: `episode`, `frame`, `task`)
    count for the next `reset`.

    All rows share one model and its settings, so `set_attr` sets them for all rows alone.

    Raises TypeError for other environments, ValueError for another autoreset mode or tensors as observations.
    """

    def __init__(self, envs: VectorEnv) -> None:
        """envs: a WorldVectorEnv with autoreset_mode="SameStep", perhaps in vector wrappers."""
        world = envs.unwrapped
        if not isinstance(world, WorldVectorEnv):
            raise TypeError(
                f"WorldVecEnv takes what gymnasium.make_vec makes of a world; got {type(world).__name__}"
            )
        if world.autoreset_mode is not AutoresetMode.SAME_STEP or world.on_device:
            raise ValueError(
                f"WorldVecEnv needs autoreset_mode='SameStep' and observations='numpy'; got "
                f"{world.autoreset_mode.value!r} and {'torch' if world.on_device else 'numpy'!r}"
            )
        self.envs, self.world_envs = envs, world
        self.actions: np.ndarray | None = None
        super().__init__(envs.num_envs, flat_space(envs.single_observation_space), envs.single_action_space)
        self.metadata = world.metadata

    def reset(self) -> dict[str, np.ndarray]:  # type: ignore[override]
        """Begins an episode in every row, with the seeds and options that were set; gives the observation."""
        seeds: Any = list(self._seeds)  # one per row, which Gymnasium's types do not know of
        obs, infos = self.envs.reset(seed=seeds, options=batch_options(self._options))
        self.reset_infos = split(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        return flat(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Takes actions (B, A); `step_wait` steps."""
        self.actions = actions

    def step_wait(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, list[dict[str, Any]]]:  # type: ignore[override]
        """Gives observation, rewards float32 (B,), which rows are over (B,) bool, and each row's info."""
        obs, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        over = terminated | truncated
        found = split(infos, self.num_envs)
        if over.any():
            last = split(infos["final_info"], self.num_envs)
            for row in np.flatnonzero(over):
                # Wrappers say of an episode what Stable-Baselines3 looks for under the same name.
                of_episode = {"episode": found[row].pop("episode")} if "episode" in found[row] else {}
                self.reset_infos[row] = found[row]
                found[row] = last[row] | of_episode | {"terminal_observation": flat(infos["final_obs"][row])}
        for info, cut in zip(found, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = cut
        return flat(obs), rewards.astype(np.float32), over, found

    def close(self) -> None:
        """Closes the environment; its world may serve others."""
        self.envs.close()

    def get_images(self) -> list[np.ndarray | None]:
        """Gives the rows' current frames, each uint8 (H, W, 3)."""
        return list(self.world_envs.call("render"))

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Gives the rows' attribute of this name; AttributeError where they have none."""
        own = {"observation_space": self.envs.single_observation_space, "action_space": self.action_space}
        if attr_name in own:
            values: Any = (own[attr_name],) * self.num_envs
        else:
            values = self.world_envs.get_attr(attr_name)
        return [values[row] for row in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Sets a setting of all rows (`WorldVectorEnv.set_attr`); ValueError for some of them alone."""
        rows = sorted(self._get_indices(indices))
        if rows != list(range(self.num_envs)):
            raise ValueError(f"all rows share one model: set {attr_name} of all of them, not of {rows}")
        self.world_envs.set_attr(attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Gives what the rows' `render` or `get_wrapper_attr` returns; AttributeError for other methods."""
        if method_name == "get_wrapper_attr":
            return self.get_attr(args[0], indices)
        if method_name != "render":
            raise AttributeError(
                f"rows of one model have no method {method_name!r} of their own; they have render and "
                "get_wrapper_attr, and `world_envs` is the environment of all of them"
            )
        images = self.world_envs.call("render", *args, **kwargs)
        return [images[row] for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Indices = None) -> list[bool]:
        """Says whether the rows are in a wrapper of this class: only vector wrappers can be around them."""
        env: Any = self.envs
        while isinstance(env, gymnasium.vector.VectorWrapper) and not isinstance(env, wrapper_class):
            env = env.env
        return [isinstance(env, wrapper_class) for _ in self._get_indices(indices)]


def flat_space(space: spaces.Space) -> spaces.Dict:
    """Gives the space of `flat` observations."""
    assert isinstance(space, spaces.Dict)
    return spaces.Dict(flat(space.spaces))


def flat(obs: Any) -> dict[str, Any]:
    """Puts a dict inside a dict beside the others: key/name."""
    entries: dict[str, Any] = {}
    for key, value in obs.items():
        if isinstance(value, dict | spaces.Dict):
            entries |= {f"{key}/{name}": inner for name, inner in value.items()}
        else:
            entries[key] = value
    return entries


def split(infos: dict[str, Any], rows: int) -> list[dict[str, Any]]:
    """Gives each row's info, Python's own numbers, of infos that have values (B,) for each key, or are infos
    themselves, as wrappers add them; rows that a mask `_key` leaves out have no such key."""
    found: list[dict[str, Any]] = [{} for _ in range(rows)]
    for key, values in infos.items():
        if key.startswith(("_", "final_")):
            continue
        each = split(values, rows) if isinstance(values, dict) else np.asarray(values).tolist()
        there = infos.get(f"_{key}", np.ones(rows, bool))
        for row in np.flatnonzero(there):
            found[row][key] = each[row]
    return found


def batch_options(options: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Gives one dict of lists, one value per row; ValueError where the rows name different options."""
    keys = options[0].keys()
    if any(other.keys() != keys for other in options):
        raise ValueError(f"options of all rows must have the same keys; got {[sorted(o) for o in options]}")
    return {key: [option[key] for option in options] for key in keys} or None

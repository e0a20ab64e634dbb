"""Simulators side by side whose finished rows freeze, as in a world's vector environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from scd_envs.simulators import make
from scd_envs.simulators.adapter import STATE_KEYS
from scd_envs.vector_env import row_seeds


class SimulatorVectorEnv(VectorEnv):
    """Steps `num_envs` simulators of one kind, one after the other, without autoreset.

    A row that is over keeps its last observation and its flags, with reward 0, until
    `reset(options={"reset_mask": …})`. Other reset options go to the rows that are reset; a row that does not
    take the state that it is to start from raises ValueError.
    """

    def __init__(self, name: str, num_envs: int, **kwargs: Any) -> None:
        super().__init__()
        self.envs: list[gymnasium.Env] = [make(name, **kwargs) for _ in range(num_envs)]
        self.num_envs = num_envs
        self.single_observation_space = self.envs[0].observation_space
        self.single_action_space = self.envs[0].action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {**self.envs[0].metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self._obs: list[dict[str, Any]] = [{}] * num_envs
        self._flags = np.zeros((3, num_envs), bool)  # terminated, truncated, succeeded
        self.reports_success = False  # whether any simulator has ever reported `is_success`

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        options = dict(options or {})
        rows = np.flatnonzero(options.pop("reset_mask", np.ones(self.num_envs, bool)))
        seeds = row_seeds(seed, self.num_envs)
        for row in rows:
            self._obs[row], _ = self.envs[row].reset(seed=seeds[row], options=options or None)
            self._check_start(self._obs[row], options)
        self._flags[:, rows] = False
        return self._observation(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        reward = np.zeros(self.num_envs)
        for row in np.flatnonzero(~self._flags[:2].any(0)):
            self._obs[row], reward[row], *flags, info = self.envs[row].step(actions[row])
            self.reports_success |= "is_success" in info
            self._flags[:, row] = *flags, info.get("is_success", False)
        terminated, truncated = self._flags[:2].copy()
        return self._observation(), reward, terminated, truncated, self._info()

    def _check_start(self, obs: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Raises ValueError where a row starts elsewhere: many simulators ignore unknown options."""
        for key in STATE_KEYS:
            if key in wanted and not np.allclose(obs[key], wanted[key], rtol=1e-3, atol=1e-3):
                raise ValueError(
                    f"{self.envs[0]} was asked to start with {key} {np.round(wanted[key], 3).tolist()}, and "
                    f"is at {np.round(obs[key], 3).tolist()}: its reset(options=…) must take the state "
                    "exactly, or nothing that is played there is comparable"
                )

    def close_extras(self, **_: Any) -> None:
        for env in self.envs:
            env.close()

    def _info(self) -> dict[str, Any]:
        return {"is_success": self._flags[2].copy(), "_is_success": np.ones(self.num_envs, bool)}

    def _observation(self) -> dict[str, Any]:
        return stacked(self._obs)


def stacked(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stacks observations along a new leading axis; under `pixels` there may be a dict of cameras."""
    values = {key: [row[key] for row in rows] for key in rows[0]}
    return {k: stacked(v) if isinstance(v[0], dict) else np.stack(v) for k, v in values.items()}

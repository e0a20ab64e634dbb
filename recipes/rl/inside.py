"""PushT inside a world, as a learner takes it: the policy's view, a reward shaped by what the world predicts.

    Φ(s) = COVERED · predicted reward − distance of the block's points / NEAR
    r    = γ · Φ(s′) − Φ(s) + SUCCESS where the world predicts success

A potential (Ng et al. 1999) rewards each push at once, and changes no best policy. Nothing is predicted of a
start's reward, so the first step of an episode counts as if it had covered nothing more. B rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from actor import ANSWERS, SEEN
from learners import DISCOUNT
from stable_baselines3.common.vec_env import VecEnvWrapper
from view import BlockView, as_state

from scd_envs.sb3 import WorldVecEnv

COVERED, NEAR, SUCCESS = 2.0, 60.0, 2.0  # NEAR in px


class PushInside(VecEnvWrapper):
    """Wraps a world's rows: observations (B, SIZE), actions (B, 2) as `BlockView` has them."""

    KEPT = "state", "last", "reward"

    def __init__(self, venv: WorldVecEnv, view: BlockView) -> None:
        super().__init__(venv, SEEN, ANSWERS)
        self.view, self.world_envs = view, venv.world_envs
        self.state = self.last = self.reward = np.zeros(0)

    def reset(self) -> np.ndarray:
        """Begins an episode in every row."""
        obs = self.venv.reset()
        assert isinstance(obs, dict)
        self.state = as_state(obs)
        self.last = np.full((self.num_envs, 2), np.nan)
        self.reward = np.full(self.num_envs, np.nan)
        return self.view.features(self.state, self.last)

    def step_async(self, actions: np.ndarray) -> None:
        """Takes answers (B, 2) of the policy."""
        self.last = self.view.action(self.state, actions)
        self.venv.step_async(self.last)

    def step_wait(self) -> Any:
        """Gives what the policy sees, shaped rewards (B,), which rows are over, and infos."""
        obs, reward, over, infos = self.venv.step_wait()
        assert isinstance(obs, dict)
        state = as_state(obs)
        led_to, rows = state.copy(), np.flatnonzero(over)
        for row in rows:
            led_to[row] = as_state(infos[row]["terminal_observation"])
        before = np.where(np.isnan(self.reward), reward, self.reward)
        after = DISCOUNT * self._potential(reward, led_to)
        success = np.array([info["is_success"] for info in infos])
        shaped = after - self._potential(before, self.state) + SUCCESS * success
        if len(rows):
            ended = self.view.features(led_to[rows], self.last[rows])
            for row, seen in zip(rows, ended, strict=True):
                infos[row]["terminal_observation"] = seen
        self.state, self.reward = state, np.where(over, np.nan, reward)
        self.last[rows] = np.nan
        return self.view.features(state, self.last), shaped.astype(np.float32), over, infos

    def _potential(self, reward: np.ndarray, state: np.ndarray) -> np.ndarray:
        return COVERED * reward - self.view.distance(state) / NEAR

    # ---- going on where it was stopped -------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        """Gives all that the rows' future depends on."""
        kept = {name: getattr(self, name) for name in self.KEPT}
        return kept | {"rows": self.world_envs.get_state()}

    def set_state(self, saved: dict[str, Any]) -> None:
        """Goes on exactly from where `get_state` was called."""
        self.world_envs.set_state(saved["rows"])
        for name in self.KEPT:
            setattr(self, name, saved[name])

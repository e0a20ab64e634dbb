"""PushT's simulator in the place of a world: the bound of what planning in a model can gain.

It starts from the true state of the environment that is acted in, velocities included, which no observation
holds: a model that knows everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scd_envs import simulators
from scd_envs.simulators.vector import stacked
from scd_policies.planners.imagination import Imagination, Outcome
from scd_world.robot_data.schema import DataSchema
from scd_world.world.starts import StartState


class Bodies(NamedTuple):
    """Where PushT stands: position, velocity, angle, angular velocity of disc and block."""

    agent: tuple[Any, ...]
    block: tuple[Any, ...]


def save(env: Any) -> Bodies:
    """Gives the state of a PushT."""
    bodies = env.unwrapped.agent, env.unwrapped.block
    return Bodies(*((b.position, b.velocity, b.angle, b.angular_velocity) for b in bodies))


def restore(env: Any, saved: Bodies) -> None:
    """Puts a PushT into that state. A new space first: contacts of what was before must not linger."""
    pusht = env.unwrapped
    pusht._setup()
    for body, (position, velocity, angle, angular) in zip((pusht.agent, pusht.block), saved, strict=True):
        body.angle, body.position = angle, position
        body.velocity, body.angular_velocity = velocity, angular
        pusht.space.reindex_shapes_for_body(body)


class SimulatorModel(Imagination):
    """Plays plans in copies of the simulator `real`."""

    frames, needs_images, has_uncertainty, differentiable = 1, False, False, False
    device = torch.device("cpu")

    def __init__(self, real: Any, schema: DataSchema) -> None:
        self.real, self.schema = real, schema
        self.envs: list[Any] = []

    def begin(self, start: StartState, copies: int, seed: int) -> np.ndarray:
        while len(self.envs) < copies:
            self.envs.append(simulators.make("pusht", render_images=False))
            self.envs[-1].reset(seed=0)
        saved = save(self.real)
        for env in self.envs[:copies]:
            restore(env, saved)
        return np.zeros(copies, bool)  # which copies have succeeded: they stand still, as an episode ends

    def step(self, s: np.ndarray, action: Tensor) -> tuple[np.ndarray, Outcome]:
        reward, success = np.ones(len(s), np.float32), s.copy()
        for i in np.flatnonzero(~s):
            _, reward[i], success[i], *_ = self.envs[i].step(action[i].numpy())
        outcome = torch.from_numpy(reward), torch.from_numpy(success.astype(np.float32))
        return success, Outcome(*outcome, torch.zeros(len(s)))

    def observation(self, s: np.ndarray) -> dict[str, Any]:
        return stacked([env.unwrapped.get_obs() for env in self.envs[: len(s)]])

    def rest_action(self, start: StartState) -> Tensor:
        return torch.from_numpy(start.state[-1, :2])

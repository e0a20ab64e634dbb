"""Where plans are played: N copies of one moment, stepped together.

`StateImagination` rolls out a world's state prior, and draws nothing: a step costs microseconds, and plans
can be differentiated. `ImageImagination` steps the whole world, images and all. Both start from an observed
moment with its history, with the same features of the state as in training. Whatever else can start there
and step, such as a simulator, is an `Imagination` too.

N copies, S state, A action; raw units in, raw units out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scd_policies.planners.config import PlannerConfig
from scd_world.model.noise import row_noise
from scd_world.model.rollout_state import RolloutState
from scd_world.robot_data.normalizer import standstill
from scd_world.robot_data.schema import DataSchema
from scd_world.utils.devices import pick_device
from scd_world.world.starts import StartState
from scd_world.world.world import World


class Outcome(NamedTuple):
    """What is predicted of a step."""

    reward: Tensor  # (N,) raw units
    success: Tensor  # (N,) probability
    uncertainty: Tensor  # (N,) error of the state to expect, as a share of its ranges; 0: not asked for


class Imagination(ABC):
    """Steps N copies of one moment. A state that was stepped on is spent."""

    schema: DataSchema
    device: torch.device
    frames: int  # of history that it starts from, the newest included
    needs_images: bool  # whether that history has images
    has_uncertainty: bool
    differentiable: bool  # whether an outcome has gradients with respect to the actions

    @abstractmethod
    def begin(self, start: StartState, copies: int, seed: int) -> Any:
        """Gives the state of N = copies rows at `start`. seed: of what is sampled on the way, if anything."""

    @abstractmethod
    def step(self, s: Any, action: Tensor) -> tuple[Any, Outcome]:
        """Takes the actions (N, A), raw units; gives the next state and the outcome."""

    @abstractmethod
    def observation(self, s: Any) -> dict[str, Any]:
        """Gives what a policy observes there, as the environment would show it, with a leading axis N."""

    @abstractmethod
    def rest_action(self, start: StartState) -> Tensor:
        """Gives (A,): the action, raw units, under which the robot stays where it is."""


class StateRollout(NamedTuple):
    """Where N rollouts of the state prior stand, in model units."""

    prev: Tensor  # (N, S + A) state and action one frame earlier
    state: Tensor  # (N, S)
    ensemble: Tensor  # (N, M, 2·S + A); without members where no uncertainty is asked for
    steps: Tensor  # (N,) int


class StateImagination(Imagination):
    """Rolls out the state prior alone: next state, reward, success, uncertainty, and no image."""

    frames, needs_images, differentiable = 2, False, True

    def __init__(self, world: World, with_uncertainty: bool) -> None:
        if not world.model.prior.num_features:
            raise ValueError(
                "this world has no state prior to roll out (prior=none, or copy_last): plan with "
                "state_only=false, or train a world with prior=state"
            )
        self.world, self.schema, self.device = world, world.schema, world.device
        self.needs_images = bool(world.codec.config.found)  # to find where things are
        self.with_uncertainty = with_uncertainty
        self.has_uncertainty = world.model.prior.has_uncertainty

    def begin(self, start: StartState, copies: int, seed: int) -> StateRollout:
        world, stats = self.world, self.world.stats
        (start,) = world.complete([start])
        prev = stats.encode_prev(world.tensor(start.last_prev)[None]).expand(copies, -1)
        state = stats.encode_state(world.tensor(start.state[-1])[None]).expand(copies, -1)
        ensemble = world.model.prior.init_ensemble(prev, state)
        if not self.with_uncertainty:
            ensemble = ensemble[:, :0]
        return StateRollout(prev, state, ensemble, torch.zeros(copies, dtype=torch.long, device=self.device))

    def step(self, s: StateRollout, action: Tensor) -> tuple[StateRollout, Outcome]:
        prior, stats = self.world.model.prior, self.world.stats
        action = stats.encode_action(action)
        expected = prior(s.prev, s.state, action)
        after = prior.project(expected.state)  # as `WorldModel.combine_with_prior` does
        ensemble, uncertainty = s.ensemble, torch.zeros_like(after[:, 0])
        if self.with_uncertainty:
            ensemble = prior.step_ensemble(ensemble, action, s.steps)
            uncertainty = prior.expected_error(ensemble)
        outcome = Outcome(stats.decode_reward(expected.reward), expected.success.sigmoid(), uncertainty)
        return StateRollout(torch.cat([s.state, action], dim=-1), after, ensemble, s.steps + 1), outcome

    def observation(self, s: StateRollout) -> dict[str, np.ndarray]:
        return observed_state(self.world, s.state.detach())

    def rest_action(self, start: StartState) -> Tensor:
        return rest_action(self.world, start)


class ImageRollout(NamedTuple):
    """Where N imagined episodes stand, and of what noise they are drawn."""

    rollout: RolloutState
    seeds: Tensor  # (N,) int64
    steps: Tensor  # (N,) int64


class ImageImagination(Imagination):
    """Steps the whole world: an image is drawn in every step, and what it shows counts."""

    needs_images, differentiable = True, False

    def __init__(self, world: World) -> None:
        self.world, self.schema, self.device = world, world.schema, world.device
        self.frames = world.config.window
        self.has_uncertainty = bool(world.schema.state) and world.model.prior.has_uncertainty

    def begin(self, start: StartState, copies: int, seed: int) -> ImageRollout:
        rows = torch.arange(copies, device=self.device)
        rollout = self.world.reset([start]).select(torch.zeros_like(rows))
        return ImageRollout(rollout, seed + rows, torch.zeros_like(rows))

    def step(self, s: ImageRollout, action: Tensor) -> tuple[ImageRollout, Outcome]:
        world = self.world
        noise = row_noise(s.seeds, s.steps, world.frame_shape)
        after = world.step(s.rollout, action, noise)
        uncertainty = world.model.prior.expected_error(after.ensemble).nan_to_num()
        outcome = Outcome(world.stats.decode_reward(after.reward), after.success, uncertainty)
        return ImageRollout(after, s.seeds, s.steps + 1), outcome

    def observation(self, s: ImageRollout) -> dict[str, Any]:
        world = self.world
        shown = world.pixels(s.rollout).cpu().numpy()
        cameras = {name: shown[:, v] for v, name in enumerate(self.schema.cameras)}
        pixels = cameras if len(cameras) > 1 else shown[:, 0]
        return {"pixels": pixels} | observed_state(world, s.rollout.state)

    def rest_action(self, start: StartState) -> Tensor:
        return rest_action(self.world, start)


def observed_state(world: World, state: Tensor) -> dict[str, np.ndarray]:
    """Gives a model's states (N, S) as the keys that an environment observes, and as `objects` where the
    world has the objects that it finds in pictures, (N, N') px."""
    raw = world.stats.decode_state(state).float().cpu().numpy()
    known = len(world.schema.state)
    agent, environment, found = np.split(raw, [len(world.schema.agent_pos), known], axis=1)
    parts = {"agent_pos": agent, "environment_state": environment, "objects": found}
    return {key: value for key, value in parts.items() if value.shape[1]}


def rest_action(world: World, start: StartState) -> Tensor:
    """Gives (A,): the action, raw units, under which the start's state stays, as the recordings have it."""
    (start,) = world.complete([start])
    state = world.stats.encode_state(world.tensor(start.state[-1]))
    rest = standstill(state, world.stats.hold_action)[len(state) :]
    low, high = world.stats.action_low, world.stats.action_high
    return (low + high) / 2 + rest * (high - low) / 2


def open_imagination(
    world: str | Path | World | Imagination, config: PlannerConfig, base_needs_images: bool
) -> Imagination:
    """Gives an imagination as it is, or makes one of a world: a folder, a Hub id, or the object.

    Raises ValueError where the world predicts neither reward nor success, or not the uncertainty or the state
    path that the settings ask for.
    """
    if isinstance(world, Imagination):
        found = world
    elif isinstance(world, str | Path | World):
        opened = world if isinstance(world, World) else World.load(world, pick_device(config.device))
        alone = opened.images_add_nothing and not base_needs_images
        state_only = alone if config.state_only is None else config.state_only
        if state_only and base_needs_images:
            raise ValueError(
                "state_only=true draws no images, and the base policy needs them: leave it out, or set "
                "base_needs_images=false"
            )
        with_uncertainty = config.uncertainty_penalty > 0
        found = StateImagination(opened, with_uncertainty) if state_only else ImageImagination(opened)
    else:
        raise TypeError(f"world is a folder, a Hub id or a World; got {world!r:.80}")
    if not (found.schema.reward or found.schema.success):
        raise ValueError(
            "this world predicts neither reward nor success (its recordings had none), so no plan can be "
            "scored: record next.reward or next.success, and train it again"
        )
    if config.uncertainty_penalty > 0 and not found.has_uncertainty:
        raise ValueError(
            f"uncertainty_penalty={config.uncertainty_penalty}, but this world has no state prior that "
            "tells its uncertainty: leave it out"
        )
    return found

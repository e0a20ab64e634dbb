"""A world stepped by its state prior alone: next state, reward, success, uncertainty, and no image.

Where the images add nothing to these (the heads of the shipped PushT world add zeros), this is the world's
own path to the last bit, at a small part of its cost. A frame with no channels stands for each image, and a
memory of no layers for the encoder's, so that rows are saved, chosen and restarted as with images.

B rows, S state, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from scd_world.model.kv_cache import RingKVCache
from scd_world.model.rollout_state import RolloutState, Shown
from scd_world.world.readout import Readout
from scd_world.world.starts import StartState
from scd_world.world.world import World


class StatePath:
    """Steps rows as `World` does, without images.

    Raises ValueError for a world whose images count for what is to be predicted.
    """

    def __init__(self, world: World, with_uncertainty: bool = True) -> None:
        """with_uncertainty=False leaves the prior's ensemble out, which is most of a step's cost."""
        if not world.images_add_nothing:
            why = (
                "it was trained to read state, reward or success off them (model.state_weight, reward_weight "
                "or success_weight above 0)"
                if world.model.prior.num_features
                else "it has no state prior to step (prior=none, or data without a state)"
            )
            raise ValueError(
                f"render_images=False: in this world the images count, for {why}; leave render_images out, "
                "or train a world with prior=state and these weights at 0"
            )
        self.world, self.with_uncertainty = world, with_uncertainty
        self.frame_shape = self.detail_shape = (0, *world.frame_shape[1:])

    def reset(self, starts: Sequence[StartState]) -> RolloutState:
        """Starts one row per start state, each from its last frame's state and what was one frame before."""
        starts = self.world.complete(starts)
        state, prev = self.world.last_states(starts)
        B = len(starts)
        nothing, blank = torch.zeros(B, device=state.device), state.new_zeros(B, *self.frame_shape)
        cache = self.empty_cache(B)
        return RolloutState(
            obs=blank,
            state=state,
            prev=prev,
            reward=nothing,
            success=nothing.clone(),
            task=self.world.tasks(starts),
            **self.look_at(blank, state, prev)._asdict(),
            detail=blank,
            ensemble=self.init_ensemble(prev, state).clone(),
            image_error=nothing.clone(),
            steps_since_observed=torch.zeros(B, dtype=torch.long, device=state.device),
            cache=cache,
            steps=cache.steps,
        )

    def reset_rows(self, s: RolloutState, rows: Sequence[int], starts: Sequence[StartState]) -> None:
        """Starts these rows (r,) of `s` anew, in place. RuntimeError where `s` was stepped on already."""
        s.check()
        index = torch.as_tensor(rows, device=s.state.device)
        s.state[index], s.prev[index] = self.world.last_states(self.world.complete(starts))
        s.reward[index] = s.success[index] = s.image_error[index] = 0.0
        s.ensemble[index] = self.init_ensemble(s.prev[index], s.state[index])
        s.steps_since_observed[index] = 0
        s.task[index] = self.world.tasks(starts)

    @torch.no_grad()
    def step(self, s: RolloutState, action: Any) -> RolloutState:
        """Predicts one step of all rows; consumes `s`. action (B, A) in raw units."""
        s.check()
        prior, stats = self.world.model.prior, self.world.stats
        action = stats.encode_action(self.world.tensor(action))
        expected, ensemble = prior(s.prev, s.state, action), s.ensemble
        if self.with_uncertainty:
            ensemble = prior.step_ensemble(ensemble, action, s.steps_since_observed)
        s.cache.advance()
        return replace(
            s,
            state=prior.project(expected.state).float(),  # as `WorldModel.combine_with_prior` does
            prev=torch.cat([s.state, action], dim=-1),
            reward=expected.reward.float(),
            success=expected.success.float().sigmoid(),
            ensemble=ensemble,
            steps_since_observed=s.steps_since_observed + 1,
            steps=s.cache.steps,
        )

    def readout(self, s: RolloutState) -> Readout:
        """Begins to read off what the rows predicted; of no camera."""
        _, H, W = self.frame_shape
        images = torch.zeros(len(s.state), 0, H, W, 3, dtype=torch.uint8, device=s.state.device)
        packed = self.world.packed_numbers(s)
        return Readout(images, packed, len(self.world.schema.state), s.cache.steps)

    def look_at(self, obs: Tensor, state: Tensor, prev: Tensor) -> Shown:
        """Keeps of a start what the rows of a world do that draws nothing."""
        return Shown.undrawn(obs, self.world.model.as_anchor_state(state, prev))

    def init_ensemble(self, prev: Tensor, state: Tensor) -> Tensor:
        """Gives (B, M, 2·S + A); M = 0 without uncertainty."""
        ensemble = self.world.init_ensemble(prev, state)
        return ensemble if self.with_uncertainty else ensemble[:, :0]

    def empty_cache(self, rows: int) -> RingKVCache:
        """Gives a memory that holds nothing but the count of steps."""
        return RingKVCache(0, rows, 1, 1, 1, 1, self.world.device)

"""Where imagined episodes stand: the current frame and state, what was predicted, and the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from scd_world.model.kv_cache import RingKVCache
from scd_world.model.prior import Scene


class Shown(NamedTuple):
    """What the last frame that was shown tells all later steps: looked at once, and kept. Of a model that
    looks at none, C, S and all else are 0."""

    anchor: Tensor  # (B, C, H, W) that frame
    anchor_state: Tensor  # (B, 2·S + A) the state there, and state and action one frame earlier
    scene_features: Tensor  # (B, Z) this and the next three: see `prior.Scene`
    scene_view: Tensor  # (B, V, 3, 4)
    scene_height: Tensor  # (B, V, H, W)
    scene_still: Tensor  # (B, C, H, W)
    anchor_drawn: Tensor  # (B, C, H, W) what the prior draws of the state there
    drawing_error: Tensor  # (B, V) how far off that is, R²
    unaided_error: Tensor  # (B, V) and how far off without what stays of the frame itself

    @classmethod
    def undrawn(cls, anchor: Tensor, anchor_state: Tensor) -> Shown:
        """Gives what is known of a frame where nobody draws it."""
        number, image = anchor_state[:, :0], anchor[:, :0]
        return cls(anchor, anchor_state, *Scene.unknown(anchor, anchor_state), image, number, number)

    @property
    def scene(self) -> Scene:
        return Scene(self.scene_features, self.scene_view, self.scene_height, self.scene_still)


@dataclass(frozen=True)
class RolloutState:
    """Where B imagined episodes stand. Stepping consumes it (the cache changes in place); `fork()` first."""

    obs: Tensor  # (B, C, H, W) about in [-1, 1]: what a filter adds may leave it
    state: Tensor  # (B, S) model units
    prev: Tensor  # (B, S + A) state and action one frame earlier; at an episode's first frame at rest
    reward: Tensor  # (B,) model units, of the step that led here
    success: Tensor  # (B,) probability
    task: Tensor  # (B,) int, which of the schema's tasks
    anchor: Tensor  # this and all up to `unaided_error`: see `Shown`
    anchor_state: Tensor
    scene_features: Tensor
    scene_view: Tensor
    scene_height: Tensor
    scene_still: Tensor
    anchor_drawn: Tensor
    drawing_error: Tensor
    unaided_error: Tensor
    detail: Tensor  # (B, C', H, W) what a codec has to add to the picture of the anchor; often empty, C' = 0
    ensemble: Tensor  # (B, M, 2·S + A) ensemble of the state prior, for its uncertainty
    image_error: Tensor  # (B,) of the frame to expect, share of its range; 0: it was shown, 1: unknown
    steps_since_observed: Tensor  # (B,) int, imagined steps since the state was last known
    cache: RingKVCache
    steps: int  # the cache's count of steps when this was made

    PER_ROW = (
        "obs", "state", "prev", "reward", "success", "task", *Shown._fields,
        "detail", "ensemble", "image_error", "steps_since_observed",
    )  # fmt: skip

    @property
    def shown(self) -> Shown:
        return Shown(*(getattr(self, name) for name in Shown._fields))

    def fork(self) -> RolloutState:
        """An independent copy: both can be stepped on."""
        self.check()
        tensors = {name: getattr(self, name).clone() for name in self.PER_ROW}
        return RolloutState(**tensors, cache=self.cache.clone(), steps=self.steps)

    def select(self, rows: Tensor) -> RolloutState:
        """A copy of these rows (r,) alone."""
        self.check()
        tensors = {name: getattr(self, name)[rows] for name in self.PER_ROW}
        return RolloutState(**tensors, cache=self.cache.select(rows), steps=self.steps)

    def check(self) -> None:
        if self.steps != self.cache.steps:
            raise RuntimeError(
                f"this RolloutState stood at step {self.steps} and was stepped on already (its cache is at "
                f"step {self.cache.steps}): keep the value that the last step returned, or fork() before "
                "stepping"
            )

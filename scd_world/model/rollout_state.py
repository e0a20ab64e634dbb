"""Where imagined episodes stand: the current frame and state, what was predicted, and the memory."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scd_world.model.kv_cache import RingKVCache


@dataclass(frozen=True)
class RolloutState:
    """Where B imagined episodes stand. Stepping consumes it (the cache changes in place); `fork()` first."""

    obs: Tensor  # (B, C, H, W) in [-1, 1]
    state: Tensor  # (B, S) model units
    prev: Tensor  # (B, S + A) state and action one frame earlier; at an episode's first frame at rest
    reward: Tensor  # (B,) model units, of the step that led here
    success: Tensor  # (B,) probability
    task: Tensor  # (B,) int, which of the schema's tasks
    anchor: Tensor  # (B, C, H, W) the last that was shown; (B, 0, H, W) where a model looks at none
    anchor_state: Tensor  # (B, 2·S + A) state there, and prev; (B, 0) where no model asks for it
    detail: Tensor  # (B, C', H, W) what a codec has to add to the picture of the anchor; often empty, C' = 0
    ensemble: Tensor  # (B, M, 2·S + A) ensemble of the state prior, for its uncertainty
    image_error: Tensor  # (B,) of the frame to expect, share of its range; 0: it was shown, 1: unknown
    steps_since_observed: Tensor  # (B,) int, imagined steps since the state was last known
    cache: RingKVCache
    steps: int  # the cache's count of steps when this was made

    PER_ROW = (
        "obs", "state", "prev", "reward", "success", "task", "anchor", "anchor_state",
        "detail", "ensemble", "image_error", "steps_since_observed",
    )  # fmt: skip

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

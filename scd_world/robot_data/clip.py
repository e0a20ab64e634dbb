"""A clip: a few consecutive steps of recorded episodes, in model units, as the losses want it.

B episodes, T steps, C channels (3 per camera), H W pixels, S state size, A action size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scd_world.robot_data.normalizer import Normalizer, encode_pixels


@dataclass(frozen=True)
class Clip:
    """`action[:, i]` is taken at `obs[:, i]` and leads to `obs[:, i+1]`.

    `valid[:, i]` says that `obs[:, i+1]` and `state[:, i+1]` were recorded, i + 1 steps after the first.
    LeRobot keeps no frame after the last action of an episode, so the last step of an episode has a reward
    and a success but no next frame; and where the recorder dropped a frame, what follows is too late.
    """

    obs: Tensor  # (B, T+1, C, H, W) in [-1, 1]
    state: Tensor  # (B, T+1, S)
    prev: Tensor  # (B, S + A) state and action one frame before the clip; at an episode's start at rest
    action: Tensor  # (B, T, A)
    reward: Tensor  # (B, T)
    success: Tensor  # (B, T) 0 or 1
    valid: Tensor  # (B, T) 0 or 1
    task: Tensor  # (B,) int, which of the schema's tasks
    anchor: Tensor  # (B, C, H, W) in [-1, 1], an earlier frame of the episode, or the clip's first
    anchor_state: Tensor  # (B, 2·S + A) the state there, and state and action one frame earlier

    @property
    def num_steps(self) -> int:
        return self.action.shape[1]

    @classmethod
    def from_windows(
        cls,
        windows: Mapping[str, Tensor],
        stats: Normalizer,
        encode: Callable[[Tensor], Tensor] = encode_pixels,
    ) -> Clip:
        """Windows as the store gives them (raw units, uint8 pixels) → model units, on the windows' device.

        encode: uint8 (…, V, H, W, 3) → the model's frames (…, C, H, W); a learnt codec has its own.

        windows: `pixels` uint8 (B, T+1, V, H, W, 3) · `state` (B, T+1, S) · `prev` (B, S + A) ·
        `action` (B, T, A) · `reward`, `success`, `valid`, `dropped` (B, T) · `task` (B,); where the loader
        gives one, `anchor` uint8 (B, V, H, W, 3), `anchor_state` (B, S) and `anchor_prev` (B, S + A).
        """
        obs, state = encode(windows["pixels"]), stats.encode_state(windows["state"])
        prev, anchor = stats.encode_prev(windows["prev"]), (obs[:, 0], state[:, 0])
        shown_prev = prev
        if "anchor" in windows:
            anchor = encode(windows["anchor"]), stats.encode_state(windows["anchor_state"])
            shown_prev = stats.encode_prev(windows["anchor_prev"])
        return cls(
            obs=obs,
            state=state,
            prev=prev,
            action=stats.encode_action(windows["action"]),
            reward=stats.encode_reward(windows["reward"]),
            success=windows["success"].float(),
            valid=(windows["valid"] & steady(windows["dropped"])).float(),
            task=windows["task"],
            anchor=anchor[0],
            anchor_state=torch.cat([anchor[1], shown_prev], dim=-1),
        )

    @property
    def before_each(self) -> Tensor:
        """Gives state and action one frame before each frame, (B, T + 1, S + A); before the first, `prev`."""
        return torch.cat([self.prev[:, None], torch.cat([self.state[:, :-1], self.action], dim=-1)], dim=1)

    def rows(self, rows: slice | Tensor) -> Clip:
        return Clip(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def to(self, device: torch.device | str) -> Clip:
        return Clip(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def steady(dropped: Tensor) -> Tensor:
    """Tells of steps (B, T) bool, between which the recorder dropped frames or not, up to which no frame is
    missing, (B, T) bool."""
    return dropped.long().cumsum(1) == 0


def previous_state_action(state: Tensor, act: Tensor, first: Tensor) -> Tensor:
    """State and action one frame earlier (B, T, S + A), of states (B, T, S) and actions (B, T, A); before the
    first frame `first` (B, S + A)."""
    return shift_right(torch.cat([state, act], dim=-1), first)


def shift_right(x: Tensor, first: Tensor | None = None) -> Tensor:
    """What was one frame earlier, (B, T, …); before the first frame `first`, or else nothing has moved."""
    return torch.cat([x[:, :1] if first is None else first[:, None], x[:, :-1]], dim=1)

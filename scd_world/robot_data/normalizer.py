"""Ranges of the data, and the only place where raw robot units become model units and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from scd_world.robot_data.schema import SMALLEST_RANGE, DataSchema


@dataclass(frozen=True)
class Normalizer:
    """Float32 statistics of the training episodes.

    Model units: state and action in [-1, 1] between the lowest and the highest recorded value,
    reward with mean 0 and deviation 1.
    """

    state_low: Tensor  # (S,) raw units
    state_high: Tensor  # (S,)
    state_delta_rms: Tensor  # (S,) root mean square of state[i+1] − state[i], in model units
    hold_action: Tensor  # (A, S + 1) the action that keeps a state at rest, see `linear_fit.fit_hold_action`
    action_low: Tensor  # (A,) raw units
    action_high: Tensor  # (A,)
    reward_mean: Tensor  # ()
    reward_std: Tensor  # ()
    background: Tensor  # (C, H, W) in [-1, 1]: each pixel's median over the data, what never moves
    # (S,) the action that each number of the state follows, −1 where none, see `joint_law.find_commands`
    commanded_by: Tensor = None  # type: ignore[assignment]  # None: of none it is known

    def __post_init__(self) -> None:
        if self.commanded_by is None:
            object.__setattr__(self, "commanded_by", torch.full_like(self.state_low, -1))

    @classmethod
    def neutral(cls, schema: DataSchema) -> Normalizer:
        """Ranges of [-1, 1] and nothing known of the dynamics: for models that no data has trained."""
        S, A = len(schema.state), len(schema.action)
        return cls(
            state_low=-torch.ones(S),
            state_high=torch.ones(S),
            state_delta_rms=torch.full((S,), 0.1),
            hold_action=torch.zeros(A, S + 1),
            action_low=-torch.ones(A),
            action_high=torch.ones(A),
            reward_mean=torch.zeros(()),
            reward_std=torch.ones(()),
            background=torch.zeros(schema.channels, schema.height, schema.width),
        )

    @property
    def constant_actions(self) -> Tensor:
        """(A,) bool: which dimensions of the action never moved, as `schema.is_constant` has it."""
        largest = torch.maximum(self.action_low.abs(), self.action_high.abs())
        return (self.action_high - self.action_low) / 2 <= SMALLEST_RANGE * largest.clamp_min(1.0)

    @property
    def joints(self) -> Tensor:
        """(J,) int: the numbers of the state that follow a command of their own."""
        return (self.commanded_by >= 0).nonzero()[:, 0]

    @property
    def commands(self) -> Tensor:
        """(J,) int: the action that each of them follows."""
        return self.commanded_by[self.joints].long()

    @property
    def free_actions(self) -> Tensor:
        """(A,) 0 for an action that a joint follows, 1 for all others: what such an action does to a picture,
        the place of its joint tells."""
        free = torch.ones_like(self.action_low)
        free[self.commands] = 0
        return free

    def encode_state(self, state: Tensor) -> Tensor:
        return to_unit(state, self.state_low, self.state_high)

    def decode_state(self, state: Tensor) -> Tensor:
        return from_unit(state, self.state_low, self.state_high)

    def encode_action(self, action: Tensor) -> Tensor:
        """Encodes an action; 0 in each dimension that never moved: what other values do there no recording
        says, and weights that never learned from them would answer at random."""
        return torch.where(self.constant_actions, 0.0, to_unit(action, self.action_low, self.action_high))

    def encode_prev(self, prev: Tensor) -> Tensor:
        """Encodes state and action one frame earlier, (…, S + A); where that action is NaN there was none,
        and the one that keeps the state at rest stands for it."""
        state, action = prev.tensor_split([len(self.state_low)], dim=-1)
        unknown = torch.isnan(action).any(-1, keepdim=True)
        state, action = self.encode_state(state), self.encode_action(action)
        rest = standstill(state, self.hold_action)
        return torch.where(unknown, rest, torch.cat([state, action], dim=-1))

    def encode_reward(self, reward: Tensor) -> Tensor:
        return (reward - self.reward_mean) / self.reward_std.clamp_min(SMALLEST_RANGE)

    def decode_reward(self, reward: Tensor) -> Tensor:
        return reward * self.reward_std.clamp_min(SMALLEST_RANGE) + self.reward_mean

    def to(self, device: torch.device | str) -> Normalizer:
        return Normalizer(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of them by name; without joints, those of worlds that knew of none."""
        new = () if len(self.joints) else ("commanded_by",)
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in new}

    def save(self, path: Path) -> None:
        save_file({name: value.contiguous() for name, value in self.tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Normalizer:
        return cls(**load_file(path))

    @classmethod
    def of_schema(cls, tensors: Mapping[str, Tensor], schema: DataSchema) -> Normalizer:
        """Makes one of tensors that somebody else may have written; ValueError where they do not fit."""
        S, A = len(schema.state), len(schema.action)
        shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys(("state_low", "state_high", "state_delta_rms"), (S,)),
            **dict.fromkeys(("action_low", "action_high"), (A,)),
            "hold_action": (A, S + 1),
            **dict.fromkeys(("reward_mean", "reward_std"), ()),
            "background": (schema.channels, schema.height, schema.width),
            **({"commanded_by": (S,)} if "commanded_by" in tensors else {}),
        }
        if tensors.keys() != shapes.keys():
            raise ValueError(f"holds {sorted(tensors)}; expected {sorted(shapes)}")
        for name, shape in shapes.items():
            found = tensors[name]
            if tuple(found.shape) != shape or not found.is_floating_point():
                raise ValueError(
                    f"{name} is {found.dtype} of shape {tuple(found.shape)}; expected real numbers of shape "
                    f"{shape}, by the schema"
                )
        made = cls(**tensors)
        known = torch.arange(-1, A, device=made.commanded_by.device)
        if not torch.isin(made.commanded_by, known.to(made.commanded_by)).all():
            raise ValueError(
                f"commanded_by is {made.commanded_by.tolist()}; expected one of {A} actions for each number "
                "of the state, or -1"
            )
        return made


def standstill(state: Tensor, hold: Tensor) -> Tensor:
    """(…, S + A): a state in model units, and the action under which it stays, by `hold` (A, S + 1)."""
    action = state @ hold[:, :-1].T + hold[:, -1]
    return torch.cat([state, action.clamp(-1, 1)], dim=-1)


def to_unit(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[low, high] → [-1, 1], per last dimension."""
    return (value - (low + high) / 2) / half_range(low, high)


def from_unit(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """[-1, 1] → [low, high], per last dimension."""
    return value * half_range(low, high) + (low + high) / 2


def half_range(low: Tensor, high: Tensor) -> Tensor:
    """1 where a dimension never changed, but for rounding errors, which grow with the values: dividing by
    nothing would blow them up to signals."""
    half, largest = (high - low) / 2, torch.maximum(low.abs(), high.abs())
    return torch.where(half > SMALLEST_RANGE * largest.clamp_min(1.0), half, 1.0)


def encode_pixels(pixels: Tensor) -> Tensor:
    """uint8 (…, V, H, W, 3) as recorded → float (…, 3·V, H, W) in [-1, 1]."""
    frames = pixels.movedim(-1, -3).flatten(-4, -3)
    return frames.float() / 127.5 - 1


def decode_pixels(obs: Tensor) -> Tensor:
    """float (…, 3·V, H, W) in [-1, 1] → uint8 (…, V, H, W, 3)."""
    grey = ((obs.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return grey.unflatten(-3, (-1, 3)).movedim(-3, -1)

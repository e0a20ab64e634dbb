"""What a world model may ask of a state prior, and `NoPrior`, which answers nothing.

A state prior says what can be known of the next step without a pixel: from the recorded state alone. The
world model adds to it what the images add. SCD itself needs none: with `NoPrior` the next state is the
last one plus what the heads read off the context, and no part of a prior exists in the class, the weights or
the cost of a step.

B rows, S state, A action, R features of the expected change, C H W frame; everything in model units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from scd_world.robot_data.normalizer import Normalizer

SMALLEST_CHANGE = 1e-3  # of a dimension's range: a state that never changes divides nothing
UNSEEN = 9.0  # of [-1, 1]: nothing that is drawn is like it


class PriorPrediction(NamedTuple):
    """What is expected of a step before an image is looked at."""

    state: Tensor  # (…, S) the next state
    delta_features: Tensor  # (…, R) velocity and expected change, in units of the usual change
    reward: Tensor  # (…,) model units
    success: Tensor  # (…,) logit


class Scene(NamedTuple):
    """What a frame that was shown tells of all frames of its episode, beside the state."""

    features: Tensor  # (F, Z); Z = 0 where the state alone is drawn
    view: Tensor  # (F, V, 3, 4) where the cameras were, a turn and a place; (F, 0, 1, 1): not known
    height: Tensor  # (F, V, H, W) of what is seen, share of a plane's distance; (F, 0, H, W): not known
    still: Tensor  # (F, C, H, W) what stays of it behind all that moves; (F, 0, H, W): not known

    @classmethod
    def unknown(cls, shown: Tensor, shown_state: Tensor) -> Scene:
        """Gives what is known where nobody looks at frames (F, C, H, W) and states (F, 2·S + A)."""
        nothing = shown_state[:, :0]
        return cls(nothing, nothing[..., None, None], shown[:, :0], shown[:, :0])


class ShownFrame(NamedTuple):
    """A frame that was shown, and what is known of that moment."""

    frame: Tensor  # (F, C, H, W)
    state: Tensor  # (F, 2·S + A) the state there; state and action one frame earlier
    drawn: Tensor  # (F, C, H, W) what the prior draws of it


class StatePrior(nn.Module, ABC):
    """The interface that `WorldModel` steps and learns with."""

    num_features: int  # R
    shown_actions: Tensor  # (A,) 1 for an action that what draws is given, 0 for what the next state tells
    delta_scale: Tensor  # (S,) usual change of the state per step
    residual_scale: Tensor  # (S,) unit of what the heads add to the predicted state
    heads_add: Tensor  # (S,) 1 where they add to it, 0 where it is the prior's alone

    @abstractmethod
    def forward(self, prev: Tensor, state: Tensor, action: Tensor) -> PriorPrediction:
        """Predicts a step. prev (…, S + A): state and action one frame earlier; state (…, S), action (…,
        A)."""

    @abstractmethod
    def project(self, state: Tensor) -> Tensor:
        """Gives the state (…, S) nearest to this one that obeys what all recorded states obey."""

    @property
    @abstractmethod
    def has_renderer(self) -> bool:
        """Says whether the prior can draw a state."""

    @abstractmethod
    def render(
        self,
        state: Tensor,
        prev: Tensor | None = None,
        scene: Scene | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        """Draws (F, S) as frames (F, C, H, W); only where there is a renderer. Where it draws by more: prev
        (F, S + A), state and action one frame earlier, and the scene; where: what `look_back` says of them,
        if that is known already."""

    @abstractmethod
    def scene(self, shown: Tensor, shown_state: Tensor) -> Scene:
        """Reads off a frame (F, C, H, W) what no state tells of a scene. shown_state (F, 2·S + A): the state
        there, and state and action one frame earlier."""

    @property
    def carries(self) -> bool:
        """Says whether a camera rides on the robot, and it is known where."""
        return False

    def look_back(self, scene: Scene, state: Tensor, last: Tensor) -> Tensor | None:
        """Gives where in the frame that a scene was read off is what cameras see that ride on the robot, of
        a state (F, S) that came after `last` (F, S): (F, V, 2, P), x and y in [-1, 1] of its P pixels; None
        where no camera rides."""
        return None

    def follow(self, frames: Sequence[Tensor], where: Tensor) -> Tensor:
        """Gives N frames, each (F, C, H, W), seen where the scene was, as cameras that ride on the robot see
        them: (F, N, C, H, W), `UNSEEN` where they did not look. where: of `look_back`."""
        raise NotImplementedError

    @property
    def moves_shown(self) -> bool:
        """Says whether it is known where what was shown has gone."""
        return False

    def move_shown(
        self, drawn: Tensor, state: Tensor, prev: Tensor, shown: ShownFrame, where: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Gives the drawing (F, C, H, W) of a state with what a shown frame has and its own drawing lacks,
        each thing where it has gone, (F, C, H, W); and the logarithm of its mean square error, as it is to be
        expected, (F, V). state, prev: as in `render`; where: of `look_back`."""
        raise NotImplementedError

    def sight(self, frames: Tensor, there: Tensor) -> Scene:
        """Gives of frames (F, C, H, W) where the cameras were and how high stands what they saw: all that
        `look_back` asks of a scene. there (F, ≥ 2·S): the state at them, and the one before."""
        return Scene.unknown(frames, there)

    def carry(self, frames: Tensor, where: Tensor) -> Tensor:
        """Gives frames (F, C, H, W) as cameras that ride on the robot see them; as they are where no camera
        rides, or none looked. where: of `look_back`, by their `sight`."""
        raise NotImplementedError

    @property
    @abstractmethod
    def has_uncertainty(self) -> bool:
        """Says whether the prior can tell how far an imagined state may be off."""

    @abstractmethod
    def init_ensemble(self, prev: Tensor, state: Tensor) -> Tensor:
        """Starts (B, E, 2·S + A) ensemble members at a state that was observed."""

    @abstractmethod
    def step_ensemble(self, ensemble: Tensor, action: Tensor, steps_since_observed: Tensor) -> Tensor:
        """Moves the ensemble one step on under the action (B, A). steps_since_observed (B,) int."""

    @abstractmethod
    def expected_error(self, ensemble: Tensor) -> Tensor:
        """Gives (B,): root mean square error of the state to expect, as a share of its ranges; NaN:
        unknown."""

    def freeze_pretrained(self) -> None:
        """Holds what was pretrained and must not learn with the rest."""
        return

    def freeze_outcome(self) -> None:
        """Holds what predicts reward and success: where the data has neither, nothing trains it."""
        return


class NoPrior(StatePrior):
    """The state stays as it is until the images say otherwise; nothing is learnt or drawn."""

    delta_scale: Tensor
    heads_add: Tensor
    shown_actions: Tensor
    num_features = 0
    has_renderer = has_uncertainty = False

    def __init__(self, normalizer: Normalizer) -> None:
        super().__init__()
        scale = normalizer.state_delta_rms.clamp_min(SMALLEST_CHANGE)
        self.register_buffer("delta_scale", scale, persistent=False)
        self.register_buffer("heads_add", torch.ones_like(scale), persistent=False)
        self.register_buffer("shown_actions", torch.ones_like(normalizer.action_low), persistent=False)

    @property
    def residual_scale(self) -> Tensor:  # type: ignore[override]
        return self.delta_scale

    def forward(self, prev: Tensor, state: Tensor, action: Tensor) -> PriorPrediction:
        nothing = state.new_zeros(state.shape[:-1])
        return PriorPrediction(state, state[..., :0], nothing, nothing)

    def project(self, state: Tensor) -> Tensor:
        return state.float()

    def render(
        self,
        state: Tensor,
        prev: Tensor | None = None,
        scene: Scene | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        raise RuntimeError("NoPrior draws nothing: ask has_renderer first")

    def scene(self, shown: Tensor, shown_state: Tensor) -> Scene:
        return Scene.unknown(shown, shown_state)

    def init_ensemble(self, prev: Tensor, state: Tensor) -> Tensor:
        return prev.new_zeros(len(prev), 0, prev.shape[-1] + state.shape[-1])

    def step_ensemble(self, ensemble: Tensor, action: Tensor, steps_since_observed: Tensor) -> Tensor:
        return ensemble

    def expected_error(self, ensemble: Tensor) -> Tensor:
        return torch.full((len(ensemble),), torch.nan, device=ensemble.device)

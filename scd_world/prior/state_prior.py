"""The state prior: what recorded state alone tells of the next step, learnt before the first image.

A linear model, a network on top of it and the constraints that all recorded states obey (`dynamics.py`); a
renderer that draws a state (`renderer.py`); an ensemble that tells how far an imagined state may be off
(`uncertainty.py`). Worth its cost where the state says where things are: a simulator's `environment_state`,
a tracker, or a robot whose own joints are all that moves.

B rows, S state, A action, C H W frame; everything in model units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scd_world.model.prior import SMALLEST_CHANGE, PriorPrediction, Scene, ShownFrame, StatePrior
from scd_world.prior.config import PriorConfig
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.renderer import StateRenderer
from scd_world.prior.uncertainty import EnsembleUncertainty
from scd_world.robot_data.normalizer import Normalizer
from scd_world.scene.cameras import RidingCameras


class PretrainedStatePrior(StatePrior):
    has_uncertainty = True
    heads_add: Tensor
    shown_actions: Tensor

    def __init__(
        self, config: PriorConfig, normalizer: Normalizer, with_renderer: bool, sees_commands: bool = True
    ) -> None:
        """with_renderer: whether the pixel head, or a filter, can use a drawing of the state. sees_commands:
        whether what draws is given the commands of joints.

        Recordings hold poses and commands together, and a network that is given both draws by whichever is
        handy: a joint that is moved by itself then changes what it never touched.
        """
        super().__init__()
        shown = torch.ones_like(normalizer.action_low) if sees_commands else normalizer.free_actions
        self.register_buffer("shown_actions", shown, persistent=False)
        self.config = config
        S = len(normalizer.state_low)
        self.num_features = 2 * S
        self.dynamics = StateDynamics(normalizer, config.width, config.layers, config.objects)
        self.register_buffer("heads_add", torch.ones(S))
        if (joints := self.dynamics.joints) is not None:
            # Held, and left alone: single steps of a few windows would untrain what rollouts taught.
            self.heads_add[joints.requires_grad_(False).joints] = 0
        self.uncertainty = EnsembleUncertainty(S)
        self.renderer: StateRenderer | None = None
        if with_renderer and config.renderer_parts and S:
            renderer = StateRenderer(
                S,
                normalizer.background,
                config.renderer_parts,
                config.renderer_width,
                scene_features=config.scene_features,
                static_layer=config.static_layer,
                motion_channels=config.motion_channels,
                shown_actions=shown,
                usual_change=normalizer.state_delta_rms.clamp_min(SMALLEST_CHANGE),
            )
            self.renderer = renderer.requires_grad_(False)  # pretrained, and held from then on

    def fit_closed_form(self, transitions: tuple[Tensor, Tensor, Tensor, Tensor], state: Tensor) -> None:
        """Fits what needs seconds: the dynamics to transitions (previous state and action (R, S + A), state
        (R, S), action (R, A), next state (R, S)), and constraints to all recorded states (F, S)."""
        self.dynamics.fit_closed_form(*transitions)
        self.dynamics.constraints.fit(state)

    @property
    def delta_scale(self) -> Tensor:  # type: ignore[override]
        return self.dynamics.linear.delta_scale

    @property
    def residual_scale(self) -> Tensor:  # type: ignore[override]
        return self.dynamics.linear.residual_scale

    def forward(self, prev: Tensor, state: Tensor, action: Tensor) -> PriorPrediction:
        return self.dynamics(prev, state, action)

    def project(self, state: Tensor) -> Tensor:
        return self.dynamics.project(state)

    @property
    def has_renderer(self) -> bool:  # type: ignore[override]
        return self.renderer is not None

    def render(
        self,
        state: Tensor,
        prev: Tensor | None = None,
        scene: Scene | None = None,
        where: Tensor | None = None,
    ) -> Tensor:
        assert self.renderer is not None
        return self.renderer(state, prev, scene, where)

    def scene(self, shown: Tensor, shown_state: Tensor) -> Scene:
        if self.renderer is None:
            return Scene.unknown(shown, shown_state)
        return self.renderer.scene(shown, shown_state)

    def look_back(self, scene: Scene, state: Tensor, last: Tensor) -> Tensor | None:
        return None if self.renderer is None else self.renderer.look_back(scene, state, last)

    def follow(self, frames: Sequence[Tensor], where: Tensor) -> Tensor:
        return self.cameras.follow(frames, where)

    @property
    def moves_shown(self) -> bool:
        return self.renderer is not None and self.renderer.motion is not None

    def move_shown(
        self, drawn: Tensor, state: Tensor, prev: Tensor, shown: ShownFrame, where: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert self.renderer is not None
        moved = self.renderer.move_shown(drawn, state, prev, shown, where)
        return moved.frame, moved.log_error

    @property
    def cameras(self) -> RidingCameras:
        assert self.renderer is not None
        assert self.renderer.cameras is not None
        return self.renderer.cameras

    @property
    def carries(self) -> bool:
        return self.renderer is not None and self.renderer.carries

    def sight(self, frames: Tensor, there: Tensor) -> Scene:
        if self.renderer is None or not self.carries:
            return Scene.unknown(frames, there)
        return self.renderer.sight(frames, there)

    def carry(self, frames: Tensor, where: Tensor) -> Tensor:
        return self.cameras.carry(frames, where)

    def init_ensemble(self, prev: Tensor, state: Tensor) -> Tensor:
        return self.uncertainty.init_ensemble(prev, state)

    def step_ensemble(self, ensemble: Tensor, action: Tensor, steps_since_observed: Tensor) -> Tensor:
        return self.uncertainty.step_ensemble(self.dynamics, ensemble, action, steps_since_observed)

    def expected_error(self, ensemble: Tensor) -> Tensor:
        return self.uncertainty.expected_error(ensemble)

    def freeze_pretrained(self) -> None:
        for part in (self.renderer, self.uncertainty, self.dynamics.joints):
            if part is not None:
                part.requires_grad_(False)

    def freeze_outcome(self) -> None:
        if self.dynamics.outcome_net is not None:
            self.dynamics.outcome_net.requires_grad_(False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Takes those of a prior whose joints went on learning with the world, its heads adding to them."""
        state_dict.setdefault(f"{prefix}heads_add", torch.ones_like(self.heads_add))
        super()._load_from_state_dict(state_dict, prefix, *args)

"""How each joint goes on: a small network of its own, that sees its own motion and its own command.

What a servo does is a matter of friction, play and limits, which is not linear; and it is a matter of that
servo. A network that saw all joints would learn who moved together in the recordings: it learns more by
heart, and moves one joint by another's command (`robot_data/joint_law.py`).

S state, A action, J joints; everything in model units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.prior.fourier_mlp import ParallelFourierMLPs
from scd_world.robot_data.normalizer import Normalizer
from scd_world.utils.precision import full_precision

INPUTS = 5  # velocity, what the linear law expects, place, command, and how far that has turned


class JointDynamics(nn.Module):
    joints: Tensor  # (J,) int, which numbers of the state they are
    commands: Tensor  # (J,) int, which action each follows

    def __init__(self, normalizer: Normalizer, width: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("joints", normalizer.joints, persistent=False)
        self.register_buffer("commands", normalizer.commands, persistent=False)
        self.nets = ParallelFourierMLPs(len(self.joints), INPUTS, width, layers)

    def forward(self, delta_features: Tensor, state: Tensor, action: Tensor, turn: Tensor) -> Tensor:
        """Gives what the linear laws leave, (…, J), in units of that.

        delta_features (…, 2·S): velocity and expected change, in units of the usual one, on a scale on which
        all are of one size; turn (…, A): the action before, less the action.
        """
        velocity, expected = delta_features.chunk(2, dim=-1)
        of_joint = [part[..., self.joints] for part in (velocity, expected, state)]
        of_command = [part[..., self.commands] for part in (action, turn)]
        with full_precision(state):
            return self.nets(torch.stack([*of_joint, *of_command], dim=-1).float())

"""Self-rollout against drift: the whole model learns on frames that it generated, towards the recorded ones.

When stepping, the encoder reads what the decoder generated. So the clip is first rolled out as it will be,
frame by frame and without gradient (`WorldModel.self_rollout_history`); then
one parallel pass of the encoder replays that rollout, which gives it its gradient, and every next frame is
rendered just as in stepping: from pure noise, in `num_steps` steps, the gradient through all of them.

The error is taken against the one future that was recorded. Where several were possible its optimum is
their mean: this stage trades sharpness for less drift, and belongs after distillation, in small doses.
"""

from __future__ import annotations

from torch import Tensor

from scd_world.distill.objective import Objective, render_clip
from scd_world.model.losses import total_loss
from scd_world.model.noise import Noise
from scd_world.robot_data.clip import Clip


class SelfRollout(Objective):
    """The loss above, with those of state, reward and success."""

    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.model
        batch, predicted = render_clip(model, clip, noise)
        losses = {"pixels": batch.error(predicted, batch.x).mean()}
        losses |= model.head_losses(clip, batch.heads, batch.next_state)
        return total_loss(model.config, losses), losses

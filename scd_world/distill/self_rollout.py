"""Drift control: the whole model learns on frames that it drew itself, each with the recorded one as truth.

When stepping, the encoder reads what the decoder drew. So the clip is first rolled out as it will be, frame
by frame and without gradient (`WorldModel.self_rollout_history`, one denoising step per frame); then one parallel
pass of the encoder replays that rollout, which gives it its gradient, and every next frame is drawn just as
stepping draws it: from pure noise, in `num_steps` steps, the gradient through all of them.

The error is taken against the one future that was recorded. Where several were possible its optimum is
their mean: this stage buys stillness with sharpness, and belongs after distillation, in small doses.
"""

from __future__ import annotations

from torch import Tensor

from scd_world.distill.objective import Objective, read_clip
from scd_world.model.flow import euler_sample_interval
from scd_world.model.losses import total_loss
from scd_world.model.noise import Noise
from scd_world.robot_data.clip import Clip


class SelfRollout(Objective):
    def forward(self, clip: Clip, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.model
        scene = read_clip(model, clip, noise)
        drawn = euler_sample_interval(scene.field(model), scene.noise, model.config.num_steps)
        losses = {"pixels": scene.error(drawn, scene.x).mean()}
        losses |= model.head_losses(clip, scene.heads, scene.next_state)
        return total_loss(model.config, losses), losses

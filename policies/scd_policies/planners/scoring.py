"""What a played plan is worth.

    s_h = max over steps up to h of the success probability             (a success is not taken back)
    v_h = (1 − s_h) · reward_h + s_h · success_value − penalty · uncertainty_h
    value = (1 − γ) Σ_h<H γ^h v_h + γ^H v_H−1                            (the last step's value goes on)

It is a weighted mean of the steps' values, whatever the horizon: with γ = 1 the last step's alone. An episode
ends with its success, and the reward with it: success_value is what each step after it counts, so that an
early success is worth more than a late one. N plans, H steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scd_policies.planners.config import PlannerConfig
from scd_policies.planners.imagination import Outcome
from scd_world.robot_data.schema import DataSchema


def plan_value(outcomes: Sequence[Outcome], config: PlannerConfig, schema: DataSchema) -> Tensor:
    """Gives (N,): what H steps are worth, raw reward per step. What the world does not predict counts 0; a
    plan under which it imagines what is no number is worth −∞."""
    reward, success, uncertainty = (
        torch.stack(part, dim=1) for part in zip(*outcomes, strict=True)
    )  # (N, H)
    reward = reward if schema.reward else torch.zeros_like(reward)
    success = success if schema.success else torch.zeros_like(success)
    succeeded = success.cummax(dim=1).values
    value = (1 - succeeded) * reward + succeeded * config.success_value
    value = value - config.uncertainty_penalty * uncertainty
    H = value.shape[1]
    weight = (1 - config.discount) * config.discount ** torch.arange(H, device=value.device)
    weight[-1] += config.discount**H
    worth = value @ weight.to(value)
    return torch.where(worth.isfinite(), worth, -torch.inf)

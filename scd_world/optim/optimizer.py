"""AdamW for a world model: parameter groups, the learning rate over time, and its state as named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from scd_world.optim.config import OptimizerConfig
from scd_world.optim.muon import Muon

# Whole tensors also of sharded weights; with cpu_offload the first process alone holds them.
WHOLE, GATHERED = (
    StateDictOptions(full_state_dict=True),
    StateDictOptions(full_state_dict=True, cpu_offload=True),
)

DECODER = "core.decoder."  # prefix of its parameters' names


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """One group for the decoder, with its own learning rate, one for everything else."""
    decoder = [p for name, p in model.named_parameters() if name.startswith(DECODER)]
    others = [p for name, p in model.named_parameters() if not name.startswith(DECODER)]
    groups = [{"params": others, "scale": 1.0}, {"params": decoder, "scale": config.decoder_lr_ratio}]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)


def muon_and_adamw(
    net: nn.Module, inner: Sequence[nn.Parameter], inner_lr: float, lr: float, beta2: float
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Optimizers and their learning rates: Muon for the `inner` matrices, where features become features,
    AdamW for what is left of `net`."""
    outer = [p for p in net.parameters() if all(p is not q for q in inner)]
    adamw = torch.optim.AdamW(outer, betas=(0.9, beta2), weight_decay=0.0, fused=True)
    return [*([(Muon(inner, inner_lr), inner_lr)] if inner else []), (adamw, lr)]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`<parameter>/exp_avg` and so on, in the first process. Every process must ask."""
    state: Any = get_optimizer_state_dict(model, optimizer, options=GATHERED).get("state", {})
    return {f"{name}/{key}": value for name, moments in state.items() for key, value in moments.items()}


def load_optimizer_state(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]
) -> None:
    """Rates and betas stay as configured now; only what the optimizer learned is restored.

    A parameter that never had a gradient, such as a norm before heads that nothing trains, has no moments in
    a checkpoint: it keeps the zeros that it starts with.
    """
    fresh: Any = get_optimizer_state_dict(model, optimizer, options=WHOLE)
    groups, state = fresh["param_groups"], dict(fresh["state"])
    saved_state: dict[str, Any] = {}
    for key, value in saved.items():
        name, moment = key.rsplit("/", 1)
        saved_state.setdefault(name, {})[moment] = value
    state |= {name: moments for name, moments in saved_state.items() if name in state}
    set_optimizer_state_dict(model, optimizer, {"state": state, "param_groups": groups}, options=WHOLE)

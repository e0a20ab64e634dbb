"""One update: a batch of windows changes the weights, the optimiser's state and the average of the weights.

Update number `step` is a pure function of (seed, step): the noise is drawn from that pair for the whole
batch, and each process takes its rows. So a resumed run equals a straight one, and N processes equal one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.tensor import DTensor

from scd_world.model.noise import Noise
from scd_world.model.world_model import BaseModel
from scd_world.optim.ema import EMA
from scd_world.optim.optimizer import (
    GATHERED,
    WHOLE,
    load_optimiser_state,
    make_optimiser,
    optimiser_state,
    set_learning_rate,
)
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Stats
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import distribute, gradients_stay_local
from scd_world.utils.precision import use_bf16


class Learner:
    def __init__(
        self,
        model: BaseModel,
        stats: Stats,
        config: TrainConfig,
        accelerator: Accelerator,
        objective: nn.Module | None = None,
    ) -> None:
        """objective: a module around the model with another `forward(clip, noise)` and `draw_noise`, which is
        what is learnt then; None: the model's own loss."""
        check_division(config, accelerator.num_processes)
        self.config, self.accelerator, self.device = config, accelerator, accelerator.device
        self.stats = stats.to(self.device)
        schema = model.schema
        if not (schema.state or schema.reward or schema.success):
            model.heads.requires_grad_(False)  # nothing teaches them, and DDP waits for every gradient
        if not (schema.reward or schema.success) and model.body.outcome is not None:
            model.body.outcome.requires_grad_(False)
        if config.compile:
            model.compile()
        self.objective = objective or model
        # What is called: the objective, or its distributed wrapper.
        self.net = distribute(self.objective, accelerator, config.fsdp)
        self.model = model
        self.optimiser = make_optimiser(self.model, config.optimiser)
        self.ema = EMA(self.model.named_parameters(), config.optimiser.ema)
        self.generator = torch.Generator(self.device)
        self.bf16 = use_bf16(config.precision, self.device)

    def update(
        self, windows: Mapping[str, Tensor], step: int, rate: float, recorded: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update number `step`: losses and gradient norm, on the device, and () bool: was it skipped?

        recorded: from recorded histories alone, whatever the model's `own_history`.

        It is skipped, leaving weights and optimiser as they were, where a gradient is not finite.
        """
        clip = Clip.from_windows({k: v.to(self.device) for k, v in windows.items()}, self.stats)
        noise = self.draw_noise(clip, step)
        values = self.backward(clip, noise.with_recorded_history() if recorded else noise)
        norm = clip_gradients(self.model, self.config.optimiser.clip)
        bad = ~torch.isfinite(norm)
        set_learning_rate(self.optimiser, rate)
        # Fused AdamW skips on the device where found_inf says so; an `if` here would wait for the device.
        self.optimiser.found_inf, self.optimiser.grad_scale = bad.float(), None  # type: ignore[attr-defined]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(self.model.named_parameters(), step)
        return values | {"grad_norm": norm}, bad

    def backward(self, clip: Clip, noise: Noise) -> dict[str, Tensor]:
        """Gradients of the mean loss over the rows, computed in `accumulate` parts; gives the mean losses."""
        parts = self.config.accumulate
        values: dict[str, Tensor] = {}
        size = len(clip.act) // parts
        for part in range(parts):
            rows = slice(part * size, (part + 1) * size)
            last = part == parts - 1
            with nullcontext() if last else gradients_stay_local(self.net, self.accelerator):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    loss, losses = self.net(clip.rows(rows), noise.rows(rows))
                (loss / parts).backward()
            for name, value in {"loss": loss, **{f"loss_{k}": v for k, v in losses.items()}}.items():
                values[name] = values.get(name, 0) + value.detach() / parts
        return values

    def draw_noise(self, clip: Clip, step: int) -> Noise:
        """This process' rows of the one draw that (seed, step) gives for the whole batch."""
        self.generator.manual_seed(mixed_seed(self.config.seed, step))
        here = len(clip.act)
        first = here * self.accelerator.process_index
        whole = self.objective.draw_noise(repeated(clip, self.config.batch_size), self.generator)
        return whole.rows(slice(first, first + here))

    # ---- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that was learned, whole tensors in the first process. Every process must ask."""
        return {
            "weights": get_model_state_dict(self.model, options=GATHERED),
            "ema": self.ema.weights(),
            "optimiser": optimiser_state(self.model, self.optimiser),
        }

    def load(
        self, weights: Mapping[str, Tensor], ema: Mapping[str, Tensor], optimiser: Mapping[str, Any]
    ) -> None:
        set_model_state_dict(self.model, dict(weights), options=WHOLE)
        self.ema.load(ema)
        load_optimiser_state(self.model, self.optimiser, optimiser)


def check_division(config: TrainConfig, num_processes: int) -> None:
    """ValueError where parts of the batch would be left over, and no gradient would come of them."""
    if config.batch_size % (num_processes * config.accumulate):
        raise ValueError(
            f"batch_size={config.batch_size} must divide by {num_processes} process(es) × "
            f"accumulate={config.accumulate}"
        )


def clip_gradients(model: BaseModel, largest: float) -> Tensor:
    """Scales the gradients to a norm of at most `largest`; gives the norm () that they had."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def repeated(clip: Clip, rows: int) -> Clip:
    """A clip of `rows` rows for its shapes alone: the first row, repeated without memory."""
    first = {field.name: getattr(clip, field.name)[:1] for field in fields(clip)}
    return Clip(**{name: value.expand(rows, *value.shape[1:]) for name, value in first.items()})


def mixed_seed(*numbers: int) -> int:
    """Neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])

"""One update: a batch of windows changes the weights, the optimizer's state and the average of the weights.

Update number `step` is a pure function of (seed, step): the noise is drawn from that pair for the whole
batch, and each process takes its rows. So a resumed run equals a straight one, and N processes equal one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.tensor import DTensor

from scd_world.model.noise import Noise
from scd_world.model.world_model import WorldModel
from scd_world.optim.ema import EMA
from scd_world.optim.optimizer import (
    GATHERED,
    WHOLE,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    set_learning_rate,
)
from scd_world.robot_data.augmentation import random_shifts, shift_clip
from scd_world.robot_data.clip import Clip
from scd_world.robot_data.normalizer import Normalizer
from scd_world.training.config import TrainConfig
from scd_world.training.distributed import distribute, gradients_stay_local
from scd_world.utils.checks import complain
from scd_world.utils.precision import use_bf16

log = logging.getLogger(__name__)
CRITIC = "critic."  # before the names of its weights, in a checkpoint
HEADS_ADD = "prior.heads_add"  # a buffer that younger checkpoints hold
SHIFT = 1  # beside seed and step: the random numbers of augmentation are others than those of the noise


class Part(NamedTuple):
    """A network that learns, and its optimizer."""

    prefix: str
    net: nn.Module
    optimizer: torch.optim.Optimizer


class Learner:
    def __init__(
        self,
        model: WorldModel,
        stats: Normalizer,
        config: TrainConfig,
        accelerator: Accelerator,
        objective: nn.Module | None = None,
    ) -> None:
        """objective: a module around the model with another `forward(clip, noise)` and `sample_noise`, which
        is what is learnt then, and perhaps a `critic`, a model that learns beside it; None: the model's own
        loss."""
        check_division(config, accelerator.num_processes)
        self.config, self.accelerator, self.device = config, accelerator, accelerator.device
        self.stats = stats.to(self.device)
        schema = model.schema
        if not (schema.state or schema.reward or schema.success):
            model.core.heads.requires_grad_(False)  # nothing trains them, and DDP waits for every gradient
        if not (schema.reward or schema.success):
            model.prior.freeze_outcome()
        if config.random_shift and model.prior.carries and accelerator.is_main_process:
            log.warning(
                "random_shift=%d is left out: a camera rides on the robot, and what it is known to see from "
                "where it goes does not move with the frames",
                config.random_shift,
            )
        if config.compile:
            model.compile()
        self.objective: Any = objective or model  # a module with forward and sample_noise
        parameters = {name for name, _ in model.named_parameters()}
        self.buffer_names = [name for name in model.state_dict() if name not in parameters]
        # What is called: the objective, or its distributed wrapper.
        self.net = distribute(self.objective, accelerator, config.fsdp)
        self.model = model
        critic = getattr(self.objective, "critic", None)
        nets = {"": model} | ({CRITIC: critic} if critic is not None else {})
        self.parts = [
            Part(prefix, net, make_optimizer(net, config.optimizer)) for prefix, net in nets.items()
        ]
        self.ema = EMA(self.model.named_parameters(), config.optimizer.ema_decay)
        self.generator = torch.Generator(self.device)
        self.bf16 = use_bf16(config.precision, self.device)

    def update(
        self, windows: Mapping[str, Tensor], step: int, rate: float, recorded: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update number `step`: losses and gradient norm, on the device, and () bool: was it skipped?

        recorded: from recorded histories alone, whatever the model's `self_rollout_share`.

        It is skipped, leaving weights and optimizer as they were, where a gradient is not finite.
        """
        clip = Clip.from_windows({k: v.to(self.device) for k, v in windows.items()}, self.stats)
        noise = self.sample_noise(clip, step)
        if recorded:
            noise = replace(noise, self_rollout=None)
        values = self.backward(self.augment(clip, noise, step), noise)
        norms = [clip_gradients(part.net, self.config.optimizer.grad_clip_norm) for part in self.parts]
        bad = ~torch.isfinite(sum(norms[1:], norms[0]))
        for part in self.parts:
            optimizer: Any = part.optimizer
            set_learning_rate(optimizer, rate)
            # Fused AdamW skips on the device where found_inf says so; an `if` here would wait for the device.
            optimizer.found_inf, optimizer.grad_scale = bad.float(), None
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model.named_parameters(), step)
        return values | {"grad_norm": norms[0]}, bad

    def backward(self, clip: Clip, noise: Noise) -> dict[str, Tensor]:
        """Gradients of the mean loss over the rows, computed in `accumulate` parts; gives the mean losses."""
        parts = self.config.grad_accumulation
        values: dict[str, Tensor] = {}
        size = len(clip.action) // parts
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

    def sample_noise(self, clip: Clip, step: int) -> Noise:
        """This process' rows of the one draw that (seed, step) gives for the whole batch."""
        self.generator.manual_seed(derive_seed(self.config.seed, step))
        whole = self.objective.sample_noise(expand_batch(clip, self.config.batch_size), self.generator)
        return whole.rows(self.own_rows(clip))

    def augment(self, clip: Clip, noise: Noise, step: int) -> Clip:
        """Moves this process' clips, each by what (seed, step) gives for it; not those of which the model's
        own work is the prior's drawing, too, which knows but one place, and none where the prior knows what a
        camera sees that rides on the robot."""
        if not self.config.random_shift or self.model.prior.carries:
            return clip
        dice = torch.Generator().manual_seed(derive_seed(self.config.seed, step, SHIFT))
        shifts = random_shifts(self.config.batch_size, self.config.random_shift, dice)[self.own_rows(clip)]
        shifts = shifts.to(self.device)
        if self.model.filter is not None:
            config = self.config.model
            for uniform, share in (
                (noise.self_rollout, config.self_rollout_share),
                (noise.measured, config.measured_share),
            ):
                if uniform is not None:
                    shifts = shifts.masked_fill((uniform < share)[:, None], 0)
        return shift_clip(clip, shifts)

    def own_rows(self, clip: Clip) -> slice:
        """Gives which rows of the whole batch this process' clips are."""
        first = len(clip.action) * self.accelerator.process_index
        return slice(first, first + len(clip.action))

    # ---- state -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that was learned, whole tensors in the first process. Every process must ask."""
        return {
            "weights": self.by_part(lambda part: get_model_state_dict(part.net, options=GATHERED)),
            "ema": self.ema.weights(),
            "optimizer": self.by_part(lambda part: optimizer_state(part.net, part.optimizer)),
        }

    def by_part(self, state: Callable[[Part], Mapping[str, Any]]) -> dict[str, Any]:
        """Gives the state of the model, and of a critic behind its prefix."""
        return {part.prefix + name: value for part in self.parts for name, value in state(part).items()}

    def average(self) -> dict[str, Tensor]:
        """Gives the averaged parameters, and the buffers as they are. With sharded weights every process must
        ask."""
        return self.buffers() | self.ema.weights()

    def buffers(self) -> dict[str, Tensor]:
        """Gives what belongs to a world's weights and is not learnt by gradients: the prior's fits."""
        return {name: self.model.get_buffer(name) for name in self.buffer_names}

    def load(
        self, weights: Mapping[str, Tensor], ema: Mapping[str, Tensor], optimizer: Mapping[str, Any]
    ) -> None:
        for part in self.parts:
            whole: dict[str, Any] = of_part(part, weights)
            if part.net is self.model:
                # Checkpoints of format 3 hold no buffers: the prior's fits are then those of this start.
                whole = self.buffers() | whole
                # Older ones do not hold this one, and have heads that learned of joints.
                if HEADS_ADD in whole.keys() - weights.keys():
                    whole[HEADS_ADD] = torch.ones_like(whole[HEADS_ADD])
            set_model_state_dict(part.net, whole, options=WHOLE)
            load_optimizer_state(part.net, part.optimizer, of_part(part, optimizer))
        self.ema.load(ema, dict(self.model.named_parameters()))


def of_part(part: Part, values: Mapping[str, Any]) -> dict[str, Any]:
    """Gives those of a checkpoint's values that belong to a part, by its own names."""
    if part.prefix:
        return {
            name.removeprefix(part.prefix): v for name, v in values.items() if name.startswith(part.prefix)
        }
    return {name: value for name, value in values.items() if not name.startswith(CRITIC)}


def check_division(config: TrainConfig, num_processes: int) -> None:
    """ValueError where parts of the batch would be left over, and no gradient would come of them."""
    if config.batch_size % (num_processes * config.grad_accumulation):
        complain(
            f"batch_size={config.batch_size} must divide by {num_processes} process(es) × "
            f"grad_accumulation={config.grad_accumulation}"
        )


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scales the gradients to a norm of at most `largest`; gives the norm () that they had."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def expand_batch(clip: Clip, rows: int) -> Clip:
    """A clip of `rows` rows for its shapes alone: the first row, repeated without memory."""
    first = {field.name: getattr(clip, field.name)[:1] for field in fields(clip)}
    return Clip(**{name: value.expand(rows, *value.shape[1:]) for name, value in first.items()})


def derive_seed(*numbers: int) -> int:
    """Neighboring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])

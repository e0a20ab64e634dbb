"""Changes to a dense network from outside: some of its blocks are replaced by wrappers of the same call.

F frames that are denoised (1 each), or B clips of T known frames; M tokens per frame, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from scd_world.baselines.causal_dit import CausalDiT
from scd_world.baselines.dense import DenseTransformer
from scd_world.model.layers import AttendTo, band_mask
from scd_world.model.world_model import WorldModel


def dense_core(model: WorldModel) -> CausalDiT:
    """Gives the model's dense core: only that has layers for both reading and denoising."""
    assert isinstance(model.core, CausalDiT)
    return model.core


class PassTracker:
    """Tells which pass through the layers is under way: each first embeds what it reads or denoises."""

    def __init__(self, net: DenseTransformer) -> None:
        self.denoising = False  # else a history is read
        self.t = torch.zeros(0)  # (F,) noise levels of the frames
        self.hooks = [
            net.known_state_embed.register_forward_pre_hook(lambda *_: self.begin(denoising=False)),
            net.noisy_state_embed.register_forward_pre_hook(lambda *_: self.begin(denoising=True)),
            net.time.register_forward_pre_hook(lambda _, args: self.at(args[0])),
        ]

    def begin(self, denoising: bool) -> None:
        self.denoising = denoising

    def at(self, t: Tensor) -> None:
        self.t = t

    def nothing(self) -> Tensor:
        """Marks no frame, (F,) bool."""
        return torch.zeros_like(self.t, dtype=torch.bool)


When = Callable[[PassTracker], Tensor]  # marks frames of the pass that is under way, (F,) bool
Rotary = tuple[Tensor, Tensor]


def everywhere(passes: PassTracker) -> Tensor:
    """Marks all frames."""
    return ~passes.nothing()


def denoised(passes: PassTracker) -> Tensor:
    """Marks all frames that are denoised."""
    return everywhere(passes) if passes.denoising else passes.nothing()


def after(first_steps: int, num_steps: int) -> When:
    """Marks the denoised frames once the first of `num_steps` equal denoising steps are done."""
    border = 1 - (first_steps - 0.5) / num_steps
    return lambda passes: passes.t < border if passes.denoising else passes.nothing()


class Wrapper(nn.Module):
    """A block's replacement, of the same call, which has the block inside."""

    def __init__(self, block: nn.Module, passes: PassTracker) -> None:
        super().__init__()
        self.block, self.passes = block, passes


class Skipped(Wrapper):
    """A layer that passes the frames that `when` marks on unchanged."""

    def __init__(self, block: nn.Module, passes: PassTracker, when: When) -> None:
        super().__init__(block, passes)
        self.when = when

    def forward(self, h: Tensor, c: Tensor, rotary: Rotary, memory: AttendTo) -> Tensor:
        skip = self.when(self.passes)
        if self.passes.denoising and skip.all():
            return h
        out = self.block(h, c, rotary, memory)  # a history's keys and values are cached all the same
        return torch.where(skip.view(h.shape[0], -1, 1, 1), h, out)


class Reused(Skipped):
    """A layer that runs in the first steps; from then on its residual of the last of them is added again.

    For stepping: all frames of a pass are at one noise level.
    """

    residual: Tensor  # (F, 1, M, D) of the last step that ran

    def forward(self, h: Tensor, c: Tensor, rotary: Rotary, memory: AttendTo) -> Tensor:
        if self.when(self.passes).all():
            return h + self.residual
        out = self.block(h, c, rotary, memory)
        if self.passes.denoising:
            self.residual = out - h
        return out


class SharedResidual(Wrapper):
    """A layer whose residual of the first half of the denoised frames is added to the second half as well.

    `Reused` in training: the first half is pure noise, the second the same frames further on the path.
    """

    def forward(self, h: Tensor, c: Tensor, rotary: Rotary, memory: AttendTo) -> Tensor:
        out = self.block(h, c, rotary, memory)
        if not self.passes.denoising or (self.passes.t == 1).all():  # a self-rollout: one step each
            return out
        residual = (out - h)[: len(h) // 2]
        return h + torch.cat([residual, residual])


class WithinFrame(Wrapper):
    """A layer whose frames, known or denoised, attend to their own tokens alone (frame-diagonal mask)."""

    def forward(self, h: Tensor, c: Tensor, rotary: Rotary, memory: AttendTo) -> Tensor:
        T, M = h.shape[1:3]
        mask = None if T == 1 else band_mask(T, M, 1, h.device)

        def own_frame(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            memory(k, v)  # the cache stays filled, though nobody reads it
            return k, v, mask

        return self.block(h, c, rotary, own_frame)


def wrap_layers(
    model: WorldModel, layers: Sequence[int], wrap: Callable[[nn.Module, PassTracker], nn.Module]
) -> WorldModel:
    """Copies the model with these of its layers, counted from 1, wrapped; the model stays as it is."""
    copy = deepcopy(model)
    net = dense_core(copy).net
    passes = PassTracker(net)
    for layer in layers:
        net.blocks[layer - 1] = wrap(net.blocks[layer - 1], passes)
    return copy


def rewrap(model: WorldModel, wrap: Callable[[nn.Module, PassTracker], nn.Module]) -> None:
    """Puts other wrappers around the same blocks, in place."""
    blocks = dense_core(model).net.blocks
    for i, block in enumerate(blocks):
        if isinstance(block, Wrapper):
            blocks[i] = wrap(block.block, block.passes)

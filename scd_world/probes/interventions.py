"""Changes to a dense network from outside: some of its blocks are replaced by wrappers of the same call.

F frames that are drawn (1 each), or B clips of T known frames; M tokens per frame, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from scd_world.baselines.causal_dit import CausalDiT
from scd_world.baselines.dense import DenseTransformer
from scd_world.model.layers import AttendTo, band_mask


class PassTracker:
    """Which pass through the layers is under way: each begins with embedding what it reads or draws."""

    def __init__(self, net: DenseTransformer) -> None:
        self.drawing = False  # else a history is read
        self.t = torch.zeros(0)  # (F,) noise levels of the frames
        self.hooks = [
            net.known_state_embed.register_forward_pre_hook(lambda *_: self.begin(drawing=False)),
            net.noisy_state_embed.register_forward_pre_hook(lambda *_: self.begin(drawing=True)),
            net.time.register_forward_pre_hook(lambda _, args: self.at(args[0])),
        ]

    def begin(self, drawing: bool) -> None:
        self.drawing = drawing

    def at(self, t: Tensor) -> None:
        self.t = t

    def nothing(self) -> Tensor:
        """(F,) False"""
        return torch.zeros_like(self.t, dtype=torch.bool)


When = Callable[[PassTracker], Tensor]  # which of a pass' frames are meant, (F,) bool


def everywhere(passes: PassTracker) -> Tensor:
    return ~passes.nothing()


def drawn(passes: PassTracker) -> Tensor:
    return everywhere(passes) if passes.drawing else passes.nothing()


def after(first_steps: int, num_steps: int) -> When:
    """The drawn frames once the first of `num_steps` equal denoising steps are done."""
    border = 1 - (first_steps - 0.5) / num_steps
    return lambda passes: passes.t < border if passes.drawing else passes.nothing()


class Wrapper(nn.Module):
    """Stands where a block stood."""

    def __init__(self, block: nn.Module, passes: PassTracker) -> None:
        super().__init__()
        self.block, self.passes = block, passes


class Skipped(Wrapper):
    """A layer that lets the frames that `when` names through as they came."""

    def __init__(self, block: nn.Module, passes: PassTracker, when: When) -> None:
        super().__init__(block, passes)
        self.when = when

    def forward(self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo) -> Tensor:
        skip = self.when(self.passes)
        if self.passes.drawing and skip.all():
            return h
        out = self.block(h, c, rotary, memory)  # a history's keys and values are remembered all the same
        return torch.where(skip.view(h.shape[0], -1, 1, 1), h, out)


class Reused(Skipped):
    """A layer that runs in the first steps; then what it added to the frame in the last of them is added.

    For stepping: all frames of a pass are at one noise level.
    """

    def forward(self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo) -> Tensor:
        if self.when(self.passes).all():
            return h + self.added
        out = self.block(h, c, rotary, memory)
        if self.passes.drawing:
            self.added = out - h
        return out


class SharedResidual(Wrapper):
    """What the layer adds to the first half of the drawn frames is added to the second half as well.

    `Reused` as it is taught: the first half is pure noise, the second the same frames further on the path.
    """

    def forward(self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo) -> Tensor:
        out = self.block(h, c, rotary, memory)
        if not self.passes.drawing or (self.passes.t == 1).all():  # the model's own history: one step each
            return out
        first = (out - h)[: len(h) // 2]
        return h + torch.cat([first, first])


class WithinFrame(Wrapper):
    """A layer whose frames, known or drawn, see the tokens of their own frame alone (frame-diagonal mask)."""

    def forward(self, h: Tensor, c: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo) -> Tensor:
        T, M = h.shape[1:3]
        mask = None if T == 1 else band_mask(T, M, 1, h.device)

        def alone(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            memory(k, v)  # its place there stays filled, though nobody reads it
            return k, v, mask

        return self.block(h, c, rotary, alone)


def changed(
    model: CausalDiT, layers: Sequence[int], wrap: Callable[[nn.Module, PassTracker], nn.Module]
) -> CausalDiT:
    """A copy of the model with these of its layers, counted from 1, wrapped; the model stays as it is."""
    copy = deepcopy(model)
    passes = PassTracker(copy.net)
    for layer in layers:
        copy.net.blocks[layer - 1] = wrap(copy.net.blocks[layer - 1], passes)
    return copy


def rewrap(model: CausalDiT, wrap: Callable[[nn.Module, PassTracker], nn.Module]) -> None:
    """Other wrappers around the same blocks, in place."""
    for i, block in enumerate(model.net.blocks):
        if isinstance(block, Wrapper):
            model.net.blocks[i] = wrap(block.block, block.passes)

"""What a dense network's layers compute and attend to while one frame is denoised, step by step.

B frames, n denoising steps, L layers, M tokens per frame, D width, h heads, d = D/h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from scd_world.model.layers import AttendTo, Attention, FrameBand
from scd_world.model.world_model import WorldModel
from scd_world.probes.interventions import PassTracker, dense_core


class RecordedActivations:
    """What one batch's layers did, step by step."""

    def __init__(self, layers: int) -> None:
        self.inputs: list[Tensor] = []  # per step (B, M, D), in front of the first layer
        self.features: list[list[Tensor]] = [[] for _ in range(layers)]  # likewise behind each layer
        self.past: list[list[Tensor]] = [[] for _ in range(layers)]  # per step (B,), see `past_share`
        self.uniform: list[Tensor] = []  # per step ()


class Activations(NamedTuple):
    """The same of all batches, as tensors."""

    inputs: Tensor  # (n, B, M, D)
    features: list[Tensor]  # L of (n, B, M, D)
    past: Tensor  # (L, n, B)
    uniform: float

    @classmethod
    def joined(cls, parts: Sequence[RecordedActivations]) -> Activations:
        """Joins the batches along B."""
        layers = range(len(parts[0].features))

        def join(steps: Iterable[list[Tensor]]) -> Tensor:
            return torch.cat([torch.stack(batch) for batch in steps], dim=1)

        return cls(
            join(part.inputs for part in parts),
            [join(part.features[i] for part in parts) for i in layers],
            torch.stack([join(part.past[i] for part in parts) for i in layers]),
            parts[0].uniform[0].item(),
        )


@contextmanager
def record_activations(model: WorldModel) -> Iterator[RecordedActivations]:
    """Records every pass that denoises, while it is open."""
    net = dense_core(model).net
    passes, recorded = PassTracker(net), RecordedActivations(len(net.blocks))
    handles = list(passes.hooks)

    def on_block(layer: int, args: tuple, out: Tensor) -> None:
        if passes.denoising:
            recorded.features[layer].append(out[:, 0])
            if layer == 0:
                recorded.inputs.append(args[0][:, 0])

    def on_attention(layer: int, attention: Attention, args: tuple) -> None:
        if passes.denoising:
            share, uniform = past_share(attention, *args)
            recorded.past[layer].append(share)
            if layer == 0:
                recorded.uniform.append(uniform)

    for i, block in enumerate(net.blocks):
        handles.append(block.register_forward_hook(lambda _, args, out, i=i: on_block(i, args, out)))
        attentions = [m for m in block.modules() if isinstance(m, Attention)]
        handles += [
            a.register_forward_pre_hook(lambda a, args, i=i: on_attention(i, a, args)) for a in attentions
        ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def past_share(
    attention: Attention, h: Tensor, rotary: tuple[Tensor, Tensor], memory: AttendTo, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Computes the share (B,) of the frame's attention that falls on the keys of other frames, mean over
    heads and tokens (from `first` on); and that share () under uniform attention. Before the layer itself
    runs.

    The attention mixes, instead of the values, 1 for a past key and 0 for a key of the frame itself.
    """
    mixed, uniform = [], []

    def mark_past(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        zero, one = (memory(k, torch.full_like(v, x))[1][0, 0, :, 0].clone() for x in (0.0, 1.0))
        keys, values, mask = memory(k, v)
        assert not isinstance(mask, FrameBand)  # of SCD's encoder alone
        past = zero == one  # the frame's own values are those that follow the argument
        visible = past.new_ones(len(past)) if mask is None else mask
        uniform.append((visible & past).sum() / visible.sum())
        return keys, past.to(values)[None, None, :, None].expand_as(values), mask

    hook = attention.out.register_forward_pre_hook(lambda _, args: mixed.append(args[0]))
    with hook:
        attention.forward(h, rotary, mark_past, first)
    return mixed[0].mean((1, 2, 3)), uniform[0]


# ---- similarity -----------------------------------------------------------------------------------


def similarity(features: Tensor) -> Tensor:
    """Computes the cosine between denoising steps, mean over frames and tokens: (n, B, M, D) → (n, n).

    Of unit vectors, u·v = 1 − ‖u − v‖² / 2: exactly 1 where nothing changes.
    """
    unit = F.normalize(features, dim=-1)
    return torch.stack([1 - (unit - at).square().sum(-1).mean((1, 2)) / 2 for at in unit])


def center(features: Tensor) -> Tensor:
    """Subtracts, from (n, B, M, D), what all frames share at a token's place: mean over frames and steps."""
    return features - features.mean((0, 1), keepdim=True)


def between_frames(features: Tensor) -> float:
    """Computes the cosine of different frames at one step, (n, B, M, D): the scale of similarity here."""
    unit = F.normalize(features, dim=-1)
    return (unit * unit.roll(1, dims=1)).sum(-1).mean().item()

"""Where a training runs and in which precision: one process, several, sharded, through accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin

from scd_world.config import TrainConfig


def make_accelerator(config: TrainConfig) -> Accelerator:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device; use device=auto or device=cpu")
    sharding = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["Block"]
    )
    # Buffers are constants, and gradients need no copy of their own.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    return Accelerator(
        cpu=config.device == "cpu",
        fsdp_plugin=sharding if config.fsdp else None,
        kwargs_handlers=[ddp],
        mixed_precision="no",  # the trainer's own autocast decides
    )


def use_bf16(precision: str, device: torch.device) -> bool:
    """auto: where the hardware multiplies in bf16; emulated, it would be slower than fp32."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.cpu.get_capabilities()
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))

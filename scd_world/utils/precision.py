"""In how many bits matrices are multiplied: bf16 where that is fast, fp32 where half a pixel counts."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def use_bf16(precision: str, device: torch.device) -> bool:
    """Of fp32, bf16, or auto: where the hardware multiplies in bf16.

    Where it does not, bf16 is emulated, on a CPU about thirty times slower than fp32: whoever asks for it
    there is warned.
    """
    if precision == "fp32":
        return False
    fast = multiplies_bf16(device)
    if precision == "bf16" and not fast:
        warnings.warn(
            f"precision=bf16, but this {device.type} has no instructions for it and emulates it, many times "
            "slower than fp32: use precision=auto or fp32",
            RuntimeWarning,
            stacklevel=2,
        )
    return fast or precision == "bf16"


def multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capable = torch.cpu.get_capabilities()
    return bool(capable.get("avx512_bf16") or capable.get("amx_bf16"))


def full_precision(x: Tensor) -> AbstractContextManager:
    """Half a pixel is less than bf16 can say. Where shapes alone are computed there is nothing to switch."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def half_precision(x: Tensor, bf16: bool) -> AbstractContextManager:
    return torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext()

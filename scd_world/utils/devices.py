"""Which device computes, and what machine this is."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch


def pick_device(name: str) -> torch.device:
    """Gives the device that `device=` means: auto is CUDA where there is one. ValueError for cuda without."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no CUDA device; use device=auto or device=cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


def machine_info(device: torch.device) -> dict[str, Any]:
    """Gives what a measurement was taken on, as JSON."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def cpu_name() -> str:
    """Gives the processor's name."""
    return cpu_fact("model name") or platform.processor()


def cpu_fact(name: str) -> str:
    """Gives what /proc/cpuinfo says of the first processor, more than platform does; "" where it is not."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return found[0] if found else ""

"""From the device to the host, waiting as late as possible: through pinned memory, in the stream's order.

What is asked for first arrives first, and the host can work with it while the rest is on its way.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """A tensor on its way to the host. One that lies there is there already, and is not copied."""

    def __init__(self, tensor: Tensor) -> None:
        self.arrived: torch.cuda.Event | None = None
        self.tensor = tensor
        if tensor.is_cuda:
            # torch keeps pinned memory and hands it out again, once nobody holds it and no copy is under way.
            self.tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.tensor.copy_(tensor, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> Tensor:
        """Gives the tensor on the host."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.tensor

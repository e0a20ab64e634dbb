"""Where a training runs, and in which precision: one process or several (accelerate), sharded (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from scd_world.baselines.dense import DenseTransformer
from scd_world.model.decoder import Decoder
from scd_world.model.layers import Block
from scd_world.training.config import TrainConfig
from scd_world.utils.allocator import keep_freed_memory
from scd_world.utils.checks import complain
from scd_world.utils.devices import pick_device


def make_accelerator(config: TrainConfig) -> Accelerator:
    if pick_device(config.device).type == "cpu":  # refuses one that is not there
        keep_freed_memory()
    # Buffers are constants, and gradients need no copy of their own.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    # The others wait while the first one decodes a dataset; ten minutes is NCCL's own patience.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=1))
    # Precision is the learner's own autocast.
    return Accelerator(cpu=config.device == "cpu", mixed_precision="no", kwargs_handlers=[ddp, patience])


def check_fsdp(fsdp: bool, num_processes: int) -> None:
    """ValueError where there is nothing to shard over."""
    if fsdp and num_processes == 1:
        complain("fsdp=true shards over several processes, but this is the only one: accelerate launch …")


def distribute(model: nn.Module, accelerator: Accelerator, fsdp: bool) -> nn.Module:
    """The model on its device, as all processes train it together."""
    if not fsdp:
        return accelerator.prepare(model)
    check_fsdp(fsdp, accelerator.num_processes)
    model.to(accelerator.device)
    # Pretraining may end by each process's own clock. DDP sends all the first one's weights; FSDP does not.
    for value in [*model.parameters(), *model.buffers()]:
        dist.broadcast(value.detach(), src=0)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in closed_blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def closed_blocks(model: nn.Module) -> list[Block]:
    """The blocks of which nothing but their output is used. Those that share their keys and values stay with
    the whole: FSDP gathers a part's weights for its output's gradient, and would not for theirs."""
    sharing = [m for m in model.modules() if isinstance(m, Decoder | DenseTransformer) and m.shares_kv]
    shared = {id(block) for module in sharing for block in module.blocks}
    return [m for m in model.modules() if isinstance(m, Block) and id(m) not in shared]


@contextmanager
def gradients_stay_local(net: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """For all parts of a batch but the last: add up here, exchange once."""
    if not isinstance(net, FSDPModule):
        with accelerator.no_sync(net):
            yield
        return
    net.set_requires_gradient_sync(False)
    yield
    net.set_requires_gradient_sync(True)

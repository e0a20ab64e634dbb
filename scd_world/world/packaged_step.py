"""A step on a CPU as compiled code of its own: made once for a world, so many rows and this machine.

A step of one row is a thousand small operations: calling them one by one takes longer than the arithmetic.
torch.export writes the step down as a function of tensors, AOTInductor turns it and the weights into a shared
library, and whoever steps the same world again on this machine loads it in a tenth of a second. The library
checks neither shapes nor versions, and a compiler can be wrong: what it was made of is in its name, and
before it is used it imagines one step beside the model and must agree.

B rows, A action size, C H W frame.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy as shallow_copy
from dataclasses import asdict, replace
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import torch
from torch import Tensor, nn

import scd_world
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.rollout_state import RolloutState, Shown
from scd_world.model.world_model import WorldModel
from scd_world.utils.devices import cpu_fact, cpu_name
from scd_world.utils.disk import cache_folder

log = logging.getLogger(__name__)

READ = [name for name in RolloutState.PER_ROW if name != "detail"]  # of pictures alone
CHANGED = [name for name in READ if name not in Shown._fields]
FAILURES = (RuntimeError, OSError, SubprocessError, AttributeError, TypeError)  # of compilers, and of loading
KEPT = 32  # packages of tens of MB each: any change of the code or the weights makes another
Run = Callable[[list[Tensor]], list[Tensor]]


class PackagedStep:
    """`model.imagine` for the rows of one batch size and one number of denoising steps."""

    def __init__(self, model: WorldModel, s: RolloutState, num_steps: int) -> None:
        """s: any B rows; they are left as they are. RuntimeError where no code can be made, or made code does
        not step as the model does."""
        step = StepOfTensors(model, s, num_steps)
        path = cache_folder() / "steps" / f"{step.fingerprint()}.pt2"
        try:
            self.run = find(path) or compile_to(path, step, s)
            problem = step.disagreement(self.run, s)
        except FAILURES as error:
            raise RuntimeError(f"{type(error).__name__}: {str(error).partition('\n')[0]:.200}") from error
        if problem:
            path.unlink(missing_ok=True)
            raise RuntimeError(problem)

    def __call__(self, s: RolloutState, act: Tensor, noise: Tensor) -> RolloutState:
        """As `imagine(s, act, noise)`: act (B, A), noise (B, C, H, W). Consumes `s` as that does."""
        s.check()
        given = inputs(s, act, noise)
        after = self.run(given)
        for own, used in zip(parts(s.cache).values(), given[len(READ) : -2], strict=True):
            if used.data_ptr() != own.data_ptr():  # it lay otherwise: the copy was changed in its place
                own.copy_(used)
        s.cache.steps += 1
        values: dict[str, Any] = dict(zip(CHANGED, after, strict=True))
        return replace(s, **values, steps=s.cache.steps)


class StepOfTensors(nn.Module):
    """The same from tensors to tensors; the cache's change in place."""

    def __init__(self, model: WorldModel, s: RolloutState, num_steps: int) -> None:
        super().__init__()
        self.model, self.s, self.num_steps = model, s, num_steps
        self.mixed, self.dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        names = [*READ, *parts(self.s.cache)]
        named = dict(zip(names, values, strict=False))
        cache = shallow_copy(self.s.cache)
        for name in parts(cache):
            setattr(cache, name, named.pop(name))
        s = replace(self.s, **named, cache=cache, steps=cache.steps)
        with torch.autocast("cpu", self.dtype, enabled=self.mixed, cache_enabled=False):
            after = self.model.imagine(s, values[-2], values[-1], self.num_steps)
        return [getattr(after, name) for name in CHANGED]

    def fingerprint(self) -> str:
        """Of all that the code depends on: what is computed, the weights, this machine."""
        model, s = self.model, self.s
        made_of = [
            (type(model).__qualname__, type(model.core).__qualname__, type(s.cache).__qualname__),
            (asdict(model.config), model.schema.to_dict()),
            [(name, tuple(value.shape), str(value.dtype)) for name, value in tensors(model)],
            [(tuple(value.shape), str(value.dtype)) for value in inputs(s, s.state, s.obs)],
            (self.num_steps, str(self.dtype) if self.mixed else ""),
            (torch.__version__, torch.get_num_threads(), os.environ.get("CXX", "")),
            (platform.machine(), platform.system(), cpu_name(), cpu_fact("flags")),
        ]
        digest = hashlib.sha256(json.dumps(made_of).encode())
        for _, value in tensors(model):
            digest.update(value.detach().contiguous().numpy())
        for source in sorted(Path(scd_world.__file__).parent.rglob("*.py")):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:32]

    def disagreement(self, run: Run, s: RolloutState) -> str:
        """Says where `run` imagines another step from `s` than the model does; "" where it does not."""
        act = torch.zeros(len(s.state), len(self.model.schema.action))
        noise = torch.randn(s.obs.shape, generator=torch.Generator().manual_seed(0))
        given, same = inputs(s.fork(), act, noise), inputs(s.fork(), act, noise)
        with torch.no_grad():
            found, expected = run(given), self(same)
        allowed = 0.05 if self.mixed else 1e-3
        pairs = [*zip(CHANGED, found, expected, strict=True)]
        pairs += zip(parts(s.cache), given[len(READ) : -2], same[len(READ) : -2], strict=True)
        for name, one, other in pairs:
            apart = (one.double() - other.double()).abs().mean() if one.numel() else torch.zeros(())
            if not apart <= allowed * (1 + other.double().abs().mean() if other.numel() else 1):
                return f"compiled, a step's {name} is {float(apart):.2g} from the model's"
        return ""


def inputs(s: RolloutState, act: Tensor, noise: Tensor) -> list[Tensor]:
    """Gives all tensors that a step takes, each laid out as compiled code takes it for granted."""
    rest = [getattr(s, name) for name in READ]
    return [value.contiguous() for value in (*rest, *parts(s.cache).values(), act, noise)]


def parts(cache: RingKVCache) -> dict[str, Tensor]:
    """Gives the tensors that a cache consists of."""
    return {name: value for name, value in vars(cache).items() if isinstance(value, Tensor)}


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def find(path: Path) -> Run | None:
    """Gives what runs the code that was kept in `path`; None where there is none, or it is damaged."""
    try:
        if not path.exists():
            return None
        with suppress(OSError):  # another user's
            path.touch()  # `forget` goes by when they were used last
        return load(path)
    except FAILURES:
        path.unlink(missing_ok=True)
        return None


def compile_to(path: Path, step: StepOfTensors, s: RolloutState) -> Run:
    """Compiles the step into the file `path`, which is complete or not there; gives what runs it."""
    rows = len(s.state)
    log.warning("compiling a step of %d row(s): minutes, but once; it is kept in %s", rows, path.parent)
    act = s.state.new_zeros(rows, len(step.model.schema.action))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch, quiet(), torch.no_grad():
        program = torch.export.export(step, (inputs(s.fork(), act, torch.zeros_like(s.obs)),), strict=False)
        made = torch._inductor.aoti_compile_and_package(program, package_path=f"{scratch}/step.pt2")
        os.replace(made, path)
    forget(path.parent)
    return load(path)


def forget(folder: Path) -> None:
    """Removes all packages in `folder` but the KEPT that were used last: they can be made anew."""
    with suppress(OSError):  # others do the same, or own them
        for path in sorted(folder.glob("*.pt2"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            path.unlink()


def load(path: Path) -> Run:
    """Loads compiled code. torch's own function around this first asks the C++ compiler what the processor
    can do, for half a minute; which processor it is stands in our file's name."""
    return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1).run


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps to itself what torch's compilers say of their own inside."""
    compilers = [logging.getLogger(name) for name in ("torch._inductor", "torch.utils.cpp_extension")]
    levels = [logger.level for logger in compilers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in compilers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(compilers, levels, strict=True):
                logger.setLevel(level)

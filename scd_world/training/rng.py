"""The global random generators of one process as tensors: a resumed run finds them as it left them."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def rng_state() -> dict[str, Tensor]:
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 (others may draw from it)
    state = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.from_numpy(np.append(keys, [position, has_gauss]).astype(np.int64)),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def of_rank(state: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    """One process' state, named so that all of them fit into one file."""
    return {f"{rank}.{name}": value for name, value in state.items()}


def restore_rng(states: Mapping[str, Tensor], rank: int) -> None:
    """A process that the interrupted run did not have keeps its generators."""
    prefix = f"{rank}."
    state = {name.removeprefix(prefix): value for name, value in states.items() if name.startswith(prefix)}
    if not state:
        return
    version, *words = state["python"].tolist()
    random.setstate((version, tuple(words), next(iter(state["python_gauss"].tolist()), None)))
    *keys, position, has_gauss = state["numpy"].tolist()
    cached = state["numpy_gauss"].item()
    np.random.set_state(("MT19937", np.array(keys, np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])

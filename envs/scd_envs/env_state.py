"""A saved environment, and whether episodes can go on from one: all of its rows, or none.

B rows, M places in the model's batch, S state size, A action size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scd_envs.episodes import BatchState, ImaginedEpisodes, array_specs, image_shape
from scd_world.model.kv_cache import RingKVCache
from scd_world.model.rollout_state import RolloutState
from scd_world.world.state_path import StatePath
from scd_world.world.world import World


@dataclass(frozen=True)
class EnvState:
    """Holds a saved environment: the state of its episodes, and of each row's random generator."""

    batch: BatchState
    rng_states: list[dict[str, Any]]  # of numpy bit generators, one per row
    world: str  # its fingerprint


def check_state(state: EnvState, episodes: ImaginedEpisodes) -> None:
    """Raises TypeError or ValueError, naming the row, for what these episodes cannot go on from.

    Nothing is changed: whoever calls this first either goes on from all rows or stays where it was.
    """
    if not isinstance(state, EnvState):
        raise TypeError(f"set_state takes what get_state returned; got {type(state).__name__}")
    if state.world != episodes.world.fingerprint:
        raise ValueError("a state of another world: only an environment of the same world can go on from it")
    parts = ("batch", BatchState), ("rng_states", list)
    for name, kind in parts:
        if not isinstance(getattr(state, name), kind):
            raise TypeError(f"the state's {name} is {getattr(state, name)!r:.80}; expected {kind.__name__}")
    rows = len(state.rng_states)
    if rows != episodes.num_rows:
        raise ValueError(f"a state of {rows} rows; this environment has {episodes.num_rows}")
    for row, saved in enumerate(state.rng_states):
        check_generator(row, saved)
    check_batch(state.batch, episodes)
    check_rollout(state.batch.rollout, state.batch.members, episodes.path)


def check_generator(row: int, saved: Any) -> None:
    """Raises ValueError where a row's random generator cannot be set to what was saved."""
    try:
        np.random.PCG64(0).state = saved
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(
            f"row {row}: its random generator's state is {saved!r:.80}; expected PCG64's ({error!r})"
        ) from error


def check_batch(batch: BatchState, episodes: ImaginedEpisodes) -> None:
    """Raises ValueError for arrays of another environment, or rows that hold what no episode has."""
    schema, B = episodes.world.schema, episodes.num_rows
    pixels, images = batch.pixels, image_shape(B, schema, episodes.render_images)
    if not isinstance(pixels, Tensor) or pixels.shape != images or pixels.dtype != torch.uint8:
        raise ValueError(f"the state's pixels is {describe(pixels)}; expected torch.uint8 of shape {images}")
    for name, (shape, dtype) in array_specs(B, episodes.world).items():
        array = getattr(batch, name, None)  # of an earlier version: perhaps it had none
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"the state's {name} is {describe(array)}; expected {np.dtype(dtype)} of shape {shape}"
            )
    finite = ["state", "reward", "probability", "image_uncertainty"]
    finite += ["uncertainty"] * episodes.has_uncertainty
    for name in finite:
        refuse(np.isfinite(getattr(batch, name)), np.arange(B), name, "is not finite")
    refuse(batch.steps >= 0, np.arange(B), "steps", "is negative")
    tasks = max(len(schema.tasks), 1)
    refuse((batch.tasks >= 0) & (batch.tasks < tasks), np.arange(B), "tasks", f"is none of {tasks}")
    members = batch.members
    kept = isinstance(members, np.ndarray) and members.dtype == np.int64 and members.ndim == 1
    if not kept or not 0 < len(set(members.tolist()) & set(range(B))) == len(members):
        raise ValueError(f"the state's members are {members!r:.80}; expected some of {B} rows, each once")


def check_rollout(s: RolloutState, members: np.ndarray, path: World | StatePath) -> None:
    """Raises TypeError or ValueError for tensors of another shape or place than this path steps, or that are
    not finite."""
    world = path if isinstance(path, World) else path.world
    if not isinstance(s, RolloutState):
        raise TypeError(f"the state's rollout is {s!r:.80}; expected RolloutState")
    S, A, M = len(world.model.schema.state), len(world.schema.action), len(members)
    row = torch.zeros(1, S + A, device=world.device)
    ensemble = path.init_ensemble(row, row[:, :S])
    shown = path.look_at(row.new_zeros(1, *path.frame_shape), row[:, :S], row)
    shapes = {
        "obs": path.frame_shape,
        "state": (S,),
        "prev": (S + A,),
        **dict.fromkeys(("reward", "success", "image_error", "task", "steps_since_observed"), ()),
        **{name: tuple(value.shape[1:]) for name, value in shown._asdict().items()},
        "detail": path.detail_shape,
        "ensemble": tuple(ensemble.shape[1:]),
    }
    whole = ("task", "steps_since_observed")
    for name, shape in shapes.items():
        value: Any = getattr(s, name, None)  # of an earlier version: perhaps it had none
        check_tensor(name, value, (M, *shape), name not in whole, world.device)
        if name not in whole:
            refuse(finite_rows(value, 0), members, name, "is not finite")
    tasks = max(len(world.schema.tasks), 1)
    refuse(((s.task >= 0) & (s.task < tasks)).cpu().numpy(), members, "task", f"is none of {tasks}")
    check_cache(s.cache, path.empty_cache(1), members)


def check_cache(cache: RingKVCache, like: RingKVCache, members: np.ndarray) -> None:
    """Raises ValueError where a memory is not as one of one row, `like`, but of more rows."""
    if type(cache) is not type(like):
        raise ValueError(f"the state's memory is {type(cache).__name__}; expected {type(like).__name__}")
    for name, rows in (("keys", 1), ("values", 1), ("first", 0), ("position", None)):
        value, one = getattr(cache, name), getattr(like, name)
        shape = tuple(len(members) if dim == rows else size for dim, size in enumerate(one.shape))
        check_tensor(name, value, shape, one.is_floating_point(), one.device)
        if one.is_floating_point():
            refuse(finite_rows(value, 1), members, name, "is not finite")


def check_tensor(name: str, value: Any, shape: tuple[int, ...], real: bool, device: torch.device) -> None:
    if (
        not isinstance(value, Tensor)
        or value.shape != shape
        or value.is_floating_point() != real
        or value.device != device
    ):
        kind = "real" if real else "whole"
        raise ValueError(
            f"the state's {name} is {describe(value)}; expected {kind} numbers of shape {shape} on {device}"
        )


def finite_rows(value: Tensor, dim: int) -> np.ndarray:
    """Says of each row, along `dim`, whether all its numbers are finite."""
    others = [d for d in range(value.ndim) if d != dim]
    if others and torch.isfinite(value.sum(others)).all():  # one pass over a large memory, and no copy of it
        return np.ones(value.shape[dim], bool)
    return torch.isfinite(value).movedim(dim, 0).reshape(value.shape[dim], -1).all(1).cpu().numpy()


def refuse(good: np.ndarray, rows: np.ndarray, name: str, why: str) -> None:
    """Raises ValueError that names the first of `rows` of which not all is `good`, (len(rows), …) bool."""
    wrong = rows[~good.reshape(len(rows), -1).all(1)]
    if len(wrong):
        raise ValueError(f"row {wrong[0]} of the state: its {name} {why}; no row was changed")


def describe(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        place = f" on {value.device}" if isinstance(value, Tensor) else ""
        return f"{value.dtype} of shape {tuple(value.shape)}{place}"
    return f"{value!r:.80}"

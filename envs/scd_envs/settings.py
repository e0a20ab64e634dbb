"""What a user can set of an environment: when making it, and in reset's options. It is checked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scd_world.utils.checks import check_arguments
from scd_world.world.world import World

# what may change while episodes run
CHANGEABLE = (
    "num_steps", "horizon", "clip_actions", "success_threshold", "max_uncertainty", "max_image_uncertainty",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Holds the settings of both environments.

    num_steps: denoising steps per frame, 1 or more; None: the world's own.
    horizon: steps, 1 or more, after which an episode is truncated; None: those of the longest recorded one.
    (`max_episode_steps` of gymnasium.make, which no environment sees, can only end episodes sooner.)
    clip_actions: clip actions to the recorded range instead of raising.
    success_threshold: in [0, 1]; an episode terminates when the predicted probability exceeds it; 1.0: never.
    max_uncertainty: an episode is truncated when `info["uncertainty"]`, the expected error of the state as a
    share of the recorded ranges, exceeds it; None: never. For worlds with a state prior.
    max_image_uncertainty: the same of `info["image_uncertainty"]`, the expected root mean square error of the
    pictures as a share of the range from black to white: .1 is a PSNR of 20 dB. For worlds with a filter.
    starts: (episode, frame) addresses from which reset samples; None: the first frames of episodes if the
    world has any, else all its start states.
    task: of all episodes, one of those that the world was trained on; None: the one recorded at each start.
    render_images: False draws no image: observations have no `pixels`, `render` gives None, and a step costs
    a small part (`docs/environment.md`); state, reward, success and uncertainty are the same. For worlds in
    which the images add nothing to these, such as the shipped PushT's.
    with_uncertainty: False, together with render_images=False, tells no uncertainty: `info` has none, and a
    step costs a further small part.
    precision: fp32; or bf16: matrices are multiplied in bfloat16, faster for several rows, or on a GPU; what
    a row imagines then depends a little on how many rows there are; auto: bf16 where it is fast.
    compile: on a CPU, a step is compiled once for each batch size, with a C++ compiler: it is 1.6 times as
    fast then. The first reset compiles, for a minute or two; the code is kept in the cache folder, and loads
    in a fraction of a second when this world is stepped again (`docs/bench.md`). On a GPU a step is a CUDA
    graph in any case.

    Raises ValueError for a value out of its range. Starts, tasks and uncertainty are checked against a world
    when an environment is made.
    """

    num_steps: int | None = None
    horizon: int | None = None
    clip_actions: bool = False
    success_threshold: float = 0.5
    max_uncertainty: float | None = None
    max_image_uncertainty: float | None = None
    starts: Sequence[tuple[int, int]] | None = None
    task: str | None = None
    render_images: bool = True
    with_uncertainty: bool = True
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("num_steps", "horizon"):
            value = getattr(self, name)
            if value is not None and (not is_whole(value) or value < 1):
                raise ValueError(f"{name} must be a whole number ≥ 1 or None; got {value!r}")
        for name in ("clip_actions", "render_images", "with_uncertainty", "compile"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} is True or False; got {getattr(self, name)!r}")
        if self.render_images and not self.with_uncertainty:
            raise ValueError(
                "with_uncertainty=False is for render_images=False: beside an image it saves nothing"
            )
        if self.compile and not self.render_images:
            raise ValueError(
                "compile=True compiles the drawing of images, which render_images=False leaves out"
            )
        if not self.with_uncertainty and self.max_uncertainty is not None:
            raise ValueError(
                f"max_uncertainty={self.max_uncertainty!r} needs the uncertainty that with_uncertainty=False "
                "leaves out: drop one of them"
            )
        if self.max_image_uncertainty is not None and not self.render_images:
            raise ValueError(
                f"max_image_uncertainty={self.max_image_uncertainty!r} is of the images that "
                "render_images=False leaves out: drop one of them"
            )
        if not isinstance(self.task, str | None):
            raise ValueError(f"task is a text, one of the world's tasks, or None; got {self.task!r}")
        if self.precision not in ("fp32", "bf16", "auto"):
            raise ValueError(f"precision is 'fp32', 'bf16' or 'auto'; got {self.precision!r}")
        ranges = {
            "max_uncertainty": "the recorded ranges",
            "max_image_uncertainty": "the range from black to white",
        }
        for name, range_ in ranges.items():
            value = getattr(self, name)
            if value is not None and not (is_real(value) and value > 0):
                raise ValueError(f"{name} is a share of {range_}, above 0, or None; got {value!r}")
        if not (is_real(self.success_threshold) and 0 <= self.success_threshold <= 1):
            raise ValueError(
                f"success_threshold is a probability in [0, 1]; got {self.success_threshold!r}. "
                "Use 1.0 for episodes that never terminate."
            )

    @classmethod
    def from_kwargs(cls, kwargs: dict[str, Any]) -> Settings:
        """Makes settings of keyword arguments; TypeError names an unknown one, and a similar one."""
        check_arguments(kwargs, [field.name for field in fields(cls)], "a world")
        return cls(**kwargs)


def start_pool(world: World, chosen: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Gives the addresses (M, 2) to sample from; ValueError for one that the world does not have."""
    if chosen is None:
        first = world.starts.first_frames
        return first if len(first) else world.starts.addresses
    pool = as_array(chosen)
    if pool.ndim != 2 or pool.shape[1] != 2 or not len(pool) or pool.dtype.kind not in "iu":
        raise ValueError(f"starts is a non-empty list of (episode, frame) pairs; got {chosen!r}")
    for episode, frame in pool.tolist():
        world.starts.get(episode, frame, 1)  # raises, and names those that there are
    return pool


def requested_starts(options: dict[str, Any] | None, num_rows: int) -> list[tuple[int, int] | None]:
    """Gives the (episode, frame) that reset's options ask for, for each row; None: sample one.

    `episode` and `frame` (0 if left out) are integers, or one per row; ValueError otherwise.
    """
    options = as_options(options)
    # LeRobot marks a new rollout in the options that it hands to every environment
    known = ("episode", "frame", "task")
    unknown = [key for key in options if key not in known and not str(key).startswith("lerobot_")]
    if unknown or ("frame" in options and "episode" not in options):
        raise ValueError(
            "reset(options=...) takes 'episode' with an optional 'frame', and 'task'; got "
            f"{list(options)}. Vector environments take 'reset_mask' as well."
        )
    if "episode" not in options:
        return [None] * num_rows
    wanted = [as_array(options.get(key, 0)) for key in ("episode", "frame")]
    if any(w.dtype.kind not in "iu" or w.shape not in ((), (num_rows,)) for w in wanted):
        raise ValueError(
            f"'episode' and 'frame' are whole numbers, or {num_rows} of them, one per row; got "
            f"episode={options['episode']!r}, frame={options.get('frame', 0)!r}"
        )
    episodes, frames = (np.broadcast_to(w, num_rows).tolist() for w in wanted)
    return list(zip(episodes, frames, strict=True))


def requested_tasks(options: dict[str, Any] | None, num_rows: int, tasks: Sequence[str]) -> list[int | None]:
    """Gives the index of the task that reset's options ask for, for each row; None: the start's own.

    `task` is one of the world's `tasks` in words, or one for each row; ValueError otherwise.
    """
    wanted = as_options(options).get("task")
    if wanted is None:
        return [None] * num_rows
    texts = [wanted] * num_rows if isinstance(wanted, str) else wanted
    if not isinstance(texts, Sequence | np.ndarray) or len(texts) != num_rows:
        raise ValueError(f"'task' is one task, or one for each of {num_rows} rows; got {wanted!r}")
    return [task_index(text, tasks) for text in texts]


def row_seeds(seed: Any, num_rows: int) -> list[int | None]:
    """Gives each row's seed: of an int, seed + i for row i, as Gymnasium's own vector environments do.

    Raises TypeError for what is no whole number, ValueError for one below 0 or another count than the rows'.
    """
    if seed is None:
        return [None] * num_rows
    if is_whole(seed):
        return [checked_seed(int(seed) + row) for row in range(num_rows)]
    if isinstance(seed, str) or not isinstance(seed, Sequence | np.ndarray) or np.ndim(seed) == 0:
        raise TypeError(f"a seed is a whole number, a list of one for each row, or None; got {seed!r}")
    if len(seed) != num_rows:
        raise ValueError(f"expected one seed for each of {num_rows} rows; got {len(seed)}")
    return [checked_seed(one) for one in seed]


def checked_seed(seed: Any) -> int | None:
    """Gives a seed as Python's own number, whatever kind of whole number it is."""
    if seed is not None and not is_whole(seed):
        raise TypeError(f"a seed is a whole number or None; got {seed!r} ({type(seed).__name__})")
    if seed is not None and seed < 0:
        raise ValueError(f"a seed is 0 or more; got {seed}")
    return None if seed is None else int(seed)


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    return is_whole(value) or isinstance(value, float | np.floating)


def as_array(value: Any) -> np.ndarray:
    """Gives numbers as an array; what are none, or ragged, as an array of objects, which no caller takes."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError):
        return np.array(None)


def as_options(options: Any) -> dict[str, Any]:
    if not isinstance(options, dict | None):
        raise TypeError(f"reset(options=...) takes a dict or None; got {options!r:.80}")
    return options or {}


def task_index(text: str, tasks: Sequence[str]) -> int:
    """Gives the index of a task among `tasks`; ValueError names them."""
    if text in tasks:
        return tasks.index(text)
    near = get_close_matches(str(text), tasks, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"this world was not trained on the task {text!r}; it knows {list(tasks)}.{hint}")


def open_world(world: World | str | Path | None, device: str | None) -> World:
    """Gives a World as it is, or loads it from a folder or Hub id onto `device` (None: CPU; "auto": CUDA if
    there is one)."""
    if world is None:
        raise ValueError(
            "an environment of which world? Give world=<its folder>, a Hub id `user/name`, or the id of a "
            'shipped one: gymnasium.make("scd_world/World-v0", world="runs/mine/world")'
        )
    if not isinstance(world, World | str | Path):
        raise TypeError(f"world is a folder, a Hub id or a World; got {world!r:.80} ({type(world).__name__})")
    if isinstance(world, World):
        if device is not None:
            raise ValueError(
                f"device={device!r} is for loading a world; this World object lies on {world.device}: "
                "leave device out, or move it with world.to(device)"
            )
        return world
    return World.load(world, device=torch_device(device or "cpu"))


def torch_device(name: str) -> torch.device:
    """Gives the device of this name, "auto" being CUDA if there is one; ValueError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device is 'cpu', 'cuda', 'cuda:1', 'auto' or None; got {name!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}, but torch finds no CUDA device; use 'auto' or 'cpu'")
    return device

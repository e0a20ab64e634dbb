"""What a user can set when training, with its defaults: read-only dataclasses, presets as their instances.

No torch in here: `scd-train --help` must answer at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from scd_world.model_config import ModelConfig


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")


def above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise ValueError(f"{name}={value}: expected a number above {bound}")


def between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: expected a number between {low} and {high}")


def check_source(image_size: int | None, resize: str, fps: int | None, decoder: str) -> None:
    """What is read of a dataset, and how."""
    one_of("data.resize", resize, ("stretch", "letterbox"))
    one_of("data.decoder", decoder, ("auto", "torchcodec", "pyav"))
    for name, value in {"data.image_size": image_size, "data.fps": fps}.items():
        if value is not None:
            above(name, value, 0)


@dataclass(frozen=True)
class DataConfig:
    """Where the episodes come from."""

    kind: str = "lerobot"  # lerobot: a LeRobotDataset; zarr: a window store, replay_buffer.zarr or .h5
    root: str | None = None  # its folder
    repo_id: str | None = None  # or, for lerobot, its name on the Hugging Face Hub
    revision: str | None = None  # of repo_id; the dataset format's own by default
    cameras: list[str] = field(default_factory=list)  # short names of those to learn; all by default
    # Numbers that are left out, as if not recorded: observation.environment_state, next.reward, …
    ignore: list[str] = field(default_factory=list)
    image_size: int | None = None  # shorter side in pixels; None: as recorded, 96 where that is above 160
    resize: str = "stretch"  # to one size for all cameras; letterbox: in their own proportions, on black
    fps: int | None = None  # of a replay buffer or an .h5 file, which store none
    decoder: str = "auto"  # of videos: torchcodec, pyav; auto: torchcodec where it loads
    skip_damaged: bool = False  # leave damaged episodes out instead of stopping at them
    holdout: float = 0.1  # share of the episodes kept for evaluation
    motion_share: float = 0.5  # share of the training windows in which something besides the robot moves

    def __post_init__(self) -> None:
        one_of("data.kind", self.kind, ("lerobot", "zarr"))
        check_source(self.image_size, self.resize, self.fps, self.decoder)
        between("data.holdout", self.holdout, 0, 0.9)
        between("data.motion_share", self.motion_share, 0, 1)


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, and the learning rate over the course of a training: up, flat, linearly down to `floor`."""

    lr: float = 4e-4
    decoder_lr: float = 2.0  # the decoder's learning rate, in units of lr
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    warmup: float = 0.02  # share of the steps
    decay: float = 0.3  # share of the steps, at the end
    floor: float = 0.02  # of the last step, in units of lr
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # decay of the average of the weights

    def __post_init__(self) -> None:
        above("optimiser.lr", self.lr, 0)
        between("optimiser.warmup + optimiser.decay", self.warmup + self.decay, 0, 1)
        between("optimiser.ema", self.ema, 0, 1)


@dataclass(frozen=True)
class BodyConfig:
    """How the network that needs no pixels is taught before the rest (model.body_layers > 0)."""

    # LeRobotDatasets of further episodes of the same robot; they need no pictures.
    more: list[str] = field(default_factory=list)
    apart: float = 0.03  # share of the episodes that it does not learn from: they tell how sure it may be
    steps: int = 5000  # updates, at most as many as the world gets
    batch_size: int = 256  # sequences per update
    unroll: int = 8  # steps that it goes on from what it said itself
    single: float = 0.6  # share of the updates, the first, that learn single steps, `unroll` times as many
    noise: float = 0.3  # largest deviation of what an unroll starts from, in units of the usual change
    lr: float = 1e-3
    inner_lr: float = 0.01  # of the residual layers' matrices, which Muon teaches
    outcome_steps: int = 4000  # then, of what a state is worth: reward and success
    outcome_batch: int = 1024  # steps per update of that
    share: float = 0.5  # of time_limit and time_budget, at most
    outcome_share: float = 0.1  # and for what a state is worth

    def __post_init__(self) -> None:
        for name in ("batch_size", "unroll", "lr", "inner_lr", "outcome_batch", "share", "outcome_share"):
            above(f"body.{name}", getattr(self, name), 0)
        between("body.single", self.single, 0, 1)
        between("body.apart", self.apart, 0, 0.5)


@dataclass(frozen=True)
class SketchConfig:
    """How what the state alone draws is taught, before the rest as well (model.sketch_parts > 0)."""

    steps: int = 4000  # updates, at most as many as the world gets
    batch_size: int = 32  # frames per update
    cells: float = 0.25  # share of a frame that is looked at, half of it where something stands out
    lr: float = 5e-3
    foreground: float = 2.0  # extra weight of a pixel that differs from the background
    share: float = 0.15  # of time_limit and time_budget, at most

    def __post_init__(self) -> None:
        for name in ("batch_size", "lr", "share"):
            above(f"sketch.{name}", getattr(self, name), 0)
        between("sketch.cells", self.cells, 0, 1)


@dataclass(frozen=True)
class TrainConfig:
    out: str  # run folder; the same command again resumes what lies there
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    body: BodyConfig = field(default_factory=BodyConfig)
    sketch: SketchConfig = field(default_factory=SketchConfig)

    init: str | None = None  # a world (folder, or name on the Hub) whose weights and units to start from
    init_lessons: bool = False  # with init: body, outcome and sketch are taught on, too, before the rest
    steps: int = 20_000  # updates; may be raised when resuming
    batch_size: int = 16  # windows per update, of all processes together
    clip_steps: int = 8  # steps of a window: each is predicted from those before it
    own_history_from: float = 0.5  # share of the training before model.own_history counts: first, how to copy
    accumulate: int = 1  # parts in which a batch is computed: less memory, the same update
    seed: int = 0
    time_budget: float | None = None  # seconds of training in all; steps or budget, what is used up first
    time_limit: float | None = None  # seconds after which this call stops; the same command goes on

    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # auto: bf16 where the hardware multiplies in it; fp32; bf16
    compile: bool = False
    fsdp: bool = False  # shard weights and optimiser over the processes (FSDP2)

    log_every: int = 50
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    eval_every: int = 1000
    eval_windows: int = 16  # held-out windows that are imagined at each evaluation
    eval_context: int = 4  # frames that are shown before the imagination starts
    num_steps: int | None = None  # denoising steps in evaluations; None: the model's own
    world_starts: int = 64  # recorded moments that the finished world can be started from

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        for name in (
            "steps", "batch_size", "clip_steps", "accumulate", "log_every", "checkpoint_every",
            "keep_checkpoints", "eval_every", "eval_windows", "eval_context",
        ):  # fmt: skip
            above(name, getattr(self, name), 0)
        between("own_history_from", self.own_history_from, 0, 1)
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size={self.batch_size} must divide by accumulate={self.accumulate}")
        first = self.body.share + self.body.outcome_share + self.sketch.share
        if first >= 1:
            raise ValueError(
                f"body.share, body.outcome_share and sketch.share are {first:.2f} of the time together and "
                "leave none for the world itself: lower one of them"
            )


MODELS = {
    "nano": ModelConfig(  # for minutes and small pictures: docs/pendulum.md
        width=96,
        heads=3,
        encoder_layers=2,
        decoder_layers=1,
        patch=8,
        window=4,
        draws=1,
        num_steps=2,
        frame_ghost=0.0,
        state_weight=1.0,
        head="patch",
        body_layers=0,
    ),
    "micro": ModelConfig(width=128, heads=2, encoder_layers=4, decoder_layers=2, patch=8),
    "small": ModelConfig(width=192, heads=3, encoder_layers=6, decoder_layers=2),
    "base": ModelConfig(width=768, heads=12, encoder_layers=8, decoder_layers=4),  # the paper's SCD-B
    "medium": ModelConfig(width=1024, heads=16, encoder_layers=8, decoder_layers=4),  # the paper's SCD-M
}

DATA = {kind: DataConfig(kind=kind) for kind in ("lerobot", "zarr")}


def from_dict[C](cls: type[C], values: Mapping[str, Any]) -> C:
    """A (nested) config dataclass of JSON values; unknown keys raise ValueError."""
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    types = get_type_hints(cls)
    return cls(**{k: from_dict(types[k], v) if is_dataclass(types[k]) else v for k, v in values.items()})

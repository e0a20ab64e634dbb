"""Settings of the state prior: what it is made of, and how it is pretrained from recorded state alone.

Without torch, so that --help answers at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from scd_world.utils.checks import above, between, complain, one_of
from scd_world.utils.field_types import check_types

KINDS = ("state", "none")
MOST_OBJECTS = 64
MOTION_GROUPS = 8  # that channels of dense motion are normed in
LARGEST_BATCH = 2**20  # beyond, a number is a slip
# Beyond these a value is a slip, or a file that nobody should build.
BOUNDS = {
    "layers": (0, 256),
    "width": (1, 16384),
    "renderer_parts": (0, 4096),
    "renderer_width": (1, 16384),
    "scene_features": (0, 4096),
    "motion_channels": (0, 4096),
}
FIRST = {  # of worlds that knew of no other
    "objects": (),
    "scene_features": 0,
    "static_layer": False,
    "motion_channels": 0,
    "renderer_width": 96,
}


@dataclass(frozen=True)
class PriorSettings:
    """What a state prior is made of. `none`: there is none, plain SCD."""

    kind: str = "state"  # state: predicts states and draws them; none: plain SCD
    layers: int = 3  # of the network that predicts the next state without pixels; 0: the linear model alone
    width: int = 256  # of that network
    renderer_parts: int = 24  # frames of reference of what draws a state (head=conv); 0: no renderer
    renderer_width: int = 96  # of its networks
    scene_features: int = 0  # of the last shown frame, by which it draws, and by prev, too (state_filter)
    static_layer: bool = False  # it draws over what stays of that frame, and not over the data's median
    motion_channels: int = 0  # of what finds in that frame what is drawn now; 0: only where nothing changed

    def __post_init__(self) -> None:
        check_types(self, "prior")
        one_of("prior.kind", self.kind, KINDS)
        for name, (low, high) in BOUNDS.items():
            between(f"prior.{name}", getattr(self, name), low, high)
        if self.static_layer and not self.scene_features:
            complain(
                "prior.static_layer is read off the last shown frame, as the scene is: set "
                "prior.scene_features=12, or prior.static_layer=false"
            )
        if self.motion_channels and not self.static_layer:
            complain(
                f"prior.motion_channels={self.motion_channels} move what was shown over what stays of it: "
                "set prior.static_layer=true, or prior.motion_channels=0"
            )
        if self.motion_channels % MOTION_GROUPS:
            complain(f"prior.motion_channels={self.motion_channels}: expected a multiple of {MOTION_GROUPS}")

    @property
    def draws(self) -> bool:
        """Says whether a picture is drawn of a state."""
        return self.kind == "state" and self.renderer_parts > 0

    @property
    def settings(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(PriorSettings)}

    def architecture(self, objects: tuple[int, ...] = ()) -> PriorConfig:
        """Gives what a world has to remember of it. objects: the sizes of those that its codec finds."""
        return PriorConfig(**self.settings, objects=objects if self.layers else ())


@dataclass(frozen=True)
class PriorConfig(PriorSettings):
    """A state prior as it is, once it is known what is found by sight."""

    # How many of the state's last numbers are each object's that goes on in its own frame of reference.
    objects: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(self.objects))  # JSON knows lists alone
        super().__post_init__()
        if len(self.objects) > MOST_OBJECTS or any(size not in (2, 4) for size in self.objects):
            complain(
                f"prior.objects={self.objects}: expected the sizes of at most {MOST_OBJECTS} objects, 2 or 4 "
                "numbers each"
            )

    @property
    def as_saved(self) -> dict[str, Any]:
        """Gives plain JSON; without objects, or a scene, that of worlds that knew of none."""
        return {
            name: value for name, value in asdict(self).items() if name not in FIRST or value != FIRST[name]
        }


@dataclass(frozen=True)
class DynamicsPretrainConfig:
    """How the network that predicts the next state is pretrained (prior.layers > 0)."""

    steps: int = 5000  # updates, at most as many as the world gets; 0: joints follow linear laws alone
    batch_size: int = 256  # sequences per update
    rollout_length: int = 8  # steps that it goes on from its own predictions
    single_step_share: float = 0.6  # of the updates, the first: single steps, rollout_length times as many
    init_noise: float = 0.3  # largest deviation of what a rollout starts from, in units of the usual change
    lr: float = 1e-3  # the highest learning rate
    muon_lr: float = 0.01  # of the residual layers' matrices, which Muon updates
    time_share: float = 0.5  # of time_limit and time_budget, at most

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr", "time_share"):
            above(f"prior.dynamics.{name}", getattr(self, name), 0)
        above("prior.dynamics.steps", self.steps, -1)
        between("prior.dynamics.batch_size", self.batch_size, 1, LARGEST_BATCH)
        between("prior.dynamics.rollout_length", self.rollout_length, 1, 4096)
        between("prior.dynamics.single_step_share", self.single_step_share, 0, 1)
        between("prior.dynamics.init_noise", self.init_noise, 0, 100)


@dataclass(frozen=True)
class OutcomePretrainConfig:
    """How the network that predicts reward and success of a state is pretrained, after the dynamics."""

    steps: int = 4000  # updates, at most as many as the world gets
    batch_size: int = 1024  # steps per update
    lr: float = 1e-3  # the highest learning rate
    time_share: float = 0.1  # of time_limit and time_budget, at most

    def __post_init__(self) -> None:
        for name in ("lr", "time_share"):
            above(f"prior.outcome.{name}", getattr(self, name), 0)
        above("prior.outcome.steps", self.steps, -1)
        between("prior.outcome.batch_size", self.batch_size, 2, LARGEST_BATCH)  # half near successes


@dataclass(frozen=True)
class RendererPretrainConfig:
    """How the renderer of a state is pretrained (prior.renderer_parts > 0)."""

    steps: int = 4000  # updates, at most as many as the world gets
    batch_size: int = 32  # frames per update
    cell_share: float = 0.25  # share of a frame that is looked at, half of it where something stands out
    lr: float = 5e-3  # the highest learning rate
    weight_decay: float = 0.0  # against what a few recordings are learnt by heart
    foreground_weight: float = 2.0  # extra weight of a pixel that differs from the background
    time_share: float = 0.15  # of time_limit and time_budget, at most; cameras that ride are found in it, too

    def __post_init__(self) -> None:
        for name in ("lr", "time_share"):
            above(f"prior.renderer.{name}", getattr(self, name), 0)
        above("prior.renderer.steps", self.steps, -1)
        between("prior.renderer.weight_decay", self.weight_decay, 0, 100)
        between("prior.renderer.batch_size", self.batch_size, 1, LARGEST_BATCH)
        between("prior.renderer.cell_share", self.cell_share, 0, 1)


@dataclass(frozen=True)
class MotionPretrainConfig:
    """How dense motion is pretrained, after the renderer (prior.motion_channels > 0)."""

    steps: int = 8000  # updates, at most as many as the world gets
    batch_size: int = 16  # pairs of frames per update
    lr: float = 1e-3  # the highest learning rate
    weight_decay: float = 0.05  # against what a few recordings are learnt by heart
    time_share: float = 0.15  # of time_limit and time_budget, at most

    def __post_init__(self) -> None:
        for name in ("lr", "time_share"):
            above(f"prior.motion.{name}", getattr(self, name), 0)
        above("prior.motion.steps", self.steps, -1)
        between("prior.motion.weight_decay", self.weight_decay, 0, 100)
        between("prior.motion.batch_size", self.batch_size, 1, LARGEST_BATCH)


@dataclass(frozen=True)
class PriorTrainConfig(PriorSettings):
    """A state prior, and how it is pretrained before the first window."""

    # LeRobotDatasets of further episodes of the same robot; they need no images.
    extra_datasets: list[str] = field(default_factory=list)
    calibration_share: float = 0.03  # share of the episodes nothing learns from: they tell how sure it may be
    dynamics: DynamicsPretrainConfig = field(default_factory=DynamicsPretrainConfig)
    outcome: OutcomePretrainConfig = field(default_factory=OutcomePretrainConfig)
    renderer: RendererPretrainConfig = field(default_factory=RendererPretrainConfig)
    motion: MotionPretrainConfig = field(default_factory=MotionPretrainConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        between("prior.calibration_share", self.calibration_share, 0, 0.5)
        if self.time_share >= 1:
            complain(
                "prior.dynamics, prior.outcome, prior.renderer and prior.motion have time_shares of "
                f"{self.time_share:.2f} together "
                "and leave none for the world itself: lower one of them"
            )
        if self.kind == "none" and self.extra_datasets:
            complain(
                "prior=none learns nothing from state alone, so prior.extra_datasets would be read for "
                "nothing: leave it out, or set prior=state"
            )

    @property
    def time_share(self) -> float:
        """The share of a time_budget that its stages may take together."""
        motion = self.motion.time_share * (self.motion_channels > 0)
        return motion + sum(stage.time_share for stage in (self.dynamics, self.outcome, self.renderer))


PRIORS = {kind: PriorTrainConfig(kind=kind) for kind in KINDS}

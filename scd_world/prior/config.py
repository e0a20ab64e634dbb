"""Settings of what is pretrained from recorded state alone. Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_world.utils.checks import above, between


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

"""Settings of how a renderer is pretrained. Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from scd_world.utils.checks import LARGEST_BATCH, above, between


@dataclass(frozen=True)
class RendererPretrainConfig:
    """How what the state alone draws is pretrained (prior.renderer_parts or prior.renderer_channels > 0)."""

    steps: int = 4000  # updates, at most as many as the world gets
    batch_size: int = 32  # frames per update
    cell_share: float = 0.25  # share of a frame that is looked at, half of it where something stands out
    lr: float = 5e-3
    foreground_weight: float = 2.0  # extra weight of a pixel that differs from the background
    time_share: float = 0.15  # of time_limit and time_budget, at most

    def __post_init__(self) -> None:
        for name in ("lr", "time_share"):
            above(f"prior.renderer.{name}", getattr(self, name), 0)
        above("prior.renderer.steps", self.steps, -1)
        between("prior.renderer.batch_size", self.batch_size, 1, LARGEST_BATCH)
        between("prior.renderer.cell_share", self.cell_share, 0, 1)

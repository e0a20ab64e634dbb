"""What a user can set when measuring a world. Without torch, so that a command's --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_datasets.config import DataConfig
from scd_world.utils.checks import above, between, complain, one_of


@dataclass(frozen=True)
class EvaluateConfig:
    """How faithful a world is on episodes that it was not trained with.

    scd-evaluate world=runs/mine/world data.root=runs/mine/windows.zarr out=runs/mine/evaluation
    """

    world: str  # folder, or name on the Hugging Face Hub
    out: str  # folder for the report, its figures and its videos
    data: DataConfig = field(default_factory=lambda: DataConfig(kind="zarr"))
    episodes: list[int] | None = None  # indices in the dataset; None: those the world's training held out

    windows: int = 64  # imagined windows in all, spread evenly over the episodes
    context: int = 4  # recorded frames that the world observes before it imagines
    horizon: int = 64  # imagined steps, as far as the episodes reach
    batch_size: int = 16  # windows that are imagined together; of these one is given another one's actions
    num_steps: int | None = None  # denoising steps; None: the world's own
    draws: int = 1  # imaginations of each window, from other noise; what counts is their mean
    changed_threshold: float = 8.0  # gray levels by which a changed pixel differs from the last context frame
    shuffled_horizon: int = 16  # steps that are also imagined with another episode's actions

    sweep_starts: int = 16  # windows from whose start every action dimension is swept; 0: no sweep
    sweep_values: int = 5  # values over the dimension's recorded range
    sweep_steps: int = 4  # steps for which the action is held
    still_moments: int = 16  # recorded moments of standing still that are gone on with; 0: none
    num_videos: int = 4  # windows shown in the video and as image strips
    rerun: bool = False  # window_0.rrd … of those windows: pip install 'lerobot_env_scd_world[rerun]'
    worldproof: bool = False  # all windows in worldproof's folder format, all draws of them
    outcome_episodes: int = 64  # whole episodes on whose every step reward and success are scored; 0: none

    lpips_weights: str | None = None  # safetensors with AlexNet's features and LPIPS' linear layers
    fvd_weights: str | None = None  # safetensors of I3D trained on Kinetics-400
    cvvdp: bool = False  # ColorVideoVDP: pip install 'lerobot_env_scd_world[perceptual]'
    seed: int = 0  # of noise and random actions
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seed", self.seed, -1)
        for name in ("windows", "context", "horizon", "batch_size", "draws", "sweep_steps", "num_videos"):
            above(name, getattr(self, name), 0)
        above("sweep_values", self.sweep_values, 1)
        for name in ("shuffled_horizon", "sweep_starts", "still_moments", "outcome_episodes"):
            above(name, getattr(self, name), -1)
        if self.num_steps is not None:
            above("num_steps", self.num_steps, 0)
        if self.episodes is not None and not self.episodes:
            complain("episodes=[]: name some, or leave it out for those that the world's training held out")
        between("changed_threshold", self.changed_threshold, 0, 255)

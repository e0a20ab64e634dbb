"""What a user can set when probing a dense world. Without torch, so that --help answers at once.

Layers are counted from 1, as the paper counts them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_datasets.config import DataConfig
from scd_world.utils.checks import above, complain, one_of


@dataclass(frozen=True)
class ProbeConfig:
    """Do the regularities that SCD is built on hold in a dense causal world?

    scd-train data.root=data/mine model.architecture=causal_dit out=runs/dit
    scd-probe world=runs/dit/world data.root=data/mine.zarr out=runs/dit/probe
    """

    world: str  # a dense one (causal_dit, far, far_long, diffusion_forcing): folder, or name on the Hub
    out: str  # folder for report.md, probe.json and the figures
    data: DataConfig = field(default_factory=lambda: DataConfig(kind="zarr"))
    episodes: list[int] | None = None  # indices in the dataset; None: those the world's training held out

    windows: int = 32  # held-out windows, spread evenly over the episodes
    context: int | None = None  # recorded frames observed before imagining; None: the world's window
    num_steps: int = 10  # denoising steps per frame
    horizon: int = 8  # imagined steps of each window
    batch_size: int = 16  # windows imagined together; changes no result

    middle_layers: list[int] = field(default_factory=list)  # skipped after the first steps; []: middle half
    first_steps: list[int] = field(default_factory=lambda: [1, 2, 5])  # denoising steps in which all run
    last_layers: list[int] = field(default_factory=list)  # how many last ones get no past; []: every number
    finetune_last: int | None = None  # the number that is fine-tuned; None: model.decoder_layers

    finetune_updates: int = 200  # of each short fine-tuning; 0: none
    finetune_lr: float = 2e-4  # learning rate of the fine-tunes
    finetune_batch_size: int = 6  # training windows per update
    finetune_length: int = 6  # steps of such a window
    changed_threshold: float = 8.0  # gray levels by which a changed pixel differs from the last context frame
    seed: int = 0  # of windows and noise
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seed", self.seed, -1)
        above("num_steps", self.num_steps, 1)
        for name in (
            "windows",
            "horizon",
            "batch_size",
            "finetune_lr",
            "finetune_batch_size",
            "finetune_length",
        ):
            above(name, getattr(self, name), 0)
        above("finetune_updates", self.finetune_updates, -1)
        if self.context is not None:
            above("context", self.context, 0)
        if not all(1 <= n <= self.num_steps for n in self.first_steps or [0]):
            complain(
                f"first_steps={list(self.first_steps)}: expected numbers of denoising steps from 1 to "
                f"num_steps={self.num_steps}"
            )

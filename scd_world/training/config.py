"""What a user can set when training, with its defaults: read-only dataclasses, presets as their instances.

No torch in here: `scd-train --help` must answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_datasets.config import DataConfig
from scd_world.model.config import ModelConfig
from scd_world.optim.config import OptimizerConfig
from scd_world.prior.config import PriorTrainConfig
from scd_world.utils.checks import above, between, one_of


@dataclass(frozen=True)
class TrainConfig:
    out: str  # run folder; the same command again resumes what lies there
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    prior: PriorTrainConfig = field(default_factory=PriorTrainConfig)

    init: str | None = None  # a world (folder, or name on the Hub) whose weights and units to start from
    init_pretrain: bool = False  # with init: the state prior is pretrained further, too, before the rest
    steps: int = 20_000  # updates; may be raised when resuming
    batch_size: int = 16  # windows per update, of all processes together
    sequence_length: int = 8  # steps of a window: each is predicted from those before it
    self_rollout_start: float = 0.5  # share of the training before self-rollouts: copying comes first
    grad_accumulation: int = 1  # parts in which a batch is computed: less memory, the same update
    seed: int = 0
    time_budget: float | None = None  # seconds of training in all; steps or budget, what is used up first
    time_limit: float | None = None  # seconds after which this call stops; the same command goes on

    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # auto: bf16 where the hardware multiplies in it; fp32; bf16
    compile: bool = False
    fsdp: bool = False  # shard weights and optimizer over the processes (FSDP2)

    log_every: int = 50
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    eval_every: int = 1000
    eval_windows: int = 16  # held-out windows that are imagined at each evaluation
    eval_context: int = 4  # frames that are shown before the imagination starts
    num_steps: int | None = None  # denoising steps in evaluations; None: the model's own
    num_start_states: int = 64  # recorded moments that the finished world can be started from

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        for name in (
            "steps", "batch_size", "sequence_length", "grad_accumulation", "log_every", "checkpoint_every",
            "keep_checkpoints", "eval_every", "eval_windows", "eval_context",
            "num_start_states",
        ):  # fmt: skip
            above(name, getattr(self, name), 0)
        for name in ("time_budget", "time_limit", "num_steps"):
            if getattr(self, name) is not None:
                above(name, getattr(self, name), 0)
        above("seed", self.seed, -1)
        between("self_rollout_start", self.self_rollout_start, 0, 1)
        if self.batch_size % self.grad_accumulation:
            raise ValueError(
                f"batch_size={self.batch_size} must divide by grad_accumulation={self.grad_accumulation}"
            )

"""What a user can set when training, with its defaults: read-only dataclasses, presets as their instances.

No torch in here: `scd-train --help` must answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scd_datasets.config import DataConfig
from scd_world.codec.config import CodecTrainConfig
from scd_world.model.config import ModelConfig
from scd_world.optim.config import OptimizerConfig
from scd_world.prior.config import PriorTrainConfig
from scd_world.utils.checks import above, between, complain, one_of

# Beyond these a value is a slip: so many windows fit into no memory, so many steps into no life.
MANY = 10**12
BOUNDS = {
    "steps": (1, MANY),
    "batch_size": (1, 65_536),
    "sequence_length": (1, 4096),
    "grad_accumulation": (1, 65_536),
    "log_every": (1, MANY),
    "checkpoint_every": (1, MANY),
    "keep_checkpoints": (1, MANY),
    "eval_every": (1, MANY),
    "eval_windows": (1, 65_536),
    "eval_context": (1, 4096),
    "num_start_states": (1, 10**6),
    "seed": (0, 2**63 - 1),  # of numpy, whose seeds are not negative, and of torch
}


@dataclass(frozen=True)
class TrainConfig:
    """Trains a world on recordings, or goes on training it.

    scd-train data.root=data/mine out=runs/mine
    """

    out: str  # run folder; the same command again resumes what lies there
    data: DataConfig = field(default_factory=DataConfig)
    codec: CodecTrainConfig = field(default_factory=CodecTrainConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    prior: PriorTrainConfig = field(default_factory=PriorTrainConfig)

    init: str | None = None  # a world (folder, or name on the Hub) whose weights and units to start from
    init_pretrain: bool = False  # with init: the state prior is pretrained further, too, before the rest
    steps: int = 20_000  # updates; may be raised when resuming
    batch_size: int = 16  # windows per update, of all processes together
    sequence_length: int = 8  # steps of a window: each is predicted from those before it
    # Cells of the model's frames, be they pixels or a codec's, by which all frames of a clip are moved alike.
    random_shift: int = 0
    self_rollout_start: float = 0.5  # share of the training before self-rollouts: copying comes first
    grad_accumulation: int = 1  # parts in which a batch is computed: less memory, the same update
    seed: int = 0  # of weights, windows and noise
    time_budget: float | None = None  # seconds of training in all; steps or budget, what is used up first
    time_limit: float | None = None  # seconds after which this call stops; the same command goes on

    device: str = "auto"  # auto, cpu, cuda
    precision: str = "auto"  # auto: bf16 where the hardware multiplies in it; fp32; bf16
    compile: bool = False  # updates by torch.compile: minutes of set-up, then faster on a GPU
    fsdp: bool = False  # shard weights and optimizer over the processes (FSDP2)

    log_every: int = 50  # updates between two lines of log.jsonl
    checkpoint_every: int = 1000  # updates between two checkpoints, each with a world
    keep_checkpoints: int = 2  # the last ones; older ones are deleted
    eval_every: int = 1000  # updates between two evaluations on held-out episodes
    eval_windows: int = 16  # held-out windows that are imagined at each evaluation
    eval_context: int = 4  # frames that are shown before the imagination starts
    num_steps: int | None = None  # denoising steps in evaluations; None: the model's own
    num_start_states: int = 64  # recorded moments that the finished world can be started from

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        if self.num_steps is not None:
            between("num_steps", self.num_steps, 1, 1000)
        between("random_shift", self.random_shift, 0, 4096)
        check_course(self)
        shares, codec = self.prior.time_share, self.codec.time_share * (self.codec.kind == "autoencoder")
        pretrains = self.init is None or self.init_pretrain
        if self.time_budget is not None and pretrains and shares < 1 <= shares + codec:
            complain(
                f"codec.time_share={codec:g} and those of prior.dynamics, prior.outcome, prior.renderer and "
                f"prior.motion ({shares:.2f} together) leave none of the time_budget for the world: lower "
                "one of them"
            )
        if self.codec.kind == "autoencoder" and self.model.patch % 2:
            complain(
                f"model.patch={self.model.patch}: with codec=autoencoder it counts cells of a latent, which "
                "come in pairs: set an even number, such as 4 (16 pixels)"
            )
        if self.model.state_filter and not self.prior.draws:
            complain(
                f"model.state_filter corrects frames by what the prior draws, and prior={self.prior.kind} "
                f"with prior.renderer_parts={self.prior.renderer_parts} draws nothing: set prior=state and "
                "prior.renderer_parts=24, or model.state_filter=false"
            )
        if self.prior.scene_features and not self.model.state_filter:
            complain(
                f"prior.scene_features={self.prior.scene_features} are read off a shown frame, which is kept "
                "for model.state_filter: set prior.scene_features=0, or model.state_filter=true"
            )
        if self.codec.objects and self.prior.extra_datasets:
            complain(
                f"prior.extra_datasets={self.prior.extra_datasets} were recorded without images, in which "
                f"codec.objects={self.codec.objects} would look for objects: leave one of the two out"
            )

    @property
    def patch_pixels(self) -> int:
        """The sides of a patch in pixels of the recording."""
        return self.model.patch * self.codec.shrink


def check_course(config: Any) -> None:
    """Checks what a TrainConfig and the settings of a distillation have in common."""
    for name, (low, high) in BOUNDS.items():
        between(name, getattr(config, name), low, high)
    for name in ("time_budget", "time_limit"):
        if getattr(config, name) is not None:
            above(name, getattr(config, name), 0)
    between("self_rollout_start", config.self_rollout_start, 0, 1)
    if config.grad_accumulation > 0 and config.batch_size % config.grad_accumulation:
        complain(
            f"batch_size={config.batch_size} must divide by grad_accumulation={config.grad_accumulation}"
        )

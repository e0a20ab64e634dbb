"""What a user can set when distilling. Without torch, so that a command's --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from scd_datasets.config import DataConfig
from scd_world.codec.config import CodecConfig, CodecTrainConfig
from scd_world.model.config import ModelConfig
from scd_world.optim.config import OptimizerConfig
from scd_world.prior.config import PriorConfig, PriorTrainConfig
from scd_world.training.config import TrainConfig, check_course
from scd_world.utils.checks import above, between, complain, one_of

METHODS = ("consistency", "meanflow", "rollout", "dmd")
ON_OWN_ROLLOUTS = ("rollout", "dmd")
DRAWS = 3  # method=dmd, of a frame: where it starts, where the two scores are asked, where the critic learns


@dataclass(frozen=True)
class Distillation(TrainConfig):
    """A training with another loss than the model's own; `init` is the teacher."""

    method: str = "consistency"
    grid: int = 48
    interpolation: float = 1.0
    teacher: str = ""  # digest of the teacher's weights: a run resumes with the teacher that it began with


@dataclass(frozen=True)
class DistillConfig:
    """A trained world in, a world of the same kind out that renders in few steps.

    scd-distill world=runs/mine/world data.root=data/mine.zarr method=consistency out=runs/distilled
    """

    world: str  # the teacher: folder, or name on the Hugging Face Hub
    out: str  # run folder; the same command again resumes what lies there
    # consistency, meanflow: the decoder alone learns; rollout, dmd: all, on frames of its own.
    method: str = "consistency"
    init: str | None = None  # a world whose weights the new one starts from; None: the teacher's
    data: DataConfig = field(default_factory=lambda: DataConfig(kind="zarr"))
    # The average of the weights is also the target of consistency: hence a short memory.
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-4, decoder_lr_ratio=1.0, ema_decay=0.99)
    )

    num_steps: int = 1  # denoising steps of the new world; method=rollout and dmd train with so many
    grid: int = 48  # method=consistency: noise levels; the teacher steps from each to the next
    noise_samples: int = 2  # noisy versions of each frame per encoder pass
    self_rollout_share: float = 1.0  # method=rollout, dmd: share of the clips whose past frames are imagined
    self_rollout_start: float = 0.0  # share of the training before; the world has learned to copy already
    # method=rollout, dmd: weights from the teacher's, 0, to the student's, 1 (WiSE-FT, arXiv
    # 2109.01903): below 1 frames are nearer to recorded ones and softer, beyond 1 sharper and farther off.
    interpolation: float = 1.0

    steps: int = 2000  # updates; may be raised when resuming
    batch_size: int = 8  # windows per update, of all processes together
    sequence_length: int = 8  # steps of a window
    grad_accumulation: int = 1  # parts in which a batch is computed: less memory, the same update
    seed: int = 0  # of windows and noise
    time_budget: float | None = None  # seconds in all; it ends at steps or budget, whichever comes first
    time_limit: float | None = None  # seconds after which this call stops; the same command resumes
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda
    precision: str = "auto"  # auto: bf16 where the hardware multiplies in it; fp32; bf16
    log_every: int = 50  # updates between two lines of log.jsonl
    checkpoint_every: int = 500  # updates between two checkpoints, each with a world
    keep_checkpoints: int = 2  # the last ones; older ones are deleted
    eval_every: int = 500  # updates between two evaluations on held-out episodes
    eval_windows: int = 16  # held-out windows that are imagined at each evaluation
    eval_context: int = 4  # frames that are shown before the imagination starts
    num_start_states: int = 64  # recorded moments that the finished world can be started from

    report_steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 50])  # denoising steps compared
    report_windows: int = 32  # held-out windows; 0: no report
    report_horizon: int = 16  # imagined steps of each
    compare_worlds: dict[str, str] = field(default_factory=dict)  # further worlds in the report: name, folder

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("precision", self.precision, ("auto", "fp32", "bf16"))
        check_course(self)
        for name in ("num_steps", "noise_samples", "report_horizon"):
            above(name, getattr(self, name), 0)
        above("grid", self.grid, 1)
        above("report_windows", self.report_windows, -1)
        between("self_rollout_share", self.self_rollout_share, 0, 1)
        between("interpolation", self.interpolation, 0, 2)
        if self.interpolation != 1 and self.method not in ON_OWN_ROLLOUTS:
            complain(
                f"interpolation={self.interpolation:g}: a student of method={self.method} draws in other "
                "steps than its teacher, and nothing lies between: leave it out, or set method to one of "
                f"{', '.join(ON_OWN_ROLLOUTS)}"
            )
        if taken := {"teacher", self.method} & self.compare_worlds.keys():
            complain(
                f"compare_worlds names {', '.join(sorted(taken))}, as the report names the teacher and the "
                "new world: give it another name"
            )
        if not self.report_steps or min(self.report_steps) < 1:
            complain(f"report_steps={list(self.report_steps)}: expected numbers of denoising steps, from 1")

    def student(self, teacher: ModelConfig) -> ModelConfig:
        """Gives the new world's model: the teacher's, as the method changes it."""
        model = replace(teacher, num_steps=self.num_steps, noise_samples=self.noise_samples)
        if self.method == "dmd":
            model = replace(model, noise_samples=DRAWS * self.noise_samples)
        if self.method in ON_OWN_ROLLOUTS:
            return replace(model, self_rollout_share=self.self_rollout_share)
        # Guidance is distilled as well: what the student learns is the guided velocity.
        return replace(
            model, guidance=1.0, average_velocity=teacher.average_velocity or self.method == "meanflow"
        )

    def training(
        self, teacher: ModelConfig, prior: PriorConfig, codec: CodecConfig, digest: str, apart: float | None
    ) -> Distillation:
        """Gives the trainer's settings. prior, codec: the teacher's; digest: of its weights; apart: its
        calibration_share, None where it is not known: what it did not learn from, nor does the student."""
        learnt = PriorTrainConfig(**prior.settings)
        names = {f.name for f in fields(self)} & {f.name for f in fields(Distillation)}
        # The number of steps of a frame is part of the student's model.
        values = {name: getattr(self, name) for name in names - {"num_steps", "init"}}
        return Distillation(
            **values,
            model=self.student(teacher),
            prior=learnt if apart is None else replace(learnt, calibration_share=apart),
            codec=CodecTrainConfig(kind=codec.kind, width=codec.width),
            init=self.init or self.world,
            teacher=digest,
        )

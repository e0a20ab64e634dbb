"""What a user can set when measuring speed (`scd-bench`). Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_world.codec.config import CodecSettings
from scd_world.model.config import ARCHITECTURES, ModelConfig
from scd_world.prior.config import PriorSettings
from scd_world.utils.checks import above, between, complain, one_of


@dataclass(frozen=True)
class BenchConfig:
    """How fast a model steps and learns, beside its baselines, and how fast a store reads.

    scd-bench baselines=[causal_dit] num_steps=[1,2,4] out=runs/bench
    scd-bench world=runs/mine/world compare=environment batch_sizes=[1,64,1024] num_steps=[1]
    scd-bench world=runs/mine/world compare=async num_envs=8
    """

    world: str | None = None  # folder, or name on the Hub, whose model to measure; None: `model`
    model: ModelConfig = field(default_factory=ModelConfig)
    prior: PriorSettings = field(default_factory=PriorSettings)
    codec: CodecSettings = field(default_factory=CodecSettings)  # autoencoder: `model` draws latents
    baselines: list[str] = field(default_factory=list)  # of the same size, run along: [causal_dit]
    store: str | None = None  # a window store whose reading speed is measured too
    # environment: steps through Gymnasium, images on the host and on the device, with and without the model;
    # async: `num_envs` rows in one batch against as many single environments in processes of their own
    compare: str | None = None
    num_envs: int = 8  # for compare=async
    precision: str = "fp32"  # or bf16, auto: of all environments of `compare`
    out: str | None = None  # folder for bench.json and bench.md; None: the terminal only

    cameras: int = 1  # of the recorded data that an untrained model is built for; a world brings its own
    height: int = 96  # of its frames, in pixels
    width: int = 96  # of its frames, in pixels
    state_size: int = 18  # numbers of its state
    action_size: int = 2  # numbers of its action

    num_steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8])  # denoising steps per frame
    contexts: list[int] = field(default_factory=list)  # frames of history; none named: the model's window
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8])  # rows that take a step together
    seconds: float = 3.0  # measured time of each combination, all models together
    max_round_seconds: float = 20.0  # a combination of which one round takes longer is counted, not timed
    compile: bool = False  # time the model once more with compiled steps (CPU)
    training: bool = False  # time updates as well, with the store's windows where there is one
    train_batch_size: int = 8  # clips per update
    sequence_length: int = 8  # steps of a clip
    evaluations: list[str] = field(default_factory=list)  # folders of scd-evaluate: quality beside speed
    threads: int | None = None  # None: torch's default
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seconds", self.seconds, 0)
        above("num_envs", self.num_envs, 1)
        if self.threads is not None:
            between("threads", self.threads, 1, 4096)
        one_of("precision", self.precision, ("fp32", "bf16", "auto"))
        for kind in self.baselines:
            one_of("baselines", kind, ARCHITECTURES)
        if self.compare is not None:
            one_of("compare", self.compare, ("async", "environment"))
            if self.world is None:
                complain(
                    f"compare={self.compare} steps whole environments: give it a world=<folder or Hub name>"
                )
        for value in (*self.num_steps, *self.batch_sizes, *self.contexts):
            above("num_steps, batch_sizes and contexts", value, 0)

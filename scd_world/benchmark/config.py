"""What a user can set when measuring speed (`scd-bench`). Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_world.model.config import ARCHITECTURES, ModelConfig
from scd_world.prior.config import PriorConfig
from scd_world.utils.checks import above, one_of


@dataclass(frozen=True)
class BenchConfig:
    """How fast a model steps and learns, beside its baselines, and how fast a store reads."""

    world: str | None = None  # folder, or name on the Hub, whose model to measure; None: `model`
    model: ModelConfig = field(default_factory=ModelConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    baselines: list[str] = field(default_factory=list)  # of the same size, run along: [causal_dit]
    store: str | None = None  # a window store whose reading speed is measured too
    compare: str | None = (
        None  # async: `num_envs` in one batch beside as many single environments in processes
    )
    num_envs: int = 8  # for compare=async
    precision: str = "fp32"  # or bf16, auto: of all environments of compare=async
    out: str | None = None  # folder for bench.json and bench.md; None: the terminal only

    cameras: int = 1  # what a random model looks at; a world brings its own
    height: int = 96
    width: int = 96
    state_size: int = 18
    action_size: int = 2

    num_steps: list[int] = field(default_factory=lambda: [1, 2, 4, 8])
    contexts: list[int] = field(default_factory=list)  # frames of history; none named: the model's window
    batch_sizes: list[int] = field(default_factory=lambda: [1, 8])
    seconds: float = 3.0  # measured time of each combination, all contenders together
    max_round_seconds: float = (
        20.0  # seconds of one round beyond which a combination is counted, and not timed
    )
    compile: bool = False  # the model runs along once more, its steps compiled (CPU)
    training: bool = False  # time updates as well, with the store's windows where there is one
    train_batch_size: int = 8  # clips per update
    sequence_length: int = 8  # steps of a clip
    evaluations: list[str] = field(default_factory=list)  # scd-evaluate's folders: quality beside speed
    threads: int | None = None  # None: torch's default
    device: str = "auto"

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seconds", self.seconds, 0)
        above("num_envs", self.num_envs, 1)
        one_of("precision", self.precision, ("fp32", "bf16", "auto"))
        for kind in self.baselines:
            one_of("baselines", kind, ARCHITECTURES)
        if self.compare is not None:
            one_of("compare", self.compare, ("async",))
            if self.world is None:
                raise ValueError(
                    "compare=async steps whole environments: give it a world=<folder or Hub name>"
                )
        for value in (*self.num_steps, *self.batch_sizes, *self.contexts):
            above("num_steps, batch_sizes and contexts", value, 0)

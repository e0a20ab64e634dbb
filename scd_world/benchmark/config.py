"""What a user can set when measuring speed (`scd-bench`). Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from scd_world.model.config import KINDS, ModelConfig
from scd_world.utils.checks import above, one_of


@dataclass(frozen=True)
class BenchConfig:
    """How fast a model steps and learns, beside its rivals, and how fast a store reads."""

    world: str | None = None  # folder, or name on the Hub, whose model to measure; None: `model`
    model: ModelConfig = field(default_factory=ModelConfig)
    rivals: list[str] = field(default_factory=list)  # kinds of the same size that run along: [causal_dit]
    store: str | None = None  # a window store whose reading speed is measured too
    against: str | None = None  # async: `rows` in one batch against as many single environments in processes
    rows: int = 8  # for against=async
    precision: str = "fp32"  # or bf16, auto: of all environments of against=async
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
    longest: float = 20.0  # seconds of one round beyond which a combination is counted, and not timed
    compile: bool = False  # the model runs along once more, its steps compiled (CPU)
    training: bool = False  # time updates as well, with the store's windows where there is one
    train_batch: int = 8  # clips per update
    clip_steps: int = 8  # steps of a clip
    evaluations: list[str] = field(default_factory=list)  # scd-evaluate's folders: quality beside speed
    threads: int | None = None  # None: torch's default
    device: str = "auto"

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seconds", self.seconds, 0)
        above("rows", self.rows, 1)
        one_of("precision", self.precision, ("fp32", "bf16", "auto"))
        for kind in self.rivals:
            one_of("rivals", kind, KINDS)
        if self.against is not None:
            one_of("against", self.against, ("async",))
            if self.world is None:
                raise ValueError(
                    "against=async steps whole environments: give it a world=<folder or Hub name>"
                )
        for value in (*self.num_steps, *self.batch_sizes, *self.contexts):
            above("num_steps, batch_sizes and contexts", value, 0)

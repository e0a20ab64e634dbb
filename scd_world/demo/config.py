"""What a user can set for the demonstration. Without torch, so that a command's --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass

from scd_world.utils.checks import above, one_of


@dataclass(frozen=True)
class DemoConfig:
    """The shipped PushT world beside the real simulator; the shipped world of a real robot beside recordings;
    then a world of the pendulum, trained live.

    scd-demo pusht=false training_seconds=300
    """

    out: str = "runs/demo"  # folder for videos, images, figures, and the pendulum's data and world
    seed: int = 0  # of recordings, training and noise
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda
    num_steps: int | None = None  # denoising steps; None: each world's own

    pusht: bool = True  # False: leave this part out
    world: str | None = None  # another PushT world than the shipped one: folder, or name on the Hub
    episodes: int = 8  # of each policy, imagined together
    horizon: int = 64  # steps of each

    g1: bool = True  # False: leave this part out

    pendulum: bool = True  # False: leave this part out
    recorded_episodes: int = 48  # episodes that are recorded
    training_seconds: float = 120.0  # of the pendulum's world

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seed", self.seed, -1)
        above("recorded_episodes", self.recorded_episodes, 4)  # one in five is held out
        for name in ("episodes", "horizon", "training_seconds"):
            above(name, getattr(self, name), 0)

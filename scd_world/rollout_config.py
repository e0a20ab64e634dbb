"""What a user can set when a policy acts in a world. Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scd_world.config import above, between, one_of


@dataclass(frozen=True)
class RolloutConfig:
    """Let a policy act in the imagination of a world; keep what it saw as a LeRobotDataset v3.

    scd-rollout world=runs/mine/world policy=path/to/checkpoint episodes=50 out=data/dreamt
    """

    world: str  # folder, or name on the Hugging Face Hub
    out: str  # dataset folder; the same command again continues an interrupted one
    policy: str = "random_walk"  # or scripted_pusht, replay, module:name, or a LeRobot policy's folder
    policy_kwargs: dict[str, Any] = field(default_factory=dict)  # the policy's own arguments
    replay: str | None = None  # for policy=replay: the dataset whose actions are taken once more
    episodes: int = 16  # in all; may be raised later
    num_envs: int = 8  # imagined side by side, in one batch of the model
    seed: int = 0  # episode i starts, and its policy acts, from seed + i

    starts: list[Any] | None = None  # [[episode, frame], …] gone through in turn; None: drawn with the seed
    horizon: int | None = None  # steps of an episode at most; None: the world's own
    num_steps: int | None = None  # denoising steps; None: the world's own
    success_threshold: float = 0.5  # an episode ends when the predicted probability exceeds it; 1.0: never
    clip_actions: bool = True  # False: an action far outside what was recorded is an error
    task: str | None = None  # one of the world's tasks; None: what was being done at each start

    videos: bool = False  # mp4 instead of lossless pictures
    films: int = 4  # episodes shown in film.mp4 and strip.png; 0: none
    device: str = "auto"

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        for name in ("episodes", "num_envs"):
            above(name, getattr(self, name), 0)
        between("success_threshold", self.success_threshold, 0, 1)
        pairs = self.starts if self.starts is not None else [[0, 0]]
        if not pairs or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            raise ValueError(f"starts are pairs such as [[3,0],[7,12]] (episode, frame); got {self.starts}")
        if (self.policy == "replay") != (self.replay is not None):
            raise ValueError(
                "policy=replay and replay=<dataset> go together: the dataset whose actions are repeated"
            )

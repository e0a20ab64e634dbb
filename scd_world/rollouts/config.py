"""What a user can set of recordings and rollouts. Without torch, so that --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from scd_world.utils.checks import above, between, complain, one_of


@dataclass(frozen=True)
class RolloutConfig:
    """Rolls a policy out in a world; keeps what is imagined as a LeRobotDataset v3.

    scd-rollout world=runs/mine/world policy=path/to/checkpoint episodes=50 out=data/imagined
    """

    world: str  # folder, or name on the Hugging Face Hub
    out: str  # dataset folder; the same command again continues an interrupted one
    # or scripted_pusht, replay, nearest_neighbor, a planner (best_of_n …), module:name, a LeRobot folder
    policy: str = "random_walk"  # one of scd_policies.make's (module:name too)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)  # the policy's own arguments
    replay: str | None = None  # for policy=replay: the dataset whose actions are repeated
    episodes: int = 16  # in all; may be raised later
    num_envs: int = 8  # imagined side by side, in one batch of the model
    seed: int = 0  # episode i starts, and its policy acts, from seed + i

    starts: list[Any] | None = None  # [[episode, frame], …] in turn; None: sampled with the seed
    horizon: int | None = None  # steps of an episode at most; None: the world's own
    num_steps: int | None = None  # denoising steps; None: the world's own
    success_threshold: float = 0.5  # an episode ends when the predicted probability exceeds it; 1.0: never
    clip_actions: bool = True  # False: an action far outside what was recorded is an error
    task: str | None = None  # one of the world's tasks; None: the one recorded at each start

    store_as_video: bool = False  # mp4 instead of lossless images
    num_videos: int = 4  # episodes shown in film.mp4 and strip.png; 0: none
    rerun: bool = False  # episode_0.rrd … of those episodes: pip install 'lerobot_env_scd_world[rerun]'
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seed", self.seed, -1)
        for name in ("episodes", "num_envs"):
            above(name, getattr(self, name), 0)
        between("success_threshold", self.success_threshold, 0, 1)
        if self.rerun and self.num_videos < 1:
            complain("rerun=true records the episodes that num_videos counts, and that is 0: give 1 or more")
        pairs = self.starts if self.starts is not None else [[0, 0]]
        if not pairs or not all(isinstance(p, list | tuple) and [*map(type, p)] == [int] * 2 for p in pairs):
            complain(f"starts are pairs such as [[3,0],[7,12]] (episode, frame); got {self.starts}")
        if (self.policy == "replay") != (self.replay is not None):
            complain("policy=replay and replay=<dataset> go together: the dataset whose actions are repeated")


@dataclass(frozen=True)
class PolicyShare:
    """Names one policy of a mixture, and its share of the episodes."""

    policy: str
    policy_kwargs: dict[str, Any] = field(default_factory=dict)  # of a list, one entry per episode in turn
    degrade: dict[str, Any] = field(default_factory=dict)  # of scd_policies.degraded; lists likewise
    weight: int = 1  # episodes of each round through the mixture

    def __post_init__(self) -> None:
        if self.weight < 1:
            complain(f"weight of {self.policy} is {self.weight}; it counts episodes, 1 or more")


@dataclass(frozen=True)
class RecordConfig:
    """Records a Gymnasium environment under one policy, or a mixture, into a LeRobotDataset v3.

    scd-record env=pusht policy=scripted_pusht policy_kwargs={skill:[1.0,0.5]} episodes=200 out=data/pusht
    scd-record env=pusht 'policy_mixture=[{policy:scripted_pusht,weight:3},{policy:random_walk}]' out=data/mix
    """

    env: str  # pusht, pendulum, or the id of a registered gymnasium environment
    out: str  # dataset folder; the same command again continues an interrupted recording
    env_kwargs: dict[str, Any] = field(default_factory=dict)  # as gymnasium.make takes them
    policy: str = "random_walk"  # one of scd_policies.make's (module:name too)
    policy_kwargs: dict[str, Any] = field(default_factory=dict)  # of a list, one entry per episode in turn
    policy_mixture: list[PolicyShare] = field(default_factory=list)  # several policies, instead of policy
    episodes: int = 200  # in all; may be raised later
    max_steps: int = 1000  # of an episode that the environment does not end
    seed: int = 0  # episode i starts from seed + i
    task: str | None = None  # in words; the environment's name by default
    store_as_video: bool = False  # mp4 instead of lossless images: small, but not ground truth
    publish_every: int = 20  # episodes after which they join the dataset: what a power cut can cost

    def __post_init__(self) -> None:
        above("seed", self.seed, -1)
        for name in ("episodes", "max_steps", "publish_every"):
            if getattr(self, name) < 1:
                complain(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.policy_mixture and (self.policy != "random_walk" or self.policy_kwargs):
            complain("give either policy or policy_mixture, not both")

    @property
    def shares(self) -> list[PolicyShare]:
        return self.policy_mixture or [PolicyShare(self.policy, self.policy_kwargs)]

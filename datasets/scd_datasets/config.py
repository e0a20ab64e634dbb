"""What a user can set when recording and checking: read-only dataclasses, no heavy import."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from scd_world.config import check_source

OnBadEpisode = Enum("OnBadEpisode", ["raise", "skip"])


@dataclass(frozen=True)
class PolicyShare:
    """One policy of a mixture."""

    policy: str
    policy_kwargs: dict[str, Any] = field(
        default_factory=dict
    )  # a list is gone through, one entry per episode
    flaws: dict[str, Any] = field(default_factory=dict)  # of scd_policies.flaws.Flaws; a list likewise
    share: int = 1  # episodes of each round through the mixture

    def __post_init__(self) -> None:
        if self.share < 1:
            raise ValueError(f"share of {self.policy} is {self.share}; it counts episodes, 1 or more")


@dataclass(frozen=True)
class RecordConfig:
    """Record a Gymnasium environment under one policy, or a mixture, into a LeRobotDataset v3.

    scd-record env=pusht policy=scripted_pusht policy_kwargs={skill:[1.0,0.5]} episodes=200 out=data/pusht
    scd-record env=pusht 'mix=[{policy:scripted_pusht,share:3},{policy:random_walk}]' out=data/pusht
    """

    env: str  # pusht, pendulum, or the id of a registered gymnasium environment
    out: str  # dataset folder; the same command again continues an interrupted recording
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    policy: str = "random_walk"
    policy_kwargs: dict[str, Any] = field(
        default_factory=dict
    )  # a list is gone through, one entry per episode
    mix: list[PolicyShare] = field(default_factory=list)  # several policies, instead of policy
    episodes: int = 200  # in all; may be raised later
    max_steps: int = 1000  # of an episode that the environment does not end
    seed: int = 0  # episode i starts from seed + i
    task: str | None = None  # in words; the environment's name by default
    videos: bool = False  # mp4 instead of lossless pictures: small, but not ground truth
    publish_every: int = 20  # episodes after which they join the dataset: what a power cut can cost

    def __post_init__(self) -> None:
        for name in ("episodes", "max_steps", "publish_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.mix and (self.policy != "random_walk" or self.policy_kwargs):
            raise ValueError("give either policy or mix, not both")

    @property
    def shares(self) -> list[PolicyShare]:
        return self.mix or [PolicyShare(self.policy, self.policy_kwargs)]


@dataclass(frozen=True)
class SourceConfig:
    """A LeRobotDataset v3: a folder, or its name on the Hugging Face Hub. Or a replay buffer's folder,
    or an HDF5 file of stable-worldmodel."""

    root: str | None = None
    repo_id: str | None = None
    revision: str | None = None
    cameras: list[str] = field(default_factory=list)  # short names of those to read; all by default
    # Numbers that are left out, as if not recorded: observation.environment_state, next.reward, …
    ignore: list[str] = field(default_factory=list)
    image_size: int | None = None  # shorter side in pixels; None: as recorded, 96 where that is above 160
    resize: str = "stretch"  # to one size for all cameras; letterbox: in their own proportions, on black
    fps: int | None = None  # of a replay buffer or an .h5 file, which store none
    decoder: str = "auto"  # of videos: torchcodec, pyav; auto: torchcodec where it loads

    def __post_init__(self) -> None:
        check_source(self.image_size, self.resize, self.fps, self.decoder)


@dataclass(frozen=True)
class CheckConfig:
    """Check a dataset and build the window store that training reads.

    scd-data data.root=data/pusht
    """

    data: SourceConfig = field(default_factory=SourceConfig)
    out: str | None = None  # the store; <root>.zarr by default (of a replay buffer <root>.windows.zarr)
    build: bool = True  # False: check only
    on_bad_episode: OnBadEpisode = OnBadEpisode["raise"]  # or skip: leave damaged episodes out and list them
    bench: bool = False  # measure how fast random windows come from the store; without data: a made-up one

    def __post_init__(self) -> None:
        given = [name for name in (self.data.root, self.data.repo_id) if name]
        if len(given) != 1 and not (self.bench and not given):
            raise ValueError(
                f"name the dataset by data.root=<folder> or by data.repo_id=<user/name>; got {given}"
            )

"""What a user can set of the page on which a world is driven. Without torch: --help answers at once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from scd_world.utils.checks import above, between, complain, one_of


@dataclass(frozen=True)
class PlayConfig:
    """Opens a page in the browser on which a person drives a world, and prints its address.

    scd-play world=scd_world/PushT-v0
    """

    world: str  # folder, name on the Hugging Face Hub, or an environment's id such as scd_world/PushT-v0
    policy: str = "random_walk"  # drives where the person does not: as scd-rollout's
    policy_kwargs: dict[str, Any] = field(default_factory=dict)  # the policy's own arguments
    simulator: str = "auto"  # the truth beside the world: pusht, pendulum, a gymnasium id, auto, none

    out: str = "data/played"  # dataset folder of kept episodes; nothing is written before one is kept
    record: bool = False  # keep every episode, as long as the page does not say otherwise
    store_as_video: bool = False  # mp4 instead of lossless images

    seed: int = 0  # the n-th episode of a browser starts from seed + n
    horizon: int = 2000  # steps of an episode at most
    num_steps: int | None = None  # denoising steps at the beginning; None: the world's own
    success_threshold: float = 0.5  # an episode ends when the predicted probability exceeds it; 1.0: never
    task: str | None = None  # one of the world's tasks; None: the one recorded at each start

    host: str = "127.0.0.1"  # this machine alone; another address asks for the token
    port: int = 8765  # 0: any free one
    token: str | None = None  # asked of every browser; None: none on this machine, else one is made
    open_browser: bool = False  # open the page in this machine's browser
    max_players: int = 4  # browsers at once; each has an environment of its own
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seed", self.seed, -1)
        for name in ("horizon", "max_players"):
            above(name, getattr(self, name), 0)
        if self.num_steps is not None:
            above("num_steps", self.num_steps, 0)
        between("success_threshold", self.success_threshold, 0, 1)
        between("port", self.port, 0, 65535)
        if self.policy == "replay":
            complain("policy=replay repeats recorded actions: scd-rollout does that")
        if self.token is not None and len(self.token) < 8:
            complain("token= is a secret of 8 characters or more; leave it out, and one is made")

    @property
    def is_local(self) -> bool:
        """Says whether no other machine can reach the page."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Says whether an address or name means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

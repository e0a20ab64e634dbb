"""What a user can set when ranking policies, and the list of them. Without torch, so that --help is quick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from scd_world.utils.bounded_yaml import check_yaml
from scd_world.utils.checks import above, between, complain, one_of
from scd_world.utils.renamed_settings import suggestion

SIDES = ("world", "simulator")


@dataclass(frozen=True)
class PolicyEntry:
    """One policy of the list: which it is, and how it is changed."""

    name: str  # of its results and of its point in the figure
    policy: str  # one of scd_policies.make's (module:name too), or a LeRobot checkpoint
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    degrade: dict[str, Any] = field(
        default_factory=dict
    )  # scd_policies.degraded.Degradation: delay, offset, …
    # A file of scd_policies.state_estimator: environment_state comes from the images alone.
    state_estimator: str | None = None
    group: str = ""  # its color in the figure
    needs_images: bool = True  # false: it uses none, and the simulator need not render them

    def __post_init__(self) -> None:
        if self.state_estimator is not None and not self.needs_images:
            complain(f"{self.name}: a state_estimator reads images; leave needs_images as it is")


@dataclass(frozen=True)
class RankConfig:
    """Rank policies in the imagination and in reality, and measure how well the two agree.

    scd-rank world=runs/mine/world policies=my_policies.yaml out=runs/rank
    scd-rank world=runs/mine/world policies=my_policies.yaml labels=robot.csv out=runs/rank
    """

    world: str  # folder, or name on the Hugging Face Hub
    policies: Any  # a list of {name:…, policy:…, policy_kwargs:{…}, …}, or a YAML file with one
    out: str  # folder of the results and of the report; results that are there are not played again
    simulator: str = "pusht"  # the reality: pusht, or another simulator whose reset takes an exact state
    simulator_kwargs: dict[str, Any] = field(default_factory=dict)  # the simulator's own arguments
    labels: str | None = None  # or a file of real outcomes: CSV or JSON of policy, episode, success

    episodes: int = 48  # of each policy on each side: the same starts and the same seeds
    max_steps: int | None = None  # of an episode; None: the world's horizon
    success_threshold: float = 0.5  # of the world's success probability
    task: str | None = None  # of every episode, and given to LeRobot's policies; None: the world's only one
    num_steps: int | None = None  # denoising steps; None: the world's own
    precision: str = "fp32"  # of the world; bf16, or auto: bf16 where the hardware has it
    batch_size: int = 24  # episodes that are played together

    only_policies: list[str] = field(default_factory=list)  # play these alone; the report needs them all
    only_sides: list[str] = field(default_factory=lambda: list(SIDES))  # play these sides alone
    bootstrap: int = 2000  # resamples
    threads: int | None = None  # None: torch's default
    seed: int = 0  # of starts, policies and noise
    device: str = "auto"  # auto: a GPU where there is one; cpu, cuda

    def __post_init__(self) -> None:
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        above("seed", self.seed, -1)
        one_of("precision", self.precision, ("fp32", "bf16", "auto"))
        for side in self.only_sides:
            one_of("only_sides", side, SIDES)
        for name in ("episodes", "batch_size", "bootstrap"):
            above(name, getattr(self, name), 0)
        for name in ("max_steps", "num_steps", "threads"):
            if getattr(self, name) is not None:
                above(name, getattr(self, name), 0)
        between("success_threshold", self.success_threshold, 0, 1)


def read_policies(given: Any) -> list[PolicyEntry]:
    """Reads the policies from a list, or from a YAML file (whose top is a list, or has one as `policies`).

    FileNotFoundError: no such file. ValueError: fewer than two, equal names, unknown keys.
    """
    where = "policies"
    if isinstance(given, str):
        if not Path(given).is_file():
            raise FileNotFoundError(f"policies={given}: no such file; expected a YAML file or a list")
        check_yaml(given)
        where, given = given, OmegaConf.to_container(OmegaConf.load(given), resolve=True)
    if isinstance(given, Mapping):
        given = given.get("policies")
    if not isinstance(given, Sequence) or len(given) < 2:
        raise ValueError(f"{where}: expected a list of at least two policies to rank; got {given!r}")
    entries = [_entry(one, where) for one in given]
    names = [entry.name for entry in entries]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{where}: two policies are called {double[0]!r}; names tell results apart")
    return entries


def _entry(one: Any, where: str) -> PolicyEntry:
    known = [field.name for field in fields(PolicyEntry)]
    if not isinstance(one, Mapping) or not {"name", "policy"} <= one.keys():
        raise ValueError(f"{where}: expected {{name: …, policy: …}} with perhaps {known[2:]}; got {one!r}")
    for key in one:
        if key not in known:
            hint = suggestion(str(key), known)
            raise ValueError(f"{where}: {one['name']} has an unknown key {key!r}{hint} (known: {known})")
    try:
        entry = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PolicyEntry), dict(one)))
    except OmegaConfBaseException as error:
        line = str(error).partition("\n")[0]
        raise ValueError(f"{where}: {one['name']}: {line} ({error.full_key})") from error
    assert isinstance(entry, PolicyEntry)
    if not entry.name or set(entry.name) & set('/\\:*?"<>|'):
        raise ValueError(f'{where}: {entry.name!r} is to name a file: without any of / \\ : * ? " < > |')
    return entry

"""What a user can set of the planners. Without torch, so that --help answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, get_type_hints

from scd_world.utils.checks import all_at_once, between, check_arguments, complain
from scd_world.utils.field_types import holds, in_words

MOST_STEPS, MOST_PLANS = 1000, 100_000
CHECKED = (int, float, str, bool | None, str | None)  # the rest is checked where it is used


@dataclass(frozen=True)
class PlannerConfig:
    """Holds what all planners share: how far they look, how they score, and whose proposals they start from.

    Values are per step and in raw units: with the defaults, a plan's value is a mean reward.

    Raises ValueError for a value out of its range; all that is wrong is said at once.
    """

    horizon: int = 20  # imagined steps of a plan
    execute: int = 5  # steps of it that are taken before the next plan is made
    discount: float = 0.99  # per step, above 0 and at most 1
    success_value: float = 1.0  # reward per step from a predicted success on
    uncertainty_penalty: float = 0.0  # reward lost per unit of uncertainty (error as a share of the ranges)

    base: Any = None  # a policy that proposes: by its name, a LeRobot folder or Hub id, or the object itself
    base_kwargs: dict[str, Any] = field(default_factory=dict)
    base_degrade: dict[str, Any] = field(default_factory=dict)  # of scd_policies.degraded: noise, delay, …
    base_needs_images: bool | None = None  # None: only one of LeRobot's does

    state_only: bool | None = None  # roll out the state prior alone; None: where images add nothing to it
    task: str | None = None  # one of the world's; None: its only one
    device: str = "auto"  # where a world is loaded

    def __post_init__(self) -> None:
        with all_at_once():
            self.check_types()
            self.check_ranges()

    def check_types(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if kind in CHECKED and not holds(getattr(self, name), kind):
                # Ranges of what is no number cannot be checked.
                raise ValueError(f"{name}={getattr(self, name)!r}: expected {in_words(kind)}")

    def check_ranges(self) -> None:
        between("horizon", self.horizon, 1, MOST_STEPS)
        if not 1 <= self.execute <= self.horizon:
            complain(f"execute={self.execute}: expected 1 to horizon={self.horizon}, the steps of a plan")
        if not 0 < self.discount <= 1:
            complain(f"discount={self.discount}: expected a number above 0 and at most 1")
        for name in ("success_value", "uncertainty_penalty"):
            if getattr(self, name) < 0:
                complain(f"{name}={getattr(self, name)}: expected 0 or more")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """Makes it of keyword arguments; TypeError names an unknown one, and a similar one."""
        check_arguments(settings, [one.name for one in fields(cls)], "this planner")
        return cls(**settings)


@dataclass(frozen=True)
class BestOfNConfig(PlannerConfig):
    """Holds what `best_of_n` takes."""

    n: int = 50  # proposals of the base policy

    def check_ranges(self) -> None:
        super().check_ranges()
        between("n", self.n, 1, MOST_PLANS)
        if self.base is None:
            complain("best_of_n chooses among the proposals of a policy: name one, base=…")


@dataclass(frozen=True)
class SearchConfig(PlannerConfig):
    """Holds what every search around a plan takes. Noise is in half ranges of the actions."""

    samples: int = 64  # plans per iteration
    iterations: int = 4
    std: float = 0.2  # of the noise that makes other plans of one
    noise_exponent: float = 2.0  # spectrum f^-β of the noise along a plan: 0 white, 2 like a random walk
    proposals: int = 8  # of the base policy, where there is one, among which the search begins

    def check_ranges(self) -> None:
        super().check_ranges()
        between("samples", self.samples, 2, MOST_PLANS)
        between("iterations", self.iterations, 1, 1000)
        between("proposals", self.proposals, 1, MOST_PLANS)
        between("noise_exponent", self.noise_exponent, 0, 10)
        if not 0 < self.std <= 10:
            complain(f"std={self.std}: expected half ranges of the actions, above 0 and at most 10")


@dataclass(frozen=True)
class ICEMConfig(SearchConfig):
    """Holds what `icem` takes."""

    elites: int = 8  # the best plans, to which the next iteration's are fitted
    keep: float = 0.3  # share of the elites that stay among the next iteration's plans
    momentum: float = 0.1  # share of the last mean and deviation that stays
    decay: float = 1.25  # each iteration tries so many times fewer plans than the last one

    def check_ranges(self) -> None:
        super().check_ranges()
        if not 2 <= self.elites <= self.samples:
            complain(f"elites={self.elites}: expected 2 to samples={self.samples}")
        between("keep", self.keep, 0, 1)
        between("momentum", self.momentum, 0, 1)
        between("decay", self.decay, 1, 10)


@dataclass(frozen=True)
class MPPIConfig(SearchConfig):
    """Holds what `mppi` takes."""

    temperature: float = 0.3  # of the weights, in standard deviations of the plans' values

    def check_ranges(self) -> None:
        super().check_ranges()
        if not self.temperature > 0:
            complain(f"temperature={self.temperature}: expected a number above 0")


@dataclass(frozen=True)
class GradientConfig(SearchConfig):
    """Holds what `gradient` takes."""

    samples: int = 8  # plans that are improved side by side
    iterations: int = 15
    std: float = 0.05
    lr: float = 0.02  # Adam's, in half ranges of the actions

    def check_ranges(self) -> None:
        super().check_ranges()
        if not self.lr > 0:
            complain(f"lr={self.lr}: expected half ranges of the actions, above 0")

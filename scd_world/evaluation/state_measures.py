"""What a state measure is: errors of an environment state that generic code cannot know the meaning of.

Generic code compares a state dimension by dimension. Where they have a meaning together, as the keypoints of
an object have, a `StateMeasure` computes errors in terms of that, and names them for tables and figures. The
measures in use are listed in `state_errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StateError:
    """How one error of the state is called."""

    name: str  # of its curve
    column: str  # in a table
    title: str  # of its panel in a figure
    unit: str


@dataclass(frozen=True)
class StateMeasure:
    """Errors of one kind of environment state.

    compute: predicted and true environment states (N, H, E), raw units → name → (N, H); empty where the
    state is of another kind.
    """

    errors: tuple[StateError, ...]
    compute: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]

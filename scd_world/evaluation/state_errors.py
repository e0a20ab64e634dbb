"""Errors of predicted states: per group of the schema, and those that a state's own measure knows.

For the state of a simulator or robot of your own, add its `StateMeasure` to MEASURES.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from scd_world.evaluation.pusht_errors import BLOCK_POSE
from scd_world.evaluation.state_measures import StateError, StateMeasure
from scd_world.reporting.units import UNKNOWN, unit_of
from scd_world.robot_data.schema import DataSchema

MEASURES: tuple[StateMeasure, ...] = (BLOCK_POSE,)

AGENT = StateError("agent_distance", "agent", "Agent: position error", UNKNOWN)
ENVIRONMENT = StateError(
    "error_environment_state", "environment state", "Environment state: mean error", UNKNOWN
)
OBJECTS = StateError("object_distance", "objects found", "Objects found in the pictures: distance", "px")
OF_MEASURES = tuple(error for measure in MEASURES for error in measure.errors)
SHOWN = (AGENT, *OF_MEASURES, OBJECTS, ENVIRONMENT)  # in tables and figures, in this order


def state_errors(state: np.ndarray, truth: np.ndarray, schema: DataSchema) -> dict[str, np.ndarray]:
    """Computes mean |error| per group, the agent's distance, and the errors of every measure that applies.

    state, truth: (N, H, S) in raw units. Gives name → (N, H).
    """
    P, S = len(schema.agent_pos), len(schema.state)
    errors = {}
    for group, dims in {"agent_pos": slice(0, P), "environment_state": slice(P, S)}.items():
        if schema.state[dims]:
            errors[f"error_{group}"] = np.abs(state - truth)[..., dims].mean(-1)
    if P:
        errors["agent_distance"] = np.linalg.norm((state - truth)[..., :P], axis=-1)
    for measure in MEASURES:
        errors |= measure.compute(state[..., P:], truth[..., P:])
    return errors


def error_units(schema: DataSchema) -> dict[str, str]:
    """Gives each error's unit, as far as the schema's names or the error's own measure tell it."""
    of_names = {AGENT: schema.agent_pos, ENVIRONMENT: schema.environment_state}
    return {error.name: unit_of(of_names[error]) if error in of_names else error.unit for error in SHOWN}


def errors_to_show(known: Container[str], suffix: str) -> list[StateError]:
    """Selects the errors whose name with `suffix` is among the known ones.

    The environment state's mean error is left out where a measure says the same more clearly.
    """
    shown = [error for error in SHOWN if f"{error.name}{suffix}" in known]
    measured = any(error in OF_MEASURES for error in shown)
    return [error for error in shown if error is not ENVIRONMENT or not measured]

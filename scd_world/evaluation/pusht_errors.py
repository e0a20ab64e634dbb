"""PushT's own measure of a state: how far the T-shaped block is off, computed from its recorded keypoints."""

from __future__ import annotations

import logging

import numpy as np

from scd_world.evaluation.state_measures import StateError, StateMeasure
from scd_world.metrics.statistics import angle_between

log = logging.getLogger(__name__)

RIGID = 1.0  # px: eight recorded keypoints that fit PushT's T this well are PushT's T


def block_errors(keypoints: np.ndarray, truth: np.ndarray) -> dict[str, np.ndarray]:
    """Computes the T's position error (px) and angle error (degrees), where the state is its keypoints.

    keypoints, truth: (N, H, 16) px. Gives name → (N, H); empty for any other environment state, and, with a
    warning, where PushT's simulator is not installed.
    """
    if truth.shape[-1] != 16:
        return {}
    try:
        from scd_envs.simulators.pusht import block_keypoints, block_pose
    except ImportError as error:
        log.warning("no block pose error: %s (pip install 'lerobot_env_scd_world[pusht]')", error)
        return {}
    true_pose, pose = block_pose(truth), block_pose(keypoints)
    residual = np.abs(block_keypoints(true_pose) - truth)
    if not np.nanmedian(residual) < RIGID:
        return {}  # sixteen numbers, but not that T
    return {
        "block_distance": np.linalg.norm((pose - true_pose)[..., :2], axis=-1),
        "block_angle": np.degrees(angle_between(pose[..., 2], true_pose[..., 2])),
    }


BLOCK_POSE = StateMeasure(
    errors=(
        StateError("block_distance", "block", "Block: position error", "px"),
        StateError("block_angle", "block angle", "Block: angle error", "°"),
    ),
    compute=block_errors,
)

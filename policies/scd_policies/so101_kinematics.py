"""Where the SO-101's fingers are, and the joint angles that bring them to a point, pointing straight down.

Pan turns a vertical plane about the base; in it two links and a wrist make an elbow that has a closed form.
Lengths in m, in the frame of the arm's base; x points forward, z up. Angles in degrees, as LeRobot has them.
"""

from __future__ import annotations

import numpy as np

PAN_AXIS = 0.0388  # forward of the base's origin
SHOULDER = np.array([0.0304, 0.1166])  # from the pan axis: forward, up
# With all joints at 0: shoulder to elbow, elbow to wrist, wrist to the point between the fingertips.
UPPER, LOWER, HAND = np.array([0.0280, 0.1126]), np.array([0.1349, 0.0052]), 0.1583
GRASP_OFFSET = 0.0181  # of that point from the roll axis, along the jaws
JAW_TWIST = np.rad2deg(0.0487)  # between the jaws' direction and the plane of the arm at a roll of 0

_LENGTHS = np.hypot(*UPPER), np.hypot(*LOWER)
_ANGLES = np.arctan2(*UPPER), np.arctan2(*LOWER)  # from the vertical, forward


def joints_above(point: np.ndarray) -> np.ndarray:
    """Gives the five joints (…, 5) that bring the point between the fingertips to (…, 3), pointing down.

    The jaws close along y. A point out of reach gives the joints of the nearest one that is not.
    """
    x, y, z = np.moveaxis(np.asarray(point, np.float64), -1, 0)
    forward, left = x - PAN_AXIS, y - GRASP_OFFSET  # of the roll axis
    pan = np.arctan2(left, forward)
    r, h = np.hypot(forward, left) - SHOULDER[0], z + HAND - SHOULDER[1]
    upper, lower = _LENGTHS
    reach = np.clip(np.hypot(r, h), abs(upper - lower) + 1e-6, upper + lower - 1e-6)
    # The law of cosines; the elbow is above.
    inner = np.arccos(np.clip((upper**2 + reach**2 - lower**2) / (2 * upper * reach), -1, 1))
    bend = np.arccos(np.clip((reach**2 - upper**2 - lower**2) / (2 * upper * lower), -1, 1))
    lift = np.arctan2(r, h) - inner - _ANGLES[0]
    elbow = _ANGLES[0] + bend - _ANGLES[1]
    wrist = np.pi / 2 - lift - elbow
    roll = np.pi / 2 - pan
    joints = np.rad2deg(np.stack([-pan, lift, elbow, wrist, roll], axis=-1))
    return joints + np.array([0, 0, 0, 0, JAW_TWIST])


def fingertips(joints: np.ndarray) -> np.ndarray:
    """Gives the point between the fingertips (…, 3) of the joints (…, 5 or more)."""
    pan, lift, elbow, wrist, roll = np.moveaxis(np.deg2rad(np.asarray(joints, np.float64)[..., :5]), -1, 0)
    roll = roll - np.deg2rad(JAW_TWIST)
    upper, lower = _LENGTHS
    a, b, c = lift + _ANGLES[0], lift + elbow + _ANGLES[1], lift + elbow + wrist + np.pi / 2
    # The jaws' direction: at a roll of 0 it lies in the plane, at right angles to the hand.
    along, across = GRASP_OFFSET * np.cos(roll), GRASP_OFFSET * np.sin(roll)
    forward = SHOULDER[0] + upper * np.sin(a) + lower * np.sin(b) + HAND * np.sin(c) - along * np.cos(c)
    up = SHOULDER[1] + upper * np.cos(a) + lower * np.cos(b) + HAND * np.cos(c) + along * np.sin(c)
    x = PAN_AXIS + forward * np.cos(pan) + across * np.sin(pan)
    y = -forward * np.sin(pan) + across * np.cos(pan)
    return np.stack([x, y, up], axis=-1)

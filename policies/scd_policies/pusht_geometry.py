"""Geometry of PushT's T: where it can be pushed, which way that moves it, how the disc gets around it.

Everything here is in the T's own frame: px, origin at its center of gravity, bar above (y < 0), stem below.
The block has mass 1, inertia 3000, no friction with the disc, and stops at once: an impulse J at r along f
moves it by J·(f, r×f / 3000). With angles measured in units of RADIUS, the radius of gyration, twists
(x, y, RADIUS·θ) have the impulse's own metric, and the best amount of a push is a plain projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CENTER = np.array([0.0, 45.0])  # the center of gravity in the frame that gym-pusht states poses in
RADIUS = np.sqrt(3000.0)
DISC = 15.0  # the agent's radius
KEYPOINTS = (
    np.array([[-60, 0], [60, 0], [60, 30], [-60, 30], [-15, 30], [15, 30], [15, 120], [-15, 120]]) - CENTER
)
# Places around the T from which its corners are passed without contact.
WAYPOINTS = np.array([[-84, -24], [84, -24], [84, 54], [39, 144], [-39, 144], [-84, 54]]) - CENTER

_BOX_CENTERS = np.array([[0, 15], [0, 75]]) - CENTER  # bar, stem
_BOX_HALVES = np.array([[60, 15], [15, 45]])
# Edges that the disc can push: from, to, outward normal; they stop short of corners and of the inner angles.
_EDGES = (
    ((-57, 0), (57, 0), (0, -1)),
    ((-60, 3), (-60, 27), (-1, 0)),
    ((60, 3), (60, 27), (1, 0)),
    ((-57, 30), (-32, 30), (0, 1)),
    ((32, 30), (57, 30), (0, 1)),
    ((-15, 47), (-15, 117), (-1, 0)),
    ((15, 47), (15, 117), (1, 0)),
    ((-12, 120), (12, 120), (0, 1)),
)


@dataclass(frozen=True)
class Contacts:
    """Holds N places to push, evenly along the edges."""

    point: np.ndarray  # (N, 2)
    normal: np.ndarray  # (N, 2) outward
    twist: np.ndarray  # (N, 3) of a unit impulse against the normal
    unit: np.ndarray  # (N, 3) its direction

    def disc(self, gap: float) -> np.ndarray:
        """Gives (N, 2): the disc's center at `gap` px from each contact; negative: pushed in."""
        return self.point + (DISC + gap) * self.normal


def contact_points(spacing: float = 5.0) -> Contacts:
    """Lists contacts about `spacing` px apart."""
    points, normals = [], []
    for start, end, normal in _EDGES:
        start, end = np.array(start) - CENTER, np.array(end) - CENTER
        count = 1 + round(np.linalg.norm(end - start) / spacing)
        points.append(np.linspace(start, end, count))
        normals.append(np.tile(normal, (count, 1)))
    point, normal = np.concatenate(points), np.concatenate(normals).astype(float)
    turn = -(point[:, 0] * normal[:, 1] - point[:, 1] * normal[:, 0]) / RADIUS
    twist = np.column_stack([-normal, turn])
    return Contacts(point, normal, twist, twist / np.linalg.norm(twist, axis=1, keepdims=True))


def keypoint_displacement(twist: np.ndarray) -> np.ndarray:
    """Gives, for small twists (N, 3), how far each keypoint goes: (N, 8, 2) px."""
    turn = twist[:, 2, None] / RADIUS
    return twist[:, None, :2] + np.stack([-turn * KEYPOINTS[:, 1], turn * KEYPOINTS[:, 0]], axis=-1)


def distance(points: np.ndarray) -> np.ndarray:
    """Measures points (…, 2): px to the T's outline (…), negative inside."""
    # By coordinate: reducing an axis of length 2 costs numpy more than the sums themselves.
    x, y = (np.abs(points[..., d, None] - _BOX_CENTERS[:, d]) - _BOX_HALVES[:, d] for d in (0, 1))
    outside = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2)
    signed = outside + np.minimum(np.maximum(x, y), 0)
    return np.minimum(signed[..., 0], signed[..., 1])


def is_clear(start: np.ndarray, end: np.ndarray, samples: int = 24) -> np.ndarray:
    """Says, for (…, 2) and (…, 2), whether the disc gets straight from `start` to `end` without a push: (…).

    A disc that already touches the T may slide along it and leave it.
    """
    part = np.linspace(0, 1, samples)[:, None]
    clearance = distance(start[..., None, :] + part * (end - start)[..., None, :])
    return np.all(clearance >= np.minimum(DISC + 1, clearance[..., :1] - 0.01), axis=-1)


def straight_length(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Gives, for (…, 2) and (…, 2), the length of the straight way (…), infinite where it is not clear."""
    return np.where(is_clear(start, end), np.linalg.norm(end - start, axis=-1), np.inf)


RING = straight_length(WAYPOINTS[:, None], WAYPOINTS[None])


def shortest_path(
    start: np.ndarray, ends: np.ndarray, open_waypoints: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the ways from `start` (2,) around the T to each of `ends` (N, 2): the next place to go (N, 2),
    and the length (N,).

    open_waypoints: (6,) bool, those that the disc can be at. Where no way is found, the length is infinite
    and the next place is the end itself.
    """
    closed = np.where(open_waypoints, 0.0, np.inf)
    between = RING + closed
    for middle in range(len(between)):  # Floyd and Warshall
        between = np.minimum(between, between[:, middle, None] + between[middle])
    last = (between[:, :, None] + straight_length(WAYPOINTS[:, None], ends[None])).min(1)  # (6, N)
    around = straight_length(start, WAYPOINTS)[:, None] + closed[:, None] + last
    direct = straight_length(start, ends)
    first = around.argmin(0)
    shortest = around[first, np.arange(len(ends))]
    place = np.where((shortest < direct)[:, None], WAYPOINTS[first], ends)
    return place, np.minimum(shortest, direct)

"""The rotation and translation that move a planar shape onto observed points: a least-squares rigid fit.

Points are complex numbers, x + iy. With p the centroid of the points z, and m the shape about its own
centroid, z = p + e^{iθ} m fits best, in the mean of squares, at

    e^{iθ} ∝ Σ (z − p) · conj(m)
"""

from __future__ import annotations

import numpy as np


def rigid_fit(points: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits a rigid motion of the plane.

    points: complex (…, N), where the shape's N points were observed, in their order.
    shape: complex (N,), the points of the shape itself; their mean is 0.

    Gives the centroid (…,) complex, and the rotation (…,) as a complex number of length 1.
    """
    center = points.mean(-1)
    turn = ((points - center[..., None]) * shape.conj()).sum(-1)
    return center, turn / abs(turn)

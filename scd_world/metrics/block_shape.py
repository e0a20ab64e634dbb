"""Does PushT's block keep its shape in a picture? Its area, and how far its outline is from any T's.

Both are read off the colors alone: nothing here was ever trained, so nothing has learned to forgive. Lengths
are in px of PushT's square of 512, whatever the size of the picture.

B frames of H W pixels, n points of an outline, K fits at a time. Frames are uint8 (B, H, W, 3), RGB.
"""

from __future__ import annotations

import numpy as np

# PushT's colors, as gym-pusht draws them: block, ground, goal, agent.
COLORS = np.array([[119, 136, 153], [255, 255, 255], [144, 238, 144], [78, 126, 255]], dtype=float)
SHARES = np.linalg.inv(np.column_stack([COLORS, np.ones(4)]))  # (R, G, B, 1) → share of each color
SIDE = 512.0
# The T as two boxes, bar and whole length: where boxes only touch, their seam would look like an edge.
CENTERS, HALVES = np.array([[0.0, 15], [0, 60]]), np.array([[60.0, 15], [15, 60]])
BORDER = 2.0  # px, that gym-pusht draws around it
AREA = 7260.0  # px², the border included
CENTROID = np.array([0.0, 285 / 7])  # of its area
RADIUS = 55.0  # px: about its radius of gyration, by which a turn moves its outline
ANGLES = np.arange(12) * np.pi / 6  # at which a fit starts
FIRST, LAST, KEPT = 4, 10, 3  # iterations with all of them, and with the best of them
FEWEST = 8  # points that three unknowns are fitted to
SIMILAR = 0.15  # share of its area by which a T may differ from PushT's


def is_pusht(frames: np.ndarray) -> bool:
    """Says whether recorded frames show PushT's T: half of them its area and, to a pixel, its outline."""
    area, error = block_shape(frames)
    pixel = SIDE / min(frames.shape[1:3])
    return bool(abs(np.median(area) / AREA - 1) < SIMILAR and np.median(error) < pixel)


def block_shape(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measures the block's area in px², (B,), and how far its outline is from a T's, (B,) in px.

    The block is the largest piece of its color. The latter is the root mean square distance of the outline's
    points from the T that fits them best, moved and turned; NaN where there is no outline.
    """
    covers = np.stack([largest_piece(cover) for cover in block_cover(frames)])
    H, W = covers.shape[1:]
    area = (covers > 0.5).mean((1, 2)) * SIDE**2
    return area, np.array([outline_error(outline(cover) * (SIDE / W, SIDE / H)) for cover in covers])


def block_cover(frames: np.ndarray) -> np.ndarray:
    """Computes which share of each pixel is the block's, (B, H, W) in [0, 1].

    Edges mix two colors, and four shares that sum to one follow from three channels. The nearest color would
    take the agent's edge, half blue and half white, for the block.
    """
    return (frames @ SHARES[:3, 0] + SHARES[3, 0]).clip(0, 1)


def largest_piece(cover: np.ndarray) -> np.ndarray:
    """Clears all pieces of the cover (H, W) but the largest: a single pixel of the agent's edge, a shade too
    gray, would be an outline of its own."""
    from scipy.ndimage import label

    pieces, count = label(cover > 0.5)
    if count < 2:
        return cover
    sizes = np.bincount(pieces.ravel())[1:]
    return np.where((pieces > 0) & (pieces != 1 + sizes.argmax()), 0.0, cover)


def outline(cover: np.ndarray) -> np.ndarray:
    """Finds where the cover (H, W) crosses one half between neighbors: points (n, 2), x and y in pixels."""
    points = []
    for axis, ahead in enumerate(([0.0, 1.0], [1.0, 0.0])):
        a, b = (cover[:-1], cover[1:]) if axis == 0 else (cover[:, :-1], cover[:, 1:])
        y, x = np.nonzero((a > 0.5) != (b > 0.5))
        part = (0.5 - a[y, x]) / (b[y, x] - a[y, x])
        points.append(np.stack([x + 0.5, y + 0.5], axis=1) + part[:, None] * ahead)
    return np.concatenate(points)


# ---- fitting a T ---------------------------------------------------------------------------------


def outline_error(points: np.ndarray) -> float:
    """Fits a T to points (n, 2) in px, by Gauss and Newton from several angles; gives what is left in px."""
    if len(points) < FEWEST:
        return float("nan")
    angle = ANGLES
    place = (points.min(0) + points.max(0)) / 2 - turns(angle) @ CENTROID
    for i in range(FIRST + LAST):
        place, angle, error = improve(points, place, angle)
        if i == FIRST - 1:
            best = np.argsort(error)[:KEPT]
            place, angle = place[best], angle[best]
    return float(error.min())


def improve(
    points: np.ndarray, place: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes one step from each pose, place (K, 2) and angle (K,); gives the next, and the errors before."""
    R = turns(angle)
    q = np.einsum("kji,knj->kni", R, points - place[:, None])  # where each T has the points
    r = distance(q)
    slope = np.stack([(distance(q + 1e-3 * axis) - r) / 1e-3 for axis in np.eye(2)], axis=-1)
    moved = -np.einsum("kij,knj->kni", R, slope)
    turned = (slope[..., 0] * q[..., 1] - slope[..., 1] * q[..., 0]) / RADIUS
    J = np.concatenate([moved, turned[..., None]], axis=-1)  # (K, n, 3)
    normal = np.einsum("kni,knj->kij", J, J) + 1e-2 * len(points) * np.eye(3)
    step = np.linalg.solve(normal, np.einsum("kni,kn->ki", J, r)[..., None])[..., 0]
    return place - step[:, :2], angle - step[:, 2] / RADIUS, np.sqrt((r**2).mean(1))


def turns(angle: np.ndarray) -> np.ndarray:
    """Gives the rotations by these angles (K,), (K, 2, 2)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], axis=-2)


def distance(q: np.ndarray) -> np.ndarray:
    """Measures points (…, 2) in the T's own frame: px to its outline (…), negative inside."""
    outside = np.abs(q[..., None, :] - CENTERS) - HALVES
    signed = np.hypot(*np.moveaxis(np.maximum(outside, 0), -1, 0)) + np.minimum(outside.max(-1), 0)
    return signed.min(-1) - BORDER

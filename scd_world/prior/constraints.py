"""Laws that all recorded states obey, and imagined ones shall obey too.

The corners of a rigid block keep their distances, a sine its cosine, a quaternion its length. A network that
predicts each number by itself breaks such laws a little at every step, and a long rollout deforms what it
imagines. They are found in the recordings, as what has no spread there: linear laws first (of PushT's 18
numbers 6 are free), then quadratic ones among what is free (the block neither grows nor shrinks). After each
prediction one damped Newton step leads back.

R rows, S state, r free dimensions, m quadratic laws; everything in model units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scd_world.robot_data.normalizer import Stats, no_laws

EXACT = 1e-4  # relative root mean square below which a quantity is taken for constant
ROWS_PER_UNKNOWN = 20  # fewer would find laws by accident
MOST_FREE = 32  # dimensions; beyond, quadratic laws are too many to look for
ROWS = 20_000
FARTHEST = 0.5  # of the usual change per step: a law corrects, it does not steer


class Laws(nn.Module):
    def __init__(self, stats: Stats) -> None:
        super().__init__()
        for name in ("law_mean", "law_span", "law_squares"):
            self.register_buffer(name.removeprefix("law_"), getattr(stats, name).clone(), persistent=False)
        self.register_buffer("pairs", pairs(len(self.span)), persistent=False)
        self.any = len(self.span) < len(self.mean) or len(self.squares) > 0
        self.farthest = FARTHEST * float(stats.state_change.square().sum().sqrt())

    def forward(self, state: Tensor) -> Tensor:
        """The state (…, S) that obeys the laws, near this one."""
        if not self.any:
            return state
        z = (state - self.mean) @ self.span.T
        if len(self.squares):
            z = z + self.correction(z)
        return self.mean + z @ self.span

    def correction(self, z: Tensor) -> Tensor:
        """(…, r) the shortest step after which q(z) = 0, to first order; never a long one."""
        q = features(z, self.pairs) @ self.squares.T  # (…, m)
        slope = torch.einsum("mf,...fr->...mr", self.squares, feature_slopes(z, self.pairs))
        gram = slope @ slope.mT
        damping = 1e-3 * (gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-6)
        gram = gram + damping * torch.eye(q.shape[-1], device=z.device)
        # solve_ex: the other one asks the device whether it could, and waits for the answer.
        step = -(slope.mT @ torch.linalg.solve_ex(gram, q[..., None]).result)[..., 0]
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
        return step * (self.farthest / length.clamp_min(1e-9)).clamp_max(1.0)


def pairs(r: int) -> Tensor:
    """(2, r·(r + 1) / 2): each two of r numbers, and each with itself."""
    return torch.triu_indices(r, r)


def features(z: Tensor, pairs: Tensor) -> Tensor:
    """1, each number, each product of two: (…, r) → (…, 1 + r + r·(r + 1) / 2)."""
    i, j = pairs
    return torch.cat([torch.ones_like(z[..., :1]), z, z[..., i] * z[..., j]], dim=-1)


def feature_slopes(z: Tensor, pairs: Tensor) -> Tensor:
    """(…, features, r) their derivatives."""
    r, (i, j) = z.shape[-1], pairs
    eye = torch.eye(r, device=z.device, dtype=z.dtype)
    products = z[..., j, None] * eye[i] + z[..., i, None] * eye[j]
    fixed = torch.cat([torch.zeros_like(eye[:1]), eye]).expand(*z.shape[:-1], -1, -1)
    return torch.cat([fixed, products], dim=-2)


def fit_laws(state: Tensor) -> dict[str, Tensor]:
    """The fields of Stats, of recorded states (R, S)."""
    R, S = state.shape
    if not S or ROWS_PER_UNKNOWN * S > R:
        return no_laws(S)
    g = torch.Generator().manual_seed(0)
    x = state[torch.randperm(R, generator=g)[:ROWS]].double()
    mean = x.mean(0)
    span = free_directions(x - mean)
    if len(span) == S:  # as they are: a turn of the axes would only round
        mean, span = torch.zeros_like(mean), torch.eye(S, dtype=torch.float64)
    z, r = (x - mean) @ span.T, len(span)
    count = 1 + r + r * (r + 1) // 2
    squares = torch.zeros(0, count, dtype=torch.float64)
    if r <= MOST_FREE and ROWS_PER_UNKNOWN * count <= R:
        squares = constant_squares(z)
    return {"law_mean": mean.float(), "law_span": span.float(), "law_squares": squares.float()}


def free_directions(x: Tensor) -> Tensor:
    """(r, S) orthonormal: those in which x (R, S), of mean 0, spreads."""
    spread, directions = torch.linalg.eigh(x.T @ x / len(x))
    free = spread.clamp_min(0).sqrt() > EXACT * spread.amax().sqrt()
    return directions[:, free].T


def constant_squares(z: Tensor) -> Tensor:
    """(m, features): the combinations q of squares, products and numbers that are 0 in all rows z (R, r)."""
    f = features(z, pairs(z.shape[-1]))
    scale = f.square().mean(0).sqrt().clamp_min(1e-12)
    size, combinations = torch.linalg.eigh((f / scale).T @ (f / scale) / len(f))
    constant = size.clamp_min(0).sqrt() < EXACT
    return combinations[:, constant].T / scale

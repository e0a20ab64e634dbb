"""Constraints that all recorded states obey, and imagined ones shall obey too.

The corners of a rigid block keep their distances, a sine its cosine, a quaternion its length. A network that
predicts each number by itself breaks them a little at every step, and a long rollout deforms what it
imagines. They are found in the recordings, as what has no spread there: linear ones first (of PushT's 18
numbers 6 are free), then quadratic ones among what is free (the block neither grows nor shrinks). After each
prediction one damped Newton step leads back.

R rows, S state, r free dimensions, m quadratic constraints; everything in model units.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from scd_world.robot_data.normalizer import Normalizer

CONSTANT_TOLERANCE = 1e-4  # relative root mean square below which a quantity is taken for constant
ROWS_PER_UNKNOWN = 20  # fewer would find constraints by accident
MAX_FREE_DIMS = 32  # dimensions; beyond, quadratic constraints are too many to look for
ROWS = 20_000
MAX_CORRECTION = 0.5  # of the usual change per step: a constraint corrects, it does not steer


class StateConstraints(nn.Module):
    mean: Tensor  # (S,)
    basis: Tensor  # (r, S) orthonormal: the directions in which states are free
    quadratics: Tensor  # (m, features) combinations that are zero in all recorded states
    # The same as q(z) = constant + linear z + ½ zᵀ hessian z:
    constant: Tensor  # (m,)
    linear: Tensor  # (m, r)
    hessian: Tensor  # (r, m·r), of each of the m its rows side by side

    def __init__(self, normalizer: Normalizer) -> None:
        """Every number of the state is free; `fit` changes that."""
        super().__init__()
        size = len(normalizer.state_low)
        self.set(torch.zeros(size), torch.eye(size), torch.zeros(0, 1 + size + size * (size + 1) // 2))
        self.farthest = MAX_CORRECTION * float(normalizer.state_delta_rms.square().sum().sqrt())

    def set(self, mean: Tensor, basis: Tensor, quadratics: Tensor) -> None:
        """Replaces the constraints; how many there are shows in the shapes."""
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.register_buffer("quadratics", quadratics)
        forms = quadratic_forms(quadratics, len(basis))
        for name, part in zip(("constant", "linear", "hessian"), forms, strict=True):
            self.register_buffer(name, part, persistent=False)
        self.any = len(basis) < len(mean) or len(quadratics) > 0

    def fit(self, state: Tensor) -> None:
        """Finds what all recorded states (R, S) have in common."""
        self.set(*(part.to(self.mean.device) for part in fit_constraints(state)))

    def _load_from_state_dict(self, weights: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Takes constraints of other shapes than its own: they are found in data, not built."""
        names = ("mean", "basis", "quadratics")
        if all(prefix + name in weights for name in names) and len(weights[f"{prefix}mean"]) == len(
            self.mean
        ):
            self.set(*(weights[prefix + name].to(self.mean) for name in names))
        super()._load_from_state_dict(weights, prefix, *rest)

    def forward(self, state: Tensor) -> Tensor:
        """The state (…, S) that obeys the constraints, near this one."""
        if not self.any:
            return state
        z = (state - self.mean) @ self.basis.T
        if len(self.quadratics):
            z = z + self.correction(z)
        return self.mean + z @ self.basis

    def correction(self, z: Tensor) -> Tensor:
        """(…, r) the shortest step after which q(z) = 0, to first order; never a long one."""
        slope = self.linear + (z @ self.hessian).unflatten(-1, self.linear.shape)  # (…, m, r)
        q = self.constant + ((self.linear + slope) @ z[..., None])[..., 0] / 2  # (…, m)
        gram = slope @ slope.mT
        damping = 1e-3 * (gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + 1e-6)
        gram = gram + damping * torch.eye(q.shape[-1], device=z.device)
        # solve_ex: the other one asks the device whether it could, and waits for the answer.
        step = -(slope.mT @ torch.linalg.solve_ex(gram, q[..., None]).result)[..., 0]
        length = torch.linalg.vector_norm(step, dim=-1, keepdim=True)
        return step * (self.farthest / length.clamp_min(1e-9)).clamp_max(1.0)


def index_pairs(r: int) -> Tensor:
    """(2, r·(r + 1) / 2): each two of r numbers, and each with itself."""
    return torch.triu_indices(r, r)


def quadratic_features(z: Tensor, pairs: Tensor) -> Tensor:
    """1, each number, each product of two: (…, r) → (…, 1 + r + r·(r + 1) / 2)."""
    i, j = pairs
    return torch.cat([torch.ones_like(z[..., :1]), z, z[..., i] * z[..., j]], dim=-1)


def quadratic_forms(quadratics: Tensor, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gives constant (m,), linear (m, r) and Hessian (r, m·r) of combinations (m, features) of r numbers."""
    m = len(quadratics)
    if not m:
        return quadratics.new_zeros(0), quadratics.new_zeros(0, r), quadratics.new_zeros(r, 0)
    constant, linear, products = quadratics.split([1, r, r * (r + 1) // 2], dim=1)
    half = quadratics.new_zeros(m, r, r)
    i, j = index_pairs(r).to(half.device)
    half[:, i, j] = products
    return constant[:, 0].clone(), linear.clone(), rearrange(half + half.mT, "m r s -> s (m r)")


def fit_constraints(state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finds mean (S,), basis (r, S) and quadratics (m, features) of recorded states (R, S)."""
    R, S = state.shape
    if not S or ROWS_PER_UNKNOWN * S > R:
        return torch.zeros(S), torch.eye(S), torch.zeros(0, 1 + S + S * (S + 1) // 2)
    g = torch.Generator().manual_seed(0)
    x = state[torch.randperm(R, generator=g)[:ROWS]].double()
    mean = x.mean(0)
    basis = free_directions(x - mean)
    if len(basis) == S:  # as they are: a turn of the axes would only round
        mean, basis = torch.zeros_like(mean), torch.eye(S, dtype=torch.float64)
    z, r = (x - mean) @ basis.T, len(basis)
    count = 1 + r + r * (r + 1) // 2
    quadratics = torch.zeros(0, count, dtype=torch.float64)
    if r <= MAX_FREE_DIMS and ROWS_PER_UNKNOWN * count <= R:
        quadratics = constant_quadratics(z)
    return mean.float(), basis.float(), quadratics.float()


def free_directions(x: Tensor) -> Tensor:
    """(r, S) orthonormal: those in which x (R, S), of mean 0, spreads."""
    spread, directions = torch.linalg.eigh(x.T @ x / len(x))
    free = spread.clamp_min(0).sqrt() > CONSTANT_TOLERANCE * spread.amax().sqrt()
    return directions[:, free].T


def constant_quadratics(z: Tensor) -> Tensor:
    """(m, features): the combinations q of squares, products and numbers that are 0 in all rows z (R, r)."""
    f = quadratic_features(z, index_pairs(z.shape[-1]))
    scale = f.square().mean(0).sqrt().clamp_min(1e-12)
    size, combinations = torch.linalg.eigh((f / scale).T @ (f / scale) / len(f))
    constant = size.clamp_min(0).sqrt() < CONSTANT_TOLERANCE
    return combinations[:, constant].T / scale

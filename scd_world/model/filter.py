"""A filter: what is drawn without looking at frames between corrects the one that was imagined.

A rollout drifts; what the state prior draws of a state, and of what the last shown frame told of the scene
(`prior.render`), does not, and knows less. That drawing d is to the rollout what a measurement is to a Kalman
filter. With x the imagined frame, a the last frame that was shown (the anchor), and d_a the drawing of the
state there:

    m = d + w·(a − d_a)      w = exp(−(|d − d_a| / reach)²)
    x̂ ← x̂ + g₁·(m − x̂)       the clean frame that the first denoising step sees in pure noise
    x ← x + g·G(m − x) + g²·(m − x − G(m − x))      the frame that comes of it
    g = P_k / (P_k + R²),  g₁ = P / (P + R²),  R = mean (a − d_a)²

The first correction says where the denoising begins, and the decoder has the last word: from m on it draws
what m lacks. The second one is of what the decoder has made worse.

Where the drawing says that nothing has changed, what it did not know of this episode still holds (w). Before
a camera that rides on the robot it holds where that place is seen now: with ã and d̃_a, the same two frames as
the camera sees them from where it has gone (`prior.follow`), and w̃ = exp(−(|d − d̃_a| / reach)²),

    m = d + w̃·(ã − d̃_a) + (1 − w̃)·w·(a − d_a)

for what rides along, as a gripper does, is still where it was in the picture. And where dense motion is
learned (`prior.move_shown`), which brings each thing to where it has gone, m is what comes of that. R is how
far off the drawing was where that could be seen. Of a state alone, in a pose unlike all that were recorded, a
drawing is confetti: where it was farther off than ever when the filter was measured, it corrects nothing (the
gate of a Kalman filter); one that knows the scene is better than none even there. G is a Gaussian blur: a
drawing is a mean of what a state may look like, and right where it is coarse; the grain of what was imagined
is kept, unless the drawing is trusted so much that all of it is taken. P_k, how much is to be corrected after
k imagined steps, P, the reach and the width of G are measured (`fit_filter.py`), not learnt.

And where the robot stands still, so does the picture: of a state that goes on by less than `still` the frame
before is kept as it is.

Like a Kalman filter, this one says how sure it is. The error of the picture to expect is

    e = exp(w · [1, ln k, ln R', ln |m − x|, ln |d − d_a|, ln E])

of the k-th step since a frame was shown, of how far off a drawing was there that had not kept what stays of
that very frame (else R' = R), of how far apart drawing and imagination are now, of how much has changed
since, and of how far off dense motion expects m to be, where it is learned (else E = 1); w is measured, too.

B rows, V cameras, C = 3·V channels, H W frame.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from scd_world.model.flow import FirstFrame
from scd_world.model.rollout_state import Shown
from scd_world.robot_data.unchanged import unchanged
from scd_world.utils.precision import full_precision

STEPS = 64  # imagined steps that have a strength of their own; later ones have the last one's

RADIUS = 24  # of G, cells: three times the widest
GATE = 2.25  # times the largest R² that was measured: 1.5 times the largest R
FLOOR = 1 / 255  # of [-1, 1], half a gray level: differences below it are the same
FIRST_REACH = 0.3  # before it is measured
TOLD = 6  # numbers that the error to expect is told by, the constant among them
OPEN = 1e6  # a largest R² beyond which there is none: the gate never shuts
WHOLE = 10.0  # a strength beyond which there is none: R² of frames is hundredths


class Drawn(NamedTuple):
    """What is drawn of a state."""

    frame: Tensor  # (B, C, H, W) d
    followed: Tensor | None  # (B, 2, C, H, W) ã and d̃_a; None: no camera rides on the robot
    moved: Tensor | None = None  # (B, C, H, W) m, where it is known where what was shown has gone
    log_error: Tensor | None = None  # (B, V) logarithm of its mean square error, as it is to be expected


class Measured(NamedTuple):
    """What a filter is told of frames, whatever is imagined of them."""

    frame: Tensor  # (B, C, H, W) m
    drawn: Tensor  # (B, C, H, W) d
    shown: Shown
    steps_since_observed: Tensor  # (B,) int
    log_error: Tensor  # (B,) ln E of m, of several cameras the mean; 0 where nothing says how far off that is


class Corrected(NamedTuple):
    """What a filter makes of imagined frames."""

    frame: Tensor  # (B, C, H, W)
    error: Tensor  # (B,) error of the picture to expect, as `StateFilter.expected_error` has it


class StateFilter(nn.Module):
    """Corrects frames, and says how far off they are to be expected. Until it is measured, by nothing."""

    first_strength: Tensor  # (V,) P
    strength: Tensor  # (STEPS, V) P_k
    reach: Tensor  # (V,)
    farthest: Tensor  # (V,) the largest R² where the strength was measured, or OPEN
    still: Tensor  # () motion below which the frame before is kept
    kernel: Tensor  # (V, 2·RADIUS + 1) G, along either axis
    grain: Tensor  # () 1; 0 in filters of before, which never take what G leaves out
    error_weights: Tensor  # (TOLD,) w; zeros before they are measured

    def __init__(self, cameras: int) -> None:
        super().__init__()
        self.register_buffer("first_strength", torch.zeros(cameras))
        self.register_buffer("strength", torch.zeros(STEPS, cameras))
        self.register_buffer("reach", torch.full((cameras,), FIRST_REACH))
        self.register_buffer("farthest", torch.zeros(cameras))
        self.register_buffer("still", torch.zeros(()))
        self.register_buffer("kernel", gaussian(0.0).repeat(cameras, 1))
        self.register_buffer("grain", torch.ones(()))
        self.register_buffer("error_weights", torch.zeros(TOLD))
        self.first = "none"  # "some", "whole": how much of m the first correction takes

    def set_first_strength(self, strength: Tensor) -> None:
        """Sets P, (V,). What it asks for is kept on the host as well: no step waits for a GPU to know."""
        self.first_strength.copy_(strength)
        self.first = first_of(strength, self.farthest)

    def first_frame(self, measured: Measured) -> FirstFrame | None:
        """Gives x̂ + g₁·(m − x̂) of clean frames x̂ (B, C, H, W) that are seen in pure noise; m itself where
        that is the whole of it, None where nothing is corrected."""
        if self.first == "whole" and not self.training:  # in training there are rows that nothing corrects
            return measured.frame
        return None if self.first == "none" else partial(self.first_corrected, measured=measured)

    def first_corrected(self, obs: Tensor, measured: Measured) -> Tensor:
        return obs + self.gain(self.first_strength, measured.shown) * (measured.frame - obs)

    def forward(self, obs: Tensor, last: Tensor, motion: Tensor, measured: Measured) -> Corrected:
        """obs, last (B, C, H, W); motion (B,) of the state that leads to obs, as `motion_of` has it."""
        strength = self.strength[measured.steps_since_observed.clamp(max=STEPS - 1)]
        gain, rests = self.gain(strength, measured.shown), self.rests(motion)
        innovation = measured.frame - torch.where(rests, last, obs)
        coarse, fine = self.coarse_and_fine(innovation)
        frame = torch.where(rests, last, obs + gain * coarse + gain.square() * fine)
        return Corrected(frame, self.expected_error(self.error_features(measured, innovation)))

    def gain(self, strength: Tensor, shown: Shown) -> Tensor:
        """Gives g, (B, C, 1, 1), of strengths (B, V) or (V,)."""
        gain = kalman_gain(strength, shown.drawing_error)
        gain = gain * (shown.drawing_error <= GATE * self.farthest)
        return gain.repeat_interleave(3, dim=1)[..., None, None]

    def expected_error(self, told: Tensor) -> Tensor:
        """Gives e, (B,): the root mean square error of the picture to expect, as a share of the range from
        black to white, 1 before it is measured. told (B, TOLD)."""
        return (told @ self.error_weights).exp().clamp(max=1.0)

    @staticmethod
    def error_features(measured: Measured, innovation: Tensor) -> Tensor:
        """Gives what the error of the picture is told by, (B, TOLD); of several cameras the mean. innovation
        (B, C, H, W): m − x."""
        shown = measured.shown
        off = shown.unaided_error.float().sqrt().sqrt()  # √R: drawing_error is R²
        told = [off, size_of(innovation), size_of(measured.drawn - shown.anchor_drawn)]
        told = [(value + FLOOR).log().mean(1) for value in told]
        k = (measured.steps_since_observed + 1).log()
        return torch.stack([torch.ones_like(k), k, *told, measured.log_error / 2], dim=1)

    def rests(self, motion: Tensor) -> Tensor:
        """Says of motion (B,) whether the frame before is kept, bool (B, 1, 1, 1)."""
        return (motion < self.still)[:, None, None, None]

    def measured(self, drawn: Drawn, shown: Shown, steps_since_observed: Tensor) -> Measured:
        """Gives m, and what belongs to it. steps_since_observed (B,) int."""
        if drawn.moved is not None and drawn.log_error is not None:
            log_error = drawn.log_error.mean(1)
            return Measured(drawn.moved, drawn.frame, shown, steps_since_observed, log_error)
        unknown = self.still_unknown(drawn.frame, shown.anchor, shown.anchor_drawn)[0]
        if drawn.followed is not None:
            followed, same = self.still_unknown(drawn.frame, *drawn.followed.unbind(1))
            unknown = followed + (1 - same) * unknown
        nothing = torch.zeros(len(unknown), device=unknown.device)
        return Measured(drawn.frame + unknown, drawn.frame, shown, steps_since_observed, nothing)

    def still_unknown(self, frame: Tensor, anchor: Tensor, anchor_drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Gives w·(a − d_a), and w, of a drawing d; all (B, C, H, W)."""
        same = unchanged(frame, anchor_drawn, self.reach).repeat_interleave(3, dim=1)
        return same * (anchor - anchor_drawn), same

    def coarse_and_fine(self, difference: Tensor) -> tuple[Tensor, Tensor]:
        """Gives G of (B, C, H, W), and the grain that it leaves out."""
        coarse = self.coarse(difference)
        return coarse, self.grain * (difference - coarse)

    def coarse(self, difference: Tensor) -> Tensor:
        """Gives G of (B, C, H, W); what lies beyond an edge is as the edge is."""
        kernel = self.kernel.repeat_interleave(3, dim=0)[:, None, None]  # (C, 1, 1, 2·RADIUS + 1)
        with full_precision(difference):
            for _ in range(2):  # along each axis
                padded = functional.pad(difference.float(), (RADIUS, RADIUS, 0, 0), mode="replicate")
                difference = functional.conv2d(padded, kernel, groups=len(kernel)).mT
        return difference

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Takes filters from before they knew of standing still, of grain, of their error, or of a first
        correction, and of one reach for all cameras, too."""
        reach = state_dict.get(f"{prefix}reach")
        if reach is not None and not reach.ndim:
            state_dict[f"{prefix}reach"] = reach.repeat(len(self.reach))
        for name in ("still", "grain"):
            state_dict.setdefault(f"{prefix}{name}", torch.zeros(()))
        state_dict.setdefault(f"{prefix}first_strength", torch.zeros_like(self.first_strength))
        weights = state_dict.get(f"{prefix}error_weights", torch.zeros(0))
        state_dict[f"{prefix}error_weights"] = functional.pad(weights, (0, TOLD - len(weights)))
        state_dict.setdefault(f"{prefix}kernel", gaussian(0.0).repeat(len(self.kernel), 1))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.first = first_of(self.first_strength, self.farthest)


def first_of(strength: Tensor, farthest: Tensor) -> str:
    """Says of P and the gate, (V,) each, whether the first correction takes m whole, some of it, or none."""
    whole = (strength >= WHOLE) & (farthest >= OPEN)
    return "whole" if whole.all() else "some" if strength.any() else "none"


def gaussian(width: float) -> Tensor:
    """Gives the blur of a standard deviation of `width` cells, (2·RADIUS + 1,); of 0 none."""
    away = torch.arange(-RADIUS, RADIUS + 1).float()
    kernel = torch.exp(-0.5 * (away / width).square()) if width else (away == 0).float()
    return kernel / kernel.sum()


def motion_of(last: Tensor, state: Tensor, usual: Tensor) -> Tensor:
    """Gives how far a state (B, S) is from the one before, (B,): 1 where each dimension goes on by its usual
    change per step (S,)."""
    return ((state - last) / usual).float().square().mean(-1).sqrt()


def size_of(difference: Tensor) -> Tensor:
    """Gives the root mean square of (B, C, H, W) in each camera, (B, V)."""
    return by_camera(difference.float().square()).sqrt()


def kalman_gain(strength: Tensor, error: Tensor) -> Tensor:
    """Gives P / (P + R²), 0 where both are."""
    return strength / (strength + error).clamp_min(1e-12)


def drawing_error(anchor: Tensor, anchor_drawn: Tensor) -> Tensor:
    """Gives R², (B, V)."""
    return by_camera((anchor - anchor_drawn).square()).square()


def by_camera(values: Tensor) -> Tensor:
    """Averages (B, C, H, W) over all of a camera, (B, V)."""
    return values.unflatten(1, (-1, 3)).mean((2, 3, 4))

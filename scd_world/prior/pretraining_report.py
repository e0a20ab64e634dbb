"""The result of each pretraining stage on held-out episodes, beside the simplest baseline.

A stage can fail without a word: its own loss comes down, and what it left draws background alone, or rewards
everything alike. The hours after it would be lost; so it is measured at once, and logged as a warning where a
constant would do as well.

N held-out steps, F frames, S state, C H W frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scd_world.metrics.image import psnr
from scd_world.prior.dynamics import StateDynamics
from scd_world.prior.fit_dynamics import step_loss
from scd_world.prior.fit_motion import move_shown
from scd_world.prior.fit_outcome import predict_next_states
from scd_world.prior.renderer import StateRenderer
from scd_world.robot_data.trajectories import StateTrajectories
from scd_world.scene.frames import FramesToDraw

ROWS = 20_000  # steps that are looked at, at most
FRAMES = 64


@dataclass(frozen=True)
class StageResult:
    """One figure of a stage, beside that of a baseline."""

    figure: str
    value: float
    baseline: str
    baseline_value: float
    higher_is_better: bool = False

    @property
    def failed(self) -> bool:
        """No better than the baseline."""
        sign = 1 if self.higher_is_better else -1
        return not sign * self.value > sign * self.baseline_value  # NaN has failed too

    def __str__(self) -> str:
        return f"{self.figure} {self.value:.4g} ({self.baseline} {self.baseline_value:.4g})"


@torch.no_grad()
def dynamics_result(dynamics: StateDynamics, held: StateTrajectories) -> list[StageResult]:
    """The loss of single steps; the baseline is the linear model under the network."""
    row, last = held.sequences(1)
    row = some(row[row < last])  # an episode's last action has no next state
    if not len(row):
        return []
    line = dynamics.project(dynamics.linear(held.prev[row], held.state[row], held.action[row]).state)
    true = held.state[row + 1]
    own, baseline = (
        step_loss(dynamics, predicted - true).item()
        for predicted in (predict_next_states(dynamics, held, row), line)
    )
    return [StageResult("loss of a step", own, "the linear model", baseline)]


@torch.no_grad()
def outcome_result(dynamics: StateDynamics, held: StateTrajectories) -> list[StageResult]:
    """Square error of the reward, in model units, and of the probability of success; the baselines predict
    the mean everywhere."""
    row = some(held.sequences(1)[0])
    if not len(row):
        return []
    reward, logit = dynamics.predict_outcome(predict_next_states(dynamics, held, row))
    pairs = {"reward": (reward, held.reward[row]), "success": (logit.sigmoid(), held.success[row])}
    return [
        StageResult(f"square error of {name}", mse(predicted, true), "the mean", mse(true.mean(), true))
        for name, (predicted, true) in pairs.items()
        if true.min() < true.max()  # a constant has nothing to predict
    ]


@torch.no_grad()
def renderer_result(renderer: StateRenderer, frames: FramesToDraw) -> list[StageResult]:
    """PSNR of frames that are drawn; the baseline is the background."""
    truth, scene = frames.obs, renderer.scene(frames.shown, frames.shown_state)
    drawn = renderer(frames.state, frames.prev, scene).clamp(-1, 1)
    pictures = drawn, renderer.background.expand_as(truth)
    own, baseline = (psnr(picture, truth).mean().item() for picture in pictures)
    return [StageResult("PSNR of a frame, dB", own, "the background", baseline, higher_is_better=True)]


@torch.no_grad()
def motion_result(renderer: StateRenderer, frames: FramesToDraw) -> list[StageResult]:
    """PSNR of frames that are drawn with what was shown; the baseline is the drawing alone. A frame that was
    shown itself says nothing."""
    later = (frames.shown != frames.obs).flatten(1).any(1)
    if not later.any():
        return []
    frames = FramesToDraw(*(of_all[later] for of_all in frames))
    scene = renderer.scene(frames.shown, frames.shown_state)
    pictures = move_shown(renderer, frames).frame, renderer(frames.state, frames.prev, scene)
    own, baseline = (psnr(picture.clamp(-1, 1), frames.obs).mean().item() for picture in pictures)
    figure = "PSNR of a frame up to 40 steps after one that was shown, dB"
    return [StageResult(figure, own, "the drawing alone", baseline, higher_is_better=True)]


def some(row: Tensor) -> Tensor:
    """At most ROWS of them, evenly."""
    return row[:: 1 + len(row) // ROWS]


def mse(predicted: Tensor, true: Tensor) -> float:
    return (predicted - true).square().mean().item()

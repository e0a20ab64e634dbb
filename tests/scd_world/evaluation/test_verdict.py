"""The first line of a report: better, worse or equal, and no difference made of rounding or of chance."""

from __future__ import annotations

import numpy as np
import pytest

from scd_world.evaluation.report import failure_lines
from scd_world.evaluation.verdict import compare_paired, judge, judge_sharpness, spans
from scd_world.metrics.statistics import summarize

MOVED, CHANGED = np.full((6, 4), 90.0), np.full((6, 4), 0.01)


def gains(*steps: float, noise: float = 0.0) -> dict[str, list[float]]:
    """Summarizes 6 windows of 6 episodes whose mean difference from copying is that of each step, in dB."""
    spread = np.array([-1.0, 1, -1, 1, -1, 1])[:, None] * noise
    return vars(summarize(np.array(steps) + spread, np.arange(6)))


def first_line(*steps: float, noise: float = 0.0) -> str:
    return judged(gains(*steps, noise=noise))["lines"][0]


def judged(gain, moved=MOVED, changed=CHANGED, episodes: int = 6, **others) -> dict:
    return judge({"psnr_gain": gain, **others}, moved, changed, episodes)


def test_a_world_that_is_equal_to_copying_neither_beats_it_nor_falls_below_it():
    """Of two equal PSNRs, rounded differently, one is lower: that read `falls below copy-last at step 1`."""
    assert first_line(-1e-6, 1e-6, 0, -2e-6) == "This world equals copying the last frame at each of 4 steps."


def test_a_difference_that_chance_explains_is_a_tie():
    assert first_line(0.1, -0.1, 0.1, 0.2, noise=1.0).startswith("No step of 4 differs")
    assert compare_paired(gains(0.1, -0.1, 3, -3, noise=1.0)).tolist() == [0, 0, 1, -1]


def test_what_one_of_several_episodes_reaches_is_not_told_from_a_tie():
    """Its windows resemble each other, and drawing it alone again and again is no interval."""
    values = np.array([[1.0, -2.0], [1.2, -2.1], [0.9, np.nan], [1.1, np.nan]])
    of_two = summarize(values, np.array([0, 0, 1, 1]))
    assert np.isfinite(of_two.low).tolist() == np.isfinite(of_two.high).tolist() == [True, False]
    assert of_two.mean[1] == pytest.approx(-2.05)
    assert compare_paired(vars(of_two)).tolist() == [1, 0]
    assert compare_paired(vars(summarize(values, np.zeros(4)))).tolist() == [1, -1]
    soft = vars(summarize(values / 100, np.array([0, 0, 1, 1])))
    assert judge_sharpness(soft, [1, 1])[0].endswith("at worst 1 % at step 1 (a copied frame: 100 %).")


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((1, 2, 4, 4), "beats copying the last frame up to step 4 of 4, by 4.00 dB [4.00, 4.00] at step 4."),
        ((0, 2, 4, 0), "from step 2 to step 3 of 4, by 4.00 dB [4.00, 4.00] at step 3; a tie at steps 1, 4."),
        ((-1, 2, -1, -1), "frame only at step 2 of 4, by 2.00 dB [2.00, 2.00] at step 2; worse at step 1 "
         "and from step 3 on."),
        ((-1, 0, -1, -2), "does not beat copying the last frame at any of 4 steps; worse at step 1 and from "
         "step 3 on, by 2.00 dB [2.00, 2.00] at step 4."),
    ],
)  # fmt: skip
def test_it_says_from_which_step_to_which(steps, words):
    assert first_line(*steps).endswith(words)


def beside(ssim: float, sharpness: float, distance: float) -> dict[str, dict]:
    """What a report has beside PSNR: the copy's SSIM is .9, its sharpness 1 and its state 2 off."""
    values = {"ssim_imagined": ssim, "ssim_copy": 0.9, "sharpness_imagined": sharpness, "sharpness_copy": 1.0}
    values |= {"agent_distance_imagined": distance, "agent_distance_copy": 2.0}
    return {name: gains(value, value, value, value) for name, value in values.items()}


def test_a_gain_of_psnr_alone_is_called_that():
    """After two updates a world of noise was praised: PSNR likes it, and nothing else does."""

    def line(**others) -> str:
        return judged(gains(-1, 2, 2, -1), **others)["lines"][0]

    usual = line()
    assert line(**beside(ssim=0.93, sharpness=1.05, distance=1.0)) == usual
    assert (
        line(**beside(ssim=0.93, sharpness=0.6, distance=1.0)) == usual
    )  # blur is said in a line of its own
    assert line(**beside(ssim=0.899, sharpness=1.0, distance=2.0)) == usual  # no worse than the copy
    assert line(**beside(ssim=0.51, sharpness=10.8, distance=5.0)) == (
        "This world beats copying the last frame in PSNR alone from step 2 to step 3 of 4, by 2.00 dB "
        "[2.00, 2.00] at step 3, but there its SSIM is 0.510 and the copy's 0.900, its pictures have 1080 % "
        "of the recorded sharpness, its robot is 2.5 times as far off as the copy's; worse at steps 1, 4."
    )
    soft = line(**beside(ssim=0.93, sharpness=0.3, distance=1.0))
    assert "last frame from step 2" in soft
    assert ", but there its pictures have 30 % of the recorded sharpness;" in soft


def test_what_speaks_against_a_world_counts_where_it_is_ahead():
    others = beside(ssim=0.93, sharpness=1.0, distance=1.0)
    others["ssim_imagined"] = gains(0.2, 0.93, 0.93, 0.2)
    assert "but there" not in judged(gains(-1, 2, 2, -1), **others)["lines"][0]


def test_pictures_that_never_move_are_called_that_where_the_recorded_ones_do():
    still = judged(gains(0, 0, 0, 0), np.full((6, 4), 0.4))
    assert still["still"]
    assert "never move" in still["lines"][1]
    assert not judged(gains(0, 0, 0, 0), np.zeros((6, 4)), np.zeros((6, 4)))["still"]
    assert not judged(gains(0, 0, 0, 0))["still"]


def test_few_episodes_are_said():
    lines = judged(gains(1, 1, 1, 1), episodes=1)["lines"]
    assert lines[1].startswith("Only one episode is behind it")
    alone = vars(summarize(np.ones((2, 3)), np.zeros(2)))
    assert compare_paired(alone).tolist() == [1, 1, 1]  # no interval: its mean decides


def shares(*steps: float, noise: float = 0.0) -> dict[str, list[float]]:
    return gains(*steps, noise=noise)


def test_blur_and_grain_are_said_beyond_the_bounds_alone():
    assert judge_sharpness(shares(1.1, 0.9, 1.0), [1, 1, 1]) == []
    lines = judge_sharpness(shares(1.3, 1.0, 0.8, 0.62), [1.02, 1, 1, 0.97])
    assert lines == [
        "It blurs: less than 85 % of the recorded frames' sharpness from step 3 on, at worst 62 % "
        "at step 4 (a copied frame: 97 %).",
        "It is grainy: more than 115 % of the recorded frames' sharpness at step 1, at worst 130 % "
        "at step 1 (a copied frame: 102 %).",
    ]


def test_a_sharpness_that_chance_explains_is_no_blur():
    assert judge_sharpness(shares(0.8, 0.8, noise=1.0), [1, 1]) == []


def test_spans_of_steps():
    assert spans(np.array([1, 2, 3, 9, 10]), 10) == "at steps 1–3 and from step 9 on"
    assert spans(np.array([10]), 10) == "at step 10"


def test_of_one_episode_nothing_is_said_of_chance():
    """Its windows have no interval."""
    report = {
        "time_to_failure": {"mean_psnr": 1, "mean_psnr_changed": None},
        "curves": {"psnr_imagined": {"mean": [20.0, 19.0]}, "psnr_gain": {"low": [None, None]}},
    }
    assert failure_lines(report)[0] == "PSNR is lower than copy-last's first at step 1 (whole frame)"
    report["curves"]["psnr_gain"]["low"] = [-2.0, -1.0]
    said = "PSNR is lower than copy-last's, by more than chance, first at step 1 (whole frame)"
    assert failure_lines(report)[0] == said

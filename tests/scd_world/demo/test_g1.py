"""Recordings are repeated from where they were shown, step by step, and compared with themselves."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from scd_world.demo import g1
from scd_world.demo.config import DemoConfig
from scd_world.metrics.image import PSNR_CAP


def test_the_starts_are_taken_apart_where_frames_do_not_follow_one_another(world):
    found = g1.pieces(world.starts)
    assert [(piece.episode, piece.first, len(piece.pixels)) for piece in found] == [(4, 0, 6), (7, 0, 9)]
    assert np.array_equal(found[1].action, world.starts.action[6:])


def test_what_is_imagined_follows_the_recorded_actions_from_the_last_frame_that_was_shown(world, monkeypatch):
    monkeypatch.setattr(g1, "CONTEXT", 3)
    found = g1.pieces(world.starts)
    imagined = g1.repeat_actions(world, found, 6, num_steps=None, seed=5)
    assert imagined.shape[:2] == (2, 4)
    for row, piece in enumerate(found):
        assert np.array_equal(imagined[row, 0], piece.pixels[2])
        env = gymnasium.make("scd_world/World-v0", world=world, success_threshold=1.0, clip_actions=True)
        obs, _ = env.reset(seed=5 + row, options={"episode": piece.episode, "frame": piece.first + 2})
        for step in (2, 3, 4):
            obs, *_ = env.step(piece.action[step])
            shown = np.stack([obs["pixels"][camera] for camera in world.schema.cameras])
            assert np.array_equal(shown, imagined[row, step - 1])


@pytest.mark.slow
def test_the_shipped_world_of_a_real_robot_imagines_held_out_recordings_better_than_a_copy(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(g1, "steps_per_second", lambda env: 10.0)
    report, files = g1.show_g1(DemoConfig(out=str(tmp_path), device="cpu", num_steps=1), tmp_path, "cpu")
    gain = np.subtract(report["psnr"], report["psnr_copy"])
    assert gain[15:].min() > 0.5
    assert "cameras and proprioception (26 numbers)" in capsys.readouterr().out
    assert all((tmp_path / name).stat().st_size > 10_000 for name in files)


def test_a_copy_is_the_last_frame_that_was_shown():
    true = np.zeros((2, 4, 1, 8, 8, 3), np.uint8)
    true[:, 2:] = 10
    curves = g1.errors(true, true)
    np.testing.assert_allclose(curves["psnr"], PSNR_CAP, rtol=1e-5)
    np.testing.assert_allclose(curves["psnr_copy"][:, 1:], 20 * np.log10(255 / 10), rtol=1e-4)
    np.testing.assert_allclose(curves["psnr_copy"][:, 0], PSNR_CAP, rtol=1e-5)

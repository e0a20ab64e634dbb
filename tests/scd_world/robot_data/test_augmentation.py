"""Frames moved a little, as a camera to the side would have seen them."""

from __future__ import annotations

from dataclasses import fields

import torch

from scd_world.robot_data.augmentation import random_shifts, shift, shift_clip


def test_frames_move_down_and_right_and_repeat_their_edge():
    frames = torch.arange(2 * 3 * 4.0).view(1, 2, 3, 4).repeat(3, 1, 1, 1)
    moved = shift(frames, torch.tensor([[0, 0], [1, 0], [0, -2]]))
    assert moved[0].equal(frames[0])
    assert moved[1, :, 1:].equal(frames[1, :, :-1])
    assert moved[1, :, 0].equal(frames[1, :, 0])
    assert moved[2, ..., :2].equal(frames[2, ..., 2:])
    assert moved[2, ..., 3].equal(frames[2, ..., 3])


def test_all_frames_of_a_clip_move_alike_and_nothing_else_does(clip):
    shifts = torch.tensor([[1, -1]] * len(clip.action))
    moved = shift_clip(clip, shifts)
    for i in range(clip.obs.shape[1]):
        assert moved.obs[:, i].equal(shift(clip.obs[:, i], shifts))
    assert moved.anchor.equal(shift(clip.anchor, shifts))
    assert moved.obs.shape == clip.obs.shape
    for field in fields(clip):
        if field.name not in ("obs", "anchor"):
            assert getattr(moved, field.name) is getattr(clip, field.name)


def test_clips_move_by_at_most_so_much_either_way():
    shifts = random_shifts(500, 2, torch.Generator().manual_seed(0))
    assert shifts.shape == (500, 2)
    assert sorted(shifts.unique().tolist()) == [-2, -1, 0, 1, 2]

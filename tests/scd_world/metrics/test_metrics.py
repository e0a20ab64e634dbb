"""Measures against values worked out by hand, and against what would make them lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scd_world.metrics.image import (
    PSNR_CAP,
    blur,
    changed_pixels,
    psnr,
    sharpness,
    spread,
    ssim,
    texture_error,
)
from scd_world.metrics.statistics import angle_between, auroc, correlation, summarize


def frames(*values: float, channels: int = 3) -> torch.Tensor:
    return torch.stack([torch.full((channels, 16, 20), value) for value in values])


def test_psnr_by_hand():
    """Off by 0.2 in a range of 2: 20·log10(2 / 0.2) = 20 dB."""
    torch.testing.assert_close(psnr(frames(0.1, 0.5), frames(-0.1, 0.3)), torch.tensor([20.0, 20.0]))


def test_equal_frames_have_a_finite_psnr():
    """An infinite one would make copy-last unbeatable in the mean, with one motionless window."""
    assert psnr(frames(0.3), frames(0.3)).item() == pytest.approx(PSNR_CAP, abs=1e-3)
    assert pytest.approx(58.92, abs=0.01) == PSNR_CAP


def test_masked_psnr_sees_the_mask_alone():
    x, y = frames(0.0, 0.0), frames(0.0, 0.0)
    y[0, :, 3:5] = 0.2  # inside the mask
    y[0, :, 9:] = 1.0  # outside
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[0, :, 3:5] = True
    inside, empty = psnr(x, y, mask)
    assert inside.item() == pytest.approx(20.0, abs=1e-3)
    assert torch.isnan(empty)  # nothing changed: no figure, rather than a perfect one


def test_a_pixel_changes_with_any_of_its_colors_in_its_own_camera():
    reference, truth = frames(0.0, channels=6), frames(0.0, channels=6)
    truth[0, 4, 2, 3] = 12 * 2 / 255  # the second camera's green
    truth[0, 0, 7, 7] = 7 * 2 / 255  # too little
    changed = changed_pixels(truth, reference, 8)
    assert changed.sum() == 3
    assert changed[0, 3:, 2, 3].all()


def test_sharpness_by_hand():
    """A step of 0.2 at one of 19 borders between columns, none between rows: 0.2 · 127.5 / 19 / 2."""
    x = frames(0.0)
    x[..., 10:] = 0.2
    assert sharpness(x).item() == pytest.approx(0.2 * 127.5 / 19 / 2, rel=1e-4)
    assert sharpness(x.mT).item() == pytest.approx(sharpness(x).item(), rel=1e-4)  # either way


def test_a_blur_is_less_sharp_and_grain_more():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 16, 20, generator=g) - 0.5
    assert (sharpness(blur(x)) < 0.5 * sharpness(x)).all()
    assert (sharpness(x + 0.5 * torch.randn(x.shape, generator=g)) > 1.5 * sharpness(x)).all()
    assert sharpness(frames(0.7)).item() == 0


def test_a_texture_may_lie_anywhere_in_its_neighborhood():
    """Stripes that are shifted by one pixel are as right as they were; a blur of them is not."""
    stripes = torch.tensor([1.0, -1.0, -1.0, -1.0]).repeat(8).expand(2, 3, 16, -1)
    soft, true = stripes[..., :-1].lerp(stripes[..., 1:], 0.5), stripes[..., :-1]
    assert (texture_error(stripes[..., 1:], true, 8) < 0.2 * texture_error(soft, true, 8)).all()
    assert (texture_error(stripes[..., :5], stripes[..., :5], 8) == 0).all()  # smaller than one


def test_spread_of_draws_by_hand():
    """Three draws at 0, 0 and 0.2: the first is 0 and 0.2 from the others, so 0.1 in the mean."""
    x = torch.stack([frames(0.0, 0.3), frames(0.0, 0.3), frames(0.2, 0.3)])
    mask = torch.zeros_like(x[0], dtype=torch.bool)
    mask[:, :, 3:5] = True
    x[2, :, :, 9:] += 1.0  # outside of the mask
    expected = torch.tensor([[0.1, 0.0], [0.1, 0.0], [0.2, 0.0]]) * 127.5
    torch.testing.assert_close(spread(x, mask), expected)
    assert torch.isnan(spread(x, torch.zeros_like(mask))).all()


def test_ssim_is_one_for_equal_frames_and_the_mean_of_the_cameras():
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 6, 16, 20, generator=g) * 2 - 1, torch.rand(2, 6, 16, 20, generator=g) * 2 - 1
    torch.testing.assert_close(ssim(x, x), torch.ones(2))
    torch.testing.assert_close(ssim(x, y), (ssim(x[:, :3], y[:, :3]) + ssim(x[:, 3:], y[:, 3:])) / 2)
    assert (ssim(x, y) < 0.3).all()


def test_ssim_is_torchmetrics_ssim():
    """Golden values of torchmetrics 1.9: structural_similarity_index_measure((x + 1) / 2, (y + 1) / 2,
    data_range=1.0, reduction="none")."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, 3, 20, 33, generator=g) * 2 - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=g)).clamp(-1, 1)
    theirs = torch.tensor([0.893977, 0.890402, 0.883686])
    torch.testing.assert_close(ssim(x, y), theirs, rtol=1e-4, atol=1e-5)


def test_ssim_of_a_frame_smaller_than_half_its_window_is_unknown():
    assert torch.isnan(ssim(torch.zeros(2, 3, 5, 30), torch.zeros(2, 3, 5, 30))).all()


def test_angles_go_the_short_way_round():
    np.testing.assert_allclose(
        angle_between(np.array([3.1, 0.2]), np.array([-3.1, 0.5])), [0.0832, 0.3], atol=1e-4
    )


def test_auroc_by_hand_and_where_it_means_nothing():
    score, label = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert auroc(score, label) == 0.75
    assert auroc(np.ones(4), label) == 0.5  # ties
    assert np.isnan(auroc(score, np.zeros(4)))


def test_a_constant_correlates_with_nothing():
    assert np.isnan(correlation(np.ones(5), np.arange(5.0)))
    assert correlation(np.arange(5.0), 3 - 2 * np.arange(5.0)) == pytest.approx(-1)


def test_the_mean_is_over_windows_and_unreached_horizons_do_not_count():
    values = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 6.0, np.nan]])
    s = summarize(values, np.array([7, 7, 9]))
    np.testing.assert_allclose(s.mean, [3, 4, np.nan])
    np.testing.assert_allclose(s.median, [3, 4, np.nan])
    assert s.count.tolist() == [3, 2, 0]


def test_the_interval_resamples_episodes_not_windows():
    """A hundred equal windows of two episodes are two observations."""
    values = np.repeat([[0.0], [1.0]], 50, axis=0)
    s = summarize(values, np.repeat([0, 1], 50))
    assert (s.low[0], s.high[0]) == (0, 1)
    many = summarize(values, np.arange(100))
    assert 0.35 < many.low[0] < 0.45 < 0.55 < many.high[0] < 0.65
    assert np.isnan(summarize(values, np.zeros(100)).low[0])

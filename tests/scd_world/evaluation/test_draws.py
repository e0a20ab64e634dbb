"""Several draws of noise: their mean counts, the best of them is no worse, equal ones are not apart."""

from __future__ import annotations

import numpy as np
import pytest

from scd_datasets.store.store import WindowStore
from scd_datasets.store.writer import write_store
from scd_world.evaluation.curves import all_curves
from scd_world.evaluation.evaluate import Evaluator, measure
from scd_world.evaluation.open_loop import OpenLoopResults, RowNoise, Window, load_batch, spread_windows
from scd_world.evaluation.report import block_table, draws_table, markdown
from scd_world.metrics.block_shape import is_pusht
from tests.scd_world.evaluation.test_evaluate import make_world, settings


@pytest.fixture
def store(slide_store) -> WindowStore:
    return WindowStore.open(slide_store)


def imagined(store, draws: int, **changes) -> tuple[OpenLoopResults, dict[str, np.ndarray]]:
    chosen = settings(draws=draws, **changes)
    windows = spread_windows(store, np.array([2, 5]), chosen)
    loop, *_ = Evaluator(make_world(store), store, windows, chosen).open_loop()
    return loop, all_curves(loop, store.schema)


def test_each_draw_has_noise_of_its_own_and_the_first_is_as_it_was():
    windows, shape = [Window(0, 3, 5), Window(1, 3, 5)], (3, 4, 4)
    first, again, other = (RowNoise(windows, shape, 0, *draw).draw("cpu") for draw in ((), (0,), (1,)))
    assert (first == again).all()
    assert not np.isclose(first, other).any()


def test_the_first_of_several_draws_is_the_only_one_and_the_mean_is_the_mean(store):
    (one, alone), (three, curves) = (imagined(store, draws) for draws in (1, 3))
    assert "psnr_best" not in alone
    assert "spread_changed" not in alone
    for name, values in one.frames.items():
        first = three.by_draw(three.frames[name])[0]
        np.testing.assert_allclose(first, values, rtol=1e-4, atol=1e-4, err_msg=name)
    by_draw = three.by_draw(three.frames["psnr_imagined"])
    assert not np.allclose(by_draw[0], by_draw[1], equal_nan=True)
    np.testing.assert_allclose(curves["psnr_imagined"], by_draw.mean(0))
    np.testing.assert_allclose(curves["psnr_copy"], alone["psnr_copy"])
    known = np.isfinite(curves["psnr_best"])
    assert (curves["psnr_best"] >= curves["psnr_imagined"])[known].all()
    assert (curves["psnr_best"] > curves["psnr_imagined"])[known].any()
    assert np.nanmin(curves["spread_unchanged"]) > 0


def test_no_draw_depends_on_the_batch(store):
    curves = [imagined(store, 2, batch_size=size)[1] for size in (1, 4)]
    for name, values in curves[0].items():
        np.testing.assert_allclose(values, curves[1][name], rtol=2e-3, atol=2e-2, err_msg=name)


def test_equal_draws_are_not_apart(store, monkeypatch):
    draw = RowNoise.draw
    monkeypatch.setattr(RowNoise, "draw", lambda self, device: 0 * draw(self, device))
    _, curves = imagined(store, 2)
    assert np.nanmax(curves["spread_unchanged"]) == 0
    assert np.nanmax(curves["spread_changed"]) == 0
    np.testing.assert_allclose(curves["psnr_best"], curves["psnr_imagined"])


@pytest.mark.slow
def test_the_report_has_a_table_of_them_where_there_are_several(store):
    report, _, _ = measure(make_world(store), store, settings(draws=2, sweep_starts=0))
    text = markdown(report)
    assert "2 imaginations each" in text
    assert draws_table(report["curves"], 2) in text
    assert "best of 2" in text
    assert draws_table(report["curves"], 1) == ""
    assert report["curves"]["psnr_imagined"]["count"] == [4] * 6  # windows, not imaginations
    assert report["standing_still"] is None
    assert "sharpness" in text
    assert "block" not in text  # nothing there is PushT's T


# ---- PushT's block -------------------------------------------------------------------------------


@pytest.fixture
def pusht_store(tmp_path) -> WindowStore:
    """A T that moves and turns, on the slide's own numbers."""
    from dataclasses import replace

    from tests.scd_world.conftest import SLIDE, slide_episode
    from tests.scd_world.metrics.test_block_shape import SIZE, draw_t

    pictures = np.stack([draw_t(200 + 8 * i, 230, 0.2 * i) for i in range(12)])[:, None]
    episodes = (replace(slide_episode(i, 12), pixels=pictures) for i in range(2))
    write_store(tmp_path / "t.zarr", replace(SLIDE, height=SIZE, width=SIZE), episodes)
    return WindowStore.open(tmp_path / "t.zarr")


def test_a_block_that_is_imagined_as_recorded_keeps_its_shape(pusht_store):
    windows = [Window(0, 3, 5), Window(1, 3, 5)]
    batch = load_batch(pusht_store, windows, 4, "cpu")
    frames = batch.pixels.numpy()
    assert is_pusht(frames[0, :, 0])
    loop = OpenLoopResults(windows, 5, 1, draws=2)
    for h in range(1, 6):
        truth = frames[:, 3 + h]
        half = np.where(np.arange(96)[:, None, None] < 46, truth, 255).astype(np.uint8)
        loop.record_block(slice(0, 2), h, [truth, half], batch)
    area = loop.by_draw(loop.frames["block_area"])
    errors = loop.by_draw(loop.frames["block_outline_imagined"])
    np.testing.assert_allclose(area[0], 1)
    assert (area[1] < 0.9).all()
    assert errors[0].max() < 0.6 < errors[1].min()
    true = loop.by_draw(loop.frames["block_outline_recorded"])
    np.testing.assert_allclose(errors[0], true[0])
    assert block_table({}) == ""

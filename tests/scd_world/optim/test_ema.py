"""The average of the weights follows quickly at first and slowly later."""

import pytest
import torch

from scd_world.optim.ema import EMA, warmed_up


def test_decay_warms_up_to_its_value():
    assert warmed_up(0.999, 0) == pytest.approx(0.1)
    assert warmed_up(0.999, 90) == pytest.approx(0.91)
    assert warmed_up(0.999, 10**6) == 0.999


def test_an_early_average_is_not_stuck_at_the_random_start():
    weight = torch.zeros(3)
    ema = EMA([("w", weight)], decay=0.9999)
    weight.fill_(1.0)
    for step in range(50):
        ema.update([("w", weight)], step)
    assert (ema.average["w"] > 0.99).all()


def test_update_is_the_weighted_mean_and_loading_is_exact():
    ema = EMA([("w", torch.tensor([2.0]))], decay=0.5)
    ema.update([("w", torch.tensor([4.0]))], step=1000)
    assert ema.average["w"].item() == 3.0
    other = EMA([("w", torch.zeros(1))], decay=0.5)
    other.load(ema.weights())
    assert torch.equal(other.average["w"], ema.average["w"])


def test_half_precision_weights_are_averaged_in_float32():
    ema = EMA([("w", torch.ones(1, dtype=torch.bfloat16))], decay=0.9999)
    assert ema.average["w"].dtype == torch.float32


def test_an_older_file_names_fewer_weights():
    one, two = torch.ones(1), torch.full((1,), 2.0)
    ema = EMA([("one", torch.zeros(1)), ("two", torch.zeros(1))], decay=0.5)
    with pytest.raises(KeyError):
        ema.load({"one": one})
    ema.load({"one": 3 * one, "gone": one}, {"one": one, "two": two})
    assert torch.equal(ema.average["one"], 3 * one)
    assert torch.equal(ema.average["two"], two)
    assert ema.average["two"] is not two

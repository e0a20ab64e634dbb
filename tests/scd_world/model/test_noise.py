"""A row's noise: standard normal, its own, decided by seed and step, whoever else is in the batch."""

import pytest
import torch

from scd_world.model.noise import row_noise

SHAPE = (3, 16, 17)  # an odd count per row


def noise(seeds, steps):
    return row_noise(torch.tensor(seeds), torch.tensor(steps), SHAPE)


def test_it_is_standard_normal_over_pixels_seeds_and_steps():
    drawn = row_noise(torch.arange(500), torch.arange(500) % 7, SHAPE).double()
    assert drawn.mean().abs() < 0.01
    for power, moment in ((2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        assert (drawn**power).mean().item() == pytest.approx(moment, abs=0.01 * moment + 0.01)
    assert drawn.isfinite().all()


def test_neighbours_in_any_direction_know_nothing_of_each_other():
    drawn = row_noise(torch.arange(64).repeat_interleave(64), torch.arange(64).repeat(64), SHAPE).flatten(1)
    grid = drawn.view(64, 64, -1)  # seed, step, pixel
    count = grid[1:, 1:, 1:].numel()
    for other in (grid[1:, :-1, :-1], grid[:-1, 1:, :-1], grid[:-1, :-1, 1:]):
        product = (grid[:-1, :-1, :-1] * other).double().sum() / count**0.5  # standard normal, were they free
        assert product.abs() < 4
    halves = drawn[:, :408], drawn[:, 408:]  # cosine and sine of the same pairs
    assert (halves[0] * halves[1]).double().mean().abs() < 4 / halves[0].numel() ** 0.5


def test_a_row_has_the_same_noise_in_any_company():
    together = noise([5, 2**62, 5, -1], [0, 3, 1, 0])
    for row, (seed, step) in enumerate([(5, 0), (2**62, 3), (5, 1), (-1, 0)]):
        assert torch.equal(together[row], noise([seed], [step])[0])
    assert not torch.equal(together[0], together[2])


def test_equal_seeds_and_steps_swapped_are_not_the_same():
    assert not torch.equal(noise([3], [8]), noise([8], [3]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_seed_means_the_same_on_every_device():
    seeds, steps = torch.arange(8), torch.arange(8)
    expected = row_noise(seeds, steps, SHAPE)
    there = row_noise(seeds.cuda(), steps.cuda(), SHAPE)
    torch.testing.assert_close(there.cpu(), expected, rtol=0, atol=1e-4)
    assert torch.equal(row_noise(seeds, steps, SHAPE, torch.device("cuda")), there)

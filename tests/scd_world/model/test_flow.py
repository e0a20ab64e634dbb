"""The path, its velocity and the sampler agree with each other."""

from __future__ import annotations

import torch

from scd_world.model.flow import denoising_times, euler_sample, interpolate, logit_normal, shift_time


def test_the_path_runs_from_data_to_noise():
    x, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    assert torch.equal(interpolate(x, noise, torch.zeros(3)), x)
    assert torch.equal(interpolate(x, noise, torch.ones(3)), noise)
    t = torch.tensor([0.25, 0.5, 0.75])
    finite = (interpolate(x, noise, t + 1e-3) - interpolate(x, noise, t)) / 1e-3
    torch.testing.assert_close(finite, noise - x, rtol=1e-2, atol=1e-2)  # v = noise − x, not its negative


def test_the_sampler_follows_the_true_velocity_to_the_data_in_any_number_of_steps():
    x, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    for num_steps in (1, 4, 50):
        torch.testing.assert_close(
            euler_sample(lambda *_: noise - x, noise, num_steps), x, atol=1e-5, rtol=1e-5
        )


def test_the_sampler_visits_equal_times_from_one_downwards():
    seen = []
    euler_sample(lambda x, t: seen.append(t[0].item()) or torch.zeros_like(x), torch.randn(1, 1, 2, 2), 4)
    assert seen == [1.0, 0.75, 0.5, 0.25]


def test_shifted_times_have_a_part_of_the_noise_and_the_same_ends():
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    part = shift_time(t, 0.1)
    torch.testing.assert_close(part[1:-1] / (1 - part[1:-1]), 0.1 * t[1:-1] / (1 - t[1:-1]))
    assert part[[0, -1]].tolist() == [0, 1]
    times = denoising_times(4, 0.1)
    assert times == sorted(times, reverse=True)
    assert times == shift_time(torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64), 0.1).tolist()
    x, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    drawn = euler_sample(lambda *_: noise - x, noise, 4, shift=0.1)
    torch.testing.assert_close(drawn, x, atol=1e-5, rtol=1e-5)


def test_training_times_lean_where_the_mean_is_set():
    t = logit_normal(torch.randn(10_000), 0.8, 1.2)
    assert ((t > 0) & (t < 1)).all()
    assert abs(t.median() - torch.sigmoid(torch.tensor(0.8))) < 0.02


def test_what_the_first_step_sees_can_be_changed_and_later_steps_go_on_from_there():
    """Under the noise that was there: as if the frame had been the changed one. Of one step it is the frame,
    and of one that is known no velocity is asked."""
    g = torch.Generator().manual_seed(0)
    x, noise, added = torch.randn(3, 2, 3, 4, 4, generator=g)
    given: list[torch.Tensor] = []

    def velocity(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        given.append(x_t)
        return noise - x

    def changed(clean: torch.Tensor) -> torch.Tensor:
        torch.testing.assert_close(clean, x)
        return clean + added

    drawn = euler_sample(velocity, noise, 3, 0.5, changed)
    second, third = denoising_times(3, 0.5)[1:3]
    torch.testing.assert_close(given[1], interpolate(x + added, noise, torch.tensor(second)))
    torch.testing.assert_close(given[2], given[1] + (third - second) * (noise - x))  # and no more than once
    torch.testing.assert_close(drawn, x + (1 - second) * added, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(euler_sample(velocity, noise, 1, 0.5, changed), x + added)
    asked = len(given)
    torch.testing.assert_close(euler_sample(velocity, noise, 3, 0.5, x + added), drawn)
    assert len(given) == asked + 2
    assert torch.equal(euler_sample(velocity, noise, 1, 0.5, added), added)

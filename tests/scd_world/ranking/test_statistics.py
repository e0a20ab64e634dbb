"""The statistics of a ranking on answers that are known beforehand."""

import numpy as np
import pytest

from scd_world.ranking.statistics import PairedOutcomes, agreement, kappa, kendall, mmrv, spearman, wilson


def pair(name: str, real: list[int], imagined: list[int]) -> PairedOutcomes:
    return PairedOutcomes(name, dict(enumerate(map(bool, real))), dict(enumerate(map(bool, imagined))))


def with_rates(real: list[int], imagined: list[int], episodes: int = 10) -> list[PairedOutcomes]:
    """Policies with these numbers of successes."""

    def outcomes(successes: int) -> list[int]:
        return [1] * successes + [0] * (episodes - successes)

    return [
        pair(f"p{i}", outcomes(r), outcomes(m)) for i, (r, m) in enumerate(zip(real, imagined, strict=True))
    ]


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)],
)  # the first: Newcombe 1998, table I, method 3
def test_wilson_intervals_are_the_published_ones(successes, episodes, low, high):
    assert wilson(successes, episodes) == pytest.approx((low, high), abs=1e-4)


def test_correlations_are_scipys_with_ties():
    from scipy import stats

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 30)) / 5
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_a_perfect_ranking():
    found = agreement(with_rates([0, 2, 5, 7, 10], [0, 2, 5, 7, 10]), draws=200)
    for name in ("pearson", "spearman", "kendall"):
        assert found[name]["value"] == pytest.approx(1)
    assert found["mmrv"]["value"] == found["bias"]["value"] == found["mae"]["value"] == 0
    assert found["episodes"] == {"count": 50, "agreement": 1.0, "kappa": 1.0}
    assert found["leave_one_out"]["low"] == pytest.approx(1)
    assert found["optimism"] == "undecided"
    # Of 5! = 120 orders one alone is as good.
    assert found["permutation_p"] == pytest.approx(1 / 120, abs=0.004)


def test_a_reversed_ranking():
    found = agreement(with_rates([0, 2, 5, 8, 10], [10, 8, 5, 2, 0]), draws=200)
    for name in ("pearson", "spearman", "kendall"):
        assert found[name]["value"] == pytest.approx(-1)
    assert found["permutation_p"] == 1
    assert found["mmrv"]["value"] == pytest.approx((1 + 0.8 + 0.5 + 0.8 + 1) / 5)


def test_mmrv_by_hand():
    """Reality is .9 .5 .5 .1, and the imagination swaps the first two: each of them violates .4. It also
    ranks the second and the third, which costs nothing: in reality they are equal."""
    assert mmrv(np.array([0.6, 0.7, 0.2, 0.0]), np.array([0.9, 0.5, 0.5, 0.1])) == pytest.approx(0.8 / 4)


def test_mmrv_counts_a_tie_of_the_imagination_against_the_better_policy_alone():
    """Strict ">": the better one is not above, as reality has it; the worse one is above on neither side."""
    assert mmrv(np.array([0.5, 0.5]), np.array([0.8, 0.2])) == pytest.approx(0.6 / 2)


def test_an_imagination_without_variance_has_no_correlation():
    found = agreement(with_rates([0, 5, 10], [0, 0, 0]), draws=50)
    assert np.isnan(found["pearson"]["value"])
    assert np.isnan(found["permutation_p"])
    assert found["pearson"]["undefined_draws"] == 50
    assert found["leave_one_out"]["low"] is None
    assert found["mmrv"]["value"] == pytest.approx((0 + 0.5 + 1.0) / 3)


def test_bias_has_a_sign_once_its_interval_excludes_zero():
    found = agreement(with_rates([1, 3, 2, 5], [8, 9, 9, 10]), draws=500)
    assert found["bias"]["value"] == pytest.approx(0.625)
    assert found["bias"]["low"] > 0
    assert found["optimism"] == "optimistic"
    assert agreement(with_rates([8, 9, 9, 10], [1, 3, 2, 5]), draws=500)["optimism"] == "pessimistic"


def test_kappa_by_hand():
    """Both are yes in 20 of 50, no in 15, they differ in 15: (0.7 − 0.5) / (1 − 0.5)."""
    a = np.repeat([True, True, False, False], [20, 5, 10, 15])
    b = np.repeat([True, False, True, False], [20, 5, 10, 15])
    assert kappa(a, b) == pytest.approx(0.4)


@pytest.mark.slow
def test_the_interval_grows_with_fewer_episodes_and_with_fewer_policies():
    """Resampling policies alone, or episodes alone, would leave one of the two without effect."""

    def width(policies: int, episodes: int) -> float:
        rates = np.linspace(0.1, 0.9, policies)
        real, imagined = np.round(rates * episodes), np.round(rates[::-1] ** 2 * episodes)
        bias = agreement(with_rates(real.astype(int), imagined.astype(int), episodes), draws=300)["bias"]
        return bias["high"] - bias["low"]

    assert width(20, 10) > 1.1 * width(20, 1000)
    assert width(5, 1000) > 1.5 * width(20, 1000)


@pytest.mark.slow
def test_a_start_that_is_played_ten_times_is_no_more_evidence_than_once():
    """As wide as the intervals of a tenth of the episodes: repeats are no further evidence."""
    real, imagined = [1, 0, 1, 1, 0, 1, 0, 0], [1, 1, 1, 0, 0, 1, 0, 1]

    def width(times: int, starts: int | None) -> float:
        pairs = [
            PairedOutcomes(name, dict(enumerate(r * times)), dict(enumerate(m * times)), starts)
            for name, r, m in [("a", real, imagined), ("b", imagined, real), ("c", real, real)]
        ]
        found = agreement(pairs, draws=1000)["mae"]
        return found["high"] - found["low"]

    assert width(10, 8) == pytest.approx(width(1, None))
    assert width(10, None) < 0.8 * width(1, None)
    pair = PairedOutcomes("a", dict(enumerate(real * 10)), dict(enumerate(imagined * 10)), 8)
    assert pair.independent("real") == 8
    assert wilson(40, 80, 8) == wilson(4, 8)
    other = PairedOutcomes("a", {100: True, 101: False, 102: True}, {0: True, 1: True, 2: False}, 2)
    assert (other.independent("real"), other.independent("imagined")) == (3, 2)
    fewer = PairedOutcomes("a", dict.fromkeys(range(30), True), dict.fromkeys(range(40), True), 20)
    assert (fewer.independent("real"), fewer.independent("imagined")) == (20, 20)


def test_labels_that_were_not_paired_give_no_agreement_of_episodes():
    pairs = [
        PairedOutcomes("a", {100: True, 101: False}, {0: True}),
        PairedOutcomes("b", {100: False}, {0: False, 1: False}),
    ]
    assert agreement(pairs, draws=20)["episodes"] == {"count": 0, "agreement": None, "kappa": None}

"""The simulated errors of promotion are those of exact sums, and its pairs are those of a run's rows."""

from __future__ import annotations

from math import comb, sqrt
from pathlib import Path

import pytest

from benchmarks.deciding.promotion_errors import (
    NUM_SEEDS,
    Interval,
    Pairs,
    draw,
    is_promoted,
    least_gained,
    promoted_share,
    read_pairs,
    summary,
)
from configs.disk.files import write_jsonl
from configs.errors import ConfigError


def binomial(k: int, n: int, p: float) -> float:
    return comb(n, k) * p**k * (1 - p) ** (n - k)


def least_by_the_exact_test(differing: int, level: float) -> int:
    """The smallest number of gained problems with P(K >= it) < level, K ~ Binomial(differing, 1/2): McNemar's exact test."""
    tail, gained = 0.0, differing + 1
    while gained > 0 and tail + binomial(gained - 1, differing, 0.5) < level:
        gained -= 1
        tail += binomial(gained, differing, 0.5)
    return gained


def promoted_by_the_exact_test(n: int, discordance: float, gain: float, level: float, *, step: int = 0) -> float:
    """The sum over all numbers of differing and of gained problems, without any draw; `step` gained ones less suffice."""
    share_gained = (discordance + gain) / (2 * discordance)
    return sum(
        binomial(differing, n, discordance) * binomial(gained, differing, share_gained)
        for differing in range(n + 1)
        for gained in range(max(0, least_by_the_exact_test(differing, level) - step), differing + 1)
    )


def test_the_exact_test_is_that_of_a_table_by_hand() -> None:
    """P(K >= 9) of 10 fair coins is 11/1024 = 0.0107, P(K >= 8) is 56/1024 = 0.0547, P(K >= 7) is 176/1024 = 0.172."""
    assert [least_by_the_exact_test(10, level) for level in (0.2, 0.1, 0.05, 0.01, 0.0005)] == [7, 8, 9, 10, 11]


def test_a_challenger_that_loses_nothing_is_promoted_from_three_gained_problems_on() -> None:
    """The bootstrap's mean is 0 where no gained problem is drawn: (62/64)^64 = 0.131 with two, (61/64)^64 = 0.046 with three.

    The lower end of the 80% interval is the 10% quantile, so the challenger is promoted with probability P(K >= 3),
    K ~ Binomial(64, 0.05): 1 - 0.95^64 - 64 0.05 0.95^63 - 2016 0.05^2 0.95^62 = 0.627.
    """
    assert {least_gained(64, m, "better", 0.8, 0) - m for m in (1, 2)} == {1}  # never
    exact = 1 - sum(binomial(k, 64, 0.05) for k in range(3))
    assert exact == pytest.approx(0.627, abs=5e-4)
    simulated = promoted_share(64, 0.05, 0.05, "better", 0.8, repetitions=4000)
    assert simulated == pytest.approx(exact, abs=3 * sqrt(exact * (1 - exact) / 4000))


@pytest.mark.parametrize("gain", [0.0, 0.05, 0.10])
def test_the_rule_is_as_strict_as_the_exact_paired_test(gain: float) -> None:
    """The bootstrap needs as many gained problems as McNemar's exact test at half of what confidence leaves, or one less, so
    the share that is promoted lies between two exact sums, up to three standard errors."""
    repetitions, level = 4000, 0.1
    steps = {
        least_by_the_exact_test(m, level) - least_gained(128, m, "better", 0.8, seed)
        for m in range(10, 31)
        for seed in (0, 1)
    }
    assert steps <= {0, 1}
    strict, lenient = (promoted_by_the_exact_test(128, 0.15, gain, level, step=step) for step in (0, 1))
    error = 3 * sqrt(0.25 / repetitions)
    assert strict - error < promoted_share(128, 0.15, gain, "better", 0.8, repetitions) < lenient + error


def test_the_smallest_number_of_gained_problems_is_where_decisions_turn() -> None:
    for rule, differing in (("better", 12), ("not_worse", 20)):
        needed = least_gained(64, differing, rule, 0.9, 1)
        decided = [is_promoted(64, gained, differing - gained, rule, 0.9, 1) for gained in range(differing + 1)]
        assert decided == [gained >= needed for gained in range(differing + 1)]


def test_a_rule_that_tolerates_a_loss_promotes_more_often() -> None:
    better, tolerant = (promoted_share(64, 0.15, 0.0, rule, 0.8, 400) for rule in ("better", "not_worse"))
    assert better < tolerant


def test_drawn_pairs_have_the_gain_and_the_discordance() -> None:
    """20,000 draws of 100 problems: standard errors of sqrt(0.15 x 0.85 / 2e6) = 0.00025 and sqrt((0.15 - 0.0025) / 2e6) = 0.00027."""
    gained, lost = draw(100, 0.15, 0.05, 20_000).sum(axis=0) / 2e6
    assert gained + lost == pytest.approx(0.15, abs=0.001)
    assert gained - lost == pytest.approx(0.05, abs=0.001)


def test_more_cannot_be_gained_than_differs() -> None:
    with pytest.raises(ConfigError, match=r"gain \+0\.1 is more than the discordance 0\.05.*larger --discordance"):
        draw(128, 0.05, 0.10, 10)


def test_discordance_follows_from_an_interval() -> None:
    """40 of 128 gained and 8 lost: gain 0.25, variance 48/128 - 1/16 = 0.3125, half of the 95% interval 1.96 sqrt(0.3125 / 128)."""
    half = 1.959964 * sqrt(0.3125 / 128)
    found = Interval(0.25, 0.25 - half, 0.25 + half, n=128, confidence=0.95).discordance
    assert found == pytest.approx(48 / 128, abs=1e-6)


def test_pairs_are_counted_by_problem_and_split_without_unscored_ones(tmp_path: Path) -> None:
    verdicts = {"a": (1, 1), "b": (0, 1), "c": (0, 1), "d": (1, 0), "e": (0, 0), "f": (1, None)}
    paths = []
    for side in (0, 1):
        rows = [
            {"split": split, "problem_key": key}
            | ({} if both[side] is None else {"greedy_accuracy": float(both[side])})
            for split in ("dev", "test")
            for key, both in verdicts.items()
        ]
        paths.append(tmp_path / f"{side}.jsonl")
        write_jsonl(paths[-1], rows if side == 0 else rows[::-1])
    pairs = read_pairs(*paths)
    assert pairs == Pairs(both=2, gained=4, lost=2, neither=2)
    assert pairs.discordance == pytest.approx(0.6)
    write_jsonl(paths[1], [])
    with pytest.raises(ConfigError, match="share no problem with greedy_accuracy; give two rounds of one run"):
        read_pairs(*paths)


def test_an_interrupted_call_goes_on_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = summary([64], 0.12, NUM_SEEDS)
    kept = sorted((tmp_path / "build" / "benchmarks" / "promotion_errors").iterdir())
    assert [path.name for path in kept] == [f"64-0.1200-{level}-8.json" for level in ("0.8", "0.9", "0.95")]
    kept[1].unlink()
    least_gained.cache_clear()
    assert summary([64], 0.12, NUM_SEEDS) == whole
    assert "| equal: promoted | better by 0.05: refused | better by 0.10: refused |" in whole

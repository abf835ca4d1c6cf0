"""Curves by generated tokens, with a band over seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.comparing.curves import band
from tasks.comparing.members import read_member
from tests.tasks.comparing.made_up import comparison, write_member


def test_a_band_is_where_all_seeds_have_tokens() -> None:
    """From 2 to 8 tokens. At 2 the first seed has 0.2 and the second 0.4; at 8 they have 0.8 and 1.0."""
    found = band([[(0, 0.0), (10, 1.0)], [(2, 0.4), (8, 1.0)]])
    assert found is not None
    assert (found.tokens[0], found.tokens[-1]) == (2, 8)
    assert (found.mean[0], found.low[0], found.high[0]) == pytest.approx((0.3, 0.2, 0.4))
    assert (found.mean[-1], found.low[-1], found.high[-1]) == pytest.approx((0.9, 0.8, 1.0))


@pytest.mark.parametrize("curves", [[[(0, 1.0), (4, 2.0)], []], [[(0, 1.0), (4, 2.0)], [(4, 1.0), (9, 2.0)]], []])
def test_seeds_without_tokens_in_common_have_no_band(curves: list[list[tuple[float, float]]]) -> None:
    assert band(curves) is None


def test_curves_by_step_and_round_count_tokens_from_the_start(tmp_path: Path) -> None:
    member = next(comparison().members())
    write_member(tmp_path, member, test=[1, 0], tokens=(400, 700), dev=(0.1, 0.5))
    run = read_member(tmp_path, member)
    assert run.by_step("reward/mean") == [(400, 0.1), (1100, 0.2)]
    assert run.by_round("dev", "greedy_accuracy") == [(0, 0.1), (1100, 0.5)]
    assert run.by_step("never/measured") == []

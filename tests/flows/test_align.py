"""What is compared is measured alike."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from configs.records import Policy
from flows import align


@pytest.mark.parametrize("before", [True, False])
def test_the_evaluations_that_no_longer_stand_are_made_again_before_a_comparison(
    monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    policies = [Policy(path="p", id=str(i), round=i) for i in range(3)]
    standing, made = {1}, []

    def evaluate(run: Any, round_index: int, policy: Policy, models: Any) -> None:
        made.append((round_index, policy.id, models))
        standing.add(round_index)

    def measure_before(run: Any) -> None:
        made.append("before the cold start")

    monkeypatch.setattr(align, "before_stands", lambda run: before)
    monkeypatch.setattr(align, "usable_models", lambda run, round_index: f"models of {round_index}")
    monkeypatch.setattr(align, "evaluation_stands", lambda run, policy, models: policy.round in standing)
    monkeypatch.setattr(align, "stages", SimpleNamespace(evaluate=evaluate, measure_before=measure_before))
    align.measure_again(None, policies[0], policies[1], policies[0], policies[2])  # type: ignore[arg-type]
    again = [] if before else ["before the cold start"]
    assert made == [*again, (0, "0", "models of 0"), (2, "2", "models of 2")]

"""All families of reasoning-gym: the same problems in each process, and golds that pass, or what docs/data.md says of them."""

import random
import re
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.problems import ReasoningGymSource
from configs.schema.rewards import OutcomeRewardConfig
from grpo_train.problems import families
from grpo_train.problems.families import read_families
from reward_training.golds import trials_of
from reward_training.scorer import build_rewards
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COMPOSITE = {"datasets": [{"name": "gcd"}, {"name": "arc_agi", "weight": 2}]}


def documented(words: str) -> set[str]:
    """The families of the row of docs/data.md that has these words."""
    rows = (ROOT / "docs" / "data.md").read_text().splitlines()
    [row] = [row for row in rows if row.startswith("| `") and words in row]
    return set(re.findall(r"`(\w+)`", row.split("|")[1]))


def test_all_families_give_the_same_problems_and_their_golds_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    from reasoning_gym.factory import DATASETS

    def source(family: str) -> ReasoningGymSource:
        options: dict[str, Any] = COMPOSITE if family == "composite" else {}
        return ReasoningGymSource(family=family, size=4, seed=11, options=options)

    sources = [source(family) for family in sorted(DATASETS)]
    assert len(sources) == 106
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    first = read_families(sources)
    families._written.cache_clear()
    monkeypatch.setenv("PYTHONHASHSEED", "2")
    random.random()
    assert read_families(sources[::-1])[::-1] == first
    assert {s.family: len(rows) for s, rows in zip(sources, first, strict=True) if len(rows) < 4} == {}

    problems = [
        Problem(key=raw.key, prompt=raw.text, answer=raw.answer, source=raw.source, split="dev", meta=raw.meta)
        for rows in first
        for raw in rows
    ]
    stored = [Problem.model_validate_json(problem.model_dump_json()) for problem in problems]
    assert stored == problems
    reward = OutcomeRewardConfig(name="right", extract="tag", checker="reasoning_gym")
    with build_rewards([reward], {}) as [built]:
        trials = trials_of(reward, built, stored)
    assert {trial.source for trial in trials if trial.num_tried == 0} == documented("no gold answers")
    assert {trial.source for trial in trials if trial.accepts_anything} == documented("takes any text for right")
    assert [trial.refusal for trial in trials if trial.refused] == []
    assert [trial.failure for trial in trials if trial.failure and not trial.accepts_anything] == []


def test_all_families_but_the_documented_ones_need_no_options() -> None:
    with pytest.raises(ConfigError, match="Must specify at least one dataset"):
        read_families([ReasoningGymSource(family="composite", size=1)])
    assert documented("needs `options") == {"composite"}

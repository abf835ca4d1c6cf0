import json
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema.problems import ReasoningGymSource
from grpo_train.problems.families import read_families
from grpo_train.problems.raw_problem import RawProblem


def _family(family: str, size: int, /, **options: Any) -> list[RawProblem]:
    return read_families([ReasoningGymSource(family=family, size=size, options=options)])[0]


def test_family_gives_distinct_questions_with_what_its_scorer_needs() -> None:
    problems = _family("gcd", 50, min_value=1, max_value=30)
    assert len({problem.text for problem in problems}) == 50
    first = problems[0]
    assert first.meta["family"] == "gcd"
    assert first.meta["entry"]["answer"] == first.answer
    assert json.loads(json.dumps(first.meta)) == first.meta
    assert (first.split, first.is_text, first.difficulty) == (None, False, None)


def test_family_that_runs_dry_gives_fewer_than_asked() -> None:
    # two factors of one digit: at most 10 x 10 questions
    assert 50 < len(_family("products", 5000, min_terms=2, max_terms=2, min_digits=1, max_digits=1)) <= 100


def test_size_only_cuts_what_a_family_gives() -> None:
    assert _family("chain_sum", 5) == _family("chain_sum", 20)[:5]


def test_numeric_difficulty_of_a_family_is_kept() -> None:
    assert _family("gsm_symbolic", 1)[0].difficulty == 1.0


@pytest.mark.parametrize(
    ("family", "options", "remedy"),
    [
        ("chainsum", {}, "did you mean chain_sum"),
        ("chain_sum", {"terms": 2}, r"no options \['terms'\]; its options are .*max_terms"),
        ("chain_sum", {"size": 2}, r"no options \['size'\]"),
        ("chain_sum", {"min_terms": 5, "max_terms": 2}, "max_terms must be >= min_terms"),
        ("chain_sum", {"min_terms": "two"}, "refuses options"),
    ],
)
def test_wrong_family_or_option_names_the_valid_ones(family: str, options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        _family(family, 3, **options)

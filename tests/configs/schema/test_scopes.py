"""Which rewards score which sources: what is refused, and which reward decides what is right."""

from typing import Any

import pytest
from pydantic import ValidationError

from configs.schema.config import Config
from configs.schema.scopes import metric_part, source_name

MATH = {"kind": "jsonl", "path": "data/math.jsonl", "source": "math"}
CODE = {"kind": "dataset", "path": "acme/code", "name": "main", "source": "code"}
SUMS = {"kind": "reasoning_gym", "family": "chain_sum", "size": 9}
ANSWER = {"name": "answer", "kind": "outcome", "sources": ["math", "chain_sum"]}
TESTS = {"name": "tests", "kind": "python", "function": "mine:tests", "sources": ["code"]}
JUDGE = {"name": "kind", "kind": "judge", "base_url": "http://x/v1", "model": "m", "rubric": "r"}
STEPS = {"name": "steps", "kind": "process", "checked_by": "tests"}
MODEL = {"name": "taste", "kind": "reward_model", "model": "taste"}


def config(*rewards: dict[str, Any], sources: tuple[dict[str, Any], ...] = (MATH, CODE, SUMS), **blocks: Any) -> Config:
    return Config.model_validate(
        {"policy": {"path": "builtin:tiny"}, "problems": {"sources": list(sources)}, "rewards": list(rewards), **blocks}
    )


def test_a_source_is_named_by_its_own_name_or_its_family_or_path() -> None:
    sources = config(
        ANSWER, TESTS, JUDGE, sources=(MATH, CODE, SUMS, {"kind": "jsonl", "path": "b.jsonl"})
    ).problems.sources
    assert [source_name(source) for source in sources] == ["math", "code", "chain_sum", "b.jsonl"]


def test_each_source_is_right_by_the_first_checker_that_scores_it() -> None:
    numeric = {"name": "numeric", "kind": "outcome"}
    mixed = config(ANSWER, TESTS, numeric, {"name": "never", "kind": "outcome"})
    assert [mixed.checker_of(name) for name in ("math", "chain_sum", "code")] == ["answer", "answer", "numeric"]
    assert mixed.checkers == ["answer", "numeric"]  # after one that scores everything none decides
    named = config(ANSWER, TESTS, numeric, evaluation={"checker": ["tests", "answer"]})
    assert [named.checker_of(name) for name in ("math", "chain_sum", "code")] == ["answer", "answer", "tests"]
    one = config(ANSWER, TESTS, numeric, evaluation={"checker": "tests"})
    assert [one.checker_of(name) for name in ("math", "code")] == [None, "tests"]


def test_a_checker_may_stand_in_evaluation_alone() -> None:
    gold = {"name": "gold", "kind": "outcome", "sources": ["code"]}
    mixed = config(ANSWER, TESTS, evaluation={"rewards": [gold]})
    assert [mixed.checker_of(name) for name in ("math", "code")] == ["answer", "gold"]


def test_without_any_checker_promotion_needs_another_metric() -> None:
    assert config(JUDGE, promotion={"metric": "sampled/kind"}).checkers == []
    for metric in ("greedy_accuracy", "greedy_accuracy/code", "pass_at_4"):
        with pytest.raises(
            ValidationError, match=r"set promotion\.metric to what a reward measures, such as sampled/kind"
        ):
            config(JUDGE, promotion={"metric": metric})


def test_a_source_that_is_only_measured_needs_no_weight() -> None:
    held_out = MATH | {"split": "test"}
    gold = {"name": "gold", "kind": "outcome", "sources": ["math"]}
    assert config(
        TESTS | {"sources": ["code", "chain_sum"]}, sources=(held_out, CODE, SUMS), evaluation={"rewards": [gold]}
    )
    with pytest.raises(ValidationError, match="no reward scores the problems of source 'math'"):
        config(
            TESTS | {"sources": ["code", "chain_sum"]}, sources=(held_out, CODE, SUMS), evaluation={"checker": "tests"}
        )


def test_blocks_of_one_name_are_one_source() -> None:
    both = config(ANSWER, TESTS, sources=(MATH | {"split": "test"}, MATH | {"path": "train.jsonl"}, CODE, SUMS))
    assert both.checker_of("math") == "answer"
    with pytest.raises(ValidationError, match="with a weight other than 0 scores the problems of source 'math'"):
        config(
            ANSWER | {"weight": 0},
            TESTS,
            sources=(MATH | {"split": "test"}, MATH | {"path": "train.jsonl"}, CODE, SUMS),
        )


def test_names_that_stand_in_a_column_are_looked_for_in_the_data() -> None:
    column = {"kind": "jsonl", "path": "mixed.jsonl", "columns": {"source": "data_source"}}
    assert config(ANSWER | {"sources": ["openai/gsm8k"]}, TESTS, sources=(column,))


@pytest.mark.parametrize(
    ("rewards", "blocks", "message"),
    [
        ([ANSWER, TESTS | {"sources": ["cod"]}], {}, "reward 'tests': sources has 'cod', which is no source; .* did you mean 'code'"),
        ([ANSWER], {}, "no reward with a weight other than 0 scores the problems of source 'code'"),
        ([ANSWER, TESTS | {"weight": 0}], {}, "no reward with a weight other than 0 scores the problems of source 'code'"),
        ([ANSWER, TESTS | {"sources": []}], {}, "at least 1 item"),
        ([ANSWER, TESTS, STEPS], {}, "reward 'steps' scores the sources \\['all'\\], which 'tests', which checks its steps, does not"),
        ([ANSWER, TESTS, STEPS | {"sources": ["code", "math"]}], {}, "scores the sources \\['math'\\], which 'tests'"),
        ([ANSWER, TESTS], {"evaluation": {"checker": ["answer", "test"]}}, "evaluation.checker='test' is no reward"),
        ([ANSWER, TESTS, MODEL | {"sources": ["code"]}], {"reward_models": {"taste": {"kind": "trained", "labeler": {"kind": "outcome", "reward": "answer"}}}},
         "scores the sources \\['chain_sum', 'math'\\] and the reward model \\['code'\\]: no pair could be made"),
        ([ANSWER, TESTS], {"curriculum": {"kind": "band"}, "evaluation": {"rewards": [{"name": "gold", "kind": "outcome", "sources": ["code"]}]}},
         "the checker 'gold' is none of `rewards`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_remedy(
    rewards: list[dict[str, Any]], blocks: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        config(*rewards, **blocks)


def test_two_names_for_one_source_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"source='math' and columns\.source='task' both name the source"):
        config(JUDGE, sources=(MATH | {"columns": {"source": "task"}},), promotion={"metric": "sampled/kind"})


def test_names_that_metrics_could_not_tell_apart_are_refused() -> None:
    twins = tuple({"kind": "jsonl", "path": path} for path in ("a/b.jsonl", "a_b.jsonl"))
    with pytest.raises(ValidationError, match=r"are all 'a_b\.jsonl' in metrics; tell them apart by problems\.sources"):
        config({"name": "right", "kind": "outcome"}, sources=twins)


@pytest.mark.parametrize(
    ("source", "part"), [("../x y.jsonl", ".._x_y.jsonl"), ("/data/a.jsonl", "data_a.jsonl"), ("a" * 200, "a" * 100)]
)
def test_a_sources_name_is_a_safe_part_of_a_metrics_name(source: str, part: str) -> None:
    assert metric_part(source) == part


def test_a_process_reward_may_stay_within_its_checkers_sources() -> None:
    assert config(ANSWER, TESTS, STEPS | {"sources": ["code"]})
    arithmetic = STEPS | {"checked_by": "arithmetic"}
    assert config(ANSWER, TESTS, arithmetic)


def test_a_reward_model_is_of_the_sources_of_all_rewards_that_use_it() -> None:
    models = {"taste": {"kind": "trained", "labeler": {"kind": "score"}}}
    uses = [MODEL | {"sources": ["code"]}, MODEL | {"name": "also", "sources": ["math"], "weight": 0}]
    assert config(ANSWER, TESTS, *uses, reward_models=models).sources_of_model("taste") == {"code", "math"}
    assert config(ANSWER, TESTS, *uses, MODEL | {"name": "any"}, reward_models=models).sources_of_model("taste") is None

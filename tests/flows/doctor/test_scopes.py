"""What the doctor says of rewards for some sources, whose names may stand in the data alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reader import load_config
from configs.schema.config import Config
from flows.doctor.checks import Finding
from flows.doctor.preflight import preflight
from flows.doctor.report import check
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.problems.splits import load_problems
from tests.paths import TINY

ANSWER = {"name": "answer", "kind": "outcome", "checker": "numeric", "sources": ["openai/gsm8k"]}
LETTER = {"name": "letter", "kind": "format", "pattern": "[a-z]", "sources": ["style"]}
BRIEF = {"name": "brief", "kind": "length", "target": 2, "limit": 16, "weight": 0.0}


@pytest.fixture
def mixed(workspace: Path) -> Path:
    """A file in which two sources are mixed: numbers, and questions whose answers are no numbers."""
    rows = [{"question": f"{i} + 1?", "answer": str(i + 1), "data_source": "openai/gsm8k"} for i in range(90)]
    rows += [{"question": f"Greet {i}!", "answer": "hello", "data_source": "style"} for i in range(90)]
    (workspace / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workspace


def configured(folder: Path, *rewards: dict[str, Any], **blocks: Any) -> Config:
    source = {"kind": "jsonl", "path": "mixed.jsonl", "columns": {"source": "data_source"}}
    data = yaml.safe_load(TINY.read_text())
    del data["reward_models"]
    data |= {"rewards": list(rewards), "problems": {"sources": [source], "dev": 16, "test": 16}, **blocks}
    (folder / "config.yaml").write_text(yaml.safe_dump(data))
    return load_config(folder / "config.yaml")


def findings(config: Config, folder: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in check(config, folder).findings}


def test_each_source_is_listed_with_what_scores_it(mixed: Path) -> None:
    found = findings(configured(mixed, ANSWER, LETTER, BRIEF), mixed)
    assert {name for name, finding in found.items() if finding.status == "fail"} == set()
    assert found["sources"].detail == (
        "openai/gsm8k 90: answer, brief (right by answer); style 90: letter, brief (without accuracy)"
    )
    assert found["gold answers, answer"].detail == "90 of 90 pass"  # hello is no number, and is not asked about


@pytest.mark.parametrize(
    ("rewards", "detail"),
    [
        ([ANSWER, LETTER | {"sources": ["styles"]}], "reward 'letter': sources has 'styles', which is no source; sources are ['openai/gsm8k', 'style']; did you mean 'style'?"),
        ([ANSWER, BRIEF], "no reward with a weight other than 0 scores the problems of source 'style'; add it to the sources of a reward, or drop the source"),
    ],
)  # fmt: skip
def test_names_of_the_data_are_checked_too(rewards: list[dict[str, Any]], detail: str, mixed: Path) -> None:
    found = findings(configured(mixed, *rewards), mixed)["sources"]
    assert (found.status, found.detail) == ("fail", detail)


@pytest.mark.parametrize(
    ("metric", "status"),
    [
        ("greedy_accuracy", "ok"),
        ("greedy_accuracy/openai_gsm8k", "ok"),
        ("sampled/letter", "ok"),
        ("greedy_accuracy/style", "fail"),
        ("sampled/answers", "fail"),
    ],
)
def test_the_promotion_metric_has_to_be_measured_on_some_problem_of_dev(metric: str, status: str, mixed: Path) -> None:
    found = findings(configured(mixed, ANSWER, LETTER, promotion={"metric": metric}), mixed)["promotion"]
    assert found.status == status
    if status == "fail":
        assert found.remedy.startswith("use one of greedy_accuracy, greedy_accuracy/openai_gsm8k, response_length")


def test_pass_rates_and_ranges_are_of_the_problems_that_a_reward_applies_to(mixed: Path) -> None:
    config = configured(mixed, ANSWER, LETTER)
    tokenizer = build_tiny_tokenizer()
    problems = load_problems(config.problems, config.regeneration, rounds=0, seed=0, tokenizer=tokenizer)
    [*numbers] = [problem for problem in problems.by_split["train"] if problem.source == "openai/gsm8k"][:4]
    [*style] = [problem for problem in problems.by_split["train"] if problem.source == "style"][:4]
    result = preflight(config, build_tiny_model(tokenizer), tokenizer, [*numbers, *style])
    assert (result.num_responses, len(result.pass_rates)) == (32, 4)
    ranges = {reward.name: reward for reward in result.rewards}
    assert ranges["answer"].unscored_share == ranges["letter"].unscored_share == 0.0
    assert ranges["letter"].agreement is None
    alone = preflight(config, build_tiny_model(tokenizer), tokenizer, style)
    assert alone.pass_rates == []
    assert (alone.rewards[0].low, alone.rewards[0].unscored_share) == (None, 0.0)

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema.config import Config
from flows.doctor.checks import Finding
from flows.doctor.report import refuse_faulty
from flows.doctor.retention import check_retention
from grpo_train.policies.tiny_model import build_tiny_tokenizer, save_tiny_model

Configure = Callable[..., Config]
GCD = {"kind": "generate", "problems": {"kind": "reasoning_gym", "family": "gcd", "size": 5}}


def written(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def findings(configure: Configure, **suites: Any) -> list[Finding]:
    save_tiny_model(Path("model"))
    config = configure(evaluation={"retention": suites})
    return list(check_retention(config, Path("model"), build_tiny_tokenizer()))


def test_suites_that_can_be_measured_are_described(configure: Configure) -> None:
    found = findings(
        configure,
        prose={"kind": "text", "path": written("t.jsonl", [{"text": "four"}, {"text": "eleven"}])},
        facts={
            "kind": "choice",
            "path": written("c.jsonl", [{"question": "2 + 2 =", "choices": ["4", "5", "6"], "answer": 0}]),
        },
        gcd=GCD | {"checker": {"name": "right", "checker": "reasoning_gym"}},
    )
    assert [(each.name, each.status, each.detail) for each in found] == [
        ("retention facts", "ok", "choice: 1 questions, 3 choices"),
        ("retention gcd", "ok", "generate: 5 problems"),
        ("retention prose", "ok", "text: 2 texts, 10 tokens"),  # a token is a character
    ]


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ({"kind": "text", "path": "gone.jsonl"}, "gone.jsonl does not exist; set evaluation.retention.mine.path"),
        (
            {"kind": "text", "path": "t.jsonl", "column": "body"},
            "no column 'body'; set evaluation.retention.mine.column",
        ),
        ({"kind": "text", "path": "empty.jsonl"}, "evaluation.retention.mine holds no item"),
        ({"kind": "choice", "path": "t.jsonl"}, "no column 'question'"),
        (
            {"kind": "generate", "problems": {"kind": "file", "path": "words.jsonl"}, "checker": {"name": "right"}},
            "gold answers, right: 1 of 1 fail",
        ),
    ],
)
def test_suites_that_cannot_be_measured_fail_by_name(configure: Configure, suite: dict[str, Any], message: str) -> None:
    written("t.jsonl", [{"text": "a text"}])
    written("empty.jsonl", [])
    written("words.jsonl", [{"question": "Which colour?", "answer": "red"}])  # the reward looks for a number
    [found] = findings(configure, mine=suite)
    assert found.status == "fail"
    assert message in found.detail


def test_an_item_beyond_the_models_positions_fails_with_a_remedy(configure: Configure) -> None:
    path = written("t.jsonl", [{"text": "word " * 600}])
    [found] = findings(configure, mine={"kind": "text", "path": path, "max_tokens": 3000})
    assert found.status == "fail"
    assert found.detail == "the longest item has 3000 tokens, more than the model's max_position_embeddings=2048"
    assert found.remedy == "lower evaluation.retention.mine.max_tokens to 2048"


def test_a_run_does_not_begin_with_a_suite_that_is_not_there(configure: Configure, workspace: Path) -> None:
    config = configure(evaluation={"retention": {"mine": {"kind": "text", "path": "gone.jsonl"}}})
    with pytest.raises(ConfigError, match=r"retention mine: gone.jsonl does not exist"):
        refuse_faulty(config, workspace)

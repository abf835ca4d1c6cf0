"""Which special tokens a reward looks for, from its tags or its pattern."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from configs.schema.rewards import RewardConfig
from reward_training.rewards.sought import MOST, spellings, texts_sought

TOKENS = ["<think>", "</think>", "<answer>", "</answer>", "<|begin_of_solution|>", "[ANS]", "\\boxed", "####", "<s>"]


def tokens_of(**fields: Any) -> list[str]:
    """The tokens that a reward looks for."""
    config: RewardConfig = TypeAdapter(RewardConfig).validate_python({"name": "r"} | fields)
    texts = texts_sought([config])
    return [token for token in TOKENS if any(token in text for text in texts)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (r"^<think>.*?</think>\s*<answer>.*?</answer>$", TOKENS[:4]),
        (r"<(think|answer)>.*</(think|answer)>", TOKENS[:4]),
        (r"</?answer>", TOKENS[2:4]),
        (r"(?:<answer>)?\d+(?P<end></answer>)", TOKENS[2:4]),
        (r"<\|begin_of_(?:solution|thought)\|>", ["<|begin_of_solution|>"]),
        (r"\[ANS\]\s*\d", ["[ANS]"]),
        (r"the answer is \d+", []),
        (r"<step>\d", []),
        (r"(?=.*<answer>)(?!.*<think>)", ["<think>", "<answer>"]),
    ],
)
def test_tokens_in_a_pattern_are_found(pattern: str, found: list[str]) -> None:
    assert tokens_of(kind="format", pattern=pattern) == found


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"kind": "format", "tags": ["think"]}, TOKENS[:2]),
        ({"kind": "outcome", "extract": "tag", "tag": "answer"}, TOKENS[2:4]),
        ({"kind": "outcome", "extract": "final"}, [*TOKENS[2:4], "\\boxed", "####"]),
        ({"kind": "outcome", "extract": "boxed"}, ["\\boxed"]),
        ({"kind": "outcome"}, []),
        ({"kind": "process", "before": "<answer>"}, ["<answer>"]),
        ({"kind": "process"}, []),
        ({"kind": "length", "target": 1, "limit": 2}, []),
    ],
)
def test_tokens_of_other_rewards_are_found(fields: dict[str, Any], found: list[str]) -> None:
    assert tokens_of(**fields) == found


def test_a_pattern_of_many_alternatives_ends() -> None:
    assert len(spellings("(a|b|c)?" * 40)) <= 2 * MOST

"""Log-likelihoods of texts and choices, equal to a plain implementation that runs one sequence at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError, StageStopped
from configs.schema.measuring.retention import ChoiceSuite, TextSuite
from grpo_train.measuring.retention.likelihood import choice_rows, encoded_choices, text_rows
from grpo_train.measuring.retention.suites import ChoiceItem, TextItem

Tiny = tuple[PreTrainedModel, PreTrainedTokenizerBase]
TEXTS = ["The cat sat on the mat.", "2 + 3 is 5", "The cat sat on the roof, and the dog beside it.", "ab"]
QUESTIONS = [
    ("The capital of France is", ["Paris", "a very long way from here, as the crow flies", "Rome"], 0),
    ("Two and two make ", ["4", "1234567890", "five or six of them"], 0),
    ("The sun sets in the", ["w", "east", "north, where the wind is cold"], 1),
    ("7", ["8", "8 is next", "88888"], 2),
]


def items() -> list[ChoiceItem]:
    return [ChoiceItem(str(i), question, choices, [gold]) for i, (question, choices, gold) in enumerate(QUESTIONS)]


def plain_logprobs(tiny: Tiny, text: str) -> list[float]:
    """Of the second token on, by the model's own logits."""
    model, tokenizer = tiny
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logprobs = torch.log_softmax(model(ids).logits.float(), dim=-1)
    return [float(logprobs[0, i, token]) for i, token in enumerate(ids[0, 1:])]


def test_a_text_counts_by_the_mean_of_its_tokens_log_probabilities(tiny: Tiny) -> None:
    rows = text_rows(*tiny, [TextItem(text, text) for text in TEXTS], TextSuite(path="x"), "prose", max_tokens=64)
    for row, text in zip(rows, TEXTS, strict=True):
        logprobs = plain_logprobs(tiny, text)
        assert row == {"suite": "prose", "item": text, "value": pytest.approx(sum(logprobs) / len(logprobs), abs=1e-4)}


def test_of_a_long_text_the_first_tokens_count(tiny: Tiny) -> None:
    suite = TextSuite(path="x", max_tokens=5)
    [row] = text_rows(*tiny, [TextItem("k", TEXTS[0])], suite, "prose", max_tokens=64)
    assert row["value"] == pytest.approx(
        sum(plain_logprobs(tiny, TEXTS[0])[:4]) / 4, abs=1e-4
    )  # "The c" has 4 to predict


def test_a_text_of_one_token_is_refused(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"evaluation.retention.prose has the text 'a', of which no token follows"):
        text_rows(*tiny, [TextItem("k", "a")], TextSuite(path="x"), "prose", max_tokens=64)


def plain_choice(tiny: Tiny, question: str, choices: list[str], gold: int) -> dict[str, float]:
    """lm-eval's loglikelihood and process_results for one document: acc, acc_norm; and the gold choice's nats a token."""
    sums, means = [], []
    for choice in choices:
        logprobs = plain_logprobs(tiny, f"{question} {choice}")[len(question.rstrip()) - 1 :]  # a token is a character
        sums.append(sum(logprobs))
        means.append(sum(logprobs) / len(logprobs))
    by_length = [value / len(choice) for value, choice in zip(sums, choices, strict=True)]
    best, best_by_length = (max(range(len(choices)), key=values.__getitem__) for values in (sums, by_length))
    return {"acc": float(best == gold), "acc_norm": float(best_by_length == gold), "gold": means[gold]}


def test_choices_are_decided_as_lm_eval_decides_acc_norm(tiny: Tiny) -> None:
    rows = choice_rows(*tiny, items(), ChoiceSuite(path="x"), "facts", max_tokens=64)
    plain = [plain_choice(tiny, *question) for question in QUESTIONS]
    assert [row["value"] for row in rows] == [found["acc_norm"] for found in plain]
    assert [row["gold"] for row in rows] == pytest.approx([found["gold"] for found in plain], abs=1e-4)
    # the division by length decides in these questions, and both right and wrong choices occur
    assert [found["acc"] for found in plain] != [found["acc_norm"] for found in plain]
    assert {row["value"] for row in rows} == {0.0, 1.0}


def test_of_several_right_choices_any_may_be_the_likeliest(tiny: Tiny) -> None:
    wrong = [item for item in items() if plain_choice(tiny, *QUESTIONS[int(item.key)])["acc_norm"] == 0]
    every = [ChoiceItem(item.key, item.question, item.choices, [0, 1, 2]) for item in wrong]
    assert [row["value"] for row in choice_rows(*tiny, every, ChoiceSuite(path="x"), "facts", max_tokens=64)] == [
        1.0
    ] * len(wrong)


def test_white_space_at_the_end_of_a_question_belongs_to_the_choice(tiny: Tiny) -> None:
    tokenizer = tiny[1]
    [response, _] = encoded_choices(
        tokenizer, [ChoiceItem("k", "ab ", ["cd", "e"], [0])], ChoiceSuite(path="x"), "facts"
    )
    assert response.prompt_ids == tokenizer("ab")["input_ids"]
    assert response.token_ids == tokenizer("  cd")["input_ids"]


def test_a_long_question_loses_its_first_tokens_and_a_long_choice_is_refused(tiny: Tiny) -> None:
    tokenizer, item = tiny[1], ChoiceItem("k", "abcdef", ["gh", "i"], [0])
    [long, short] = encoded_choices(tokenizer, [item], ChoiceSuite(path="x", max_tokens=5), "facts")
    assert long.prompt_ids + long.token_ids == tokenizer("ef gh")["input_ids"]
    assert short.prompt_ids + short.token_ids == tokenizer("def i")["input_ids"]
    with pytest.raises(ConfigError, match=r"a choice of 3 tokens.*fewer than max_tokens=3"):
        encoded_choices(tokenizer, [item], ChoiceSuite(path="x", max_tokens=3), "facts")


def test_measuring_stops_when_it_is_asked_to(tiny: Tiny) -> None:
    asked: dict[str, Any] = {"max_tokens": 64, "should_stop": lambda: True}
    with pytest.raises(StageStopped):
        text_rows(*tiny, [TextItem("k", TEXTS[0])], TextSuite(path="x"), "prose", **asked)
    with pytest.raises(StageStopped):
        choice_rows(*tiny, items(), ChoiceSuite(path="x"), "facts", **asked)

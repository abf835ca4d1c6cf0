"""Measures texts and multiple-choice questions by the log-likelihood that a policy gives them, at temperature 1.

No chat template is used: a text is what stands in the file, and a choice is continued from the question as in lm-eval. What
several choices of a question share is computed once. Choices are compared as lm-eval 0.4 does for `acc_norm`: by the
log-likelihood of all tokens of a choice divided by its number of characters, without the delimiter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError, StageStopped
from configs.records import Completion
from configs.schema.measuring.retention import ChoiceSuite, TextSuite
from grpo_train.measuring.retention.suites import ChoiceItem, TextItem, field_of
from grpo_train.updating.response_logprobs import as_response, response_rows
from reward_training.transformer.rendering import encode_texts

AT_ONCE = 32
"""items between two questions whether to stop"""

Row = dict[str, Any]
"""one item: suite, item (its key), value, and for choices gold"""
ShouldStop = Callable[[], bool]


def text_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[TextItem],
    suite: TextSuite,
    name: str,
    *,
    max_tokens: int,
    should_stop: ShouldStop = lambda: False,
) -> list[Row]:
    """The mean log-likelihood of each text's tokens in nats a token: of those from the second on, given the ones before.

    `max_tokens` bounds the positions of a forward pass.

    Raises:
        ConfigError: a text is shorter than two tokens.
        StageStopped: `should_stop()` was true between two batches of texts.
    """
    sequences = encoded_texts(tokenizer, items, suite, name)
    rows: list[Row] = []
    for start in range(0, len(items), AT_ONCE):
        _stop_if(should_stop)
        responses = [as_response(ids[:1], ids[1:]) for ids in sequences[start : start + AT_ONCE]]
        logprobs = response_rows(model, responses, max_tokens=max_tokens, temperature=1.0)
        for item, values in zip(items[start : start + AT_ONCE], logprobs, strict=True):
            rows.append({"suite": name, "item": item.key, "value": fmean(values)})
    return rows


def encoded_texts(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[TextItem], suite: TextSuite, name: str
) -> list[list[int]]:
    """Token ids of the beginning of each text, with the tokenizer's own first token where it has one.

    Raises:
        ConfigError: a text is shorter than two tokens.
    """
    texts = [item.text for item in items]
    sequences = [ids[: suite.max_tokens] for ids in encode_texts(tokenizer, texts, texts)]
    if short := [text for text, ids in zip(texts, sequences, strict=True) if len(ids) < 2]:
        raise ConfigError(
            f"{field_of(name)} has the text {short[0]!r}, of which no token follows another; leave it out of the file"
        )
    return sequences


def choice_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[ChoiceItem],
    suite: ChoiceSuite,
    name: str,
    *,
    max_tokens: int,
    should_stop: ShouldStop = lambda: False,
) -> list[Row]:
    """For each question whether the likeliest choice is right (1 or 0), and as `gold` the first right one's nats a token.

    Raises:
        ConfigError: a choice has more tokens than the suite's `max_tokens`.
        StageStopped: `should_stop()` was true between two batches of questions.
    """
    rows: list[Row] = []
    for start in range(0, len(items), AT_ONCE):
        _stop_if(should_stop)
        batch = items[start : start + AT_ONCE]
        responses = encoded_choices(tokenizer, batch, suite, name)
        logprobs = iter(response_rows(model, responses, max_tokens=max_tokens, temperature=1.0))
        rows += [_choice_row(item, [next(logprobs) for _ in item.choices], name) for item in batch]
    return rows


def _choice_row(item: ChoiceItem, logprobs: Sequence[Sequence[float]], name: str) -> Row:
    normalised = [sum(values) / len(choice) for values, choice in zip(logprobs, item.choices, strict=True)]
    chosen = normalised.index(max(normalised))
    gold = fmean(logprobs[item.golds[0]])
    return {"suite": name, "item": item.key, "value": float(chosen in item.golds), "gold": gold}


def encoded_choices(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[ChoiceItem], suite: ChoiceSuite, name: str
) -> list[Completion]:
    """Each choice of each question as a response to it, the questions one after the other.

    As in lm-eval, white space at the end of a question belongs to the choice, and the choice's tokens are those that the whole
    text has after the number of tokens that the question has alone.

    Raises:
        ConfigError: a choice has more tokens than the suite's `max_tokens`.
    """
    questions = [item.question.rstrip() for item in items for _ in item.choices]
    wholes = [item.question + suite.delimiter + choice for item in items for choice in item.choices]
    before, whole = (encode_texts(tokenizer, texts, texts) for texts in (questions, wholes))
    responses = []
    for ids, question, text in zip(whole, before, wholes, strict=True):
        num_tokens = len(ids) - len(question)
        if not 0 < num_tokens < suite.max_tokens:
            raise ConfigError(
                f"{field_of(name)} has a choice of {num_tokens} tokens, in {text[-80:]!r}; it needs at least one, and fewer than "
                f"max_tokens={suite.max_tokens}: raise that, or leave the question out"
            )
        kept = ids[-suite.max_tokens :]
        responses.append(as_response(kept[:-num_tokens], kept[-num_tokens:]))
    return responses


def _stop_if(should_stop: ShouldStop) -> None:
    if should_stop():
        raise StageStopped("stopped while old abilities were measured; the stage begins anew")

"""Reads preference pairs from a file or data set with the columns prompt, chosen and rejected."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from configs.disk.rows.columns import MISSING, column, lookup, shortened
from configs.disk.rows.messages import as_messages
from configs.disk.rows.reading import read_rows
from configs.errors import ConfigError
from configs.records import Message, PreferencePair
from configs.schema.reward_models import FileLabeler, TrainedRewardModel
from reward_training.pairs.building import is_held_out

FROM_FILE = "file"
"""placeholder for the ids of the policies that wrote the responses, which a file does not contain"""


def read_preferences(
    labeler: FileLabeler, *, name: str, config: TrainedRewardModel, round_index: int
) -> list[PreferencePair]:
    """All pairs of the labeler's file for the reward model `name`, in order, without pairs of equal responses.

    Raises:
        ConfigError: the file is missing or empty, or a row has another form.
    """
    rows = read_rows(labeler.path, labeler.name, labeler.dataset_split, labeler.revision, "labeler.path")
    pairs = [_pair(row, place, labeler, name, config, round_index) for place, row in rows]
    distinct = [pair for pair in pairs if pair.chosen != pair.rejected]
    if not distinct:
        raise ConfigError(
            f"{labeler.path} holds no pair of two responses; it needs a row a pair with chosen and rejected"
        )
    return distinct


def draw_preferences(pairs: list[PreferencePair], *, max_pairs: int, rng: np.random.Generator) -> list[PreferencePair]:
    """At most `max_pairs` random training pairs and the same share of the held-out ones, in their order."""
    train = [pair for pair in pairs if pair.split == "train"]
    held_out = [pair for pair in pairs if pair.split == "held_out"]
    share = min(1.0, max_pairs / max(len(train), 1))
    return [*_sample(train, round(share * len(train)), rng), *_sample(held_out, round(share * len(held_out)), rng)]


def _sample(pairs: list[PreferencePair], count: int, rng: np.random.Generator) -> list[PreferencePair]:
    return [pairs[i] for i in sorted(rng.permutation(len(pairs))[:count])]


def _pair(
    row: dict[str, Any], place: str, labeler: FileLabeler, name: str, config: TrainedRewardModel, round_index: int
) -> PreferencePair:
    chosen_before, chosen = _response(column(row, labeler.chosen, "labeler.chosen", place), "chosen", place)
    rejected_before, rejected = _response(column(row, labeler.rejected, "labeler.rejected", place), "rejected", place)
    if (value := lookup(row, labeler.prompt)) is not MISSING:
        prompt = _prompt(value, place)
    else:
        if not chosen_before or chosen_before != rejected_before:
            raise ConfigError(
                f"{place}: no column {labeler.prompt!r}, and chosen and rejected are no two conversations that begin alike; "
                "set labeler.prompt"
            )
        prompt = chosen_before
    key = hashlib.sha256(json.dumps(prompt).encode()).hexdigest()
    return PreferencePair(
        problem_key=key,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        margin=1.0,
        objective=name,
        labeler=labeler.kind,
        sources=(FROM_FILE, FROM_FILE),
        round=round_index,
        split="held_out" if is_held_out(key, config.held_out_share) else "train",
    )


def _prompt(value: Any, place: str) -> list[Message]:
    if isinstance(value, str) and value.strip():
        return [{"role": "user", "content": value}]
    if (messages := as_messages(value, place)) is not None:
        return messages
    raise ConfigError(f"{place}: the prompt is {shortened(value)}; it must be a text or a list of chat messages")


def _response(value: Any, name: str, place: str) -> tuple[list[Message], str]:
    """The messages before the response (none if `value` is a text), and the response's text."""
    if isinstance(value, str):
        return [], value
    messages = as_messages(value, place)
    if messages is None or messages[-1]["role"] != "assistant":
        raise ConfigError(
            f"{place}: {name} is {shortened(value)}; it must be a text or a conversation that ends with the assistant"
        )
    return messages[:-1], messages[-1]["content"]

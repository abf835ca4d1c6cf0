"""Preference pairs from a file of the usual form: a prompt, a chosen and a rejected response."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs.disk.rows import Row, as_messages, column, read_dataset_rows, read_jsonl_rows, shortened
from configs.errors import ConfigError
from configs.records import Message, PreferencePair
from configs.schema.reward_models import FileLabeler, TrainedRewardModel
from reward_training.pairs.building import is_held_out

FROM_FILE = "file"
"""stands for the policies that wrote the responses, which a file does not tell"""


def read_preferences(
    labeler: FileLabeler, *, name: str, config: TrainedRewardModel, round_index: int
) -> list[PreferencePair]:
    """Every pair of the labeler's file for the reward model `name`, in the file's order; pairs of equal responses are left out.

    Raises:
        ConfigError: the file is missing, empty, or holds something else.
    """
    pairs = [_pair(row, place, labeler, name, config, round_index) for place, row in _rows(labeler)]
    told_apart = [pair for pair in pairs if pair.chosen != pair.rejected]
    if not told_apart:
        raise ConfigError(
            f"{labeler.path} holds no pair of two responses; it needs a row a pair with chosen and rejected"
        )
    return told_apart


def draw_preferences(pairs: list[PreferencePair], *, max_pairs: int, rng: np.random.Generator) -> list[PreferencePair]:
    """At most `max_pairs` training pairs and as large a share of the held-out ones, without replacement, in their order."""
    train = [pair for pair in pairs if pair.split == "train"]
    held_out = [pair for pair in pairs if pair.split == "held_out"]
    share = min(1.0, max_pairs / max(len(train), 1))
    return [*_some(train, round(share * len(train)), rng), *_some(held_out, round(share * len(held_out)), rng)]


def _some(pairs: list[PreferencePair], number: int, rng: np.random.Generator) -> list[PreferencePair]:
    return [pairs[place] for place in sorted(rng.permutation(len(pairs))[:number])]


def _rows(labeler: FileLabeler) -> Iterator[Row]:
    if labeler.path.endswith((".jsonl", ".json")) or Path(labeler.path).is_file():
        return read_jsonl_rows(Path(labeler.path), "labeler.path")
    return read_dataset_rows(labeler.path, labeler.name, labeler.dataset_split, labeler.revision)


def _pair(
    row: dict[str, Any], place: str, labeler: FileLabeler, name: str, config: TrainedRewardModel, round_index: int
) -> PreferencePair:
    chosen_before, chosen = _response(column(row, labeler.chosen, "labeler.chosen", place), "chosen", place)
    rejected_before, rejected = _response(column(row, labeler.rejected, "labeler.rejected", place), "rejected", place)
    if labeler.prompt in row:
        prompt = _prompt(row[labeler.prompt], place)
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
    if (messages := as_messages(value)) is not None:
        return messages
    raise ConfigError(f"{place}: the prompt is {shortened(value)}; it must be a text or a list of chat messages")


def _response(value: Any, name: str, place: str) -> tuple[list[Message], str]:
    """What stands before the response, and the response: a text, or the last message of a conversation."""
    if isinstance(value, str):
        return [], value
    messages = as_messages(value)
    if messages is None or messages[-1]["role"] != "assistant":
        raise ConfigError(
            f"{place}: {name} is {shortened(value)}; it must be a text or a conversation that ends with the assistant"
        )
    return messages[:-1], messages[-1]["content"]

"""A file of rows and the preferences that are read from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import TrainedRewardModel
from reward_training.preferences.reading import Preferences, read_preferences

Read = Callable[..., Preferences]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The preferences of rows, or of a text that is written to a file of the name `name`."""

    def reading(
        rows: list[Any] | str, *, file: str = "pairs.jsonl", pairs_per_problem: int = 4, **fields: Any
    ) -> Preferences:
        path = tmp_path / file
        path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        labeler = FileLabeler(path=str(path), **fields)
        config = TrainedRewardModel(labeler=labeler, pairs_per_problem=pairs_per_problem)
        return read_preferences(labeler, name="taste", config=config, round_index=2)

    return reading


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def says(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def texts(preferences: Preferences) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in preferences.pairs]

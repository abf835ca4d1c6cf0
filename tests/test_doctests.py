"""Examples in docstrings say what the code does."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("configs", "reward_training", "grpo_train", "tasks", "flows")
WITH_EXAMPLES = [
    path for room in ROOMS for path in sorted((ROOT / room).glob("*.py")) if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=[f"{path.parent.name}.{path.stem}" for path in WITH_EXAMPLES])
def test_examples(path: Path) -> None:
    module = importlib.import_module(f"{path.parent.name}.{path.stem}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0

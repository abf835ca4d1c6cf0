import hashlib

import pytest

from configs.records import Problem
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return build_tiny_tokenizer()


@pytest.fixture
def tiny(tiny_tokenizer):
    """A fresh small model and its tokenizer."""
    return build_tiny_model(tiny_tokenizer).eval(), tiny_tokenizer


def make_problem(question: str, answer: str = "5", split: str = "train") -> Problem:
    key = hashlib.sha256(f"{question}/{answer}".encode()).hexdigest()
    return Problem(key=key, prompt=[{"role": "user", "content": question}], answer=answer, source="test", split=split)

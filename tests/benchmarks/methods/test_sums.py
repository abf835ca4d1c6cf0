"""The laboratory's model learns answers alone, and each call makes the same one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.methods.sums import CHAT_TEMPLATE, QUESTIONS, _rows, save_model, save_problems
from configs.disk.files import weights_id
from grpo_train.policies.tiny_model import build_tiny_tokenizer


def test_each_sum_is_there_once_with_its_answer(tmp_path: Path) -> None:
    save_problems(tmp_path / "sums.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()]
    assert len(rows) == len({row["question"] for row in rows}) == len(QUESTIONS) == 4500
    assert all(sum(map(int, row["question"].rstrip("=").split("+"))) == int(row["answer"]) for row in rows)


def test_only_answers_are_learned_and_both_ends_are_what_the_template_writes() -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    ids, labels = _rows(tokenizer, [(7, 10), (99, 98)])
    assert [tokenizer.decode(row) for row in ids] == ["7+10=17<|im_end|><pad><pad>", "99+98=197<|im_end|>"]
    learned = [tokenizer.decode(row[row != -100]) for row in labels]
    assert learned == ["17<|im_end|>", "197<|im_end|>"]
    chat = [{"role": "user", "content": "7+10="}, {"role": "assistant", "content": "17"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "7+10=17<|im_end|>"


def test_the_same_model_is_made_each_time_and_it_has_begun_to_learn(tmp_path: Path) -> None:
    for name in ("first", "second"):
        save_model(tmp_path / name, num_updates=30)
    assert weights_id(tmp_path / "first") == weights_id(tmp_path / "second")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "first")
    ids, labels = _rows(AutoTokenizer.from_pretrained(tmp_path / "first"), QUESTIONS[::9])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=labels).loss.item()
    assert loss < 2.5  # a uniform guess among 101 tokens is 4.6, among 10 digits 2.3

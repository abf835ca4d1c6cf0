"""Makes a laboratory in a folder: sums of two numbers, and a transformer of 0.7 million parameters that writes a third of them right.

    python -m benchmarks.methods.sums FOLDER

Writes FOLDER/sums.jsonl and FOLDER/models/sums in about a minute. A round of training on them takes ten seconds on one core, so that methods
can be compared with many seeds where a language model would take days.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from configs.disk.files import write_jsonl
from grpo_train.policies.tiny_model import build_tiny_tokenizer

Sum = tuple[int, int]
QUESTIONS = [(a, b) for a in range(100) for b in range(10, 100, 2)]
"""4,500 sums"""
SHOWN = 1 / 3
"""of them is what the model is trained on before the first round; some are test problems"""
NUM_UPDATES = 320
"""after 250 the model has 0.17 of the sums right, after 700 0.9"""
BATCH = 64
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
"""the question and nothing else, as a prompt of few tokens is a cheap one"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    (folder / "models").mkdir(parents=True, exist_ok=True)
    save_problems(folder / "sums.jsonl")
    save_model(folder / "models" / "sums")


def save_problems(path: Path, questions: Sequence[Sum] = QUESTIONS) -> None:
    """Write a JSONL file with a question and its answer a line."""
    write_jsonl(path, [{"question": f"{a}+{b}=", "answer": str(a + b)} for a, b in questions])


def save_model(
    folder: Path, questions: Sequence[Sum] = QUESTIONS, *, num_updates: int = NUM_UPDATES, seed: int = 0
) -> None:
    """Train a model from scratch on answers to some of the sums, and write it with its tokenizer."""
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    draw = random.Random(seed)
    shown = draw.sample(questions, int(SHOWN * len(questions)))
    for _ in range(num_updates):
        ids, labels = _rows(tokenizer, draw.sample(shown, BATCH))
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _rows(tokenizer: PreTrainedTokenizerFast, sums: list[Sum]) -> tuple[torch.Tensor, torch.Tensor]:
    """(token ids, labels) of prompts with answers, padded on the right; what is no answer has the label -100."""
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    rows = []
    for a, b in sums:
        question = [{"role": "user", "content": f"{a}+{b}="}]
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
        answer = [*tokenizer.encode(str(a + b), add_special_tokens=False), end]
        rows.append(([*prompt, *answer], [-100] * len(prompt) + answer))
    width = max(len(ids) for ids, _ in rows)
    padded = [(ids + [pad] * (width - len(ids)), labels + [-100] * (width - len(ids))) for ids, labels in rows]
    return torch.tensor([ids for ids, _ in padded]), torch.tensor([labels for _, labels in padded])


if __name__ == "__main__":
    main()

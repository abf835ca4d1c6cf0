"""A frozen reward model scores each conversation where transformers' own classifier takes the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from reward_training.reward_models.heads import classifier_class
from reward_training.reward_models.scores import RewardModelScorer

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "bos_token_id": None, "eos_token_id": 1, "num_labels": 1,
}  # fmt: skip
END = "<|end|>"
TEXTS = [
    f"<|user|>2 + 3?{END}<|assistant|>5{END}",
    f"<|user|>2 + 3?{END}<|assistant|>five, I think{END}",
    f"<|user|>2 + 3?{END}<|assistant|>5",
    f"<|user|>{END}<|assistant|>{END}{END}{END}",
    f"<|user|>a much longer question, that goes on{END}<|assistant|>no\n",
    f"{END}{END}",
    "5",
]
"""several end with the pad token, have it inside, or are nothing else"""


def configurations(vocab_size: int) -> dict[str, PreTrainedConfig]:
    """Models whose rows share beginnings, whose rows are their own, and whose classifier is not of the usual make."""
    return {
        "llama": LlamaConfig(**SIZES, vocab_size=vocab_size),
        "mistral": MistralConfig(**SIZES, vocab_size=vocab_size, sliding_window=16),
        "granite": GraniteConfig(**SIZES, vocab_size=vocab_size),
        "gpt2": GPT2Config(
            vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=1, num_labels=1
        ),
    }


@pytest.mark.parametrize("pad_id", [1, 0, 70, None], ids=["the end", "another", "a character", "none"])
@pytest.mark.parametrize("family", ["llama", "mistral", "granite", "gpt2"])
def test_scores_are_those_of_the_classifier_alone(
    family: str, pad_id: int | None, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """With the end token as pad token, rows that share beginnings were scored at another token than transformers' ."""
    config = configurations(len(tokenizer))[family]
    config.pad_token_id = pad_id
    torch.manual_seed(0)
    kind = classifier_class(config)
    model = kind(config).eval()
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    with torch.no_grad():
        expected = [model(input_ids=torch.tensor([row])).logits.item() for row in ids]
    assert len({round(score, 3) for score in expected}) >= 5
    with RewardModelScorer(tmp_path, max_length=128, precision="float32", device=torch.device("cpu")) as scorer:
        assert scorer.scores(TEXTS) == pytest.approx(expected, abs=1e-4)
        assert [scorer.scores([text])[0] for text in TEXTS] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_scores_are_those_of_a_padded_batch(side: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(
        LlamaConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=1)
    ).save_pretrained(str(tmp_path))
    padded = PreTrainedTokenizerFast.from_pretrained(_saved(tokenizer, tmp_path), padding_side=side)
    padded.save_pretrained(str(tmp_path))
    model = AutoModelForSequenceClassification.from_pretrained(str(tmp_path)).eval()
    batch = padded(TEXTS, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.squeeze(1).tolist()
    real = [
        i for i, text in enumerate(TEXTS) if text.replace(END, "")
    ]  # of nothing but padding it takes a masked token
    with RewardModelScorer(tmp_path, max_length=128, precision="float32", device=torch.device("cpu")) as scorer:
        scores = scorer.scores(TEXTS)
    assert [scores[i] for i in real] == pytest.approx([expected[i] for i in real], abs=1e-5)


def _saved(tokenizer: PreTrainedTokenizerFast, folder: Path) -> str:
    tokenizer.save_pretrained(str(folder))
    return str(folder)

"""Scores of conversations by a sequence classifier with one output, trained here or ready-made."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.files import write_json
from reward_training.packing import Packed, pack, packed_logits, shares_prompts
from reward_training.precision import autocast
from reward_training.quiet import quiet_transformers
from reward_training.rendering import conversation_ids

CALIBRATION = "calibration.json"
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536}


class Calibration(BaseModel):
    """Of a reward model's raw scores on the completions that it was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    std: float


def save_calibration(folder: Path, scores: Sequence[float]) -> None:
    """Write mean and standard deviation of `scores` beside the model."""
    values = torch.tensor(scores, dtype=torch.float64)
    std = max(float(values.std(correction=0)), 1e-6)  # a model that scores all alike stays at 0 after centring
    write_json(folder / CALIBRATION, Calibration(mean=float(values.mean()), std=std).model_dump())


def read_calibration(folder: Path | str) -> Calibration | None:
    """The calibration beside a model that was trained here; None for others."""
    path = Path(folder) / CALIBRATION
    return Calibration.model_validate(json.loads(path.read_bytes())) if path.exists() else None


class RewardModelScorer:
    """A loaded reward model. `close` frees it; so does `with`."""

    def __init__(
        self,
        folder: Path | str,
        *,
        max_length: int,
        revision: str | None = None,
        device: torch.device | None = None,
        precision: Literal["auto", "float32"] = "auto",
    ) -> None:
        self.max_length = max_length
        self.calibration = read_calibration(folder)
        self.tokenizer = _load_tokenizer(folder, revision)
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = _load_classifier(folder, revision)
        self._pad_token_id = _pad_token_id(model, self.tokenizer)
        self._share = shares_prompts(model)
        self._precision = precision
        self._model: PreTrainedModel | None = model.to(self._device)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model's memory."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def encode(self, conversations: list[str]) -> list[list[int]]:
        """Token ids, as `scores` feeds them to the model."""
        return conversation_ids(self.tokenizer, conversations)

    def scores(self, conversations: list[str], groups: Sequence[Hashable] | None = None) -> list[float]:
        """A raw score for each conversation.

        Conversations of the same group (default: none are) share the work on their common beginning. Batches hold
        conversations of like length, so that little is padding.

        Raises:
            ValueError: a conversation has more than `max_length` tokens.
        """
        sequences = self.encode(conversations)
        if longest := max((len(ids) for ids in sequences if len(ids) > self.max_length), default=None):
            raise ValueError(
                f"a conversation of {longest} tokens is over max_length={self.max_length}; raise max_length"
            )
        keys = list(groups) if groups is not None else list(range(len(sequences)))
        found = [0.0] * len(sequences)
        for numbers in _batches(sequences, keys, TOKENS_PER_BATCH[self._device.type]):
            batch = [sequences[number] for number in numbers]
            values = self._forward(batch, [keys[number] for number in numbers])
            for number, value in zip(numbers, values, strict=True):
                found[number] = value
        return found

    def calibrated(self, scores: Sequence[float]) -> list[float]:
        """(score - mean) / std; the scores themselves for a model without calibration."""
        if self.calibration is None:
            return list(scores)
        return [(score - self.calibration.mean) / self.calibration.std for score in scores]

    def _forward(self, sequences: list[list[int]], groups: list[Hashable]) -> list[float]:
        assert self._model is not None, "the scorer is closed"
        packed = to_device(pack(sequences, groups, pad_token_id=self._pad_token_id, share=self._share), self._device)
        with torch.inference_mode(), autocast(self._device, self._precision):
            values: list[float] = packed_logits(self._model, packed).squeeze(-1).tolist()
        return values


def to_device(packed: Packed, device: torch.device) -> Packed:
    return replace(packed, **{name: tensor.to(device) for name, tensor in vars(packed).items()})


def _batches(sequences: list[list[int]], groups: Sequence[Hashable], max_tokens: int) -> Iterator[list[int]]:
    """Numbers of the sequences, batch by batch: groups stay together, longest first, about `max_tokens` in a batch."""
    members: dict[Hashable, list[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, []).append(number)
    longest_first = sorted(members.values(), key=lambda numbers: -max(len(sequences[number]) for number in numbers))
    batch: list[int] = []
    num_tokens = 0
    for numbers in longest_first:
        size = sum(len(sequences[number]) for number in numbers)
        if batch and num_tokens + size > max_tokens:
            yield batch
            batch, num_tokens = [], 0
        batch += numbers
        num_tokens += size
    if batch:
        yield batch


def _load_tokenizer(folder: Path | str, revision: str | None) -> PreTrainedTokenizerBase:
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), revision=revision)
    except (OSError, ValueError) as error:
        raise ConfigError(f"reward model {folder}: its tokenizer does not load: {error}") from error
    return tokenizer


def _load_classifier(folder: Path | str, revision: str | None) -> PreTrainedModel:
    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
                str(folder), revision=revision, dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise ConfigError(f"reward model {folder} does not load: {error}") from error
    if model.config.num_labels != 1:
        raise ConfigError(
            f"reward model {folder} has {model.config.num_labels} outputs; use a sequence classifier with one output"
        )
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _pad_token_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that the model pools before; the tokenizer's where the model names none."""
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if config.pad_token_id is None:
        raise ConfigError("the reward model names no padding token; set pad_token in its tokenizer")
    return int(config.pad_token_id)

"""Scores conversations with a reward model: a sequence classifier with one output, trained here or ready-made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GenericForSequenceClassification

from configs.disk.files import write_json
from configs.errors import ConfigError
from configs.records import TemplateSettings
from reward_training.reward_models.backbone import load_classifier, load_tokenizer
from reward_training.transformer.attention import fit_attention
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.packing import Layout, LayoutOf, Packed, hidden_size, packed_batches, states_of
from reward_training.transformer.precision import autocast, pick_device
from reward_training.transformer.rendering import conversation_ids
from reward_training.transformer.trial import layout_of

CALIBRATION = "calibration.json"
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536}
"""largest number of positions in a scoring batch, padding included, by device type; a longer conversation is alone"""


class Calibration(BaseModel):
    """Mean and standard deviation of a reward model's raw scores on its anchors (`train_reward_model`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    std: float


def save_calibration(folder: Path, scores: Sequence[float]) -> None:
    """Write the mean and standard deviation of `scores` beside the model."""
    values = torch.tensor(scores, dtype=torch.float64)
    std = max(float(values.std(correction=0)), 1e-6)  # if all scores are equal, they become 0
    write_json(folder / CALIBRATION, Calibration(mean=float(values.mean()), std=std).model_dump())


def read_calibration(folder: Path | str) -> Calibration | None:
    """The calibration beside a model that was trained here; None for other models."""
    path = Path(folder) / CALIBRATION
    return Calibration.model_validate(json.loads(path.read_bytes())) if path.exists() else None


class RewardModelScorer:
    """A loaded reward model. `close`, or the end of a `with` block, frees it."""

    def __init__(
        self,
        folder: Path | str,
        *,
        max_length: int,
        revision: str | None = None,
        device: torch.device | None = None,
        precision: Literal["auto", "float32"] = "auto",
        template: TemplateSettings = PLAIN,
    ) -> None:
        self.max_length = max_length
        self.calibration = read_calibration(folder)
        self.tokenizer = load_tokenizer(folder, template, revision)
        self._device = device or pick_device()
        model = load_classifier(folder, revision)
        _set_pad_token(model, self.tokenizer)
        self._precision = precision
        self._model: PreTrainedModel | None = model.to(self._device)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def encode(self, conversations: list[str]) -> list[list[int]]:
        """Token ids of the conversations, as `scores` passes them to the model."""
        return conversation_ids(self.tokenizer, conversations)

    def scores(self, conversations: list[str]) -> list[float]:
        """A raw score for each conversation.

        Raises:
            ValueError: a conversation has more than `max_length` tokens.
        """
        assert self._model is not None, "the scorer is closed"
        sequences = self.encode(conversations)
        if longest := max((len(ids) for ids in sequences if len(ids) > self.max_length), default=None):
            raise ValueError(
                f"a conversation of {longest} tokens is over max_length={self.max_length}; raise max_length"
            )
        scores = [0.0] * len(sequences)
        max_tokens = TOKENS_PER_BATCH[self._device.type]
        layout, width = conversation_layout(self._model), hidden_size(self._model)
        for indices, batch in packed_batches(sequences, width=width, layout_of=layout, max_tokens=max_tokens):
            fit_attention(self._model, batch.input_ids.shape[1])
            with torch.inference_mode(), autocast(self._device, self._precision):
                values = conversation_scores(self._model, batch.to(self._device)).squeeze(-1).tolist()
            for i, value in zip(indices, values, strict=True):
                scores[i] = value
        return scores

    def calibrated(self, scores: Sequence[float]) -> list[float]:
        """(score - mean) / std by the model's calibration; the scores unchanged if it has none."""
        if self.calibration is None:
            return list(scores)
        return [(score - self.calibration.mean) / self.calibration.std for score in scores]


def conversation_layout(model: PreTrainedModel) -> LayoutOf:
    """How rows of conversations may be laid out; they share beginnings only with a head named `score`."""
    of_body = layout_of(model, model.get_submodule(model.base_model_prefix))

    def layout(num_tokens: int) -> Layout:
        found = of_body(num_tokens)
        has_head = isinstance(model, GenericForSequenceClassification)
        return "own" if found == "shared" and not has_head else found

    return layout


def conversation_scores(
    model: PreTrainedModel, batch: Packed, forward: Callable[..., Any] | None = None
) -> torch.Tensor:
    """(N, 1) float32 scores of the packed conversations, each taken at its last token.

    `forward` is the model's original forward method, for a caller that has replaced it.
    """
    if batch.attention_mask is None:
        return _one_by_one(forward or model, batch)
    if batch.attention_mask.dim() == 2:  # one conversation per row: the model itself picks the last token
        config = model.config.get_text_config()
        length = batch.input_ids.shape[1]
        if length > (getattr(config, "max_position_embeddings", None) or length):  # rounded up beyond the last position
            length = int(batch.lengths.max())
        ids = batch.input_ids.masked_fill(batch.attention_mask == 0, config.pad_token_id)[:, :length]
        mask = batch.attention_mask[:, :length]
        logits: torch.Tensor = (forward or model)(input_ids=ids, attention_mask=mask).logits
        return logits[batch.last // batch.input_ids.shape[1]].float()
    states = states_of(model.get_submodule(model.base_model_prefix), batch, model.dtype)
    last = states[batch.last].float()
    with torch.autocast(last.device.type, enabled=False):  # bfloat16 has about three digits, so scores would tie
        scores: torch.Tensor = model.get_submodule("score")(last)
    return scores


def _one_by_one(model: Callable[..., Any], batch: Packed) -> torch.Tensor:
    """(N, 1) float32 scores of conversations that go through the model alone."""
    ids = batch.input_ids.flatten()
    sequences = [ids[nodes[:length]] for nodes, length in zip(batch.nodes, batch.lengths.tolist(), strict=True)]
    return torch.cat([model(input_ids=sequence.unsqueeze(0)).logits.float() for sequence in sequences])


def _set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the model's pad token from the tokenizer (its pad token, else its end of sequence) if the model names none.

    transformers takes the score at the last token that is not the pad token.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if config.pad_token_id is None:
        raise ConfigError("the reward model names no padding token; set pad_token in its tokenizer")

"""Scores conversations with a reward model: a sequence classifier with one output, trained here or ready-made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel
from transformers.modeling_layers import GenericForSequenceClassification

from configs.disk.files import write_json
from configs.records import TemplateSettings
from reward_training.reward_models.backbone import FROZEN, load_classifier, load_tokenizer
from reward_training.transformer.attention.kernels import fit_attention
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.loading.vocabulary import refuse_larger_tokenizer
from reward_training.transformer.packing import Layout, LayoutOf, Packed, hidden_size, packed_batches, states_of
from reward_training.transformer.precision import autocast, pick_device
from reward_training.transformer.rendering import conversation_ids
from reward_training.transformer.sharding import Sharding, in_step, is_sharded, with_weights
from reward_training.transformer.trial import layout_of, plain_row

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
        sharding: Sharding | None = None,
    ) -> None:
        """With `sharding`, which all ranks call for together, each holds a part of the model (`is_sharded`)."""
        self.max_length = max_length
        self.calibration = read_calibration(folder)
        self.tokenizer = load_tokenizer(folder, template, revision)
        self._device = device or (pick_device() if sharding is None else sharding.device)
        model = load_classifier(folder, revision, sharding=sharding)
        refuse_larger_tokenizer(model, self.tokenizer, FROZEN)
        self._precision = precision
        self._model: PreTrainedModel | None = model.to(self._device)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_sharded(self) -> bool:
        """Whether the ranks hold parts of the model, and call `scores` equally often."""
        return self._model is not None and is_sharded(self._model)

    def close(self) -> None:
        """Free the model's memory."""
        self._model = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def encode(self, conversations: list[str]) -> list[list[int]]:
        """Token ids of the conversations, as `scores` passes them to the model."""
        return conversation_ids(self.tokenizer, conversations)

    def scores(self, conversations: list[str]) -> list[float]:
        """A raw score for each conversation. Of a sharded model all ranks call it, also those without a conversation.

        Raises:
            ValueError: a conversation has more than `max_length` tokens.
        """
        model = self._model
        assert model is not None, "the scorer is closed"
        sequences = self.encode(conversations)
        if longest := max((len(ids) for ids in sequences if len(ids) > self.max_length), default=None):
            raise ValueError(
                f"a conversation of {longest} tokens is over max_length={self.max_length}; raise max_length"
            )
        scores = [0.0] * len(sequences)
        max_tokens = TOKENS_PER_BATCH[self._device.type]
        layout, width = conversation_layout(model), hidden_size(model)
        batches = packed_batches(
            sequences, width=width, layout_of=layout, max_tokens=max_tokens, in_one_run=is_sharded(model)
        )
        for indices, batch in in_step(model, batches, lambda: ([], plain_row([0], self._device))):
            fit_attention(model, batch.input_ids.shape[1], batch.attention_mask)
            run = partial(conversation_scores if indices else _no_scores, batch=batch.to(self._device))
            with torch.inference_mode(), autocast(self._device, self._precision):
                values = with_weights(model, run).squeeze(-1).tolist()
            for i, value in zip(indices, values, strict=True):
                scores[i] = value
        return scores

    def calibrated(self, scores: Sequence[float]) -> list[float]:
        """(score - mean) / std by the model's calibration; the scores unchanged if it has none."""
        return calibrated(scores, self.calibration)


def calibrated(scores: Sequence[float], calibration: Calibration | None) -> list[float]:
    """(score - mean) / std; the scores unchanged without a calibration."""
    if calibration is None:
        return list(scores)
    return [(score - calibration.mean) / calibration.std for score in scores]


def conversation_layout(model: PreTrainedModel) -> LayoutOf:
    """How rows of conversations may be laid out.

    They share beginnings only with a head named `score`. Without a pad token the model takes no padded rows.
    """
    of_body = layout_of(model, model.get_submodule(model.base_model_prefix))

    def layout(num_tokens: int) -> Layout:
        found = of_body(num_tokens)
        if found == "shared" and isinstance(model, GenericForSequenceClassification):
            return "shared"
        return "plain" if found == "plain" or _pad_id(model) is None else "own"

    return layout


def conversation_scores(
    model: PreTrainedModel, batch: Packed, forward: Callable[..., Any] | None = None
) -> torch.Tensor:
    """(N, 1) float32 scores of the packed conversations, each taken at the token where transformers takes it.

    `forward` is the model's original forward method, for a caller that has replaced it.
    """
    if batch.attention_mask is None:
        return _one_by_one(forward or model, batch)
    if batch.attention_mask.dim() == 2:  # one conversation per row: the model itself picks the last token
        config, pad_id = model.config.get_text_config(), _pad_id(model)
        assert pad_id is not None, "such a model gets plain rows"
        length = batch.input_ids.shape[1]
        if length > (getattr(config, "max_position_embeddings", None) or length):  # rounded up beyond the last position
            length = int(batch.lengths.max())
        ids = batch.input_ids.masked_fill(batch.attention_mask == 0, pad_id)[:, :length]
        mask = batch.attention_mask[:, :length]
        logits: torch.Tensor = (forward or model)(input_ids=ids, attention_mask=mask).logits
        return logits[batch.last // batch.input_ids.shape[1]].float()
    states = states_of(model.get_submodule(model.base_model_prefix), batch, model.dtype)
    at_end = states[_scored_places(batch, _pad_id(model))].float()
    with torch.autocast(at_end.device.type, enabled=False):  # bfloat16 has about three digits, so scores would tie
        scores: torch.Tensor = model.get_submodule("score")(at_end)
    return scores


def _no_scores(model: PreTrainedModel, batch: Packed) -> torch.Tensor:
    """(0, 1): the body runs once, on what is no conversation, because another rank has some."""
    return states_of(model.get_submodule(model.base_model_prefix), batch, model.dtype)[:0, :1]


def _pad_id(model: PreTrainedModel) -> int | None:
    pad_id: int | None = model.config.get_text_config().pad_token_id
    return pad_id


def _scored_places(batch: Packed, pad_id: int | None) -> torch.Tensor:
    """(N,) where transformers takes the score of each conversation, as indices in the flattened batch.

    That is the last token which is not the pad token, also where a conversation itself ends with the pad token; the first
    where all are, and the last without a pad token.
    """
    if pad_id is None:
        return batch.last
    places = torch.arange(batch.nodes.shape[1], device=batch.nodes.device)
    counts = (batch.input_ids.flatten()[batch.nodes] != pad_id) & (places < batch.lengths[:, None])
    return batch.nodes.gather(1, (places * counts).argmax(1, keepdim=True)).squeeze(1)


def _one_by_one(model: Callable[..., Any], batch: Packed) -> torch.Tensor:
    """(N, 1) float32 scores of conversations that go through the model alone."""
    ids = batch.input_ids.flatten()
    sequences = [ids[nodes[:length]] for nodes, length in zip(batch.nodes, batch.lengths.tolist(), strict=True)]
    return torch.cat([model(input_ids=sequence.unsqueeze(0)).logits.float() for sequence in sequences])

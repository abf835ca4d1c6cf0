"""Samples by transformers' generate: for models with states instead of keys and values, and other caches than ours.

The rows have prompts of equal length, so that nothing is padded. The model's own `generate` runs the forward passes and
keeps the cache; the tokens are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import BoolTensor, FloatTensor, LongTensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, StoppingCriteria

from grpo_train.sampling.rows import Row
from grpo_train.sampling.writing import Writer
from reward_training.transformer.attention.kernels import restore_attention


@torch.no_grad()
def decode_plainly(
    model: PreTrainedModel, batch: list[Row], prompts: list[list[int]], writer: Writer, *, use_cache: bool
) -> None:
    """Generate the responses of rows whose prompts are equally long, in place.

    Without a cache each token costs a forward pass over all before it.
    """
    restore_attention(model)
    ids = torch.tensor([prompts[row.problem] for row in batch], device=model.device)
    writer.positions.add(ids.numel(), ids.numel())
    writing = _Writing(batch, writer)
    generate: Any = model.generate
    with _no_defaults(model):
        generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=writer.sampling.max_response_length,
            use_cache=use_cache,
            logits_processor=[writing],
            stopping_criteria=[_AllHaveEnded(batch)],
        )


@contextmanager
def _no_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Inside this context generate does nothing of its own to the logits, and ends no row."""
    given = model.generation_config
    model.generation_config = GenerationConfig(pad_token_id=0)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        model.generation_config = given


class _Writing(LogitsProcessor):
    """Makes generate take the tokens that the writer draws."""

    def __init__(self, rows: list[Row], writer: Writer) -> None:
        self._rows, self._writer, self._step = rows, writer, 0

    def __call__(self, input_ids: LongTensor, scores: FloatTensor) -> FloatTensor:
        """(B, V) scores whose largest entry is each row's next token; a row that has ended gets token 0."""
        slots = [i for i, row in enumerate(self._rows) if not row.has_ended]
        writing = [self._rows[i] for i in slots]
        tokens, _ = self._writer.write(scores, slots, writing, self._step)
        self._step += 1
        if self._step < self._writer.sampling.max_response_length:
            self._writer.positions.add(len(self._rows), sum(not row.has_ended for row in writing))
        chosen = torch.zeros(len(self._rows), dtype=torch.long, device=scores.device)
        chosen[slots] = torch.tensor(tokens, device=scores.device)
        forced = torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)
        assert isinstance(forced, torch.Tensor)
        return forced  # type: ignore[return-value]


class _AllHaveEnded(StoppingCriteria):
    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __call__(self, input_ids: LongTensor, scores: FloatTensor, **kwargs: Any) -> BoolTensor:
        ended = all(row.has_ended for row in self._rows)
        return torch.full((len(input_ids),), ended, device=input_ids.device)  # type: ignore[return-value]

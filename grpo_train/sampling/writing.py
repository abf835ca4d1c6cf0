"""Writes the next token of each row, and says which rows go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from grpo_train.sampling.drawing import choose
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.rows import Row, Sampling
from reward_training.transformer.positions import Positions


@dataclass(frozen=True)
class Writer:
    """What is the same for all rows of a call: settings, the tokens that end a response, and who wants to know."""

    sampling: Sampling
    stop_ids: set[int] = field(default_factory=set)
    early_stop: EarlyStop | None = None
    on_end: Callable[[list[Row]], None] = lambda rows: None
    """called with the rows that have just ended"""
    positions: Positions = field(default_factory=Positions)
    """counts the token positions that the forward passes compute"""

    def write(self, logits: Tensor, slot_of: list[int], writing: list[Row], step: int) -> tuple[list[int], list[int]]:
        """Append a token to each row in `writing`, drawn from the logits (S, V) of its slot.

        Returns the tokens, and the indices of the rows that go on.
        """
        tokens, logprobs = choose(logits, slot_of, writing, step, self.sampling)
        going = self._append(writing, tokens, logprobs)
        if self.early_stop is not None:
            going = self.early_stop.look(writing, going)
        if step + 1 == self.sampling.max_response_length:
            going = []
        if ended := _ended(writing, going):
            self.on_end(ended)
        return tokens, going

    def _append(self, writing: list[Row], tokens: list[int], logprobs: list[float]) -> list[int]:
        """Append each row's token; returns the indices of the rows that continue."""
        going = []
        for i, (row, token, logprob) in enumerate(zip(writing, tokens, logprobs, strict=True)):
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            if token in self.stop_ids:
                row.finish_reason = "stop"
            else:
                going.append(i)
        return going


def _ended(writing: list[Row], going: list[int]) -> list[Row]:
    """Mark the rows that do not continue as ended; returns them."""
    goes_on = set(going)
    ended = [row for i, row in enumerate(writing) if i not in goes_on]
    for row in ended:
        row.has_ended = True
    return ended

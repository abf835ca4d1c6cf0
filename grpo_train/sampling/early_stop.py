"""Aborts hopeless responses during generation: those that loop, can no longer finish, or get a low score from a reward.

Sampling takes most of a step's time and a hopeless response usually runs to the length limit, so aborting it early
saves time. Each criterion is a pure function of what a row has written so far, so it does not depend on the rows beside
it:

- `loop`: the response ends in `repeats` copies of one block of tokens, at least `min_tokens` tokens in all.
- `unfinishable`: fewer than `needs` tokens are left to the length limit and `must_contain` has not been written. With
  the default `needs` (the number of tokens of `must_contain`, plus the end of sequence) the response certainly cannot
  contain it and stop in time; a larger `needs` is the length of a typical ending. Whether a response will stop in time
  cannot be decided in general, so nothing else counts as unfinishable.
- `low_score`: a reward scores the text so far under `below`, checked every `every` tokens.

`aborted` says how an aborted response counts in its group: `score` scores it as it stands; `leave_out` keeps it out of
the baseline, the loss and the loss's denominator, with advantage 0, as if it had never been in the group. For training
only: evaluation and regeneration measure and label what the policy writes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from configs.records import ABORTED, Completion, Problem
from configs.schema.grpo import EarlyStopConfig, LoopStop, LowScoreStop, UnfinishableStop
from grpo_train.sampling.decoding import Decoder, begun_response
from reward_training.scorer import Reward, score


class Draft(Protocol):
    """A response that is being generated."""

    problem: int
    """index of its problem in the batch"""
    index: int
    token_ids: list[int]
    finish_reason: str


@dataclass
class EarlyStop:
    """Decides which of the responses that are being generated for `problems` to abort."""

    config: EarlyStopConfig
    problems: Sequence[Problem]
    tokenizer: PreTrainedTokenizerBase
    max_response_length: int
    rewards: Sequence[Reward]
    """`low_score` does nothing where its reward is not among them (a reward model that the round does not have)"""
    sought: frozenset[str] = frozenset()
    """texts that rewards look for (`Sampling.sought`)"""
    complete: set[tuple[int, int]] = field(init=False, default_factory=set)
    """(problem, index) of drafts that have written `must_contain`"""
    needs: int = field(init=False, default=0)
    """number of tokens that must be left to a draft that is not in `complete`"""
    decoder: Decoder = field(init=False)

    def __post_init__(self) -> None:
        self.decoder = Decoder(self.tokenizer, self.sought)
        if self.config.unfinishable is not None:
            self.needs = self._tokens_needed(self.config.unfinishable)

    def look(self, drafts: Sequence[Draft], going: list[int]) -> list[int]:
        """The indices in `going` whose drafts continue; an aborted draft gets the reason as its `finish_reason`.

        A draft at the length limit ends there anyway and keeps the reason `length`.
        """
        looked_at = [i for i in going if len(drafts[i].token_ids) < self.max_response_length]
        for i, reason in zip(looked_at, self._reasons([drafts[i] for i in looked_at]), strict=True):
            if reason is not None:
                drafts[i].finish_reason = ABORTED + reason
        return [i for i in going if not drafts[i].finish_reason.startswith(ABORTED)]

    def _reasons(self, drafts: Sequence[Draft]) -> list[str | None]:
        reasons = [self._looks_hopeless(draft) for draft in drafts]
        if self.config.low_score is not None:
            for i in self._scored_low(self.config.low_score, drafts):
                reasons[i] = reasons[i] or "low_score"
        return reasons

    def _looks_hopeless(self, draft: Draft) -> str | None:
        config = self.config
        if config.loop is not None and loops(draft.token_ids, config.loop):
            return "loop"
        if config.unfinishable is not None and self._is_unfinishable(draft, config.unfinishable):
            return "unfinishable"
        return None

    def _is_unfinishable(self, draft: Draft, config: UnfinishableStop) -> bool:
        key = (draft.problem, draft.index)
        num_left = self.max_response_length - len(draft.token_ids)
        if key in self.complete or num_left >= self.needs:
            return False
        text = self.decoder.with_special(draft.token_ids)  # `must_contain` may be a special token
        if config.must_contain in text:
            self.complete.add(key)
            return False
        return not ends_with_beginning(text, config.must_contain)

    def _tokens_needed(self, config: UnfinishableStop) -> int:
        if config.needs is not None:
            return config.needs
        return len(self.tokenizer(config.must_contain, add_special_tokens=False)["input_ids"]) + 1

    def _scored_low(self, config: LowScoreStop, drafts: Sequence[Draft]) -> list[int]:
        """Indices of drafts that are due for a check and score under `below` so far; those without a score continue."""
        reward = next((reward for reward in self.rewards if reward.name == config.reward), None)
        due = [i for i, draft in enumerate(drafts) if len(draft.token_ids) % config.every == 0]
        if reward is None or not due:
            return []
        problems = [self.problems[drafts[i].problem] for i in due]
        scores = score(problems, [self._completion(drafts[i]) for i in due], [reward])
        values = [row.parts.get(config.reward) for row in scores]
        return [i for i, value in zip(due, values, strict=True) if value is not None and value < config.below]

    def _completion(self, draft: Draft) -> Completion:
        """The draft so far, as a completion truncated there."""
        return Completion(
            problem_key=self.problems[draft.problem].key,
            index=draft.index,
            prompt_ids=[],
            token_ids=draft.token_ids,
            text=self.decoder(draft.token_ids),
            begun=begun_response(self.tokenizer, self.problems[draft.problem].prompt),
            finish_reason="length",
            logprobs=[],
            policy_id="",
            step=0,
            seed=0,
        )


def loops(token_ids: Sequence[int], config: LoopStop) -> bool:
    """Whether the response ends in copies of one block of tokens.

    >>> loops([5, 1, 2, 1, 2, 1, 2], LoopStop(max_period=2, repeats=3, min_tokens=6))
    True
    >>> loops([5, 1, 2, 1, 2, 1, 2], LoopStop(max_period=2, repeats=3, min_tokens=7))
    False
    """
    for period in range(1, min(config.max_period, len(token_ids) - 1) + 1):
        if token_ids[-1] != token_ids[-1 - period]:
            continue
        num_tokens = max(config.repeats * period, config.min_tokens)
        if num_tokens <= len(token_ids):
            tail = token_ids[-num_tokens:]
            if tail[period:] == tail[:-period]:
                return True
    return False


def ends_with_beginning(text: str, wanted: str) -> bool:
    """Whether `text` ends in a proper prefix of `wanted`.

    >>> ends_with_beginning("so </ans", "</answer>"), ends_with_beginning("so", "</answer>")
    (True, False)
    """
    return any(text.endswith(wanted[:length]) for length in range(1, len(wanted)))

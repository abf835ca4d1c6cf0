"""Ends responses while they are being written: those that loop, that cannot finish any more, or that a reward model scores low.

Sampling is most of a step's time and a hopeless response usually runs to the length limit, so what is stopped early is
saved. Each criterion is a pure function of what a row has written so far, so that a row's fate does not depend on the rows
beside it:

- `loop`: the response ends in `repeats` copies of one block of tokens, `min_tokens` of them together.
- `unfinishable`: fewer than `needs` tokens of the length limit are left and `must_contain` has not been written. With the
  default for `needs` (its own tokens, as the tokenizer cuts it, and the end of sequence) it is certain that the response will
  not hold it and stop in time; a larger one says what an ending takes. Whether a response will stop in time cannot be decided
  in general, so nothing else is called unfinishable.
- `low_score`: a reward scores the text so far under `below`, asked every `every` tokens.

What an aborted response is worth to its group (`aborted`): `score` as it stands, or `leave_out` of the baseline, with
advantage 0 and out of the loss and its denominator, as if the group had never had it. Training only: evaluation and
regeneration measure and label what the policy writes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from configs.records import ABORTED, Completion, Problem
from configs.schema.grpo import EarlyStopConfig, LoopStop, LowScoreStop, UnfinishableStop
from reward_training.scorer import Reward, score


class Draft(Protocol):
    """A response in the making."""

    problem: int
    """place of its problem in the batch"""
    index: int
    token_ids: list[int]
    finish_reason: str


@dataclass
class EarlyStop:
    """Looks at the responses that are being written to `problems`."""

    config: EarlyStopConfig
    problems: Sequence[Problem]
    tokenizer: PreTrainedTokenizerBase
    max_response_length: int
    rewards: Sequence[Reward]
    """`low_score` is silent where its reward is not among them (a reward model that the round does not have)"""
    complete: set[tuple[int, int]] = field(init=False, default_factory=set)
    """drafts that hold what `unfinishable` asks for"""
    needs: int = field(init=False, default=0)
    """tokens that must be left to a draft that is not among them"""

    def __post_init__(self) -> None:
        if self.config.unfinishable is not None:
            self.needs = self._tokens_needed(self.config.unfinishable)

    def look(self, drafts: Sequence[Draft], going: list[int]) -> list[int]:
        """The places in `going` whose drafts go on; the reason why another ends here becomes its `finish_reason`.

        A draft at the length limit ends there anyway and stays `length`.
        """
        looked_at = [i for i in going if len(drafts[i].token_ids) < self.max_response_length]
        for i, reason in zip(looked_at, self._reasons([drafts[i] for i in looked_at]), strict=True):
            if reason is not None:
                drafts[i].finish_reason = ABORTED + reason
        return [i for i in going if not drafts[i].finish_reason.startswith(ABORTED)]

    def _reasons(self, drafts: Sequence[Draft]) -> list[str | None]:
        reasons = [self._looks_hopeless(draft) for draft in drafts]
        if self.config.low_score is not None:
            for number in self._scored_low(self.config.low_score, drafts):
                reasons[number] = reasons[number] or "low_score"
        return reasons

    def _looks_hopeless(self, draft: Draft) -> str | None:
        config = self.config
        if config.loop is not None and loops(draft.token_ids, config.loop):
            return "loop"
        if config.unfinishable is not None and self._is_unfinishable(draft, config.unfinishable):
            return "unfinishable"
        return None

    def _is_unfinishable(self, draft: Draft, config: UnfinishableStop) -> bool:
        place = (draft.problem, draft.index)
        left = self.max_response_length - len(draft.token_ids)
        if place in self.complete or left >= self.needs:
            return False
        text = str(self.tokenizer.decode(draft.token_ids))  # what must stand there may be a special token
        if config.must_contain in text:
            self.complete.add(place)
            return False
        return not ends_with_beginning(text, config.must_contain)

    def _tokens_needed(self, config: UnfinishableStop) -> int:
        if config.needs is not None:
            return config.needs
        return len(self.tokenizer(config.must_contain, add_special_tokens=False)["input_ids"]) + 1

    def _scored_low(self, config: LowScoreStop, drafts: Sequence[Draft]) -> list[int]:
        """Numbers of the drafts at a checkpoint whose text so far is scored under the bound; unscored ones go on."""
        reward = next((reward for reward in self.rewards if reward.name == config.reward), None)
        due = [i for i, draft in enumerate(drafts) if len(draft.token_ids) % config.every == 0]
        if reward is None or not due:
            return []
        problems = [self.problems[drafts[i].problem] for i in due]
        scores = score(problems, [self._completion(drafts[i]) for i in due], [reward])
        values = [row.parts[config.reward] for row in scores]
        return [i for i, value in zip(due, values, strict=True) if value is not None and value < config.below]

    def _completion(self, draft: Draft) -> Completion:
        """The text so far, as a response that was cut there."""
        return Completion(
            problem_key=self.problems[draft.problem].key,
            index=draft.index,
            prompt_ids=[],
            token_ids=draft.token_ids,
            text=str(self.tokenizer.decode(draft.token_ids, skip_special_tokens=True)),
            finish_reason="length",
            logprobs=[],
            policy_id="",
            step=0,
            seed=0,
        )


def loops(token_ids: Sequence[int], config: LoopStop) -> bool:
    """Whether the last tokens are copies of one block.

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
    """Whether `wanted` is being written at the end of `text`.

    >>> ends_with_beginning("so </ans", "</answer>"), ends_with_beginning("so", "</answer>")
    (True, False)
    """
    return any(text.endswith(wanted[:length]) for length in range(1, len(wanted)))

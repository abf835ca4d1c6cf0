"""Which preference pairs a reward model can learn from: those whose two responses its chat template renders differently.

A template may drop thoughts, white space or anything else. Responses that differ in that alone are the same text to the
model, and a loss on them teaches nothing. It may also drop a message of the prompt, such as the system's; such pairs are
kept, and told of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from configs.errors import TemplateRefusal
from configs.records import Message, PreferencePair
from reward_training.transformer.chat_template import SHOWN
from reward_training.transformer.rendering import conversation_ids, conversation_text, unwritten, unwritten_remedy


@dataclass(frozen=True)
class PairIds:
    """The token ids of a pair's conversations; `index` is the pair's position in the list that it comes from."""

    index: int
    chosen: list[int]
    rejected: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer conversation."""
        return max(len(self.chosen), len(self.rejected))

    def fits(self, max_length: int) -> bool:
        return self.length <= max_length


@dataclass(frozen=True)
class DistinctPairs:
    """Pairs whose conversations differ, and how many others there were."""

    pairs: list[PreferencePair]
    ids: list[PairIds]
    """aligned with `pairs`"""
    left_out: dict[str, int]
    """{reason: count}. `alike`: the template renders both responses alike; `refused`: it does not take one of them"""
    told: str
    """what is left out and why, with the remedy; empty where nothing is"""
    num_unwritten: int
    """pairs with a message in the prompt that the template does not write; they are not left out for that"""
    unwritten: str
    """what is not written, with the remedy; empty where everything is"""


def distinct_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair]) -> DistinctPairs:
    """The pairs that a reward model with this tokenizer can tell apart."""
    texts: list[str] = []
    rendered: list[int] = []
    refusals: list[str] = []
    lost: list[list[Message]] = []
    for i, pair in enumerate(pairs):
        try:
            both = [conversation_text(tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected)]
        except TemplateRefusal as error:
            refusals.append(str(error))
        else:
            texts += both
            lost += [] if isinstance(pair.prompt, str) else filter(None, [unwritten(both[0], pair.prompt)])
            rendered.append(i)
    ids = conversation_ids(tokenizer, texts)
    found = [PairIds(i, *both) for i, both in zip(rendered, zip(ids[::2], ids[1::2], strict=True), strict=True)]
    distinct = [pair for pair in found if pair.chosen != pair.rejected]
    num_alike = len(found) - len(distinct)
    counts = {"alike": num_alike, "refused": len(refusals)}
    return DistinctPairs(
        [pairs[pair.index] for pair in distinct],
        distinct,
        {reason: count for reason, count in counts.items() if count},
        _told(len(pairs), num_alike, refusals, tokenizer.name_or_path),
        len(lost),
        _told_unwritten(len(pairs), lost, tokenizer) if lost else "",
    )


def _told_unwritten(num_pairs: int, lost: Sequence[list[Message]], tokenizer: PreTrainedTokenizerBase) -> str:
    first = lost[0][0]
    return (
        f"the prompts of {len(lost)} of {num_pairs} pairs hold a message that the chat template of {tokenizer.name_or_path} "
        f"does not write, such as the {first['role']} message {first['content'][:SHOWN]!r}: to the reward model, prompts that "
        f"differ only there are the same; {unwritten_remedy(tokenizer, lost[0])}"
    )


def too_long(ids: Sequence[PairIds], max_length: int, name: str) -> str:
    """How many pairs of reward model `name` do not fit into `max_length` tokens, and what they need; empty if all fit."""
    over = [pair.length for pair in ids if not pair.fits(max_length)]
    if not over:
        return ""
    field = f"reward_models.{name}.max_length"
    if len(over) == len(ids):
        return (
            f"no pair of {len(ids)} fits into max_length={max_length} tokens: the shortest needs {min(over)} and the longest "
            f"{max(over)}; raise {field}"
        )
    return (
        f"{len(over)} of {len(ids)} pairs do not fit into max_length={max_length} tokens and are left out; {field}={max(over)} "
        "takes them all"
    )


def _told(num_pairs: int, num_alike: int, refusals: Sequence[str], tokenizer: str) -> str:
    reasons = []
    if num_alike:
        reasons.append(
            f"{num_alike} of {num_pairs} pairs are left out, because the chat template of {tokenizer} renders both responses "
            "alike: they differ only in what it strips (thoughts, white space); set backbone.path to a model whose template "
            "keeps that"
        )
    if refusals:
        reasons.append(f"{len(refusals)} of {num_pairs} pairs are left out: {refusals[0]}")
    return "; ".join(reasons)

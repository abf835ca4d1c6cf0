"""Counts where the generated tokens of a training go; the tokens of a response are all in the same class.

A response is in the first class that fits:

- `old`: it comes from the response cache; it was counted as generated at the step that wrote it;
- `aborted`: its generation was aborted (finish reason `aborted:<why>`);
- `unscored`: no reward could score it;
- `dead`: its group teaches nothing, since its rewards are all equal (all right, all wrong, or otherwise);
- `truncated`: it ended at the length limit;
- `useful`: the rest.

Two things are counted beside the classes: padding, positions that a forward pass computed and that held no token; and, with
row sampling, the tokens of responses that it left out of the update.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from configs.records import Completion
from grpo_train.groups import Groups
from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Advantages
from reward_training.transformer.positions import Positions

CLASSES = ("useful", "truncated", "dead", "unscored", "aborted", "old")
OF_THE_UPDATE = ("useful", "truncated", "aborted", "old")
"""classes of responses that may move the policy"""


@dataclass
class TokenLedger:
    """The token counts of a whole training; checkpoints keep them, by `state` and `restore`."""

    counts: Counter[str] = field(default_factory=Counter)
    """number of tokens in each class, of `computed` and `padding` positions, and with row sampling of `downsampled` tokens"""

    def look(self, step: StepRecord) -> dict[str, float]:
        """Add the tokens of the batch and of the refused groups; returns the step's metrics."""
        counts = token_counts(step.batch, step.advantages) + token_counts(step.refused, step.refused_advantages)
        if step.downsampled is not None:
            left_out = zip(step.batch.completions, step.downsampled, strict=True)
            counts["downsampled"] = sum(len(completion.token_ids) for completion, is_out in left_out if is_out)
        return self.add(counts, step.positions)

    def add(self, counts: Mapping[str, int], *positions: Positions) -> dict[str, float]:
        """Add a step's token counts, as `token_counts` returns them, and its positions; returns the step's metrics."""
        step = Counter(counts)
        for part in positions:
            step.update(computed=part.computed, padding=part.padding)
        self.counts.update(step)
        return token_metrics(step)

    @property
    def totals(self) -> dict[str, int]:
        """Number of tokens in each class so far, of `computed` and `padding` positions, and of `downsampled` tokens."""
        beside = [name for name in ("downsampled",) if name in self.counts]
        return {name: self.counts[name] for name in (*CLASSES, "computed", "padding", *beside)}

    def state(self) -> dict[str, Any]:
        return dict(self.totals)

    def restore(self, state: dict[str, Any]) -> None:
        self.counts = Counter(state)


def token_class(completion: Completion, *, is_old: bool, is_scored: bool, is_dead: bool) -> str:
    """The class, one of `CLASSES`, of a response's tokens."""
    if is_old:
        return "old"
    if completion.is_aborted:
        return "aborted"
    if not is_scored:
        return "unscored"
    if is_dead:
        return "dead"
    return "truncated" if completion.finish_reason == "length" else "useful"


def token_counts(groups: Groups, advantages: Advantages) -> Counter[str]:
    """{class: number of tokens} of the responses; all classes but `old` add up to the number of generated tokens."""
    counts: Counter[str] = Counter()
    is_dead = np.repeat(advantages.dead, groups.group_size)
    for completion, score, old, dead in zip(groups.completions, groups.scores, groups.old, is_dead, strict=True):
        is_scored = any(part is not None for part in score.parts.values())
        name = token_class(completion, is_old=old, is_scored=is_scored, is_dead=bool(dead))
        counts[name] += len(completion.token_ids)
    return counts


def token_metrics(counts: Mapping[str, int]) -> dict[str, float]:
    """`tokens/generated`, each class's share of all tokens, that of what row sampling left out where it is on, and the share
    of padding in the computed positions."""
    total = sum(counts.get(name, 0) for name in CLASSES)
    metrics = {"tokens/generated": float(total - counts.get("old", 0))}
    shown = (*CLASSES, "downsampled") if "downsampled" in counts else CLASSES
    metrics |= {f"tokens/{name}_share": counts.get(name, 0) / max(total, 1) for name in shown}
    return metrics | {"tokens/padding_share": counts.get("padding", 0) / max(counts.get("computed", 0), 1)}

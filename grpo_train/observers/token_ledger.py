"""Where the generated tokens of a training go: each response's tokens are in exactly one class.

The first of these that fits a response is the class of all its tokens:

- `old`: it comes from the response cache, and was counted as generated at the step that wrote it;
- `aborted`: its generation was broken off (finish reason `aborted:<why>`);
- `unscored`: no reward could score it;
- `dead`: its group teaches nothing, as all are right, all wrong, or equal otherwise;
- `truncated`: it ended at the length limit;
- `useful`: the rest.

Padding stands beside the classes: positions that a forward pass computed and that held no token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from configs.records import Completion
from grpo_train.groups import Groups
from grpo_train.objective.advantages import Advantages
from grpo_train.observers.observer import StepRecord
from reward_training.transformer.positions import Positions

CLASSES = ("useful", "truncated", "dead", "unscored", "aborted", "old")


@dataclass
class TokenLedger:
    """A training's totals; `state` and `restore` carry them over a kill."""

    counts: Counter[str] = field(default_factory=Counter)
    """tokens of each class, and of `computed` and `padding` positions"""

    def look(self, step: StepRecord) -> dict[str, float]:
        """The tokens of the batch and of the groups that were refused."""
        refused = token_counts(step.refused, step.refused_advantages)
        return self.add(token_counts(step.batch, step.advantages) + refused, step.positions)

    def add(self, counts: Mapping[str, int], *positions: Positions) -> dict[str, float]:
        """Add a step's tokens, as `token_counts` gives them, and its positions; returns the step's metrics."""
        step = Counter(counts)
        for part in positions:
            step.update(computed=part.computed, padding=part.padding)
        self.counts.update(step)
        return token_metrics(step)

    @property
    def totals(self) -> dict[str, int]:
        """Tokens of each class so far, and `computed` and `padding` positions."""
        return {name: self.counts[name] for name in (*CLASSES, "computed", "padding")}

    def state(self) -> dict[str, Any]:
        return dict(self.totals)

    def restore(self, state: dict[str, Any]) -> None:
        self.counts = Counter(state)


def token_class(completion: Completion, *, is_old: bool, is_scored: bool, is_dead: bool) -> str:
    """Which of `CLASSES` a response's tokens are in."""
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
    """{class: tokens} of the responses; the classes other than `old` add up to the tokens generated."""
    counts: Counter[str] = Counter()
    is_dead = np.repeat(advantages.dead, groups.group_size)
    for completion, score, old, dead in zip(groups.completions, groups.scores, groups.old, is_dead, strict=True):
        is_scored = any(part is not None for part in score.parts.values())
        name = token_class(completion, is_old=old, is_scored=is_scored, is_dead=bool(dead))
        counts[name] += len(completion.token_ids)
    return counts


def token_metrics(counts: Mapping[str, int]) -> dict[str, float]:
    """`tokens/generated`, the share of each class in all tokens, and the share of padding in what was computed."""
    total = sum(counts.get(name, 0) for name in CLASSES)
    metrics = {"tokens/generated": float(total - counts.get("old", 0))}
    metrics |= {f"tokens/{name}_share": counts.get(name, 0) / max(total, 1) for name in CLASSES}
    return metrics | {"tokens/padding_share": counts.get("padding", 0) / max(counts.get("computed", 0), 1)}

"""Counts what a training has spent of its budget, and says when it is used up."""

from __future__ import annotations

from typing import Any

from configs.schema.comparing.budget import BudgetConfig
from grpo_train.observers.observer import StepRecord


class Spending:
    """Tokens and seconds of the steps so far; checkpoints keep them, so that a resumed training goes on counting."""

    def __init__(self, budget: BudgetConfig) -> None:
        self.budget = budget
        self.generated_tokens = 0
        self.train_seconds = 0.0

    def look(self, step: StepRecord) -> dict[str, float]:
        """Add the step; returns `budget/spent_share`."""
        self.generated_tokens += step.num_sampled_tokens
        self.train_seconds += step.metrics["time/step"]
        return {"budget/spent_share": self.share}

    def ends_with(self, num_tokens: int) -> bool:
        """Whether so many tokens more reach a budget in tokens."""
        budget = self.budget.generated_tokens
        return budget is not None and self.generated_tokens + num_tokens >= budget

    @property
    def share(self) -> float:
        """What was spent, as a share of the budget; over 1 once the last step went beyond it."""
        if self.budget.generated_tokens is not None:
            return self.generated_tokens / self.budget.generated_tokens
        assert self.budget.train_seconds is not None, "a budget is one of the two"
        return self.train_seconds / self.budget.train_seconds

    @property
    def is_used_up(self) -> bool:
        return self.share >= 1

    def state(self) -> dict[str, Any]:
        return {"generated_tokens": self.generated_tokens, "train_seconds": self.train_seconds}

    def restore(self, state: dict[str, Any]) -> None:
        self.generated_tokens, self.train_seconds = state["generated_tokens"], state["train_seconds"]

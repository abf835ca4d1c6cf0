"""What each step of training says of itself. Keys are defined in docs/metrics.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from configs.records import Completion, Score
from grpo_train.groups import Groups
from grpo_train.objective.advantages import Advantages, Bools, Floats


@dataclass
class Phases:
    """Seconds of a step by phase; a phase may come more than once."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[f"time/{name}"] = self.seconds.get(f"time/{name}", 0.0) + now - self.last
        self.last = now


def parts_matrix(scores: Sequence[Score], objectives: Sequence[str]) -> Floats:
    """(N, K) parts in the order of `objectives`, NaN where a reward could not score."""
    rows = [[np.nan if score.parts[name] is None else score.parts[name] for name in objectives] for score in scores]
    return np.array(rows, dtype=np.float64).reshape(len(scores), len(objectives))


def reward_metrics(parts: Floats, objectives: Sequence[str], advantages: Advantages, is_old: Bools) -> dict[str, float]:
    """Mean and spread of the reward and of each objective, each objective's share, and the advantages' distribution.

    Old rows belong to the shares and to the distribution alone: they say nothing of what the policy gets now.
    """
    metrics = _mean_and_std("reward", advantages.rewards[~is_old])
    for name, column, share in zip(objectives, parts[~is_old].T, advantages.shares, strict=True):
        metrics |= _mean_and_std(f"objective/{name}", column)
        metrics[f"objective/{name}/advantage_share"] = float(share)
        metrics[f"objective/{name}/unscored_share"] = float(np.isnan(column).mean())
    values = advantages.means
    return metrics | {
        "advantage/std": float(values.std()),
        "advantage/min": float(values.min()),
        "advantage/max": float(values.max()),
        "advantage/positive_share": float((values > 0).mean()),
    }


def _mean_and_std(key: str, values: Floats) -> dict[str, float]:
    known = values[~np.isnan(values)]
    return {f"{key}/mean": float(known.mean()), f"{key}/std": float(known.std())} if known.size else {}


class Contributions:
    """Each objective's absolute part of the advantages, summed over the steps of a training."""

    def __init__(self, objectives: Sequence[str]) -> None:
        self.sums = dict.fromkeys(objectives, 0.0)

    def add(self, advantages: Advantages) -> None:
        for name, value in zip(self.sums, np.abs(advantages.contributions).sum(axis=0), strict=True):
            self.sums[name] += float(value)

    @property
    def shares(self) -> dict[str, float]:
        """Each objective's share of all."""
        total = max(sum(self.sums.values()), 1e-12)
        return {name: value / total for name, value in self.sums.items()}

    def state(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def restore(self, state: dict[str, Any]) -> None:
        self.sums = dict(state["sums"])


def group_metrics(
    completions: Sequence[Completion],
    right: Sequence[bool] | None,
    advantages: Advantages,
    group_size: int,
    is_old: Bools,
) -> dict[str, float]:
    """Shares of groups that are dead, of distinct texts in a group, and of groups whose new rows are all right, all wrong."""
    texts = [completion.text for completion in completions]
    groups = [texts[start : start + group_size] for start in range(0, len(texts), group_size)]
    metrics = {
        "groups/dead_share": float(advantages.dead.mean()),
        "groups/distinct_share": float(np.mean([len(set(group)) / group_size for group in groups])),
    }
    if right is not None:
        verdicts, old = np.array(right).reshape(-1, group_size), is_old.reshape(-1, group_size)
        metrics["groups/all_right_share"] = float((verdicts | old).all(axis=1).mean())
        metrics["groups/all_wrong_share"] = float((~verdicts | old).all(axis=1).mean())
    return metrics


def response_metrics(completions: Sequence[Completion]) -> dict[str, float]:
    """Length, truncation and early stops of the responses, and the policy's entropy as they show it."""
    lengths = [len(completion.token_ids) for completion in completions]
    logprobs = np.concatenate([completion.logprobs for completion in completions])
    return {
        "response/length_mean": float(np.mean(lengths)),
        "response/length_max": float(np.max(lengths)),
        "response/truncated_share": float(np.mean([c.finish_reason == "length" for c in completions])),
        "response/aborted_share": float(np.mean([c.is_aborted for c in completions])),
        "policy/entropy": float(-logprobs.mean()),
    }


def rollout_rows(
    step: int, groups: Groups, advantages: Advantages, *, is_refused: bool = False
) -> list[dict[str, Any]]:
    """One row a completion for rollouts.jsonl and the tables."""
    rows = zip(groups.asked, groups.completions, groups.scores, advantages.means, strict=True)
    return [
        {
            "step": step,
            "problem_key": problem.key,
            "index": completion.index,
            "written_at": completion.step,
            "prompt": problem.prompt,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "num_tokens": len(completion.token_ids),
            "parts": score.parts,
            "total": score.total,
            "advantage": float(advantage),
            "refused": is_refused,
        }
        for problem, completion, score, advantage in rows
    ]

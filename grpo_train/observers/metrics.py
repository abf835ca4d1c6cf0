"""Computes the metrics of a training step that need no earlier steps; docs/metrics.md defines their keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from configs.records import Completion, Score
from grpo_train.observers.observer import StepRecord
from grpo_train.updating.advantages import Advantages, Bools, Floats


def step_metrics(step: StepRecord, *, with_refills: bool) -> dict[str, float]:
    """Metrics of a step's rewards, groups and responses, and of dynamic sampling where it is on."""
    is_old = step.batch.is_old
    metrics = reward_metrics(step.parts, step.applies, step.objectives, step.advantages, is_old)
    metrics |= fault_metrics(step.batch.sampled_scores, step.objectives)
    metrics |= group_metrics(step.batch.completions, step.right, step.advantages, step.batch.group_size, is_old)
    metrics |= response_metrics(step.batch.sampled)
    return metrics | refill_metrics(step) if with_refills else metrics


def refill_metrics(step: StepRecord) -> dict[str, float]:
    """Number of dead groups that were replaced by fresh ones, and number of refill rounds."""
    return {"groups/refused": float(len(step.refused.problems)), "groups/refills": float(step.num_refills)}


def reward_metrics(
    parts: Floats, applies: Bools, objectives: Sequence[str], advantages: Advantages, is_old: Bools
) -> dict[str, float]:
    """Mean and std of the reward and of each objective, advantage and unscored shares, advantage distribution.

    An objective is measured on the rows that it applies to. Rows from the response cache (`is_old`) count only in the advantage shares and the advantage distribution: they do
    not show what the current policy scores.
    """
    metrics = _mean_and_std("reward", advantages.rewards[~is_old])
    columns = zip(objectives, parts[~is_old].T, applies[~is_old].T, advantages.shares, strict=True)
    for name, column, its_rows, share in columns:
        metrics |= _mean_and_std(f"objective/{name}", column)
        metrics[f"objective/{name}/advantage_share"] = float(share)
        if its_rows.any():
            metrics[f"objective/{name}/unscored_share"] = float(np.isnan(column[its_rows]).mean())
    values = advantages.means
    return metrics | {
        "advantage/std": float(values.std()),
        "advantage/min": float(values.min()),
        "advantage/max": float(values.max()),
        "advantage/positive_share": float((values > 0).mean()),
    }


def fault_metrics(scores: Sequence[Score], objectives: Sequence[str]) -> dict[str, float]:
    """Of each objective, the share of sampled responses that made its checker fail, of those that it applies to."""
    its_scores = {name: [score for score in scores if name in score.parts] for name in objectives}
    return {
        f"objective/{name}/at_fault_share": float(np.mean([name in score.faults for score in its]))
        for name, its in its_scores.items()
        if its
    }


def _mean_and_std(key: str, values: Floats) -> dict[str, float]:
    known = values[~np.isnan(values)]
    return {f"{key}/mean": float(known.mean()), f"{key}/std": float(known.std())} if known.size else {}


def group_metrics(
    completions: Sequence[Completion],
    right: Sequence[bool | None],
    advantages: Advantages,
    group_size: int,
    is_old: Bools,
) -> dict[str, float]:
    """Shares of dead groups, of distinct texts per group, and of groups with all sampled rows right or all wrong.

    The last two are of the groups whose checker scored at least one of them; what it could not score does not count.
    """
    texts = [completion.text for completion in completions]
    groups = [texts[start : start + group_size] for start in range(0, len(texts), group_size)]
    metrics = {
        "groups/dead_share": float(advantages.dead.mean()),
        "groups/distinct_share": float(np.mean([len(set(group)) / group_size for group in groups])),
    }
    known = [None if old else verdict for verdict, old in zip(right, is_old, strict=True)]
    by_group = [known[start : start + group_size] for start in range(0, len(known), group_size)]
    if decided := [verdicts for group in by_group if (verdicts := [v for v in group if v is not None])]:
        metrics["groups/all_right_share"] = float(np.mean([all(verdicts) for verdicts in decided]))
        metrics["groups/all_wrong_share"] = float(np.mean([not any(verdicts) for verdicts in decided]))
    return metrics


def response_metrics(completions: Sequence[Completion]) -> dict[str, float]:
    """Lengths, shares of truncated and aborted responses, and the policy's entropy over them in nats per token."""
    lengths = [len(completion.token_ids) for completion in completions]
    logprobs = np.concatenate([completion.logprobs for completion in completions])
    return {
        "response/length_mean": float(np.mean(lengths)),
        "response/length_max": float(np.max(lengths)),
        "response/truncated_share": float(np.mean([c.finish_reason == "length" for c in completions])),
        "response/aborted_share": float(np.mean([c.is_aborted for c in completions])),
        "policy/entropy": float(-logprobs.mean()),
    }

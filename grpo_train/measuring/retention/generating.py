"""Measures problems that are not trained on by the greedy response to each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from configs.records import Problem, verdict
from configs.schema.measuring.retention import GenerateSuite
from grpo_train.measuring.retention.likelihood import Row
from grpo_train.sampling.asked import Write
from grpo_train.sampling.generation import Sampling
from reward_training.rewards.sought import texts_sought
from reward_training.scorer import build_rewards, check_unscored, score


def generate_rows(
    write: Write,
    problems: Sequence[Problem],
    suite: GenerateSuite,
    name: str,
    *,
    policy_id: str,
    max_rows: int,
    max_unscored_share: float,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Whether the greedy response to each problem is right (1 or 0); no row where the checker could not tell.

    `max_rows` bounds the responses that are decoded together.

    Raises:
        StageStopped: `should_stop()` was true between two batches of responses.
        RewardError: the checker left more than `max_unscored_share` of the responses unscored.
    """
    sampling = Sampling(
        1, 1.0, suite.max_response_length, max_rows=max_rows, num_greedy=1, sought=texts_sought([suite.checker])
    )
    completions = write(problems, sampling, seed=0, policy_id=policy_id, should_stop=should_stop)
    with build_rewards([suite.checker], {}) as rewards:
        scores = score(problems, completions, rewards)
    check_unscored(scores, max_unscored_share, where=f" in evaluation.retention.{name}")
    verdicts = [verdict(found, suite.checker.name) for found in scores]
    return [
        {"suite": name, "item": problem.key, "value": float(is_right)}
        for problem, is_right in zip(problems, verdicts, strict=True)
        if is_right is not None
    ]

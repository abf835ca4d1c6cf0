"""Measures savings and cost of the response cache, on the quickstart's model and a few problems that recur often.

    python -m benchmarks.response_cache [--steps 12] [--problems 32]

Trains without the cache and with each share, on the same problems, order and seeds. Reports seconds and sampled tokens
per step, dead groups, how off-policy the cached responses are, and the greedy dev accuracy at the end. Only the
accuracy tells whether the savings are worth it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.results import kept, table
from configs.reader import load_config
from configs.records import Policy, is_right
from configs.schema.config import Config
from grpo_train.policies.model import load_policy
from grpo_train.problems.splits import load_problems
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.step import StepResult
from grpo_train.trainer import train
from reward_training.scorer import build_rewards, score
from tasks.running.allocator import reused_memory

CONFIG = Path("configs/quickstart.yaml")
SHARES = (0.0, 0.5)
SEEDS = (0, 1, 2)
METRICS = ("time/generate", "time/update", "groups/dead_share", "cache/used_share", "cache/effective_share")
COLUMNS = ("sampled tokens a step", *METRICS, "dev accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--problems", type=int, default=32, help="problems to train on; fewer come back sooner")
    given = parser.parse_args()
    print(summary(given.steps, given.problems))


def summary(num_steps: int = 12, num_problems: int = 32) -> str:
    """The results as a Markdown table; only missing cases are measured."""
    cases = [(share, seed) for share in SHARES for seed in SEEDS]
    rows = [
        [str(share), str(seed)] + [f"{result[key]:.3f}" if result[key] is not None else "-" for key in COLUMNS]
        for share, seed in cases
        for result in [kept(f"response_cache/{share}-{seed}", partial(measured, share, seed, num_steps, num_problems))]
    ]
    return table(["share", "seed", *COLUMNS], rows)


def settings(share: float, seed: int, num_steps: int) -> Config:
    changes = {
        "seed": seed,
        "grpo_config.max_updates": num_steps,
        "grpo_config.epochs": 1000,
        "grpo_config.monitor_kl_every": 0,
        "grpo_config.response_cache": f"{{share: {share}}}",
        "watch": "[]",
    }
    return load_config(CONFIG, [f"{key}={value}" for key, value in changes.items()])


def measured(share: float, seed: int, num_steps: int, num_problems: int) -> dict[str, Any]:
    """Train once; returns COLUMNS: means over the steps, None if no step has the metric, and the final dev accuracy."""
    config = settings(share, seed, num_steps)
    model, tokenizer = load_policy(config.policy.path, device="cpu")
    problems = load_problems(config.problems, config.regeneration, rounds=1, seed=0, tokenizer=tokenizer)
    base = Policy(path=config.policy.path, id="base", round=0)
    steps: list[StepResult] = []
    with build_rewards(config.rewards, {}) as rewards, reused_memory():
        train(
            model,
            tokenizer,
            problems.by_split["train"][:num_problems],
            policy=base,
            initial_policy=base,
            rewards=rewards,
            config=config,
            round_index=1,
            on_step=steps.append,
        )
        dev = problems.by_split["dev"]
        greedy = Sampling(1, 0.0, config.grpo_config.max_response_length)
        completions = sample(model, tokenizer, dev, greedy, seed=0, policy_id="trained")
        scores = score(dev, completions, [reward for reward in rewards if reward.name in config.checkers])
    accuracy = fmean(is_right(row.parts[config.checkers[0]]) for row in scores)
    values = [sampled_tokens(steps), *(mean(steps, key) for key in METRICS), accuracy]
    return dict(zip(COLUMNS, values, strict=True))


def sampled_tokens(steps: Sequence[StepResult]) -> float:
    """Mean number of tokens sampled in a step; cached responses do not count."""
    return fmean(sum(row["num_tokens"] for row in s.rollouts if row["written_at"] == s.step) for s in steps)


def mean(steps: Sequence[StepResult], key: str) -> float | None:
    """Mean over the steps that have the metric; None if none has."""
    values = [step.metrics[key] for step in steps if key in step.metrics]
    return fmean(values) if values else None


if __name__ == "__main__":
    main()

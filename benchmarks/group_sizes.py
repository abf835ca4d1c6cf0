"""Measures gradient noise and the cost of a step by group size, at an equal number of responses.

    python -m benchmarks.group_sizes [--responses 64] [--batches 12]

One policy samples batches of `responses` responses in groups of 2, 4, 8 and 16. The only reward is the checker's. All
gradients are taken at the same weights, and their noise-to-signal ratio is tr Cov(g) / |E g|^2, from unbiased estimates
of both. The times are those of sampling a batch and of its update.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.results import kept, table
from benchmarks.workloads import WORKLOADS, Workload, open_model, open_rewards, problems
from configs.records import Completion, Policy, Problem
from configs.schema.config import Config
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.updating.advantages import Advantages, group_advantages
from grpo_train.updating.learner import Learner
from reward_training.scorer import score
from tasks.running.allocator import reused_memory

SIZES = (2, 4, 8, 16)


@dataclass(frozen=True)
class Found:
    """The measurements of one group size."""

    group_size: int
    noise_to_signal: float
    dead_share: float
    """share of its groups in which all rewards are equal"""
    generate_s: float
    """median seconds to sample a batch"""
    update_s: float
    """median seconds of an update"""


class GradientMoments:
    """Running sums that give the gradients' mean and the trace of their covariance, without storing every gradient."""

    def __init__(self) -> None:
        self.number = 0
        self.sum: list[Tensor] = []
        self.squares = 0.0

    def add(self, gradient: list[Tensor]) -> None:
        self.number += 1
        self.squares += sum(float(part.double().square().sum()) for part in gradient)
        if not self.sum:
            self.sum = [part.clone() for part in gradient]
            return
        for total, part in zip(self.sum, gradient, strict=True):
            total += part

    @property
    def noise_to_signal(self) -> float:
        """tr Cov / |mean|^2, with |mean|^2 corrected for the noise of the mean; infinity if it is not positive."""
        sum_square = sum(float(part.double().square().sum()) for part in self.sum)
        variance = (self.squares - sum_square / self.number) / (self.number - 1)
        signal = sum_square / self.number**2 - variance / self.number
        return variance / signal if signal > 0 else float("inf")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=64, help="in a batch")
    parser.add_argument("--batches", type=int, default=12, help="whose gradients are compared")
    given = parser.parse_args(arguments)
    print(summary(given.responses, given.batches))


def summary(num_responses: int = 64, num_batches: int = 12) -> str:
    """The results as a Markdown table; only missing group sizes are measured."""
    results = [
        Found(**{name: row[name] for name in Found.__annotations__})
        for row in (_kept(size, num_responses, num_batches) for size in SIZES)
    ]
    header = ["group size", "problems", "noise to signal", "dead groups", "sampling (s)", "update (s)"]
    return table(header, [_line(result, num_responses) for result in results])


def _kept(size: int, num_responses: int, num_batches: int) -> dict[str, Any]:
    with reused_memory():
        return kept(f"group_sizes/{size}", lambda: asdict(measured(size, num_responses, num_batches)))


def _line(result: Found, num_responses: int) -> list[str]:
    return [
        str(result.group_size),
        str(num_responses // result.group_size),
        f"{result.noise_to_signal:.1f}",
        f"{result.dead_share:.0%}",
        f"{result.generate_s:.1f}",
        f"{result.update_s:.1f}",
    ]


def measured(group_size: int, num_responses: int, num_batches: int) -> Found:
    """Measure one group size on `num_batches` batches. The order of the problems does not depend on the group size."""
    workload = replace(WORKLOADS["natural"], group_size=group_size, num_prompts=num_responses // group_size)
    config = workload.settings()
    model, tokenizer = open_model(workload)
    train = problems(config, tokenizer)["train"]
    base = Policy(path="", id="base", round=0)
    learner = Learner(model, config.grpo_config, policy=base, initial_policy=base, num_updates=num_batches)
    moments, dead_shares, generate_s, update_s = GradientMoments(), [], [], []
    num_prompts = workload.num_prompts
    sampling = Sampling(group_size, config.grpo_config.temperature, config.grpo_config.max_response_length)
    for batch_index in range(num_batches):
        asked = [train[(batch_index * num_prompts + i) % len(train)] for i in range(num_prompts)]
        began = time.perf_counter()
        completions = sample(learner.actor, tokenizer, asked, sampling, seed=batch_index, policy_id="base")
        generate_s.append(time.perf_counter() - began)
        advantages = advantages_of(asked, completions, workload, config)
        dead_shares.append(float(np.mean(advantages.dead)))
        began = time.perf_counter()
        moments.add(gradient(learner, completions, advantages))
        update_s.append(time.perf_counter() - began)
        print(f"group size {group_size}: batch {batch_index + 1} of {num_batches}", flush=True)
    return Found(
        group_size,
        moments.noise_to_signal,
        float(np.mean(dead_shares)),
        float(np.median(generate_s)),
        float(np.median(update_s)),
    )


def advantages_of(
    asked: Sequence[Problem], completions: Sequence[Completion], workload: Workload, config: Config
) -> Advantages:
    """Advantages from the checker's reward alone."""
    size = workload.group_size
    rewards = [reward for reward in open_rewards(workload, config) if reward.name in config.checkers]
    scores = score([problem for problem in asked for _ in range(size)], completions, rewards)
    parts = np.array([[row.parts[config.checkers[0]] or 0.0] for row in scores])
    return group_advantages(parts, np.ones(1), size)


def gradient(learner: Learner, completions: Sequence[Completion], advantages: Advantages) -> list[Tensor]:
    """The gradient of the loss at the current weights, read before it is clipped, without an update of the weights."""
    gradients: list[Tensor] = []

    def take() -> float:
        weights = list(learner.model.parameters())
        gradients.extend(torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights)
        learner.optimizer.zero_grad()
        return 0.0

    learner._apply = take  # type: ignore[method-assign]
    learner.update(completions, advantages)
    return gradients


if __name__ == "__main__":
    main()

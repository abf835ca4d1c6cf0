"""The gradient's variance and the cost of a step against the group size, at equal numbers of responses.

    python -m benchmarks.group_sizes [--responses 64] [--batches 12]

One policy writes batches of `responses` in groups of 2, 4, 8 and 16, the rule that says right or wrong alone rewards them, their
gradients are taken at the same weights, and their spread is told as noise to signal: tr Cov(g) / |E g|^2, from unbiased
estimates of both. A step's time is that of sampling a batch with that group size and of its update.
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
from grpo_train.objective.advantages import Advantages, group_advantages
from grpo_train.objective.learner import Learner
from grpo_train.sampling.generation import Sampling, sample
from reward_training.scorer import score
from tasks.running.allocator import reused_memory

SIZES = (2, 4, 8, 16)


@dataclass(frozen=True)
class Found:
    """Of one group size."""

    group_size: int
    noise_to_signal: float
    dead_share: float
    """of its groups"""
    generate_s: float
    update_s: float


class GradientMoments:
    """Running sums over batches, from which mean and covariance follow without holding every gradient."""

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
        for held, part in zip(self.sum, gradient, strict=True):
            held += part

    @property
    def noise_to_signal(self) -> float:
        """tr Cov / |mean|^2; |mean|^2 is freed of the part that the noise of a mean over `number` batches adds."""
        of_sum = sum(float(part.double().square().sum()) for part in self.sum)
        variance = (self.squares - of_sum / self.number) / (self.number - 1)
        signal = of_sum / self.number**2 - variance / self.number
        return variance / signal if signal > 0 else float("inf")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=64, help="in a batch")
    parser.add_argument("--batches", type=int, default=12, help="whose gradients are compared")
    given = parser.parse_args(arguments)
    print(summary(given.responses, given.batches))


def summary(num_responses: int = 64, num_batches: int = 12) -> str:
    """The table, measured as far as it has not been."""
    found = [
        Found(**{name: row[name] for name in Found.__annotations__})
        for row in (_kept(size, num_responses, num_batches) for size in SIZES)
    ]
    header = ["group size", "problems", "noise to signal", "dead groups", "sampling (s)", "update (s)"]
    return table(header, [_line(each, num_responses) for each in found])


def _kept(size: int, num_responses: int, num_batches: int) -> dict[str, Any]:
    with reused_memory():
        return kept(f"group_sizes/{size}", lambda: asdict(measured(size, num_responses, num_batches)))


def _line(found: Found, num_responses: int) -> list[str]:
    return [
        str(found.group_size),
        str(num_responses // found.group_size),
        f"{found.noise_to_signal:.1f}",
        f"{found.dead_share:.0%}",
        f"{found.generate_s:.1f}",
        f"{found.update_s:.1f}",
    ]


def measured(group_size: int, num_responses: int, num_batches: int) -> Found:
    """`num_batches` batches of fresh problems, in the same order whatever the group size."""
    workload = replace(WORKLOADS["natural"], group_size=group_size, num_prompts=num_responses // group_size)
    config = workload.settings()
    model, tokenizer = open_model(workload)
    train = problems(config, tokenizer)["train"]
    base = Policy(path="", id="base", round=0)
    learner = Learner(model, config.grpo_config, policy=base, initial_policy=base, num_updates=num_batches)
    moments, dead, generate, update = GradientMoments(), [], [], []
    per_batch = workload.num_prompts
    sampling = Sampling(group_size, config.grpo_config.temperature, config.grpo_config.max_response_length)
    for number in range(num_batches):
        asked = [train[(number * per_batch + place) % len(train)] for place in range(per_batch)]
        began = time.perf_counter()
        completions = sample(learner.actor, tokenizer, asked, sampling, seed=number, policy_id="base")
        generate.append(time.perf_counter() - began)
        advantages = advantages_of(asked, completions, workload, config)
        dead.append(float(np.mean(advantages.dead)))
        began = time.perf_counter()
        moments.add(gradient(learner, completions, advantages))
        update.append(time.perf_counter() - began)
        print(f"group size {group_size}: batch {number + 1} of {num_batches}", flush=True)
    return Found(
        group_size, moments.noise_to_signal, float(np.mean(dead)), float(np.median(generate)), float(np.median(update))
    )


def advantages_of(
    asked: Sequence[Problem], completions: Sequence[Completion], workload: Workload, config: Config
) -> Advantages:
    """By the rule that says right or wrong alone."""
    size = workload.group_size
    rewards = [reward for reward in open_rewards(workload, config) if reward.name == config.checker]
    scores = score([problem for problem in asked for _ in range(size)], completions, rewards)
    parts = np.array([[each.parts[config.checker] or 0.0] for each in scores])
    return group_advantages(parts, np.ones(1), size)


def gradient(learner: Learner, completions: Sequence[Completion], advantages: Advantages) -> list[Tensor]:
    """Of the loss at the weights as they are, taken where the update would clip and use it."""
    taken: list[Tensor] = []

    def take() -> float:
        weights = list(learner.model.parameters())
        taken.extend(torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights)
        learner.optimizer.zero_grad()
        return 0.0

    learner._apply = take  # type: ignore[method-assign]
    learner.update(completions, advantages)
    return taken


if __name__ == "__main__":
    main()

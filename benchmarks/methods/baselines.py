"""Measures what a baseline is worth: the variance of the policy gradient by method, on the same responses.

    python -m benchmarks.methods.baselines [--pairs 8] [--prompts 8]

One policy samples batches of responses in groups of 8, and each method takes its gradient g of each batch at the same weights, with
the checker's reward alone. From two batches come unbiased estimates of tr Cov(g) = E |g_1 - g_2|^2 / 2 and of
|E g|^2 = E g_1 . g_2. REINFORCE and RLOO estimate one gradient, so their variances compare, pair by pair; the interval is a
bootstrap over pairs. GRPO's gradient is another one: of it noise to signal, tr Cov(g) / |E g|^2, is told alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.group_sizes import gradient
from benchmarks.results import kept, table
from benchmarks.workloads import WORKLOADS, Workload, open_model, open_rewards, problems
from configs.records import Completion, Policy, Problem
from configs.schema.config import Config
from grpo_train.methods.build import build_method
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.updating.advantages import Scored
from grpo_train.updating.learner import Learner
from reward_training.scorer import score
from tasks.running.allocator import reused_memory

GROUP_SIZE = 8
METHODS = {
    "reinforce, no baseline": {"kind": "reinforce", "baseline": "none"},
    "reinforce, mean of the step": {"kind": "reinforce", "baseline": "batch_mean"},
    "rloo": {"kind": "rloo"},
    "grpo": {"kind": "grpo"},
}
WITHOUT = "reinforce, no baseline"
Gradient = list[Tensor]


@dataclass(frozen=True)
class Pair:
    """What two batches say of a method's gradient."""

    variance: float
    signal: float


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="of batches")
    parser.add_argument("--prompts", type=int, default=8, help="in a batch")
    given = parser.parse_args(arguments)
    print(summary(given.pairs, given.prompts))


def summary(num_pairs: int = 8, num_prompts: int = 8) -> str:
    """The results as a Markdown table."""

    def measure() -> dict[str, list[tuple[float, float]]]:
        with reused_memory():
            found = measured(num_pairs, num_prompts)
        return {method: [(pair.variance, pair.signal) for pair in pairs] for method, pairs in found.items()}

    stored = kept(f"baselines/{num_pairs}_{num_prompts}", measure)
    variances = {method: np.array([variance for variance, _ in stored[method]]) for method in METHODS}
    signals = {method: np.array([signal for _, signal in stored[method]]) for method in METHODS}
    rows = [
        [method, _relative(variances, method), _noise_to_signal(variances[method], signals[method])]
        for method in METHODS
    ]
    return table(["method", "variance against no baseline", "noise to signal"], rows)


def _relative(variances: dict[str, NDArray[np.float64]], method: str) -> str:
    if METHODS[method]["kind"] == "grpo":
        return "another gradient"
    ratio, low, high = ratio_of_means(variances[method], variances[WITHOUT])
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]"


def _noise_to_signal(variances: NDArray[np.float64], signals: NDArray[np.float64]) -> str:
    """The ratio of the means; unknown where the signal is not told from 0."""
    draws = np.random.default_rng(0).integers(0, len(signals), (4000, len(signals)))
    if np.quantile(signals[draws].mean(axis=1), 0.025) <= 0:
        return "unknown"
    return f"{variances.mean() / signals.mean():.1f}"


def ratio_of_means(above: NDArray[np.float64], below: NDArray[np.float64]) -> tuple[float, float, float]:
    """(ratio of the means of paired values, lower and upper end of its 95% bootstrap interval)."""
    draws = np.random.default_rng(0).integers(0, len(above), (4000, len(above)))
    low, high = np.quantile(above[draws].mean(axis=1) / below[draws].mean(axis=1), [0.025, 0.975])
    return float(above.mean() / below.mean()), float(low), float(high)


def measured(num_pairs: int, num_prompts: int) -> dict[str, list[Pair]]:
    """{method: what each pair of batches says}."""
    workload = replace(WORKLOADS["natural"], group_size=GROUP_SIZE, num_prompts=num_prompts)
    config = workload.settings()
    model, tokenizer = open_model(workload)
    train = problems(config, tokenizer)["train"]
    base = Policy(path="", id="base", round=0)
    learners = {}
    for method in METHODS:  # they differ in the loss alone, which a learner reads at each update
        grpo = configured(config, method).grpo_config
        learners[method] = Learner(model, grpo, policy=base, initial_policy=base, num_updates=1)
    sampling = Sampling(GROUP_SIZE, config.grpo_config.temperature, config.grpo_config.max_response_length)
    found: dict[str, list[Pair]] = {method: [] for method in METHODS}
    first: dict[str, Gradient] = {}
    for batch in range(2 * num_pairs):
        asked = [train[(batch * num_prompts + i) % len(train)] for i in range(num_prompts)]
        actor = learners[WITHOUT].actor
        completions = sample(actor, tokenizer, asked, sampling, seed=batch, policy_id="base")
        for method, second in _gradients(learners, asked, completions, workload, config):
            if batch % 2:
                found[method].append(pair(first.pop(method), second))
            else:
                first[method] = second
        print(f"batch {batch + 1} of {2 * num_pairs}", flush=True)
    return found


def configured(config: Config, method: str) -> Config:
    """The configuration with the method, and with the loss and scale that belong to it."""
    given = config.model_dump(mode="json") | {"method": METHODS[method]}
    del given["grpo_config"]["loss"], given["combination"]
    return Config.model_validate(given)


def _gradients(
    learners: dict[str, Learner],
    asked: Sequence[Problem],
    completions: Sequence[Completion],
    workload: Workload,
    config: Config,
) -> Iterator[tuple[str, Gradient]]:
    """(method, its gradient) on the same responses, from the checker's reward."""
    rewards = [reward for reward in open_rewards(workload, config) if reward.name in config.checkers]
    scores = score([problem for problem in asked for _ in range(GROUP_SIZE)], completions, rewards)
    parts = np.array([[row.parts[config.checkers[0]] or 0.0] for row in scores])
    alike = np.zeros(len(asked), dtype=np.int64)
    scored = Scored(parts, np.ones(1), np.full((1, 2), np.nan), GROUP_SIZE, alike)
    for method, learner in learners.items():
        advantages = build_method(configured(config, method)).advantages(scored)
        yield method, gradient(learner, completions, advantages)


def pair(first: Gradient, second: Gradient) -> Pair:
    """Unbiased estimates of the trace of the covariance and of the squared length of the mean."""
    parts = list(zip(first, second, strict=True))
    variance = sum(float((a - b).double().square().sum()) for a, b in parts) / 2
    return Pair(variance, sum(float((a.double() * b.double()).sum()) for a, b in parts))


if __name__ == "__main__":
    main()

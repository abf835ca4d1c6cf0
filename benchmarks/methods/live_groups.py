"""Measures how many groups are alive, and so teach, if problems are picked by predicted pass rates instead of in random order.

    python -m benchmarks.methods.live_groups [--problems 400] [--seeds 20]

The quickstart's given policy answers some training problems in groups of 8, and those of the regeneration before the first
round. A picker with the latter's pass rates then picks 12 steps of 8 problems, and is told after each what the groups of
its problems came to; once without a curriculum and once with `kind: predicted`, for several seeds of the order. Nothing is
trained, so that a group is what it is whenever it is picked.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean

import numpy as np

from benchmarks.results import kept, table
from benchmarks.workloads import WORKLOADS, open_model, open_rewards, problems
from configs.records import Problem, is_right
from configs.schema.problems import Curriculum, NoCurriculum, PredictedCurriculum
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.problems.picking.pass_rates import Measured, facts
from grpo_train.sampling.generation import Sampling, sample
from reward_training.scorer import score
from tasks.running.allocator import reused_memory

GROUP_SIZE, NUM_STEPS, NUM_PROBLEMS = 8, 12, 8
BEFORE = "regenerate_000"
KINDS: dict[str, Curriculum] = {
    "in random order": NoCurriculum(),
    "predicted, a quarter kept, a tenth explored": PredictedCurriculum(keep=0.25, explore=0.1),
    "predicted, half kept, a tenth explored": PredictedCurriculum(keep=0.5, explore=0.1),
    "predicted, a quarter kept, none explored": PredictedCurriculum(keep=0.25, explore=0.0),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=400, help="training problems to pick from")
    parser.add_argument("--seeds", type=int, default=20, help="orders of the problems")
    given = parser.parse_args(arguments)
    print(summary(given.problems, given.seeds))


def summary(num_problems: int, num_seeds: int) -> str:
    """The results as a Markdown table."""
    config = WORKLOADS["natural"].settings()
    with reused_memory():
        model, tokenizer = open_model(WORKLOADS["natural"])
    by_split = problems(config, tokenizer)
    train = by_split["train"][:num_problems]

    def measure() -> dict[str, float]:
        asked = [*train, *by_split[BEFORE]]
        sampling = Sampling(
            GROUP_SIZE, config.grpo_config.temperature, config.grpo_config.max_response_length, max_rows=128
        )
        with reused_memory():
            completions = sample(model, tokenizer, asked, sampling, seed=0, policy_id="given")
        rewards = [reward for reward in open_rewards(WORKLOADS["natural"], config) if reward.name in config.checkers]
        scores = score([problem for problem in asked for _ in range(GROUP_SIZE)], completions, rewards)
        right = [is_right(row.parts[config.checkers[0]]) for row in scores]
        return {problem.key: fmean(right[i * GROUP_SIZE : (i + 1) * GROUP_SIZE]) for i, problem in enumerate(asked)}

    stored = kept(f"live_groups/{num_problems}", measure)
    before = [Measured(problem.source, facts(problem), stored[problem.key]) for problem in by_split[BEFORE]]
    rows = []
    for name, kind in KINDS.items():
        shares = [living_share(train, stored, kind, before, seed) for seed in range(num_seeds)]
        rows.append([name, f"{fmean(shares):.2f}", f"{np.std(shares, ddof=1):.2f}"])
    return table(["problems", "share of living groups", f"std over {num_seeds} orders"], rows)


def living_share(
    train: Sequence[Problem], rates: Mapping[str, float], kind: Curriculum, before: Sequence[Measured], seed: int
) -> float:
    """Of the groups that are picked, those whose responses are neither all right nor all wrong."""
    handed_on = {"epoch": 0.0, "rates": {}, "regenerated": [asdict(row) for row in before]}
    picker = ProblemPicker(train, kind, seed=seed, round_index=1, handed_on=handed_on)
    found: list[float] = []
    for _ in range(NUM_STEPS):
        of_step = {problem.key: rates[problem.key] for problem in picker.pick(NUM_PROBLEMS)}
        picker.end_step(of_step)
        found += of_step.values()
    return fmean(0 < rate < 1 for rate in found)


if __name__ == "__main__":
    main()

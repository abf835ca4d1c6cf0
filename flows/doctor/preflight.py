"""What training would meet: some of the real problems, sampled and scored once with the policy as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.records import RIGHT, Problem
from configs.schema.config import Config
from configs.seeds import rng_for, seed_for
from flows.doctor.checks import Finding
from grpo_train.groups import parts_matrix
from grpo_train.objective.advantages import Floats, group_advantages
from grpo_train.sampling.generation import Sampling, sample
from reward_training.scorer import build_rewards, score
from reward_training.weighing import Weighing

NUM_RESPONSES = 128
MANY_DEAD = 0.7
MANY_TRUNCATED = 0.3
BAR = 24
"""characters of a histogram's longest bar"""


@dataclass(frozen=True)
class RewardRange:
    """One objective over the responses."""

    name: str
    low: float | None
    mean: float | None
    high: float | None
    """None where it scored nothing"""
    unscored_share: float
    agreement: float | None
    """correlation with the checker; None where one of both does not vary"""


@dataclass(frozen=True)
class Preflight:
    """What was found on G problems with S responses each."""

    group_size: int
    pass_rates: list[float]
    """(G,) share of right responses; empty where the checker is no training reward"""
    dead_share: float
    """of the groups, by all training rewards together"""
    truncated_share: float
    num_responses: int
    rewards: list[RewardRange]
    left_out: list[str]
    """rewards whose model is not trained yet"""

    def expected_dead(self, group_size: int) -> float:
        """Expected share of groups that are all right or all wrong at another group size, from the pass rates."""
        return float(np.mean([rate**group_size + (1 - rate) ** group_size for rate in self.pass_rates]))


def preflight(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Preflight:
    """Sample and score about NUM_RESPONSES responses to training problems, as a step of training would."""
    grpo = config.grpo_config
    order = rng_for(config.seed, "preflight").permutation(len(problems))
    asked = [problems[place] for place in order[: max(1, NUM_RESPONSES // grpo.group_size)]]
    sampling = Sampling(
        grpo.group_size,
        grpo.temperature,
        grpo.max_response_length,
        grpo.top_p,
        grpo.top_k,
        max_rows=grpo.generation_rows,
    )
    seed = seed_for(config.seed, "preflight sampling")
    completions = sample(model, tokenizer, asked, sampling, seed=seed, policy_id="preflight")
    with build_rewards(config.rewards, {}) as rewards:
        scores = score([problem for problem in asked for _ in range(grpo.group_size)], completions, rewards)
    names = [reward.name for reward in rewards]
    parts = parts_matrix(scores, names)
    weights, floors = Weighing.at(config.rewards, round_index=1, step=1).columns(names)
    advantages = group_advantages(
        parts,
        weights,
        grpo.group_size,
        order=config.combination.order,
        scale=config.combination.scale,
        baseline=config.combination.baseline,
        spread_floor=config.combination.reward_spread_floor,
        floors=floors,
    )
    right = parts[:, names.index(config.checker)] >= RIGHT if config.checker in names else None
    return Preflight(
        group_size=grpo.group_size,
        pass_rates=[] if right is None else right.reshape(-1, grpo.group_size).mean(axis=1).tolist(),
        dead_share=float(advantages.dead.mean()),
        truncated_share=float(np.mean([completion.finish_reason == "length" for completion in completions])),
        num_responses=len(completions),
        rewards=[_range(name, column, right) for name, column in zip(names, parts.T, strict=True)],
        left_out=[reward.name for reward in config.rewards if reward.name not in names],
    )


def _range(name: str, column: Floats, right: np.ndarray | None) -> RewardRange:
    known = ~np.isnan(column)
    if not known.any():
        return RewardRange(name, None, None, None, 1.0, None)
    values = column[known]
    agreement = None if right is None else _correlation(values, right[known].astype(float))
    return RewardRange(
        name, float(values.min()), float(values.mean()), float(values.max()), float(1 - known.mean()), agreement
    )


def _correlation(first: Floats, second: Floats) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def preflight_checks(found: Preflight, config: Config) -> Iterator[Finding]:
    """What to change; a failure where nothing can be learned."""
    yield _check_dead(found)
    if found.pass_rates:
        yield _check_pass_rates(found)
    yield _check_truncated(found)
    for reward in found.rewards:
        yield _check_range(reward, config)


def _check_dead(found: Preflight) -> Finding:
    detail = f"{found.dead_share:.0%} of {found.num_responses // found.group_size} groups have equal rewards"
    remedy = (
        "take easier or harder problems, a larger grpo_config.group_size or a higher temperature; see docs/choosing.md"
    )
    if found.dead_share == 1:
        return Finding("dead groups", "fail", f"{detail}: nothing can be learned", remedy)
    if found.dead_share > MANY_DEAD:
        refill = "set grpo_config.refill, a curriculum of kind band, or a larger group_size"
        return Finding("dead groups", "warn", detail, refill)
    return Finding("dead groups", "ok", detail)


def _check_pass_rates(found: Preflight) -> Finding:
    rates = found.pass_rates
    others = ", ".join(f"{found.expected_dead(size):.0%} at {size}" for size in _sizes(found.group_size))
    detail = f"{np.mean(rates):.0%} right; groups all right or all wrong by group size: about {others}"
    if max(rates) == 0:
        remedy = "take easier problems, a lower temperature or a stronger model: the other rewards alone would move the policy"
        return Finding("pass rates", "warn", f"no right answer in {found.num_responses} responses", remedy)
    if min(rates) == 1:
        return Finding("pass rates", "warn", f"all {found.num_responses} responses are right", "take harder problems")
    return Finding("pass rates", "ok", detail)


def _sizes(group_size: int) -> list[int]:
    return sorted({max(2, group_size // 2), group_size, 2 * group_size})


def _check_truncated(found: Preflight) -> Finding:
    detail = f"{found.truncated_share:.0%} of the responses end at the length limit"
    if found.truncated_share > MANY_TRUNCATED:
        remedy = "raise grpo_config.max_response_length, or add a reward of kind length"
        return Finding("truncated", "warn", detail, remedy)
    return Finding("truncated", "ok", detail)


def _check_range(reward: RewardRange, config: Config) -> Finding:
    name, bound = f"range of {reward.name}", config.combination.max_unscored_share
    if reward.unscored_share > bound:
        detail = f"{reward.unscored_share:.0%} of the responses are unscored, over max_unscored_share={bound}"
        return Finding(name, "fail", detail, "mend what keeps it from scoring, or raise combination.max_unscored_share")
    if reward.low == reward.high:
        return Finding(name, "warn", f"always {reward.low:g}", "it moves nobody so far: is it meant to?")
    return Finding(name, "ok", f"{reward.low:.3g} to {reward.high:.3g}")


# ---- on the screen --------------------------------------------------------------------------------------------------


def render_histogram(found: Preflight) -> str:
    """Problems by pass rate, a line a bin.

    >>> print(render_histogram(Preflight(4, [0, 0, 0.25, 1], 0.75, 0.1, 16, [], [])))
    problems by pass rate
      none right  2 ████████████████████████
      up to 25%   1 ████████████
      up to 50%   0
      up to 75%   0
      under 100%  0
      all right   1 ████████████
    """
    labels = ["none right", "up to 25%", "up to 50%", "up to 75%", "under 100%", "all right"]
    counts = Counter(_bin(rate) for rate in found.pass_rates)
    most = max(counts.values())
    lines = [f"  {label:10} {counts[i]:2} {'█' * round(BAR * counts[i] / most)}" for i, label in enumerate(labels)]
    return "\n".join(line.rstrip() for line in ["problems by pass rate", *lines])


def _bin(rate: float) -> int:
    if rate in (0.0, 1.0):
        return 0 if rate == 0 else 5
    return 1 + int(np.searchsorted([0.25, 0.5, 0.75], rate))


def render_rewards(found: Preflight) -> Table:
    """Each reward's range and how it goes with the checker."""
    table = Table("reward", "low", "mean", "high", "unscored", "goes with the checker", box=None, pad_edge=False)
    for reward in found.rewards:
        values = ("-" if value is None else f"{value:.3g}" for value in (reward.low, reward.mean, reward.high))
        agreement = "-" if reward.agreement is None else f"{reward.agreement:+.2f}"
        table.add_row(reward.name, *values, f"{reward.unscored_share:.0%}", agreement)
    for name in found.left_out:
        table.add_row(name, "-", "-", "-", "-", "trained in round 1")
    return table

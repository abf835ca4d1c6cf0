"""Samples and scores responses to some training problems before a run, to show what training would meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.records import Completion, Problem, verdict
from configs.schema.config import Config
from configs.seeds import rng_for, seed_for
from flows.doctor.checks import Finding
from grpo_train.groups import alike, applies_matrix, parts_matrix
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.updating.advantages import Bools, Floats, group_advantages
from reward_training.answers.finding.thoughts import mark_tokens
from reward_training.scorer import build_rewards, score
from reward_training.transformer.turn_ends import special_tokens, turn_end
from reward_training.weighing import Weighing

NUM_RESPONSES = 128
"""about how many responses are sampled"""
MANY_DEAD = 0.7
"""share of dead groups that is warned of"""
MANY_TRUNCATED = 0.3
"""share of truncated responses that is warned of"""
BAR = 24
"""length of the longest bar of the histogram, in characters"""


@dataclass(frozen=True)
class RewardRange:
    """The values of one objective over the sampled responses to problems that it applies to; low, mean and high are None
    if it scored none of them."""

    name: str
    low: float | None
    mean: float | None
    high: float | None
    unscored_share: float
    """0 where it applies to none of the problems"""
    agreement: float | None
    """Pearson correlation with being right by the checker; None if either is constant, or without a checker"""


@dataclass(frozen=True)
class Preflight:
    """Results on some problems with `group_size` responses each."""

    group_size: int
    pass_rates: list[float]
    """share of right responses to each problem that has a checker among the training rewards"""
    dead_share: float
    """share of groups that are dead under the combination of all training rewards"""
    truncated_share: float
    num_responses: int
    rewards: list[RewardRange]
    left_out: list[str]
    """names of the rewards that were not scored because their reward model is not trained yet"""
    unheard_end: str | None = None
    """by what most truncated responses end their turn and go on, since it ends no response; None if by nothing"""

    def expected_dead(self, group_size: int) -> float:
        """Expected share of groups that are all right or all wrong at this group size, given the pass rates."""
        return float(np.mean([rate**group_size + (1 - rate) ** group_size for rate in self.pass_rates]))


def preflight(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Preflight:
    """Sample and score about NUM_RESPONSES responses to training problems, as one training step would."""
    grpo = config.grpo_config
    order = rng_for(config.seed, "preflight").permutation(len(problems))
    asked = [problems[i] for i in order[: max(1, NUM_RESPONSES // grpo.group_size)]]
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
    every = [problem for problem in asked for _ in range(grpo.group_size)]
    with build_rewards(config.rewards, {}) as rewards:
        scores = score(every, completions, rewards)
    names = [reward.name for reward in rewards]
    parts, applies = parts_matrix(scores, names), applies_matrix(scores, names)
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
        alike=alike(applies, weights, grpo.group_size),
    )
    right = [verdict(row, config.checker_of(problem.source)) for row, problem in zip(scores, every, strict=True)]
    decided = [row for row in right if row is not None]  # whole groups
    return Preflight(
        group_size=grpo.group_size,
        pass_rates=np.reshape(decided, (-1, grpo.group_size)).mean(axis=1).tolist() if decided else [],
        dead_share=float(advantages.dead.mean()),
        truncated_share=float(np.mean([completion.finish_reason == "length" for completion in completions])),
        num_responses=len(completions),
        rewards=[_range(*row, right) for row in zip(names, parts.T, applies.T, strict=True)],
        left_out=[reward.name for reward in config.rewards if reward.name not in names],
        unheard_end=unheard_end(tokenizer, completions),
    )


def unheard_end(tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion]) -> str | None:
    """The special token, or the template's end of a turn, that stands in more than half of the truncated responses."""
    truncated = [completion for completion in completions if completion.finish_reason == "length"]
    special = special_tokens(tokenizer)
    no_ends = {tokenizer.unk_token, tokenizer.bos_token, tokenizer.pad_token, *mark_tokens(set(special.values()))}
    ends = set(special.values()) - no_ends
    counts: Counter[str] = Counter()
    for completion in truncated:
        counts.update(ends & {special[token] for token in completion.token_ids if token in special})
    end = turn_end(tokenizer)
    if end is not None and end.token is None:
        counts[end.text] = sum(end.text in completion.text for completion in truncated)
    text, count = max(counts.items(), key=lambda found: found[1], default=("", 0))
    return text if 2 * count > len(truncated) else None


def _range(name: str, column: Floats, applies: Bools, right: Sequence[bool | None]) -> RewardRange:
    is_scored = ~np.isnan(column)
    if not is_scored.any():
        return RewardRange(name, None, None, None, float(applies.any()), None)
    values = column[is_scored]
    both = [(value, is_right) for value, is_right in zip(column[is_scored], np.array(right)[is_scored], strict=True)]
    known = np.array([row for row in both if row[1] is not None], dtype=np.float64)
    agreement = _correlation(known[:, 0], known[:, 1]) if known.size else None
    unscored_share = float(1 - is_scored[applies].mean())
    return RewardRange(name, float(values.min()), float(values.mean()), float(values.max()), unscored_share, agreement)


def _correlation(first: Floats, second: Floats) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def preflight_checks(result: Preflight, config: Config) -> Iterator[Finding]:
    """Findings on the sampled responses; a failure if nothing can be learned, or too many responses are unscored."""
    yield _check_dead(result)
    if result.pass_rates:
        yield _check_pass_rates(result)
    yield _check_truncated(result)
    for reward in result.rewards:
        yield _check_range(reward, config)


def _check_dead(result: Preflight) -> Finding:
    detail = f"{result.dead_share:.0%} of {result.num_responses // result.group_size} groups have equal rewards"
    remedy = (
        "take easier or harder problems, a larger grpo_config.group_size or a higher temperature; see docs/choosing.md"
    )
    if result.dead_share == 1:
        return Finding("dead groups", "fail", f"{detail}: nothing can be learned", remedy)
    if result.dead_share > MANY_DEAD:
        refill = "set grpo_config.refill, a curriculum of kind band, or a larger group_size"
        return Finding("dead groups", "warn", detail, refill)
    return Finding("dead groups", "ok", detail)


def _check_pass_rates(result: Preflight) -> Finding:
    rates = result.pass_rates
    others = ", ".join(f"{result.expected_dead(size):.0%} at {size}" for size in _sizes(result.group_size))
    detail = f"{np.mean(rates):.0%} right; groups all right or all wrong by group size: about {others}"
    if max(rates) == 0:
        remedy = "take easier problems, a lower temperature or a stronger model: the other rewards alone would move the policy"
        return Finding("pass rates", "warn", f"no right answer in {result.num_responses} responses", remedy)
    if min(rates) == 1:
        return Finding("pass rates", "warn", f"all {result.num_responses} responses are right", "take harder problems")
    return Finding("pass rates", "ok", detail)


def _sizes(group_size: int) -> list[int]:
    return sorted({max(2, group_size // 2), group_size, 2 * group_size})


def _check_truncated(result: Preflight) -> Finding:
    detail = f"{result.truncated_share:.0%} of the responses end at the length limit"
    if result.truncated_share > MANY_TRUNCATED and result.unheard_end is not None:
        detail += f", and most of them hold {result.unheard_end!r}: the model has ended its turn there, and goes on"
        remedy = (
            f"add the id of {result.unheard_end!r} to eos_token_id in the model's generation_config.json if it is one token; if it "
            "is plain text, take a model that ends its answers with a token"
        )
        return Finding("truncated", "warn", detail, remedy)
    if result.truncated_share > MANY_TRUNCATED:
        remedy = "raise grpo_config.max_response_length, or add a reward of kind length"
        return Finding("truncated", "warn", detail, remedy)
    return Finding("truncated", "ok", detail)


def _check_range(reward: RewardRange, config: Config) -> Finding:
    name, bound = f"range of {reward.name}", config.combination.max_unscored_share
    if reward.unscored_share > bound:
        detail = f"{reward.unscored_share:.0%} of the responses are unscored, over max_unscored_share={bound}"
        return Finding(name, "fail", detail, "mend what keeps it from scoring, or raise combination.max_unscored_share")
    if reward.low is None:
        return Finding(name, "ok", "it applies to none of the problems that were tried")
    if reward.low == reward.high:
        return Finding(name, "warn", f"always {reward.low:g}", "it moves nobody so far: is it meant to?")
    return Finding(name, "ok", f"{reward.low:.3g} to {reward.high:.3g}")


# ---- printing -------------------------------------------------------------------------------------------------------


def render_histogram(result: Preflight) -> str:
    """Histogram of the problems by pass rate, one line per bin.

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
    counts = Counter(_bin(rate) for rate in result.pass_rates)
    largest = max(counts.values())
    lines = [f"  {label:10} {counts[i]:2} {'█' * round(BAR * counts[i] / largest)}" for i, label in enumerate(labels)]
    return "\n".join(line.rstrip() for line in ["problems by pass rate", *lines])


def _bin(rate: float) -> int:
    if rate in (0.0, 1.0):
        return 0 if rate == 0 else 5
    return 1 + int(np.searchsorted([0.25, 0.5, 0.75], rate))


def render_rewards(result: Preflight) -> Table:
    """Table of each reward's range, unscored share and correlation with the checker."""
    table = Table("reward", "low", "mean", "high", "unscored", "goes with the checker", box=None, pad_edge=False)
    for reward in result.rewards:
        values = ("-" if value is None else f"{value:.3g}" for value in (reward.low, reward.mean, reward.high))
        agreement = "-" if reward.agreement is None else f"{reward.agreement:+.2f}"
        table.add_row(reward.name, *values, f"{reward.unscored_share:.0%}", agreement)
    for name in result.left_out:
        table.add_row(name, "-", "-", "-", "-", "trained in round 1")
    return table

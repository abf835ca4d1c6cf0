"""Samples and scores responses to some training problems before a run, to show what training would meet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.records import Completion, Problem, Score, verdict
from configs.schema.config import Config
from configs.schema.methods.method import BestOfNMethod, PairMethod
from configs.schema.rewards import ModelRewardConfig, ProcessRewardConfig, RewardConfig
from configs.seeds import rng_for, seed_for
from flows.doctor.checks import Finding
from grpo_train.groups import alike, applies_matrix, parts_matrix
from grpo_train.methods.build import build_method
from grpo_train.sampling.asked import groups_of
from grpo_train.sampling.generation import sample
from grpo_train.updating.advantages import Bools, Floats, Scored
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
    """share of right responses to each problem, of those that its checker, one of the training rewards, could score"""
    dead_share: float
    """share of groups that teach the method nothing; of problems that make no pair, for one that learns from pairs"""
    truncated_share: float
    num_responses: int
    rewards: list[RewardRange]
    left_out: dict[str, str]
    """{name: why} of the rewards that were not scored, since their reward model is not there"""
    unheard_end: str | None = None
    """by what most truncated responses end their turn and go on, since it ends no response; None if by nothing"""
    num_pairs: int | None = None
    """pairs that the responses make; None for a method that does not learn from pairs"""

    @property
    def num_problems(self) -> int:
        return self.num_responses // self.group_size

    def expected_dead(self, group_size: int) -> float:
        """Expected share of groups that are all right or all wrong at this group size, given the pass rates."""
        return float(np.mean([rate**group_size + (1 - rate) ** group_size for rate in self.pass_rates]))


def preflight(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Preflight:
    """Sample and score about NUM_RESPONSES responses to problems: as one training step would, or for a method that learns from
    pairs as the regeneration from which it takes them."""
    drawn = config.regeneration if isinstance(config.method, PairMethod) else config.grpo_config
    size, order = drawn.group_size, rng_for(config.seed, "preflight").permutation(len(problems))
    asked = [problems[i] for i in order[: max(1, NUM_RESPONSES // size)]]
    seed = seed_for(config.seed, "preflight sampling")
    completions = sample(model, tokenizer, asked, groups_of(drawn, config), seed=seed, policy_id="preflight")
    every = [problem for problem in asked for _ in range(size)]
    with build_rewards(config.rewards, {}) as rewards:
        scores = score(every, completions, rewards)
    names = [reward.name for reward in rewards]
    parts, applies = parts_matrix(scores, names), applies_matrix(scores, names)
    if isinstance(config.method, PairMethod):
        dead_share, num_pairs = _pairs(config, config.method, completions, scores)
    else:
        weights, floors = Weighing.at(config.rewards, round_index=1, step=1).columns(names)
        scored = Scored(parts, weights, floors, size, alike(applies, weights, size), completions)
        dead_share, num_pairs = float(build_method(config).advantages(scored).dead.mean()), None
    right = [verdict(row, config.checker_of(problem.source)) for row, problem in zip(scores, every, strict=True)]
    return Preflight(
        group_size=size,
        pass_rates=_pass_rates(right, size),
        dead_share=dead_share,
        truncated_share=float(np.mean([completion.finish_reason == "length" for completion in completions])),
        num_responses=len(completions),
        rewards=[_range(*row, right) for row in zip(names, parts.T, applies.T, strict=True)],
        left_out={reward.name: _not_here(reward, config) for reward in config.rewards if reward.name not in names},
        unheard_end=unheard_end(tokenizer, completions),
        num_pairs=num_pairs,
    )


def _pairs(
    config: Config, method: PairMethod, completions: Sequence[Completion], scores: Sequence[Score]
) -> tuple[float, int]:
    """(share of the problems that make no pair, number of pairs), by the rewards that are here."""
    from grpo_train.methods.dpo import find_pairs  # with TRL, which doctor needs for these methods only

    weighing = Weighing.at(config.rewards, round_index=1)
    totals = [weighing.known_total(scored.parts) for scored in scores]
    found = find_pairs(completions, totals, per_problem=method.pairs_per_problem, min_margin=method.min_margin)
    return len(found.dead_keys) / len({completion.problem_key for completion in completions}), len(found.pairs)


def _not_here(reward: RewardConfig, config: Config) -> str:
    """Why a reward that asks a reward model is not scored before a run."""
    if isinstance(reward, ProcessRewardConfig):
        return f"its steps are checked by {reward.checked_by}"
    assert isinstance(reward, ModelRewardConfig), "the others need no reward model"
    kinds = {
        "trained": "trained in round 1",
        "frozen": "frozen: not asked here",
        "served": "on a server: not asked here",
    }
    return kinds[config.reward_models[reward.model].kind]


def _pass_rates(right: Sequence[bool | None], group_size: int) -> list[float]:
    """The share of right responses in each group, without those that are None and groups of nothing else."""
    groups = [right[start : start + group_size] for start in range(0, len(right), group_size)]
    known = [[verdict for verdict in group if verdict is not None] for group in groups]
    return [float(np.mean(verdicts)) for verdicts in known if verdicts]


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
    if result.num_pairs is None:
        yield _check_dead(result, config)
    else:
        yield _check_pairs(result, result.num_pairs, config)
    if result.pass_rates:
        yield _check_pass_rates(result)
    yield _check_truncated(result)
    for reward in result.rewards:
        yield _check_range(reward, config)


EASIER = "take easier or harder problems, a larger grpo_config.group_size or a higher temperature; see docs/choosing.md"
DEAD = {
    "grpo": ("have equal rewards", "set grpo_config.refill, a curriculum of kind band, or a larger group_size"),
    "rloo": ("have equal rewards", "set grpo_config.refill, a curriculum of kind band, or a larger group_size"),
    "reinforce": ("have no response whose reward differs from the baseline", EASIER),
    "ppo": ("have no token with an advantage", EASIER),
    "best_of_n": ("have no response to imitate", "lower method.min_score, or take easier problems"),
}
"""{method: (what is said of dead groups, remedy where there are many)}"""


def _check_dead(result: Preflight, config: Config) -> Finding:
    what, remedy = DEAD[config.method.kind]
    detail = f"{result.dead_share:.0%} of {result.num_problems} groups {what}"
    if result.dead_share == 1:
        return _nothing(
            "dead groups", detail, result, config, remedy if isinstance(config.method, BestOfNMethod) else EASIER
        )
    if result.dead_share > MANY_DEAD:
        return Finding("dead groups", "warn", detail, remedy)
    return Finding("dead groups", "ok", detail)


def _nothing(name: str, detail: str, result: Preflight, config: Config, remedy: str) -> Finding:
    """A failure where no group teaches anything; rewards that are not here may still tell responses apart, and a policy that was
    shown demonstrations may write others."""
    if config.cold_start is not None and config.cold_start.demonstrations is not None:
        return Finding(name, "warn", f"{detail} before the cold start", "look at round 0's pass rates after it")
    if result.left_out:
        return Finding(
            name, "warn", f"{detail}, without {', '.join(result.left_out)}: they alone would be learned from", remedy
        )
    return Finding(name, "fail", f"{detail}: nothing can be learned", remedy)


def _check_pairs(result: Preflight, num_pairs: int, config: Config) -> Finding:
    """Whether the responses of a regeneration make as many pairs as the method needs."""
    method, num_problems = config.method, config.regeneration.num_problems
    assert isinstance(method, PairMethod)
    detail = f"{1 - result.dead_share:.0%} of {result.num_problems} problems make a pair"
    remedy = "take easier or harder problems, a larger regeneration.group_size or a higher temperature, or a lower method.min_margin"
    if num_pairs == 0:
        return _nothing("pairs", detail, result, config, remedy)
    expected = round(num_pairs / result.num_problems * num_problems)
    detail += f": about {expected} pairs of a round's {num_problems} problems"
    if expected < method.min_pairs:
        remedy = f"lower method.min_pairs, raise regeneration.num_problems, or {remedy}"
        return Finding(
            "pairs", "warn", f"{detail}, under min_pairs={method.min_pairs}: nothing would be trained", remedy
        )
    return Finding("pairs", "ok", detail)


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

    >>> print(render_histogram(Preflight(4, [0, 0, 0.25, 1], 0.75, 0.1, 16, [], {})))
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
    for name, why in result.left_out.items():
        table.add_row(name, "-", "-", "-", "-", why)
    return table

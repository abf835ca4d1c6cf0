"""Turns the members of a comparison, when all are finished, into its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from configs.schema.comparing.compare import Comparison, Member, learning_rate_of
from configs.seeds import seed_for
from grpo_train.measuring.retention.changes import MEASURES
from tasks.comparing.intervals import Floats, over_seeds, over_seeds_and_problems
from tasks.comparing.members import (
    Curve,
    MemberRun,
    highest_of_known,
    mean_of_known,
    metric_of,
    read_member,
    refuse_unequal,
)
from tasks.comparing.result import AtFactor, Compared, Gain, Memory, MethodResult, Seconds

Runs = dict[str, list[MemberRun]]
"""members by method, one for each seed"""


Found = dict[str, dict[float, list[MemberRun]]]
"""{method: {factor: its members, one for each seed}}"""


def read_members(root: Path, comparison: Comparison) -> Found:
    """The finished members; with `num_rate_seeds` those at each method's best factor have all seeds, and the others the first ones.

    Raises:
        ConfigError: members were given different problems, or were scored by different code.
    """
    found = _read_first(root, comparison)
    for member in comparison.later_members(_best_factors(found, comparison.compare.rate_seeds)):
        found[member.method][member.factor].append(read_member(root, member))
    refuse_unequal([run for factors in found.values() for runs in factors.values() for run in runs])
    return found


def _read_first(root: Path, comparison: Comparison) -> Found:
    found: Found = {}
    for member in comparison.first_members():
        found.setdefault(member.method, {}).setdefault(member.factor, []).append(read_member(root, member))
    return found


def best_factors(root: Path, comparison: Comparison) -> dict[str, float]:
    """{method: factor whose mean on dev is highest, of equal ones the first in the file}, by the members that choose it."""
    return _best_factors(_read_first(root, comparison), comparison.compare.rate_seeds)


def _best_factors(found: Found, seeds: Sequence[int]) -> dict[str, float]:
    return {
        method: max(factors, key=lambda factor: _mean(with_seeds(factors[factor], seeds), "dev"))
        for method, factors in found.items()
    }


def with_seeds(runs: Sequence[MemberRun], seeds: Sequence[int]) -> list[MemberRun]:
    return [run for run in runs if run.member.seed in seeds]


def best_of_each(found: Found, seeds: Sequence[int]) -> Runs:
    """Each method's members at the factor that is best on dev with `seeds`."""
    return {method: found[method][factor] for method, factor in _best_factors(found, seeds).items()}


def compared(comparison: Comparison, found: Found) -> Compared:
    """The result, of each method at its best factor."""
    rate_seeds = comparison.compare.rate_seeds
    best = best_of_each(found, rate_seeds)
    first = next(iter(best))
    config = best[first][0].member.config
    metric, keys = metric_of(config), _common_problems(best)
    curves = {method: [run.after_rounds("dev", metric) for run in runs] for method, runs in best.items()}
    target = reachable(curves, over=_baseline(best[first][0], metric, "dev"))
    return Compared(
        name=comparison.name,
        metric=metric,
        budget=str(comparison.compare.budget),
        given=_baseline(best[first][0], metric, "test"),
        num_problems=len(keys),
        target=target,
        methods=[
            _method(
                [_at_factor(factor, with_seeds(members, rate_seeds)) for factor, members in found[method].items()],
                runs,
                None if method == first else best[first],
                keys,
                target,
            )
            for method, runs in best.items()
        ],
        rate_seeds=rate_seeds,
        short=[f"{run.member.name}, round {r}" for runs in best.values() for run in runs for r in run.short_rounds],
        untrained=[
            f"{run.member.name}, round {r}" for runs in best.values() for run in runs for r in run.untrained_rounds
        ],
        unbounded=[method for method, runs in best.items() if runs[0].member.config.budget is None],
        seconds={method: _seconds(runs) for method, runs in best.items()},
        memory={method: _memory(runs) for method, runs in best.items()},
    )


def _method(
    by_factor: list[AtFactor],
    runs: list[MemberRun],
    first: list[MemberRun] | None,
    keys: list[str],
    target: float | None,
) -> MethodResult:
    metric = metric_of(runs[0].member.config)
    test = [_value(run, "test") for run in runs]
    reached = [
        tokens
        for run in runs
        if target is not None and (tokens := tokens_to(run.after_rounds("dev", metric), target)) is not None
    ]
    champions = [run.champion.estimate("test", metric) for run in runs]
    kl = [run.trained.estimate("test", "kl_initial") for run in runs]
    return MethodResult(
        method=runs[0].member.method,
        factor=runs[0].member.factor,
        by_factor=by_factor,
        seeds=[run.member.seed for run in runs],
        test_by_seed=test,
        test=fmean(test),
        spread=_spread(test),
        dev=_mean(runs, "dev"),
        champion=fmean(value.estimate for value in champions if value is not None),
        num_promoted=sum(run.num_promoted for run in runs),
        num_trained=sum(len(run.records.rounds) - 1 for run in runs),
        num_untrained=sum(len(run.untrained_rounds) for run in runs),
        gain=None if first is None or any(map(_trained_nothing, (first, runs))) else paired_gain(first, runs, keys),
        generated_tokens=fmean(run.tokens_by_round[-1] for run in runs),
        kl_initial=mean_of_known(None if value is None else value.estimate for value in kl),
        num_reached=len(reached),
        tokens_to_reach=fmean(reached) if reached else None,
        test_range=_range([at.test for at in by_factor]),
        retention=retention(runs),
    )


def _trained_nothing(runs: Sequence[MemberRun]) -> bool:
    return all(len(run.untrained_rounds) == len(run.records.rounds) - 1 for run in runs)


def paired_gain(first: Sequence[MemberRun], runs: Sequence[MemberRun], keys: Sequence[str]) -> Gain:
    """Of `runs` over `first`, seed by seed and problem by problem, on the test problems `keys`."""
    return _gain(_table(runs, keys) - _table(first, keys), runs[0].member, "gain")


def retention(runs: Sequence[MemberRun]) -> dict[str, dict[str, Gain]]:
    """{suite: {measure: gain of the last trained policies over the given one, on the items that all seeds have}}."""
    found: dict[str, dict[str, Gain]] = {}
    for suite in runs[0].member.config.evaluation.retention:
        for measure in MEASURES:
            changes = [run.retained(suite, measure) for run in runs]
            if items := [item for item in changes[0] if all(item in of_seed for of_seed in changes)]:
                table = np.array([[of_seed[item] for item in items] for of_seed in changes], dtype=np.float64)
                found.setdefault(suite, {})[measure] = _gain(table, runs[0].member, f"retention {suite} {measure}")
    return found


def _gain(gains: Floats, member: Member, what: str) -> Gain:
    """Of `gains`, (S, P) of S seeds on P problems or items; `what` names the draws of its interval."""
    by_seed = [float(gain) for gain in gains.mean(axis=1)]
    draws = member.config.evaluation.bootstrap_draws
    return Gain(
        over_seeds_and_problems=over_seeds_and_problems(
            gains, seed=seed_for(0, f"{what} of {member.method}"), draws=draws
        ),
        over_seeds=over_seeds(by_seed),
        spread=_spread(by_seed),
    )


def _table(runs: Sequence[MemberRun], keys: Sequence[str]) -> Floats:
    """(S, P): of each seed's last trained policy, what each problem came to."""
    return np.array([[_by_problem(run)[key] for key in keys] for run in runs], dtype=np.float64)


def _by_problem(run: MemberRun) -> dict[str, float]:
    return run.right(run.trained, "test", metric_of(run.member.config))


def _common_problems(best: Runs) -> list[str]:
    """Keys of the test problems on which the metric is known of every member."""
    known = [_by_problem(run).keys() for runs in best.values() for run in runs]
    return sorted(set(known[0]).intersection(*known[1:]))


def reachable(curves: Mapping[str, Sequence[Curve]], *, over: float) -> float | None:
    """The highest value that every method reaches after some round, as the mean over its seeds; None if it is not over `over`.

    `curves` has one curve over rounds for each seed of a method.
    """
    means = {method: [fmean(value for _, value in rounds) for rounds in zip(*of_method, strict=False)] for method, of_method in curves.items()}  # fmt: skip
    highest = min(max(by_round) for by_round in means.values())
    return highest if highest > over else None


def tokens_to(curve: Curve, target: float) -> float | None:
    """Generated tokens up to the first point of a curve that is at least `target`; None if there is none."""
    return next((tokens for tokens, value in curve if value >= target), None)


def _at_factor(factor: float, runs: Sequence[MemberRun]) -> AtFactor:
    _, rate = learning_rate_of(runs[0].member.config)
    return AtFactor(factor=factor, learning_rate=rate, dev=_mean(runs, "dev"), test=_mean(runs, "test"))


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _range(values: Sequence[float]) -> float | None:
    return max(values) - min(values) if len(values) > 1 else None


def _mean(runs: Sequence[MemberRun], split: str) -> float:
    return fmean(_value(run, split) for run in runs)


def _value(run: MemberRun, split: str) -> float:
    """The metric of the last trained policy on a split."""
    value = run.trained.estimate(split, metric_of(run.member.config))
    assert value is not None, f"the evaluation of {run.member.name} has no {metric_of(run.member.config)}"
    return value.estimate


def _baseline(run: MemberRun, metric: str, split: str) -> float:
    baseline = run.records.baseline
    value = None if baseline is None else baseline.estimate(split, metric)
    assert value is not None, f"round 0 of {run.member.name} has no {metric}"
    return value.estimate


def _seconds(runs: Sequence[MemberRun]) -> Seconds:
    phases = [run.seconds_by_phase for run in runs]
    names = dict.fromkeys(name for of_run in phases for name in of_run)
    by_phase = {name: fmean(of_run.get(name, 0.0) for of_run in phases) for name in names}
    return Seconds(by_phase=by_phase, stages=fmean(run.time.stages + run.time.copied for run in runs))


def _memory(runs: Sequence[MemberRun]) -> Memory:
    peaks, models = ([run.highest(f"memory/{name}") for run in runs] for name in ("peak_mib", "models"))
    most = highest_of_known(models)
    return Memory(peak_mib=highest_of_known(peaks), models=None if most is None else int(most))

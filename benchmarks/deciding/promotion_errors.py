"""How often promotion errs: an equal or worse challenger promoted, a better one refused.

    python -m benchmarks.deciding.promotion_errors [--n 64 128 256 512] [--discordance 0.15] [--repetitions 20000]
    python -m benchmarks.deciding.promotion_errors --results ROUND_BEFORE/evaluate/results.jsonl ROUND/evaluate/results.jsonl

Champion and challenger answer the same n dev problems. Those that both have right, or both wrong, say nothing of the
gain; of the others, a share `discordance` of all, the challenger gains (discordance + gain) / 2 and loses
(discordance - gain) / 2. A repetition draws the numbers of both, and `promotion.decide` says what becomes of it, with its
bootstrap and its default number of draws. With one order of rows and one seed, what it decides can only change from
refused to promoted while more of the differing problems are gained, so it is asked for the smallest number of gained
ones that it promotes, for NUM_SEEDS seeds of the bootstrap, and not once for each repetition.

The discordance is that of two results.jsonl of a run, or by default that of the quickstart's later rounds: DOCUMENTED
has the intervals in docs/log.md that it follows from. Results are kept on disk, so that an interrupted call can go on.
"""

from __future__ import annotations

import argparse
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import kept, table
from configs.disk.files import read_rows
from configs.errors import ConfigError
from configs.schema.evaluation import EvaluationConfig, PromotionConfig
from configs.seeds import rng_for, seed_for
from grpo_train.measuring.promotion import decide

Rule = Literal["better", "not_worse"]
RULES: tuple[Rule, ...] = ("better", "not_worse")
METRIC = "greedy_accuracy"
SIZES = (64, 128, 256, 512)
CONFIDENCES = (0.8, 0.9, 0.95)
GAINS = (-0.05, 0.0, 0.05, 0.10)
"""of the challengers, in accuracy on all problems that there might be"""
NUM_SEEDS = 8
REPETITIONS = 20_000
DISCORDANCE = 0.15
OTHER_DISCORDANCES = (0.10, 0.20, 0.30)


@dataclass(frozen=True)
class Interval:
    """A paired gain in accuracy, as a log or a report gives it."""

    gain: float
    low: float
    high: float
    n: int
    confidence: float

    @property
    def discordance(self) -> float:
        """The share of problems that one of the two policies alone has right.

        The paired difference of a problem is 1, -1 or 0, so its variance is discordance - gain^2, and an interval of the
        mean is 2 z sqrt(variance / n) wide.
        """
        z = NormalDist().inv_cdf((1 + self.confidence) / 2)
        return self.n * ((self.high - self.low) / (2 * z)) ** 2 + self.gain**2


DOCUMENTED = {
    "round 1 over the given policy": Interval(0.080, 0.036, 0.125, n=224, confidence=0.8),
    "round 2 over round 1": Interval(0.058, 0.027, 0.089, n=224, confidence=0.8),
    "round 2 over round 1, refused": Interval(0.023, -0.023, 0.070, n=128, confidence=0.8),
}
"""decisions on dev that docs/log.md has of the quickstart"""


@dataclass(frozen=True)
class Pairs:
    """Number of problems by which of champion and challenger has them right."""

    both: int
    gained: int
    """right in the challenger alone"""
    lost: int
    """right in the champion alone"""
    neither: int

    @property
    def num_problems(self) -> int:
        return self.both + self.gained + self.lost + self.neither

    @property
    def discordance(self) -> float:
        return (self.gained + self.lost) / self.num_problems

    def __str__(self) -> str:
        gain = (self.gained - self.lost) / self.num_problems
        counts = f"{self.both} right in both, {self.gained} gained, {self.lost} lost, {self.neither} wrong in both"
        return f"{self.num_problems} problems: {counts}; gain {gain:+.3f}, discordance {self.discordance:.3f}"


# ---- real pairs -----------------------------------------------------------------------------------------------------


def read_pairs(champion: Path, challenger: Path) -> Pairs:
    """The pairs of two evaluations' results.jsonl, dev and test together; a problem that one did not score is left out.

    Raises:
        ConfigError: they have no scored problem in common.
    """
    before, after = (_right_by_problem(path) for path in (champion, challenger))
    shared = [(before[key], after[key]) for key in before if key in after]
    if not shared:
        raise ConfigError(f"{champion} and {challenger} share no problem with {METRIC}; give two rounds of one run")
    counts = {outcome: shared.count(outcome) for outcome in set(shared)}
    both, gained, lost, neither = (
        counts.get(key, 0) for key in ((True, True), (False, True), (True, False), (False, False))
    )
    return Pairs(both, gained, lost, neither)


def _right_by_problem(path: Path) -> dict[tuple[str, str], bool]:
    """{(split, problem key): whether the greedy response is right}."""
    rows = read_rows(path)
    return {(row["split"], row["problem_key"]): row[METRIC] >= 1 for row in rows if METRIC in row}


# ---- decisions ------------------------------------------------------------------------------------------------------


def is_promoted(num_problems: int, gained: int, lost: int, rule: Rule, confidence: float, seed_index: int) -> bool:
    """What `decide` says of a challenger that gains and loses so many of the problems."""
    verdicts = [(0.0, 1.0)] * gained + [(1.0, 0.0)] * lost + [(0.0, 0.0)] * (num_problems - gained - lost)
    champion, challenger = (
        [{"problem_key": f"{i}", METRIC: verdict[side]} for i, verdict in enumerate(verdicts)] for side in (0, 1)
    )
    config = PromotionConfig(rule=rule, metric=METRIC, confidence=confidence)
    seed = seed_for(0, "promotion errors", step=gained + lost, index=seed_index)
    draws = EvaluationConfig().bootstrap_draws
    return decide(champion, challenger, config=config, seed=seed, draws=draws).promoted


@cache
def least_gained(num_problems: int, differing: int, rule: Rule, confidence: float, seed_index: int) -> int:
    """The smallest number of gained problems, of `differing` ones, that is promoted; `differing` + 1 if none is."""

    def promoted(gained: int) -> bool:
        return is_promoted(num_problems, gained, differing - gained, rule, confidence, seed_index)

    return bisect_left(range(differing + 1), True, key=promoted)


def promoted_share(
    num_problems: int, discordance: float, gain: float, rule: Rule, confidence: float, repetitions: int = REPETITIONS
) -> float:
    """The share of repetitions in which a challenger of a true gain is promoted.

    Raises:
        ConfigError: the gain is larger than the share of problems in which the two differ.
    """
    drawn = draw(num_problems, discordance, gain, repetitions)
    needed = [
        least_gained(num_problems, int(differing), rule, confidence, i % NUM_SEEDS)
        for i, differing in enumerate(drawn.sum(axis=1))
    ]
    return float(np.mean(drawn[:, 0] >= np.array(needed)))


def draw(num_problems: int, discordance: float, gain: float, repetitions: int) -> NDArray[np.int64]:
    """(repetitions, 2) numbers of gained and of lost problems."""
    if abs(gain) > discordance:
        raise ConfigError(
            f"gain {gain:+g} is more than the discordance {discordance:g}: only problems in which the two differ can be gained; "
            "give a larger --discordance"
        )
    shares = [(discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance]
    rng = rng_for(0, f"pairs {discordance} {gain}", index=num_problems)
    return rng.multinomial(num_problems, shares, size=repetitions)[:, :2]


# ---- tables ---------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=list(SIZES), help="numbers of dev problems")
    parser.add_argument("--discordance", type=float, default=DISCORDANCE)
    parser.add_argument("--results", type=Path, nargs=2, metavar=("CHAMPION", "CHALLENGER"), help="of a run")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    given = parser.parse_args(arguments)
    discordance = given.discordance
    if given.results:
        pairs = read_pairs(*given.results)
        print(pairs)
        discordance = pairs.discordance
    print(summary(given.n, discordance, given.repetitions))


def summary(sizes: Sequence[int] = SIZES, discordance: float = DISCORDANCE, repetitions: int = REPETITIONS) -> str:
    """The results as Markdown tables, one for each rule; only missing cases are simulated."""
    gains = [gain for gain in GAINS if abs(gain) <= discordance]
    header = ["confidence", "n", *map(_title, gains)]
    parts = []
    for rule in RULES:
        rows = [
            [f"{confidence:g}", str(n), *(_cell(case[rule][f"{gain:+g}"], gain) for gain in gains)]
            for confidence in CONFIDENCES
            for n in sizes
            for case in [_kept(n, discordance, confidence, gains, repetitions)]
        ]
        parts.append(f"rule {rule}, discordance {discordance:g}\n\n{table(header, rows)}")
    return "\n\n".join([*parts, f"Standard errors of {repetitions} repetitions: {_errors(repetitions)}."])


def by_discordance(num_problems: int = 128, confidence: float = 0.8, repetitions: int = REPETITIONS) -> str:
    """The same for rule `better` and one number of problems, by discordance."""
    rows = []
    for discordance in sorted((*OTHER_DISCORDANCES, DISCORDANCE)):
        case = _kept(num_problems, discordance, confidence, GAINS, repetitions)["better"]
        rows.append([f"{discordance:.2f}", *(_cell(case[f"{gain:+g}"], gain) for gain in GAINS)])
    return table(["discordance", *map(_title, GAINS)], rows)


def _kept(
    num_problems: int, discordance: float, confidence: float, gains: Sequence[float], repetitions: int
) -> dict[str, Any]:
    """{rule: {gain: share that is promoted}}."""
    name = f"{num_problems}-{discordance:.4f}-{confidence:g}-{repetitions}"

    def simulate() -> dict[str, Any]:
        return {
            rule: {
                f"{gain:+g}": promoted_share(num_problems, discordance, gain, rule, confidence, repetitions)
                for gain in gains
            }
            for rule in RULES
        }

    return kept(f"promotion_errors/{name}", simulate)


def _title(gain: float) -> str:
    if gain == 0:
        return "equal: promoted"
    return f"worse by {-gain:.2f}: promoted" if gain < 0 else f"better by {gain:.2f}: refused"


def _cell(promoted: float, gain: float) -> str:
    return f"{promoted if gain <= 0 else 1 - promoted:.1%}"


def _errors(repetitions: int) -> str:
    return ", ".join(f"{np.sqrt(p * (1 - p) / repetitions):.2%} at {p:.0%}" for p in (0.05, 0.5))


if __name__ == "__main__":
    main()

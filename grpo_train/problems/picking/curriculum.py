"""Picks the problems of each batch, and learns from their pass rates which to pick next.

Problems come in passes over the training problems, each pass in its own random order. A curriculum makes some of them
wait:

- `threshold`: problems with a difficulty over min(1, start + slope x epoch) wait. The difficulty comes from the data,
  or is 1 - the policy's own pass rate; an unseen problem then has the mean pass rate of its source, in this training or
  else in the regeneration before it.
- `band`: problems with an estimated pass rate p outside [low, high] wait; the reward's variance within a group, and
  with it the learning signal, is p (1 - p). Unseen problems count as inside.
- `predicted`: problems that are not among the share `keep` with the largest expected p (1 - p) wait. Pass rates are predicted
  from those measured in this training and in the regeneration before it (`pass_rates.py`). About the share `explore` of
  what is asked is drawn from those that should wait, since predictions are never tested otherwise.

The epoch is the number of problems asked, refused ones included, divided by the number of problems; it continues from
round to round. A pass rate moves halfway to each new measurement, and is forgotten after `forget_after` epochs, since
the policy has changed by then. Where fewer problems fit than are needed, those closest to fitting are let in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.problems import (
    BandCurriculum,
    Curriculum,
    NoCurriculum,
    PredictedCurriculum,
    ThresholdCurriculum,
)
from configs.seeds import rng_for
from grpo_train.problems.picking.pass_rates import Measured, expected_variance, facts, predict

Floats = NDArray[np.float64]
RECENCY = 0.5
"""weight of a new measurement in a running pass rate"""


class Answered(Protocol):
    """What the picker reads of a finished step."""

    @property
    def pass_rates(self) -> Mapping[str, float]:
        """{problem key: share of right responses} in the step's groups."""


class ProblemPicker:
    """Picks the problems of each step. `state` goes into checkpoints, `handed_on` to the next round."""

    def __init__(
        self,
        problems: Sequence[Problem],
        config: Curriculum,
        *,
        seed: int,
        round_index: int,
        handed_on: Mapping[str, Any] | None = None,
    ) -> None:
        check_difficulty(problems, config)
        self.problems, self.config, self.seed, self.round = problems, config, seed, round_index
        self.places = {problem.key: i for i, problem in enumerate(problems)}
        self.waiting: list[int] = []
        """indices of the problems that this pass still has to ask, in order"""
        self.num_passes = 0
        self.num_asked = 0
        self.widened: list[int] = []
        """of each step that was picked and has not ended: number of its problems that the curriculum would have made wait"""
        self.asked: set[int] = set()
        """indices of the problems of the step that was picked last"""
        before = handed_on or {"epoch": 0.0, "rates": {}}
        self.first_epoch: float = before["epoch"]
        self.rates: dict[str, tuple[float, float]] = {key: (rate, at) for key, (rate, at) in before["rates"].items()}
        """{problem key: (running pass rate, epoch of its last measurement)}"""
        self.source_rates: dict[str, float] = dict(before.get("sources", {}))
        """{source: pass rate} as measured by the last regeneration, on problems outside training"""
        self.regenerated = [Measured(**row) for row in before.get("regenerated", [])]
        """pass rates as measured by the last regeneration, for predictions"""
        self.facts = [facts(problem) for problem in problems] if isinstance(config, PredictedCurriculum) else []

    @property
    def epoch(self) -> float:
        return self.first_epoch + self.num_asked / len(self.problems)

    def pick(self, num_problems: int) -> list[Problem]:
        """The problems of the next step, all distinct. The step before need not have ended.

        Raises:
            ConfigError: there are fewer training problems than that.
        """
        if len(self.problems) < num_problems:
            raise ConfigError(
                f"a batch asks {num_problems} problems (batch_size / group_size) and there are {len(self.problems)} "
                "to train on; lower grpo_config.batch_size or give more problems"
            )
        self.asked.clear()
        self.widened.append(0)
        return self.pick_more(num_problems)

    def pick_more(self, num_problems: int) -> list[Problem]:
        """The next `num_problems` problems for the same step, fewer where it has asked all others already."""
        excess = self._excess()
        not_asked = [i for i in range(len(self.problems)) if i not in self.asked]
        num_problems = min(num_problems, len(not_asked))
        if num_problems == 0:
            return []
        max_excess = max(0.0, float(np.sort(excess[not_asked])[num_problems - 1]))
        fits = excess <= max_excess
        eligible = {i for i in not_asked if fits[i]}
        if len(self._ready(eligible)) < num_problems:
            self._start_pass(fits)
        explored = self._explored(set(not_asked) - eligible, num_problems)
        fitting = self._ready(eligible)[: num_problems - len(explored)]
        chosen = explored + fitting
        for i in chosen:
            self.waiting.remove(i)
        self.asked.update(chosen)
        self.num_asked += num_problems
        self.widened[-1] += int((excess[fitting] > 0).sum())
        return [self.problems[i] for i in chosen]

    def _ready(self, eligible: Collection[int]) -> list[int]:
        return list(dict.fromkeys(i for i in self.waiting if i in eligible))

    def _start_pass(self, fits: NDArray[np.bool_]) -> None:
        """Add a pass over all problems.

        Those that still wait in the pass before, and fit, stay in front and come last in the new pass.
        """
        rng = rng_for(self.seed, "problem order", round_index=self.round, step=self.num_passes)
        order = rng.permutation(len(self.problems)).tolist()
        self.num_passes += 1
        carried = [i for i in self.waiting if fits[i]]
        late = set(carried)
        self.waiting = carried + [i for i in order if i not in late] + [i for i in order if i in late]

    def look(self, step: Answered) -> dict[str, float]:
        """Learn from the pass rates of a finished step; returns the step's curriculum metrics."""
        return self.end_step(step.pass_rates)

    def end_step(self, pass_rates: Mapping[str, float]) -> dict[str, float]:
        """Learn the {problem key: share of right responses} of the oldest step that has not ended; returns its curriculum
        metrics."""
        num_widened = self.widened.pop(0) if self.widened else 0
        metrics = {"curriculum/epoch": self.epoch}
        if not isinstance(self.config, NoCurriculum):
            metrics["curriculum/eligible_share"] = float((self._excess() <= 0).mean())
            metrics["curriculum/widened"] = float(num_widened)
            if isinstance(self.config, PredictedCurriculum):
                metrics |= self._calibration(pass_rates)
            self._learn(pass_rates)
        if isinstance(self.config, ThresholdCurriculum):
            metrics["curriculum/threshold"] = self._threshold(self.config)
        return metrics

    def _learn(self, pass_rates: Mapping[str, float]) -> None:
        known = self._known_rates()
        for key, rate in pass_rates.items():
            before = known[self.places[key]]
            running = rate if np.isnan(before) else float(before + RECENCY * (rate - before))
            self.rates[key] = (running, self.epoch)

    # ---- what fits --------------------------------------------------------------------------------------------------

    def _excess(self) -> Floats:
        """(problems,) how far each problem is from fitting the curriculum now; 0 or less where it fits."""
        match self.config:
            case NoCurriculum():
                return np.zeros(len(self.problems))
            case ThresholdCurriculum():
                return self._difficulties(self.config) - self._threshold(self.config)
            case BandCurriculum(low=low, high=high):
                rates = self._known_rates()
                return np.where(np.isnan(rates), 0.0, np.maximum(low - rates, rates - high))
            case PredictedCurriculum(keep=keep):
                variance = expected_variance(self._predicted(), self._known_rates())
                return np.asarray(np.sort(variance)[::-1][math.ceil(keep * len(variance)) - 1] - variance)

    def _explored(self, unfit: Collection[int], num_problems: int) -> list[int]:
        """Which of the problems that should wait are asked all the same."""
        if not isinstance(self.config, PredictedCurriculum):
            return []
        rng = rng_for(self.seed, "exploration", round_index=self.round, step=self.num_asked)
        return self._ready(unfit)[: rng.binomial(num_problems, self.config.explore)]

    def _predicted(self) -> Floats:
        """(problems,) pass rates by the facts of the problems alone."""
        known = self._known_rates()
        measured = [
            Measured(problem.source, its_facts, float(rate))
            for problem, its_facts, rate in zip(self.problems, self.facts, known, strict=True)
            if not np.isnan(rate)
        ]
        sources = [problem.source for problem in self.problems]
        return predict(sources, np.array(self.facts), [*self.regenerated, *measured])

    def _calibration(self, pass_rates: Mapping[str, float]) -> dict[str, float]:
        """How predictions for problems that were asked for the first time fare against what their groups then showed."""
        known = self._known_rates()
        new = [key for key in pass_rates if np.isnan(known[self.places[key]])]
        if not new:
            return {}
        predicted = self._predicted()[[self.places[key] for key in new]]
        found = np.array([pass_rates[key] for key in new])
        return {
            "curriculum/predicted_rate": float(predicted.mean()),
            "curriculum/found_rate": float(found.mean()),
            "curriculum/prediction_error": float(np.sqrt(np.mean((predicted - found) ** 2))),
        }

    def _threshold(self, config: ThresholdCurriculum) -> float:
        return min(1.0, config.start + config.slope * self.epoch)

    def _difficulties(self, config: ThresholdCurriculum) -> Floats:
        """(problems,) difficulties in [0, 1]; 0 where nothing is known about a problem's source."""
        if config.difficulty == "data":
            return np.array([problem.difficulty for problem in self.problems], dtype=np.float64)
        rates = self._known_rates()
        sources = np.array([problem.source for problem in self.problems])
        for source in np.unique(sources):
            members = sources == source
            seen = rates[members & ~np.isnan(rates)]
            rates[members & np.isnan(rates)] = seen.mean() if seen.size else self.source_rates.get(str(source), 1.0)
        return 1.0 - rates

    def _known_rates(self) -> Floats:
        """(problems,) running pass rates, NaN where unseen or forgotten."""
        if isinstance(self.config, NoCurriculum):
            return np.full(len(self.problems), np.nan)
        oldest = self.epoch - self.config.forget_after
        entries = (self.rates.get(problem.key) for problem in self.problems)
        return np.array([np.nan if entry is None or entry[1] < oldest else entry[0] for entry in entries])

    # ---- state ------------------------------------------------------------------------------------------------------

    def handed_on(self) -> dict[str, Any]:
        """The epoch and the pass rates, from which the next round's picker starts."""
        return {"epoch": self.epoch, "rates": {key: list(entry) for key, entry in self.rates.items()}}

    def state(self) -> dict[str, Any]:
        return {
            "first_epoch": self.first_epoch,
            "num_asked": self.num_asked,
            "num_passes": self.num_passes,
            "waiting": list(self.waiting),
            "rates": {key: list(entry) for key, entry in self.rates.items()},
            "widened": list(self.widened),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.first_epoch, self.num_asked = state["first_epoch"], state["num_asked"]
        self.num_passes, self.waiting = state["num_passes"], list(state["waiting"])
        self.rates = {key: (rate, at) for key, (rate, at) in state["rates"].items()}
        self.widened = list(state.get("widened", []))  # older versions wrote none


def check_difficulty(problems: Sequence[Problem], config: Curriculum) -> None:
    """Check that the training problems have a difficulty where the curriculum takes it from the data.

    Raises:
        ConfigError: some have none.
    """
    if not isinstance(config, ThresholdCurriculum) or config.difficulty != "data":
        return
    if unknown := [problem for problem in problems if problem.difficulty is None]:
        raise ConfigError(
            f"curriculum.difficulty=data, but {len(unknown)} of {len(problems)} training problems have no difficulty, "
            f"for instance one of {unknown[0].source}; name its column in columns.difficulty (with its range, "
            "{column: ..., easy: ..., hard: ...}, where that is not [0, 1]), or set curriculum.difficulty=policy"
        )

"""Which problems the next batch asks, and what their answers say about the next ones.

Problems come pass after pass, each pass in an order of its own. A curriculum lets some of them wait:

- `threshold`: those with a difficulty over min(1, start + slope x epoch). The difficulty comes from the data, or is
  1 - the policy's own pass rate; an unseen problem then has the mean pass rate of its source, in this training or else in
  the regeneration before it.
- `band`: those with an estimated pass rate p outside [low, high]; the reward's variance within a group, and with it the
  signal, is p (1 - p). Unseen problems count as inside.

The epoch is the number of problems asked, refused ones included, over the number of problems, and goes on from round to
round. A pass rate moves half of the way to each new measurement, and is forgotten after `forget_after` epochs, as the
policy has changed since. Where fewer problems fit than are asked for, the next nearest are let in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.problems import BandCurriculum, Curriculum, NoCurriculum, ThresholdCurriculum
from configs.seeds import rng_for

Floats = NDArray[np.float64]
RECENCY = 0.5
"""weight of a new measurement in a running pass rate"""


class Answered(Protocol):
    """What the picker looks at when a step is over."""

    @property
    def pass_rates(self) -> Mapping[str, float]:
        """{problem key: share of right responses} of the step's groups."""


class ProblemPicker:
    """Picks the problems of each step; `state` and `restore` carry it over a kill, `handed_on` over rounds."""

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
        self.places = {problem.key: place for place, problem in enumerate(problems)}
        self.waiting: list[int] = []
        """places of the problems that this pass still has to ask, in order"""
        self.num_passes = 0
        self.num_asked = 0
        self.num_widened = 0
        """of this step's problems, those that the curriculum would have left waiting"""
        self.asked: set[int] = set()
        """places of this step's problems"""
        before = handed_on or {"epoch": 0.0, "rates": {}}
        self.first_epoch: float = before["epoch"]
        self.rates: dict[str, tuple[float, float]] = {key: (rate, at) for key, (rate, at) in before["rates"].items()}
        """{problem key: (running pass rate, epoch of its last measurement)}"""
        self.source_rates: dict[str, float] = dict(before.get("sources", {}))
        """{source: pass rate} on problems outside training, where they were measured"""

    @property
    def epoch(self) -> float:
        return self.first_epoch + self.num_asked / len(self.problems)

    def pick(self, number: int) -> list[Problem]:
        """The next `number` problems, no problem twice.

        Raises:
            ValueError: there are fewer.
        """
        if len(self.problems) < number:
            raise ValueError(
                f"a batch asks {number} problems (batch_size / group_size) and there are {len(self.problems)} to train "
                "on; lower grpo_config.batch_size or give more problems"
            )
        return self.pick_more(number)

    def pick_more(self, number: int) -> list[Problem]:
        """Further problems of the same step: the next `number`, or as many as it has not asked yet."""
        excess = self._excess()
        allowed = [place for place in range(len(self.problems)) if place not in self.asked]
        number = min(number, len(allowed))
        if number == 0:
            return []
        most = max(0.0, float(np.sort(excess[allowed])[number - 1]))
        fits = excess <= most
        wanted = {place for place in allowed if fits[place]}
        if len(self._ready(wanted)) < number:
            self._start_pass(fits)
        chosen = self._ready(wanted)[:number]
        for place in chosen:
            self.waiting.remove(place)
        self.asked.update(chosen)
        self.num_asked += number
        self.num_widened += int((excess[chosen] > 0).sum())
        return [self.problems[place] for place in chosen]

    def _ready(self, wanted: Collection[int]) -> list[int]:
        return list(dict.fromkeys(place for place in self.waiting if place in wanted))

    def _start_pass(self, fits: NDArray[np.bool_]) -> None:
        """Add a pass over all problems; those still waiting for the pass before come first, and in this one last."""
        rng = rng_for(self.seed, "problem order", round_index=self.round, step=self.num_passes)
        order = rng.permutation(len(self.problems)).tolist()
        self.num_passes += 1
        carried = [place for place in self.waiting if fits[place]]
        late = set(carried)
        self.waiting = carried + [i for i in order if i not in late] + [i for i in order if i in late]

    def look(self, step: Answered) -> dict[str, float]:
        """The step is over: its pass rates say something of the next problems."""
        return self.end_step(step.pass_rates)

    def end_step(self, pass_rates: Mapping[str, float]) -> dict[str, float]:
        """Learn the pass rates {problem key: share of right responses} of the step's groups; returns its metrics."""
        metrics = {"curriculum/epoch": self.epoch}
        if not isinstance(self.config, NoCurriculum):
            metrics["curriculum/eligible_share"] = float((self._excess() <= 0).mean())
            metrics["curriculum/widened"] = float(self.num_widened)
            self._learn(pass_rates)
        if isinstance(self.config, ThresholdCurriculum):
            metrics["curriculum/threshold"] = self._threshold(self.config)
        self.num_widened = 0
        self.asked.clear()
        return metrics

    def _learn(self, pass_rates: Mapping[str, float]) -> None:
        known = self._known_rates()
        for key, rate in pass_rates.items():
            before = known[self.places[key]]
            running = rate if np.isnan(before) else float(before + RECENCY * (rate - before))
            self.rates[key] = (running, self.epoch)

    # ---- what fits --------------------------------------------------------------------------------------------------

    def _excess(self) -> Floats:
        """(problems,) how far each is from what the curriculum asks for now; 0 or less where it fits."""
        match self.config:
            case NoCurriculum():
                return np.zeros(len(self.problems))
            case ThresholdCurriculum():
                return self._difficulties(self.config) - self._threshold(self.config)
            case BandCurriculum(low=low, high=high):
                rates = self._known_rates()
                return np.where(np.isnan(rates), 0.0, np.maximum(low - rates, rates - high))

    def _threshold(self, config: ThresholdCurriculum) -> float:
        return min(1.0, config.start + config.slope * self.epoch)

    def _difficulties(self, config: ThresholdCurriculum) -> Floats:
        """(problems,) in [0, 1]; 0 where nothing is known of a problem's source."""
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
        found = (self.rates.get(problem.key) for problem in self.problems)
        return np.array([np.nan if entry is None or entry[1] < oldest else entry[0] for entry in found])

    # ---- state ------------------------------------------------------------------------------------------------------

    def handed_on(self) -> dict[str, Any]:
        """What the next round goes on from: the epoch and the pass rates."""
        return {"epoch": self.epoch, "rates": {key: list(entry) for key, entry in self.rates.items()}}

    def state(self) -> dict[str, Any]:
        return {
            "first_epoch": self.first_epoch,
            "num_asked": self.num_asked,
            "num_passes": self.num_passes,
            "waiting": list(self.waiting),
            "rates": {key: list(entry) for key, entry in self.rates.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.first_epoch, self.num_asked = state["first_epoch"], state["num_asked"]
        self.num_passes, self.waiting = state["num_passes"], list(state["waiting"])
        self.rates = {key: (rate, at) for key, (rate, at) in state["rates"].items()}


def check_difficulty(problems: Sequence[Problem], config: Curriculum) -> None:
    """Raises ConfigError where the curriculum needs difficulties that the data does not have."""
    if not isinstance(config, ThresholdCurriculum) or config.difficulty != "data":
        return
    if unknown := [problem for problem in problems if problem.difficulty is None]:
        raise ConfigError(
            f"curriculum.difficulty=data, but {len(unknown)} of {len(problems)} training problems have no difficulty, "
            f"for instance one of {unknown[0].source}; name its column in columns.difficulty, or set "
            "curriculum.difficulty=policy"
        )

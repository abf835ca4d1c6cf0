"""What `comparison.json` holds: the result of a comparison. All but `seconds` and `memory` follows from seeds and weights alone."""

from __future__ import annotations

from configs.records import Estimate, Record


class Gain(Record):
    """A paired gain over several seeds: of a method over the first one on the test problems that both answered, or of the trained
    policies over the given one on the items of a suite."""

    over_seeds_and_problems: Estimate
    over_seeds: Estimate | None
    """None with one seed"""
    spread: float | None = None
    """standard deviation of the seeds' mean gains (S - 1); None with one seed"""

    @property
    def is_shown(self) -> bool:
        """Whether neither interval holds 0; with one seed nothing is shown of others."""
        intervals = (self.over_seeds_and_problems, self.over_seeds)
        return all(interval is not None and (interval.low > 0 or interval.high < 0) for interval in intervals)


class AtFactor(Record):
    """A method at one factor on its learning rate: means over `Compared.rate_seeds` of the last trained policies."""

    factor: float
    learning_rate: float
    dev: float
    test: float


class MethodResult(Record):
    """One method at its best factor; lists are by seed, and numbers without other words are means over seeds."""

    method: str
    factor: float
    by_factor: list[AtFactor]
    seeds: list[int]
    test_by_seed: list[float]
    test: float
    """of the policies that the last round trained, promoted or not"""
    spread: float | None
    """standard deviation of `test_by_seed` (S - 1); None with one seed"""
    dev: float
    champion: float
    """on test, of the policies that the members ended with"""
    num_promoted: int
    """trained policies that were promoted, over all seeds and rounds"""
    num_trained: int
    gain: Gain | None
    """None for the first method, and where it or the first one trained nothing"""
    generated_tokens: float
    kl_initial: float | None
    """nats a token on test; None where it was not measured"""
    num_untrained: int
    """trainings that moved nothing, so that their policy is the one they began with"""
    num_reached: int
    """seeds whose policies reached `Compared.target` on dev"""
    tokens_to_reach: float | None
    """generated tokens up to the first round that reached it, mean over the seeds that did; None if none did"""
    test_range: float | None
    """highest minus lowest `test` over the factors; None with one factor"""
    retention: dict[str, dict[str, Gain]]
    """{suite: {measure: gain of the last trained policies over the given one}}; below 0 is a loss. Empty without suites"""

    @property
    def trained_nothing(self) -> bool:
        """Whether no round of any seed moved the policy."""
        return self.num_untrained == self.num_trained


class Seconds(Record):
    """Means over seeds."""

    by_phase: dict[str, float]
    """of training steps"""
    stages: float
    """of all stages: reward models, training, evaluation, regeneration"""


class Memory(Record):
    """Of the policy's training, the highest over seeds and rounds."""

    peak_mib: float | None
    """None where no system told it"""
    models: int | None
    """number of models that the process held; None where nothing was trained"""


class Compared(Record):
    """The result of a comparison."""

    name: str
    metric: str
    budget: str
    given: float
    """of the given policy on test"""
    num_problems: int
    """test problems that all members answered"""
    target: float | None
    """the highest value on dev that every method reaches after some round, as the mean over its seeds; None where that is no
    more than the given policy has"""
    methods: list[MethodResult]
    """in the order of the file; the first is what the others are compared with"""
    rate_seeds: list[int]
    """seeds with which all factors were tried, and by which the best was chosen"""
    short: list[str]
    """trainings that ended before their budget was spent, as `run, round`"""
    untrained: list[str]
    """trainings that moved nothing, as `run, round`"""
    unbounded: list[str]
    """methods that no budget ends: those that learn from samples which are there before they train"""
    seconds: dict[str, Seconds]
    """by method"""
    memory: dict[str, Memory]
    """by method"""

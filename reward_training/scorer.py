"""Scores completions with all rewards. Training, evaluation, best-of-N and labelling all go through this module."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from configs.errors import RewardError, StageStopped
from configs.records import Completion, Problem, Score, TemplateSettings
from configs.schema.reward_models import ServedRewardModel
from configs.schema.rewards import (
    FormatRewardConfig,
    JudgeRewardConfig,
    LengthRewardConfig,
    ModelRewardConfig,
    OutcomeRewardConfig,
    ProcessRewardConfig,
    PythonRewardConfig,
    RepetitionRewardConfig,
    RewardConfig,
)
from reward_training.judges.judge import JudgeReward
from reward_training.reward import (
    AtFault,
    Found,
    Reward,
    Stepwise,
    Unscored,
    WorksElsewhere,
    WorksTogether,
    is_called,
    one_each,
    sources_of,
)
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.reward_models.served import ServedScorer
from reward_training.rewards.checker_pool import CheckerPool
from reward_training.rewards.format import FormatReward
from reward_training.rewards.length import LengthReward
from reward_training.rewards.model_reward import ModelReward, ServedModelReward, ShardedModelReward
from reward_training.rewards.outcome import IN_POOL, OutcomeReward
from reward_training.rewards.process import ProcessReward, ShardedProcessReward
from reward_training.rewards.python_function import PythonReward
from reward_training.rewards.repetition import RepetitionReward
from reward_training.transformer.chat_template import PLAIN
from reward_training.transformer.sharding import Sharding
from reward_training.waiting import Waiting
from reward_training.weighing import Weighing

__all__ = [
    "Reward",
    "RewardModelSource",
    "Scoring",
    "Unscored",
    "build_rewards",
    "check_unscored",
    "count_unscored",
    "score",
]

SHOWN_CHARACTERS = 300
CALLS_AT_ONCE = 8
"""groups that one reward marked WorksElsewhere scores at the same time, a thread for each"""


@dataclass(frozen=True)
class RewardModelSource:
    """Where a reward model is loaded from (a folder or a hub id), and the longest conversation it scores, in tokens."""

    path: Path | str
    max_length: int
    revision: str | None = None
    template: TemplateSettings = PLAIN
    served: ServedRewardModel | None = None
    """the server that computes it; only its tokenizer and settings are at `path` then"""
    record: Path | None = None
    """file that keeps what the server gave known texts"""


@contextmanager
def build_rewards(
    configs: Sequence[RewardConfig],
    reward_models: Mapping[str, RewardModelSource],
    waiting: Waiting = Waiting(),  # noqa: B008 - it is frozen
    sharding: Sharding | None = None,
) -> Iterator[list[Reward]]:
    """Build the rewards of a configuration, and free their models and processes when the context ends.

    A reward of kind reward_model is left out if its model is not in `reward_models`. The caller reports that. With
    `sharding`, which all ranks call for together, each holds a part of every reward model, and all score equally often.
    """
    with ExitStack() as stack:
        checkers = {c.checker for c in configs if isinstance(c, OutcomeRewardConfig)}.intersection(IN_POOL)
        pool = stack.enter_context(CheckerPool(sorted(checkers - {"regex"}))) if checkers else None
        wanted = {c.model for c in configs if isinstance(c, ModelRewardConfig)} & reward_models.keys()
        scorers = {
            name: stack.enter_context(_open_model(name, reward_models[name], waiting, sharding))
            for name in sorted(wanted)
        }
        built = {config.name: _build(config, pool, scorers, stack) for config in configs}
        for config in configs:
            if isinstance(config, ProcessRewardConfig):
                built[config.name] = _build_process(config, built)
        yield [reward for reward in built.values() if reward is not None]


@contextmanager
def _open_model(
    name: str, source: RewardModelSource, waiting: Waiting, sharding: Sharding | None
) -> Iterator[RewardModelScorer | ServedScorer]:
    if source.served is not None:
        with ServedScorer(
            name, source.served, record=source.record, template=source.template, waiting=waiting
        ) as served:
            served.open()
            yield served
        return
    with RewardModelScorer(
        source.path,
        max_length=source.max_length,
        revision=source.revision,
        template=source.template,
        sharding=sharding,
    ) as scorer:
        yield scorer


def _build_process(config: ProcessRewardConfig, built: Mapping[str, Reward | None]) -> Reward | None:
    """The process reward; None if the reward that checks its steps was left out."""
    if config.checked_by == "arithmetic":
        return ProcessReward(config)
    checker = built[config.checked_by]
    if checker is None:
        return None
    return (ShardedProcessReward if isinstance(checker, WorksTogether) else ProcessReward)(config, checker)


def _build(
    config: RewardConfig,
    pool: CheckerPool | None,
    scorers: Mapping[str, RewardModelScorer | ServedScorer],
    stack: ExitStack,
) -> Reward | None:
    match config:
        case OutcomeRewardConfig():
            return OutcomeReward(config, pool)
        case FormatRewardConfig():
            return FormatReward(config)
        case LengthRewardConfig():
            return LengthReward(config)
        case RepetitionRewardConfig():
            return RepetitionReward(config)
        case ProcessRewardConfig():
            return None  # built last, because it may use one of the other rewards
        case JudgeRewardConfig():
            return stack.enter_context(closing(JudgeReward(config)))
        case PythonRewardConfig():
            return stack.enter_context(closing(PythonReward(config)))
        case ModelRewardConfig():
            return _build_model(config, scorers.get(config.model))


def _build_model(config: ModelRewardConfig, scorer: RewardModelScorer | ServedScorer | None) -> Reward | None:
    if isinstance(scorer, ServedScorer):
        return ServedModelReward(config, scorer)
    if scorer is None:
        return None
    return (ShardedModelReward if scorer.is_sharded else ModelReward)(config, scorer)


def score(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    rewards: Sequence[Reward],
    weighing: Weighing | None = None,
) -> list[Score]:
    """A Score for each completion; `problems` and `completions` are aligned one to one.

    `weighing` combines the parts into the total; by default it has the rewards' own weights and no floors.

    Raises:
        RewardError: a reward raised, or returned NaN, infinity, something that is no number, or the wrong number of
            values. The message names the reward, the problem and the text.
    """
    with Scoring(rewards, weighing) as scoring:
        return scoring.finish(problems, completions)


class Scoring:
    """Scores a batch whose groups may be handed in one by one, as soon as their responses are complete.

    A reward is called for the problems that it applies to; the scores of others have no part of that name. Rewards marked WorksElsewhere start on each group at once, in threads; the other rewards score the whole batch at
    the end. The scores equal those of `score`.
    """

    def __init__(self, rewards: Sequence[Reward], weighing: Weighing | None = None) -> None:
        self._rewards = rewards
        self._weighing = weighing or Weighing({reward.name: reward.weight for reward in rewards})
        self._begun: dict[str, dict[int, Future[list[Found | None]]]] = {}
        self._threads = {r.name: ThreadPoolExecutor(CALLS_AT_ONCE) for r in rewards if isinstance(r, WorksElsewhere)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for threads in self._threads.values():
            threads.shutdown(cancel_futures=True)

    def begin(self, group_index: int, problem: Problem, completions: Sequence[Completion]) -> None:
        """Start scoring a group whose responses are complete; `group_index` is its position in the batch."""
        for reward in self._rewards:
            if reward.name in self._threads:
                call = partial(_values_where_it_applies, reward, [problem] * len(completions), completions)
                self._begun.setdefault(reward.name, {})[group_index] = self._threads[reward.name].submit(call)

    def finish(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Score]:
        """A Score for each completion of the batch; `problems` and `completions` are aligned one to one.

        Raises:
            RewardError: in the same cases as `score`.
        """
        if len(problems) != len(completions):
            raise ValueError(f"{len(problems)} problems and {len(completions)} completions; give one a completion")
        values = {reward.name: self._values(reward, problems, completions) for reward in self._rewards}
        columns = values.items()
        rows = ({n: value for n, row in columns if (value := row[i]) is not None} for i in range(len(completions)))
        return [_score_of(row, self._weighing) for row in rows]

    def _values(
        self, reward: Reward, problems: Sequence[Problem], completions: Sequence[Completion]
    ) -> list[Found | None]:
        begun = self._begun.get(reward.name)
        if begun is None:
            return _values_where_it_applies(reward, problems, completions)
        values = [value for group_index in sorted(begun) for value in begun[group_index].result()]
        assert len(values) == len(completions), "a batch is handed in whole or not at all"
        return values


def _score_of(values: Mapping[str, Found], weighing: Weighing) -> Score:
    parts = {name: _as_part(value) for name, value in values.items()}
    steps = next((list(value.steps) for value in values.values() if isinstance(value, Stepwise)), None)
    unscored = {name: value.reason for name, value in values.items() if isinstance(value, Unscored)}
    faults = {name: value.reason for name, value in values.items() if isinstance(value, AtFault)}
    return Score(parts=parts, unscored=unscored, faults=faults, total=weighing.total(parts), steps=steps)


def _as_part(value: Found) -> float | None:
    if isinstance(value, Unscored):
        return None
    if isinstance(value, AtFault):
        return 0.0
    return value.value if isinstance(value, Stepwise) else value


def _values_where_it_applies(
    reward: Reward, problems: Sequence[Problem], completions: Sequence[Completion]
) -> list[Found | None]:
    """The reward's values for the completions; None for those of problems that it does not apply to."""
    if (sources := sources_of(reward)) is None:
        return [*_checked_values(reward, problems, completions)]
    its = [i for i, problem in enumerate(problems) if problem.source in sources]
    values = _checked_values(reward, [problems[i] for i in its], [completions[i] for i in its])
    by_place = dict(zip(its, values, strict=True))
    return [by_place.get(i) for i in range(len(completions))]


def _checked_values(reward: Reward, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Found]:
    """The reward's values for the completions, one each, all of them valid.

    Raises:
        RewardError: in the same cases as `score`.
    """
    if not is_called(reward, completions):
        return []
    try:
        values = one_each(reward(problems, completions), len(completions), f"reward {reward.name!r}")
    except (RewardError, StageStopped):
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a reward raises stops the stage, and the message names the reward
        where = _first_failure(reward, problems, completions)
        keep = "; a column of the data is there only if columns.keep names it" if isinstance(error, KeyError) else ""
        raise RewardError(f"{where} raised {type(error).__name__}: {error}; mend the reward{keep}") from error
    if len(values) != len(completions):
        where = _location(reward, problems[0], completions[0])
        raise RewardError(f"{where} (the first of the batch): {len(values)} values for {len(completions)} completions")
    return [_checked_value(reward, *row) for row in zip(problems, completions, values, strict=True)]


def _checked_value(reward: Reward, problem: Problem, completion: Completion, value: object) -> Found:
    if isinstance(value, Unscored | AtFault):
        return value
    if isinstance(value, Stepwise):
        for part in (value.value, *(step_value for _, step_value in value.steps)):
            _checked_value(reward, problem, completion, part)
        return value
    try:
        if isinstance(value, str | bytes | bytearray) or getattr(value, "ndim", False):
            raise TypeError("a text or an array is no number, even where float() takes it")
        as_float = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        remedy = "return a number, or Unscored('why') where there is none"
        raise RewardError(f"{_location(reward, problem, completion)} returned {value!r}; {remedy}") from error
    if not math.isfinite(as_float):
        raise RewardError(f"{_location(reward, problem, completion)} returned {as_float}; a reward is a finite number")
    return as_float


def _first_failure(reward: Reward, problems: Sequence[Problem], completions: Sequence[Completion]) -> str:
    """Location of the first completion on which the reward raises when called alone, otherwise the batch's first.

    Alone a rank cannot call a reward that all compute together.
    """
    if not completions:
        return f"reward {reward.name!r} without a completion"
    tried = [] if isinstance(reward, WorksTogether) else list(zip(problems, completions, strict=True))
    for problem, completion in tried:
        try:
            reward([problem], [completion])
        except (Exception, SystemExit):  # noqa: BLE001 - the batch's error is reported; this only looks for its completion
            return _location(reward, problem, completion)
    return f"{_location(reward, problems[0], completions[0])} (the first of the batch)"


def _location(reward: Reward, problem: Problem, completion: Completion) -> str:
    """The start of an error message: reward, problem and the beginning of the text."""
    return f"reward {reward.name!r} on problem {problem.key}, text {completion.text[:SHOWN_CHARACTERS]!r},"


def count_unscored(scores: Sequence[Score]) -> dict[str, dict[str, int]]:
    """{reward: {reason: number of completions}} that it applies to and could not score; without rewards that scored all."""
    counts: dict[str, Counter[str]] = {}
    for row in scores:
        for name, part in row.parts.items():
            if part is None:
                counts.setdefault(name, Counter())[row.unscored[name]] += 1
    return {name: dict(reasons.most_common()) for name, reasons in counts.items()}


def check_unscored(scores: Sequence[Score], max_share: float, *, where: str = "") -> None:
    """Raise RewardError with reasons and counts if more than `max_share` of a reward's completions are unscored.

    A reward's completions are those of the problems that it applies to. `where` follows the number of completions in the
    message, for instance " on dev".
    """
    num_scores = Counter(name for row in scores for name in row.parts)
    for name, reasons in count_unscored(scores).items():
        num_unscored = sum(reasons.values())
        share = num_unscored / num_scores[name]
        if share > max_share:
            raise RewardError(
                f"reward {name!r} could not score {num_unscored} of {num_scores[name]} completions{where} (share {share:.3f}, "
                f"max_unscored_share={max_share}): {dict(list(reasons.items())[:5])}; mend the cause or raise the bound"
            )

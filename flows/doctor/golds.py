"""Checks the gold answers: what they are read as, and whether each outcome reward tells them from wrong ones.

A gold answer that is compared with itself alone proves little: a checker that accepts everything passes. So each is also
written in other ways, which are right, and changed at one place, which is wrong.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from configs.records import Problem, is_right
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from flows.doctor.checks import Finding
from reward_training.answers.values.variants import changed, rewritten
from reward_training.golds import (
    SHOWN_CHARACTERS,
    GoldTrial,
    Row,
    outcome_pairs,
    sampled,
    trials_of,
    verdicts,
    written_as_asked,
)
from reward_training.reward import Reward
from reward_training.rewards.outcome import IN_POOL
from reward_training.scorer import build_rewards

__all__ = ["check_answer_types", "check_gold_answers", "written_as_asked"]

READS_NOTATION = ("numeric", "math")
"""checkers that accept other writings of a value"""
TELLS_CHANGES = ("exact", "numeric", "math")
"""checkers that refuse a changed value"""


def check_answer_types(problems: Sequence[Problem]) -> Iterator[Finding]:
    """How many gold answers there are of each type; a warning where some are cut off, unread, or whole solutions."""
    types = Counter(problem.answer_type for problem in problems if problem.answer_type)
    if not types:
        return
    detail = ", ".join(f"{name} {count:,}" for name, count in types.most_common())
    yield Finding("answers", "ok", detail)
    broken = [problem for problem in problems if problem.answer_type == "broken"]
    if broken:
        remedy = "a pattern cut them off: use answer_place instead of answer_pattern, or mend the data"
        yield Finding("broken answers", "warn", f"{len(broken):,}, for instance {_shown_of(broken)}", remedy)
    unread = [problem for problem in problems if problem.answer_type == "unread"]
    if unread:
        remedy = "a formula that cannot be read is right only where it is equal as text"
        yield Finding("unread answers", "warn", f"{len(unread):,}, for instance {_shown_of(unread)}", remedy)
    for place, mark in (("hash", "####"), ("boxed", "\\boxed")):
        solutions = [problem for problem in problems if mark in (problem.answer or "")]
        if solutions:
            detail = f"{len(solutions):,} are solutions with {mark}, for instance {_shown_of(solutions)}"
            yield Finding("solutions", "warn", detail, f"set answer_place: {place} in the source")


def _shown_of(problems: Sequence[Problem]) -> str:
    """The ends of the first three answers, where what matters stands."""
    shown = ", ".join(repr((problem.answer or "")[-SHOWN_CHARACTERS:]) for problem in problems[:3])
    return f"{shown} of {problems[0].source}"


def check_gold_answers(config: Config, problems: Sequence[Problem], *, quick: bool) -> Iterator[Finding]:
    """Whether each outcome reward accepts the gold answers, also in other writings, and refuses changed ones.

    `quick` leaves out checkers that need worker processes.
    """
    pairs = outcome_pairs([*config.rewards, *config.evaluation.rewards], problems)
    asked = [(reward, scored) for reward, scored in pairs if not quick or reward.checker not in IN_POOL]
    if not asked or not problems:
        return
    with build_rewards([reward for reward, _ in asked], {}) as built:
        for (settings, scored), reward in zip(asked, built, strict=True):
            yield from _tried(settings, reward, scored)


def _tried(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> Iterator[Finding]:
    trials = trials_of(settings, reward, problems)
    yield from _accepted(settings, trials)
    of_use = {trial.source for trial in trials if not trial.error and not trial.num_without}
    sample = [
        p for source, members in sampled(settings, problems).items() if source in of_use for p in members if p.answer
    ]
    if not sample:
        return
    if settings.checker in READS_NOTATION:
        yield _rewritten_accepted(settings, reward, sample)
    if settings.checker in TELLS_CHANGES and settings.tolerance <= OutcomeRewardConfig(name="x").tolerance:
        with_one = [problem for problem in sample if not problem.other_answers]  # a change may make one gold another
        if with_one:
            yield _changed_refused(settings, reward, with_one)


def _accepted(settings: OutcomeRewardConfig, trials: Sequence[GoldTrial]) -> Iterator[Finding]:
    """A failure for each source that the reward is of no use for; else how many gold answers pass."""
    name, failed = f"gold answers, {settings.name}", [trial for trial in trials if trial.failure]
    for trial in failed:
        yield Finding(name, "fail", trial.failure, trial.remedy)
    if failed:
        return
    num_tried = sum(trial.num_tried for trial in trials)
    for trial in trials:
        if trial.refused:
            yield Finding(name, "warn", trial.refusal, trial.remedy)
    if not any(trial.refused for trial in trials):
        passed = [f"{num_tried} of {num_tried} pass"] if num_tried else []
        without = sorted({trial.source for trial in trials if not trial.num_tried})
        alone = [f"{', '.join(without)} without gold answers, judged by the checker alone"] if without else []
        yield Finding(name, "ok", "; ".join([*passed, *alone]))


def _rewritten_accepted(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> Finding:
    name = f"other writings, {settings.name}"
    tried = verdicts(settings, reward, problems, rewritten)
    refused = [row for row in tried if not is_right(row[2].parts[reward.name])]
    if not refused:
        return Finding(name, "ok", f"{len(tried)} of {len(tried)} pass: other white space, LaTeX spelling, $")
    detail = f"{len(refused)} of {len(tried)} fail, for instance {_shown(refused[0])}"
    return Finding(name, "warn", detail, f"a right answer written so is refused by checker: {settings.checker}")


def _changed_refused(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> Finding:
    name = f"changed answers, {settings.name}"
    tried = verdicts(settings, reward, problems, _changed_at_either_end)
    passed = [row for row in tried if is_right(row[2].parts[reward.name])]
    if not passed:
        return Finding(name, "ok", f"{len(tried)} of {len(tried)} fail, as they should")
    detail = f"{len(passed)} of {len(tried)} pass, for instance {_shown(passed[0])}"
    remedy = f"extract: {settings.extract} with checker: {settings.checker} does not tell them apart; change either"
    return Finding(name, "warn", detail, remedy)


def _changed_at_either_end(gold: str) -> list[str]:
    answers = changed(gold)
    return list(dict.fromkeys([answers[0], answers[-1]]))


def _shown(row: Row) -> str:
    problem, text, _ = row
    return f"{text[:SHOWN_CHARACTERS]!r} of {problem.source}"

"""Checks the gold answers: what they are read as, and whether each outcome reward tells them from wrong ones.

A gold answer that is compared with itself alone proves little: a checker that accepts everything passes. So each is also
written in other ways, which are right, and changed at one place, which is wrong.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from configs.errors import RewardError
from configs.records import Completion, Problem, is_right
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from flows.doctor.checks import Finding
from reward_training.answers.values.variants import changed, rewritten
from reward_training.reward import Reward
from reward_training.rewards.outcome import IN_POOL
from reward_training.scorer import build_rewards, score

SAMPLE, SAMPLE_IN_POOL = 128, 16
"""problems of each source whose gold answers are tried, by checkers in our own process and by those in worker processes"""
READS_NOTATION = ("numeric", "math")
"""checkers that accept other writings of a value"""
TELLS_CHANGES = ("exact", "numeric", "math")
"""checkers that refuse a changed value"""
SHOWN_CHARACTERS = 60


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
    rewards = [r for r in [*config.rewards, *config.evaluation.rewards] if isinstance(r, OutcomeRewardConfig)]
    asked = [reward for reward in rewards if not quick or reward.checker not in IN_POOL]
    with_answer = [problem for problem in problems if problem.answer is not None]
    if not asked or not with_answer:
        return
    with build_rewards(asked, {}) as built:
        for settings, reward in zip(asked, built, strict=True):
            sample = _sample_by_source(with_answer, SAMPLE_IN_POOL if settings.checker in IN_POOL else SAMPLE)
            try:
                yield from _tried(settings, reward, sample)
            except RewardError as error:
                remedy = f"checker: {settings.checker} does not fit these problems; change it, or the data"
                yield Finding(f"gold answers, {settings.name}", "fail", str(error), remedy)


def _tried(settings: OutcomeRewardConfig, reward: Reward, sample: Sequence[Problem]) -> Iterator[Finding]:
    yield _accepted(settings, reward, sample)
    if settings.checker in READS_NOTATION:
        yield _rewritten_accepted(settings, reward, sample)
    if settings.checker in TELLS_CHANGES and settings.tolerance <= OutcomeRewardConfig(name="x").tolerance:
        yield _changed_refused(settings, reward, [problem for problem in sample if not problem.other_answers])


def _sample_by_source(problems: Sequence[Problem], size: int) -> list[Problem]:
    by_source: dict[str, list[Problem]] = {}
    for problem in problems:
        by_source.setdefault(problem.source, []).append(problem)
    return [problem for members in by_source.values() for problem in members[:size]]


def _accepted(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> Finding:
    name = f"gold answers, {settings.name}"
    wrong = [row for row, right in _verdicts(settings, reward, problems, lambda gold: [gold]) if not right]
    if not wrong:
        return Finding(name, "ok", f"{len(problems)} of {len(problems)} pass")
    detail = f"{len(wrong)} of {len(problems)} fail, for instance {_shown(*wrong[0])}"
    remedy = f"extract: {settings.extract} with checker: {settings.checker} does not fit these answers; change either"
    return Finding(name, "fail" if 2 * len(wrong) > len(problems) else "warn", detail, remedy)


def _rewritten_accepted(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> Finding:
    name = f"other writings, {settings.name}"
    tried = _verdicts(settings, reward, problems, rewritten)
    refused = [row for row, right in tried if not right]
    if not refused:
        return Finding(name, "ok", f"{len(tried)} of {len(tried)} pass: other white space, LaTeX spelling, $")
    detail = f"{len(refused)} of {len(tried)} fail, for instance {_shown(*refused[0])}"
    return Finding(name, "warn", detail, f"a right answer written so is refused by checker: {settings.checker}")


def _changed_refused(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> Finding:
    name = f"changed answers, {settings.name}"
    tried = _verdicts(settings, reward, problems, _changed_at_either_end)
    passed = [row for row, right in tried if right]
    if not passed:
        return Finding(name, "ok", f"{len(tried)} of {len(tried)} fail, as they should")
    detail = f"{len(passed)} of {len(tried)} pass, for instance {_shown(*passed[0])}"
    remedy = f"extract: {settings.extract} with checker: {settings.checker} does not tell them apart; change either"
    return Finding(name, "warn", detail, remedy)


def _changed_at_either_end(gold: str) -> list[str]:
    answers = changed(gold)
    return list(dict.fromkeys([answers[0], answers[-1]]))


def _verdicts(
    settings: OutcomeRewardConfig,
    reward: Reward,
    problems: Sequence[Problem],
    written: Callable[[str], list[str]],
) -> list[tuple[tuple[Problem, str], bool]]:
    """Each problem with a text that `written` makes of its gold answer, and whether the reward accepts it."""
    rows = [(problem, text) for problem in problems for gold in problem.golds for text in written(gold)]
    responses = [_response(problem, written_as_asked(text, settings)) for problem, text in rows]
    scores = score([problem for problem, _ in rows], responses, [reward])
    return [(row, is_right(found.parts[reward.name])) for row, found in zip(rows, scores, strict=True)]


def _shown(problem: Problem, text: str) -> str:
    return f"{text[:SHOWN_CHARACTERS]!r} of {problem.source}"


def _response(problem: Problem, text: str) -> Completion:
    return Completion(
        problem_key=problem.key,
        index=0,
        prompt_ids=[],
        token_ids=[],
        text=text,
        finish_reason="stop",
        logprobs=[],
        policy_id="gold",
        step=0,
        seed=0,
    )


def written_as_asked(answer: str, reward: OutcomeRewardConfig) -> str:
    """A response that has the answer where the reward extracts it."""
    match reward.extract:
        case "tag":
            return f"<{reward.tag}>{answer}</{reward.tag}>"
        case "boxed":
            return f"\\boxed{{{answer}}}"
        case "hash":
            return f"#### {answer}"
        case "answer_is" | "final":
            return f"The answer is {answer}"
        case "json":
            return json.dumps({reward.field: answer})
        case "last_number" | "whole":
            return answer

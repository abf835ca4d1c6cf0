"""Whether outcome rewards accept the gold answers of the problems that they score.

A reward that refuses the gold answers of a source can only teach that nothing there is right, and so can one that accepts
any text. `refuse_failing_golds` keeps a run from starting so; the doctor reports the same trials.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from configs.errors import ConfigError, RewardError
from configs.records import Completion, Problem, Score, is_right
from configs.schema.rewards import OutcomeRewardConfig, RewardConfig
from reward_training.reward import Reward
from reward_training.rewards.outcome import IN_POOL
from reward_training.scorer import build_rewards, score

SAMPLE, SAMPLE_IN_POOL = 128, 16
"""problems of each source whose gold answers are tried, by checkers in our own process and by those in worker processes"""
COMPARES = ("exact", "numeric", "choice", "math")
"""checkers that cannot do without a gold answer"""
NO_ANSWER = "?"
"""a text that is no right answer to any problem"""
SHOWN_CHARACTERS = 60

Pair = tuple[OutcomeRewardConfig, Sequence[Problem]]


@dataclass(frozen=True)
class GoldTrial:
    """What one outcome reward said of the gold answers of one source."""

    reward: OutcomeRewardConfig
    source: str
    num_tried: int = 0
    refused: tuple[tuple[Problem, Score], ...] = ()
    """problems whose gold answer did not count as right"""
    num_without: int = 0
    """problems without the gold answer that the checker needs"""
    accepts_anything: bool = False
    """whether more than half of the problems take a text that is no answer for right"""
    error: str = ""
    """why the reward cannot score the source at all"""

    @property
    def failure(self) -> str:
        """Why the reward is of no use for the source; empty where it is of use. Up to half may be refused."""
        if self.error:
            return self.error
        if self.num_without:
            return f"{self.num_without} problems of {self.source} have no gold answer, which checker: {self.reward.checker} needs"
        if self.accepts_anything:
            return f"the scorer of {self.source} takes any text for right, for instance {NO_ANSWER!r}"
        return self.refusal if 2 * len(self.refused) > self.num_tried else ""

    @property
    def refusal(self) -> str:
        """How many gold answers were refused, with one of them and why."""
        problem, found = self.refused[0]
        name = self.reward.name
        value = found.parts[name]
        why = found.faults.get(name) or found.unscored.get(name) or (f"scored {value:g}" if value else "")
        shown = f"{(problem.answer or '')[:SHOWN_CHARACTERS]!r} of {problem.source}" + (f" ({why})" if why else "")
        return f"{len(self.refused)} of {self.num_tried} fail, for instance {shown}"

    @property
    def remedy(self) -> str:
        """What to change where there is a failure, or a refusal."""
        checker = self.reward.checker
        if self.error:
            return f"checker: {checker} does not fit these problems; change it, or the data"
        if self.num_without:
            return "use a reward that needs none: a judge, a reward model, a function, or the scorer of a reasoning-gym family"
        if self.accepts_anything:
            return "use checker: exact"
        return f"extract: {self.reward.extract} with checker: {checker} does not fit these answers; change either"


def outcome_pairs(rewards: Sequence[RewardConfig], problems: Sequence[Problem]) -> list[Pair]:
    """Each outcome reward with the problems that it scores, where there are any."""
    outcomes = [reward for reward in rewards if isinstance(reward, OutcomeRewardConfig)]
    pairs = ((reward, [p for p in problems if reward.applies_to(p.source)]) for reward in outcomes)
    return [(reward, scored) for reward, scored in pairs if scored]


def refuse_failing_golds(pairs: Sequence[Pair]) -> None:
    """Try the gold answers.

    Raises:
        ConfigError: a reward is of no use for a source; the message has every such reward and source with a remedy.
    """
    with build_rewards([reward for reward, _ in pairs], {}) as built:
        trials = [
            t
            for (settings, problems), reward in zip(pairs, built, strict=True)
            for t in trials_of(settings, reward, problems)
        ]
    failures = [f"gold answers, {t.reward.name}: {t.failure}; {t.remedy}" for t in trials if t.failure]
    if failures:
        raise ConfigError("\n".join(failures))


def trials_of(settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem]) -> list[GoldTrial]:
    """A trial for each source, on the first of its problems."""
    return [_trial(settings, reward, source, members) for source, members in sampled(settings, problems).items()]


def sampled(settings: OutcomeRewardConfig, problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    """{source: the first of its problems}, as many as the reward's checker tries."""
    by_source: dict[str, list[Problem]] = {}
    for problem in problems:
        by_source.setdefault(problem.source, []).append(problem)
    size = SAMPLE_IN_POOL if settings.checker in IN_POOL else SAMPLE
    return {source: members[:size] for source, members in by_source.items()}


def _trial(settings: OutcomeRewardConfig, reward: Reward, source: str, problems: Sequence[Problem]) -> GoldTrial:
    with_gold = [problem for problem in problems if problem.answer is not None]
    if settings.checker in COMPARES and len(with_gold) < len(problems):
        return GoldTrial(settings, source, num_without=len(problems) - len(with_gold))
    try:
        rows = verdicts(settings, reward, with_gold, lambda gold: [gold])
        others = problems if settings.checker == "reasoning_gym" else []
        taken = [
            is_right(found.parts[reward.name])
            for _, _, found in _scored(settings, reward, [(p, NO_ANSWER) for p in others])
        ]
    except RewardError as error:
        return GoldTrial(settings, source, error=str(error))
    refused = tuple((problem, found) for problem, _, found in rows if not is_right(found.parts[reward.name]))
    return GoldTrial(settings, source, len(rows), refused, accepts_anything=2 * sum(taken) > len(problems))


Row = tuple[Problem, str, Score]
"""a problem, the answer that was given, and what the reward said of it"""


def verdicts(
    settings: OutcomeRewardConfig, reward: Reward, problems: Sequence[Problem], written: Callable[[str], list[str]]
) -> list[Row]:
    """A row for each text that `written` makes of a problem's gold answers; problems without one are left out."""
    texts = [(p, text) for p in problems for gold in p.golds for text in written(gold)]
    return _scored(settings, reward, texts)


def _scored(settings: OutcomeRewardConfig, reward: Reward, texts: Sequence[tuple[Problem, str]]) -> list[Row]:
    responses = [_response(problem, written_as_asked(text, settings)) for problem, text in texts]
    scores = score([problem for problem, _ in texts], responses, [reward])
    return [(problem, text, found) for (problem, text), found in zip(texts, scores, strict=True)]


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
            return f"The answer is {answer}" if answer else "\\boxed{}"
        case "json":
            return json.dumps({reward.field: answer})
        case "last_number" | "whole":
            return answer

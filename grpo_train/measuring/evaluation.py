"""Evaluates a policy on held-out problems, with one greedy response and several samples per problem.

Every estimate is the mean of a column of `rows`, which has one row per problem, with a bootstrap interval over
problems. A problem that a reward could not score or does not apply to, for which no reward says what is right, or for
which no KL was measured, is missing in that column and does not count in its n. An unscored response is not a wrong one:
pass@k is estimated from the samples that were scored, where there are at least k, and maj@k needs them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel

from configs.records import Completion, EvalReport, Policy, Problem, Score, verdict
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from configs.schema.scopes import metric_part
from configs.seeds import seed_for
from grpo_train.sampling.asked import Write
from grpo_train.sampling.generation import Sampling
from grpo_train.updating.response_logprobs import policy_kl, response_rows
from reward_training.answers.checkers import as_number
from reward_training.answers.values.reading import read
from reward_training.rewards.outcome import given_answer
from reward_training.rewards.sought import texts_sought
from reward_training.scorer import Reward, Scoring, check_unscored, count_unscored
from reward_training.statistics import bootstrap_mean, majority_is_right, pass_at_k

BY_VALUE = ("exact", "numeric", "math")
"""checkers under which equal values are right or wrong together, however they are written"""


@dataclass(frozen=True)
class Evaluation:
    """Results of one policy on several splits."""

    reports: dict[str, EvalReport]
    rows: list[dict[str, Any]]
    """one per problem: split, problem_key, source, and a value for each metric that could be measured; `faults`, where
    there are any, has the number of responses by the reason for which the checker failed through their fault, and
    `unscored` the same, {reward: {reason: number}}, of responses that a reward could not score"""
    examples: list[dict[str, Any]]
    """texts of the first problems of each split: prompt, answer, greedy response, samples"""
    responses: list[dict[str, Any]]
    """the greedy response to each problem: split, problem_key, greedy"""


@dataclass(frozen=True)
class _Answered:
    """A problem with its responses, the greedy one first, then the samples."""

    problem: Problem
    completions: list[Completion]
    scores: list[Score]


def evaluate(
    write: Write,
    problems: Mapping[str, Sequence[Problem]],
    *,
    policy: Policy,
    initial_policy: Policy | None,
    load: Callable[[Policy], PreTrainedModel],
    rewards: Sequence[Reward],
    config: Config,
    round_index: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda num_rows: None,
) -> Evaluation:
    """Evaluate what `policy` writes on each split of `problems` with `rewards`, which must include the checker.

    KL is measured against `initial_policy`, which `load` gets; None leaves it out. `on_progress` gets the number of
    responses just finished.

    Raises:
        StageStopped: `should_stop()` was true between two batches of responses.
        RewardError: a reward left more than `max_unscored_share` of a split's responses unscored.
    """
    every = [problem for split in problems.values() for problem in split]
    answered = _answer(write, every, policy.id, rewards, config, round_index, should_stop, on_progress)
    for split in problems:
        scores = [score for entry in answered if entry.problem.split == split for score in entry.scores]
        check_unscored(scores, config.combination.max_unscored_share, where=f" on {split}")
    kl = _kl_initial(answered, policy, initial_policy, config, load)
    is_mixed = len({problem.source for problem in every}) > 1
    rows = [_row(entry, config, is_mixed=is_mixed) | kl.get(entry.problem.key, {}) for entry in answered]
    reports = {name: _report(policy.id, name, rows, config, round_index) for name in problems}
    return Evaluation(reports, rows, _examples(answered, config.evaluation.num_examples), _responses(answered))


def num_responses(config: Config, num_problems: int) -> int:
    """Number of responses that an evaluation of `num_problems` problems samples."""
    return num_problems * (1 + config.evaluation.num_samples)


def _answer(
    write: Write,
    problems: Sequence[Problem],
    policy_id: str,
    rewards: Sequence[Reward],
    config: Config,
    round_index: int,
    should_stop: Callable[[], bool],
    on_progress: Callable[[int], None],
) -> list[_Answered]:
    settings, grpo = config.evaluation, config.grpo_config
    size = 1 + settings.num_samples
    sampling = Sampling(
        size,
        settings.temperature,
        grpo.max_response_length,
        settings.top_p,
        settings.top_k,
        max_rows=grpo.generation_rows,
        num_greedy=1,
        sought=texts_sought([*config.rewards, *settings.rewards]),
    )
    with Scoring(rewards) as scoring:
        completions = write(
            problems,
            sampling,
            # the same seed in every round: two policies are compared on the same draws
            seed=seed_for(config.seed, "evaluation sampling"),
            policy_id=policy_id,
            step=round_index,
            should_stop=should_stop,
            on_progress=on_progress,
            on_group=scoring.begin,
        )
        scores = scoring.finish([problem for problem in problems for _ in range(size)], completions)
    groups = [slice(start, start + size) for start in range(0, len(completions), size)]
    return [
        _Answered(*row)
        for row in zip(problems, (completions[g] for g in groups), (scores[g] for g in groups), strict=True)
    ]


def _row(entry: _Answered, config: Config, *, is_mixed: bool = False) -> dict[str, Any]:
    """The row of one problem, with all its metrics; with `is_mixed`, its accuracy once more under its source."""
    problem, greedy = entry.problem, entry.completions[0]
    row: dict[str, Any] = {"split": problem.split, "problem_key": problem.key, "source": problem.source}
    checker = config.checker_of(problem.source)
    right = [verdict(score, checker) for score in entry.scores]
    if right[0] is not None:
        row["greedy_accuracy"] = float(right[0])
    if right[0] is not None and is_mixed:
        row[f"greedy_accuracy/{metric_part(problem.source)}"] = float(right[0])
    row["response_length"] = float(len(greedy.token_ids))
    row["truncated_share"] = float(greedy.finish_reason == "length")
    if checked := [score for score, is_right in zip(entry.scores, right, strict=True) if is_right is not None]:
        row["at_fault_share"] = fmean(checker in score.faults for score in checked)
    if faults := Counter(reason for s in entry.scores if (reason := s.faults.get(checker or "")) is not None):
        row["faults"] = dict(faults)
    if unscored := count_unscored(entry.scores):
        row["unscored"] = unscored
    for name in entry.scores[0].parts:
        row |= _mean_of_known(f"greedy/{name}", entry.scores[:1], name)
        row |= _mean_of_known(f"sampled/{name}", entry.scores[1:], name)
    return row | _at_k(entry, config, right[1:])


def _at_k(entry: _Answered, config: Config, right: Sequence[bool | None]) -> dict[str, float]:
    """pass@k and maj@k of the samples, of which `right` tells whether each is right; None where that is unknown."""
    samples = entry.completions[1:]
    known = [is_right for is_right in right if is_right is not None]
    values = {f"pass_at_{k}": pass_at_k(len(known), sum(known), k) for k in _powers_of_two(len(known))}
    if len(known) < len(samples):
        return values
    answers = [_voted_answer(entry.problem, completion, config) for completion in samples]
    return values | {f"maj_at_{len(samples)}": majority_is_right(answers, known)}


def _mean_of_known(key: str, scores: Sequence[Score], name: str) -> dict[str, float]:
    known = [value for score in scores if (value := score.parts[name]) is not None]
    return {key: sum(known) / len(known)} if known else {}


def _powers_of_two(limit: int) -> list[int]:
    return [2**exponent for exponent in range(limit.bit_length()) if 2**exponent <= limit]


def _voted_answer(problem: Problem, completion: Completion, config: Config) -> Hashable:
    """The answer that a sample votes for in majority voting; None where it has no vote.

    It is what the checker compares with the gold answer; where the checker is no outcome reward, the whole text. Answers
    vote by their value (1/2 with 0.5) under the checkers that compare values. None where there is no answer.
    """
    name = config.checker_of(problem.source)
    checker = next(r for r in [*config.rewards, *config.evaluation.rewards] if r.name == name)
    if not isinstance(checker, OutcomeRewardConfig):
        return completion.text.strip()
    answer = given_answer(problem, completion, checker)
    if answer is None or checker.checker not in BY_VALUE:
        return answer
    return (as_number(answer) or answer) if checker.checker == "exact" else read(answer)


def _kl_initial(
    answered: Sequence[_Answered],
    policy: Policy,
    initial: Policy | None,
    config: Config,
    load: Callable[[Policy], PreTrainedModel],
) -> dict[str, dict[str, float]]:
    """{problem key: {"kl_initial": nats per token over its first sample}} for the first problems of each split.

    It is 0 where the policy is the initial one.
    """
    measured = _first_of_each_split(answered, config.evaluation.num_kl_problems)
    if initial is None or not measured:
        return {}
    if initial.id == policy.id:
        return {entry.problem.key: {"kl_initial": 0.0} for entry in measured}
    samples = _with_whole_vocabulary([entry.completions[1] for entry in measured], policy, config, load)
    max_tokens, temperature = config.grpo_config.micro_batch_tokens, config.evaluation.temperature
    values = policy_kl(load(initial), samples, max_tokens=max_tokens, temperature=temperature)
    return {sample.problem_key: {"kl_initial": value} for sample, value in zip(samples, values, strict=True)}


def _with_whole_vocabulary(
    samples: list[Completion], policy: Policy, config: Config, load: Callable[[Policy], PreTrainedModel]
) -> list[Completion]:
    """Samples whose log-probabilities are those over the whole vocabulary.

    A vLLM server gives those within what top_p and top_k leave, so there the policy scores them itself.
    """
    settings = config.evaluation
    if config.grpo_config.vllm is None or (settings.top_p == 1 and settings.top_k == 0):
        return samples
    max_tokens = config.grpo_config.micro_batch_tokens
    rows = response_rows(load(policy), samples, max_tokens=max_tokens, temperature=settings.temperature)
    return [one.model_copy(update={"logprobs": row}) for one, row in zip(samples, rows, strict=True)]


def _first_of_each_split(answered: Sequence[_Answered], num_problems: int) -> list[_Answered]:
    """The first `num_problems` problems of each split, or all of a smaller one."""
    seen: Counter[str] = Counter()
    first = []
    for entry in answered:
        seen[entry.problem.split] += 1
        if seen[entry.problem.split] <= num_problems:
            first.append(entry)
    return first


def _report(policy_id: str, split: str, rows: Sequence[dict[str, Any]], config: Config, round_index: int) -> EvalReport:
    split_rows = [row for row in rows if row["split"] == split]
    labels = {"split", "problem_key", "source", "faults", "unscored"}
    names = sorted({key for row in split_rows for key in row} - labels)
    seed = seed_for(config.seed, f"bootstrap {split}", round_index=round_index)
    draws = config.evaluation.bootstrap_draws
    values = {
        name: bootstrap_mean([row[name] for row in split_rows if name in row], seed=seed, draws=draws) for name in names
    }
    return EvalReport(policy_id=policy_id, split=split, values=values, unscored=_added_up(split_rows))


def _added_up(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """{reward: {reason: number of responses}} over the rows."""
    total: dict[str, Counter[str]] = {}
    for row in rows:
        for name, reasons in row.get("unscored", {}).items():
            total.setdefault(name, Counter()).update(reasons)
    return {name: dict(reasons) for name, reasons in total.items()}


def _responses(answered: Sequence[_Answered]) -> list[dict[str, Any]]:
    return [
        {"split": entry.problem.split, "problem_key": entry.problem.key, "greedy": entry.completions[0].text}
        for entry in answered
    ]


def _examples(answered: Sequence[_Answered], num_examples: int) -> list[dict[str, Any]]:
    return [
        {
            "split": entry.problem.split,
            "problem_key": entry.problem.key,
            "prompt": entry.problem.prompt,
            "answer": entry.problem.answer,
            "greedy": entry.completions[0].text,
            "samples": [completion.text for completion in entry.completions[1:]],
        }
        for entry in _first_of_each_split(answered, num_examples)
    ]

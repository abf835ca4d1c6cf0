"""Selects pairs of responses for people to compare, and turns their answers into preference pairs.

People first see the pairs on which the rewards for quality (checker, judge, reward model, process, python) disagree
most. A person's answer overrides every other labeler.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, zip_longest
from statistics import fmean

import numpy as np

from configs.disk.files import digest_json
from configs.records import Completion, PreferencePair, Problem, ReviewItem, Score, Verdict
from configs.schema.reward_models import PeopleLabeler, TrainedRewardModel
from configs.schema.rewards import (
    JudgeRewardConfig,
    ModelRewardConfig,
    OutcomeRewardConfig,
    ProcessRewardConfig,
    PythonRewardConfig,
    RewardConfig,
)
from reward_training.pairs.building import PEOPLE, is_better, is_held_out, labeler_value

SAME = 1e-6
"""largest difference of two values that counts as no preference"""
WORTH = {"first": 1.0, "equal": 0.0, "second": -1.0}
"""value of each choice, from the first response's side"""


@dataclass(frozen=True)
class _Candidate:
    """Two responses to one problem, with their scores.

    `disagreement` is 0 if all rewards with a preference agree, and 1 if they are evenly split; `num_opinions` counts
    them.
    """

    problem: Problem
    completions: tuple[Completion, Completion]
    scores: tuple[Score, Score]
    disagreement: float
    num_opinions: int


def build_items(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    scores: Sequence[Score],
    *,
    name: str,
    config: TrainedRewardModel,
    sources: Collection[str] | None = None,
    rewards: Sequence[RewardConfig],
    run_name: str,
    round_index: int,
    rng: np.random.Generator,
) -> list[ReviewItem]:
    """At most `num_items` comparisons for people to make for the reward model `name`, the most disputed ones first.

    The three sequences are aligned one to one. Only problems of `sources` (None: all) are asked about. Each text of a problem is in one comparison at most. `rng` draws which
    of the two responses is shown first.
    """
    assert isinstance(config.labeler, PeopleLabeler), "other labelers ask nobody"
    voters = [
        r.name
        for r in rewards
        if isinstance(
            r, OutcomeRewardConfig | JudgeRewardConfig | ModelRewardConfig | ProcessRewardConfig | PythonRewardConfig
        )
    ]
    groups: dict[str, list[tuple[Problem, Completion, Score]]] = {}
    for row in zip(problems, completions, scores, strict=True):
        if sources is None or row[0].source in sources:
            groups.setdefault(row[0].key, []).append(row)
    disputed = [list(_of_problem(group, voters, config.pairs_per_problem)) for group in groups.values()]
    by_rank = [candidate for rank in zip_longest(*disputed) for candidate in rank if candidate is not None]
    chosen = sorted(by_rank, key=_most_disputed_first)  # stable: a problem's second pair is after all equal first ones
    return [
        _item(
            candidate,
            swap=bool(rng.integers(2)),
            name=name,
            config=config,
            rewards=rewards,
            run_name=run_name,
            round_index=round_index,
        )
        for candidate in chosen[: config.labeler.num_items]
    ]


def _of_problem(
    group: Sequence[tuple[Problem, Completion, Score]], voters: Sequence[str], max_pairs: int
) -> Iterator[_Candidate]:
    """The most disputed pairs of one problem, at most `max_pairs`, with each text in one of them at most."""
    distinct: dict[str, tuple[Problem, Completion, Score]] = {}
    for row in group:
        distinct.setdefault(row[1].text, row)
    pairs = combinations(distinct.values(), 2)
    candidates = sorted((_candidate(a, b, voters) for a, b in pairs), key=_most_disputed_first)
    used: set[str] = set()
    for candidate in candidates:
        texts = {completion.text for completion in candidate.completions}
        if len(used) < 2 * max_pairs and not used & texts:
            used |= texts
            yield candidate


def _candidate(
    a: tuple[Problem, Completion, Score], b: tuple[Problem, Completion, Score], voters: Sequence[str]
) -> _Candidate:
    opinions = list(_opinions(a[2], b[2], voters))
    disagreement = 1 - abs(sum(opinions)) / len(opinions) if opinions else 0.0
    return _Candidate(a[0], (a[1], b[1]), (a[2], b[2]), disagreement, len(opinions))


def _opinions(a: Score, b: Score, voters: Sequence[str]) -> Iterator[int]:
    """+1 for each reward that prefers `a`, -1 for each that prefers `b`; none for ties, unscored and absent rewards."""
    for name in voters:
        left, right = a.parts.get(name), b.parts.get(name)
        if left is not None and right is not None and abs(left - right) > SAME:
            yield 1 if left > right else -1


def _most_disputed_first(candidate: _Candidate) -> tuple[float, int]:
    return -candidate.disagreement, -candidate.num_opinions


def _item(
    candidate: _Candidate,
    *,
    swap: bool,
    name: str,
    config: TrainedRewardModel,
    rewards: Sequence[RewardConfig],
    run_name: str,
    round_index: int,
) -> ReviewItem:
    (first, second), (score_1, score_2) = candidate.completions, candidate.scores
    if swap:
        first, second, score_1, score_2 = second, first, score_2, score_1
    key = candidate.problem.key
    return ReviewItem(
        id=item_id(run_name, round_index, name, key, first.text, second.text),
        kind="pair",
        objective=name,
        run=run_name,
        round=round_index,
        problem_key=key,
        prompt=candidate.problem.prompt,
        first=first.text,
        second=second.text,
        sources=(first.policy_id, second.policy_id),
        split="held_out" if is_held_out(key, config.held_out_share) else "train",
        disagreement=candidate.disagreement,
        otherwise=_otherwise(score_1, score_2, config, rewards, round_index),
    )


def item_id(*parts: str | int) -> str:
    """sha256 of the parts that identify an item: run, round, objective, problem and both texts in their order."""
    return digest_json(list(parts))


def _otherwise(
    first: Score, second: Score, config: TrainedRewardModel, rewards: Sequence[RewardConfig], round_index: int
) -> float | None:
    """Value of the first minus the second response by the stand-in labeler; None if it would make no pair of them."""
    labeler = config.automatic_labeler
    if labeler is None:
        return None
    left, right = (labeler_value(score, labeler, rewards, round_index) for score in (first, second))
    if left is None or right is None:
        return None
    return left - right if is_better(left, right, labeler) or is_better(right, left, labeler) else None


# ---- answers --------------------------------------------------------------------------------------------------------


def opinion(verdicts: Sequence[Verdict]) -> float | None:
    """Mean of people's verdicts on an item, in [-1, 1]: 1 if all prefer the first response, 0 if they are split or see
    no difference, None if nobody answered. Only the latest answer of each person counts."""
    latest = {verdict.person: verdict for verdict in sorted(verdicts, key=lambda verdict: verdict.given_ms)}
    return fmean(WORTH[verdict.choice] for verdict in latest.values()) if latest else None


def label_items(
    items: Sequence[ReviewItem], verdicts: Mapping[str, Sequence[Verdict]], *, stand_in: str | None
) -> list[PreferencePair]:
    """Preference pairs from people's verdicts, which are keyed by item id.

    Each item that people answered gives a pair, with margin 0 if they are split or see no difference. An item without
    an answer gives a pair of the labeler `stand_in`, if one is named and prefers one of the two responses.
    """
    pairs = []
    for item in items:
        leaning, labeler = opinion(verdicts.get(item.id, [])), PEOPLE
        if leaning is None and stand_in is not None:
            leaning, labeler = item.otherwise, stand_in
        if leaning is not None:
            pairs.append(_pair(item, leaning, labeler))
    return pairs


def _pair(item: ReviewItem, leaning: float, labeler: str) -> PreferencePair:
    texts, sources = (item.first, item.second), item.sources
    if leaning < 0:
        texts, sources = (texts[1], texts[0]), (sources[1], sources[0])
    return PreferencePair(
        problem_key=item.problem_key,
        prompt=item.prompt,
        chosen=texts[0],
        rejected=texts[1],
        margin=abs(leaning),
        objective=item.objective,
        labeler=labeler,
        sources=sources,
        round=item.round,
        split=item.split,
    )

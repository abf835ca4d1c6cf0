"""Builds preference pairs, a better and a worse completion of one problem, and selects the pairs to train on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from configs.records import Completion, PreferencePair, Problem, Score, is_right
from configs.schema.reward_models import AutomaticLabeler, JudgeLabeler, OutcomeLabeler, TrainedRewardModel
from configs.schema.rewards import ModelRewardConfig, RewardConfig
from reward_training.weighing import Weighing


@dataclass(frozen=True)
class _Candidate:
    """A completion with the labeler's value for it."""

    completion: Completion
    value: float


def build_pairs(
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    scores: Sequence[Score],
    *,
    name: str,
    config: TrainedRewardModel,
    labeler: AutomaticLabeler,
    sources: Collection[str] | None = None,
    rewards: Sequence[RewardConfig],
    round_index: int,
) -> list[PreferencePair]:
    """Preference pairs for the reward model `name`, at most `pairs_per_problem` of a problem.

    The three sequences are aligned one to one. The pairs are in the order of the problems, and of those from `sources`
    (None: all). A completion that one of the labeler's rewards could not score, or to which none applies, is in no
    pair. Of completions with equal text only the first is used.
    """
    groups: dict[str, list[_Candidate]] = {}
    by_key = {problem.key: problem for problem in problems}
    for problem, completion, score in zip(problems, completions, scores, strict=True):
        value = labeler_value(score, labeler, rewards, round_index)
        if value is not None and (sources is None or problem.source in sources):
            groups.setdefault(problem.key, []).append(_Candidate(completion, value))
    return [
        _pair(by_key[key], better, worse, name=name, config=config, labeler=labeler.kind, round_index=round_index)
        for key, candidates in groups.items()
        for better, worse in _chosen(_distinct_texts(candidates), labeler, config.pairs_per_problem)
    ]


def _chosen(
    candidates: list[_Candidate], labeler: AutomaticLabeler, most: int
) -> Iterator[tuple[_Candidate, _Candidate]]:
    values = [candidate.value for candidate in candidates]
    for i, j in choose(values, lambda better, worse: is_better(better, worse, labeler), most):
        yield candidates[i], candidates[j]


def labeler_value(
    score: Score, labeler: AutomaticLabeler, rewards: Sequence[RewardConfig], round_index: int
) -> float | None:
    """The labeler's value for a completion; None if a reward that it needs could not score the completion, or if none
    of its rewards applies to the problem."""
    if isinstance(labeler, OutcomeLabeler | JudgeLabeler):
        return score.parts.get(labeler.reward)
    used = [r for r in rewards if r.name in score.parts and not isinstance(r, ModelRewardConfig)]
    parts = {reward.name: score.parts[reward.name] for reward in used}
    return None if not parts or None in parts.values() else Weighing.at(used, round_index).total(parts)


def _distinct_texts(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    first: dict[str, _Candidate] = {}
    for candidate in candidates:
        first.setdefault(candidate.completion.text, candidate)
    return list(first.values())


def is_better(better: float, worse: float, labeler: AutomaticLabeler) -> bool:
    """Whether the value `better` exceeds `worse` by enough for a pair."""
    if isinstance(labeler, OutcomeLabeler):
        return is_right(better) and not is_right(worse)
    return better - worse >= labeler.min_margin


def choose(values: Sequence[float], is_better: Callable[[float, float], bool], most: int) -> list[tuple[int, int]]:
    """Greedy choice of at most `most` pairs (position of the better, of the worse) of values.

    Next is the pair whose members were used least so far, then the widest margin, then the earliest.
    """
    numbered = list(enumerate(values))
    possible = [(i, j) for (i, better), (j, worse) in permutations(numbered, 2) if is_better(better, worse)]
    possible.sort(key=lambda pair: values[pair[1]] - values[pair[0]])  # stable: ties stay in order
    uses: Counter[int] = Counter()
    chosen: list[tuple[int, int]] = []
    while possible and len(chosen) < most:
        best = min(possible, key=lambda pair: uses[pair[0]] + uses[pair[1]])
        possible.remove(best)
        uses.update(best)
        chosen.append(best)
    return chosen


def _pair(
    problem: Problem,
    better: _Candidate,
    worse: _Candidate,
    *,
    name: str,
    config: TrainedRewardModel,
    labeler: str,
    round_index: int,
) -> PreferencePair:
    return PreferencePair(
        problem_key=problem.key,
        prompt=problem.prompt,
        chosen=better.completion.text,
        rejected=worse.completion.text,
        margin=better.value - worse.value,
        objective=name,
        labeler=labeler,
        sources=(better.completion.policy_id, worse.completion.policy_id),
        round=round_index,
        split="held_out" if is_held_out(problem.key, config.held_out_share) else "train",
    )


def is_held_out(problem_key: str, share: float) -> bool:
    """Whether a problem's pairs are held out from training; decided by its key alone, so the same in every round."""
    position = int.from_bytes(hashlib.sha256(f"held_out/{problem_key}".encode()).digest()[:8], "big") / 2**64
    return position < share


def select_training_pairs(
    new: Sequence[PreferencePair],
    earlier: Sequence[PreferencePair],
    *,
    replay_fraction: float,
    max_pairs: int,
    rng: np.random.Generator,
) -> list[PreferencePair]:
    """At most `max_pairs` pairs of the train split, `replay_fraction` of them drawn from earlier rounds.

    New pairs come first. If there are too few earlier pairs, all of them are taken. Problems that were ever held out
    are excluded.
    """
    held_out = {pair.problem_key for pair in [*new, *earlier] if pair.split == "held_out"}
    fresh = [pair for pair in new if pair.problem_key not in held_out]
    old = [pair for pair in earlier if pair.problem_key not in held_out]
    num_new, num_old = _share_out(len(fresh), len(old), replay_fraction, max_pairs)
    return [*_draw(fresh, num_new, rng), *_draw(old, num_old, rng)]


PEOPLE = "people"
"""the labeler that overrules all others"""


def settle(
    new: Sequence[PreferencePair], earlier: Sequence[PreferencePair]
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """New and earlier pairs, with at most one pair for any two texts of a problem.

    People's labels override those of other labelers; otherwise the newest label wins. Two texts that people find equal
    (margin 0) are in no pair. White space around a text makes no difference.
    """
    kept = {id(pair) for pair in _latest(new, earlier).values() if pair.margin}
    return [pair for pair in new if id(pair) in kept], [pair for pair in earlier if id(pair) in kept]


def count_settled(new: Sequence[PreferencePair], earlier: Sequence[PreferencePair]) -> dict[str, int]:
    """{reason: pairs that `settle` leaves out}.

    `duplicate`: the label that stands says the same, `contradicting`: it says the opposite, `tie`: people see no
    difference.
    """
    latest = _latest(new, earlier)
    return dict(
        Counter(_why(pair, stands) for pair in [*earlier, *new] if (stands := latest[_texts(pair)]) is not pair)
    )


def _why(pair: PreferencePair, stands: PreferencePair) -> str:
    if 0 in (pair.margin, stands.margin):
        return "tie"
    return "duplicate" if pair.chosen.strip() == stands.chosen.strip() else "contradicting"


def _latest(
    new: Sequence[PreferencePair], earlier: Sequence[PreferencePair]
) -> dict[tuple[str, frozenset[str]], PreferencePair]:
    latest: dict[tuple[str, frozenset[str]], PreferencePair] = {}
    for pair in [*earlier, *new]:
        before = latest.get(_texts(pair))
        if before is None or before.labeler != PEOPLE or pair.labeler == PEOPLE:
            latest[_texts(pair)] = pair
    return latest


def _texts(pair: PreferencePair) -> tuple[str, frozenset[str]]:
    return pair.problem_key, frozenset((pair.chosen.strip(), pair.rejected.strip()))


def _share_out(num_new: int, num_old: int, replay_fraction: float, max_pairs: int) -> tuple[int, int]:
    """(new, replayed) numbers of pairs, with replayed / (new + replayed) as near to `replay_fraction` as possible."""
    if replay_fraction == 1:
        return 0, min(num_old, max_pairs)
    wanted = round(num_new * replay_fraction / (1 - replay_fraction))
    replayed = min(num_old, wanted, round(max_pairs * replay_fraction))
    return min(num_new, max_pairs - replayed), replayed


def _draw(pairs: list[PreferencePair], count: int, rng: np.random.Generator) -> list[PreferencePair]:
    """`count` pairs, drawn without replacement, in their order."""
    return [pairs[i] for i in sorted(rng.permutation(len(pairs))[:count])]

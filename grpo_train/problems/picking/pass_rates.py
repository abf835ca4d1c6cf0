"""Predicts the policy's pass rate on a problem from what is known before it is asked.

A logistic regression of measured pass rates on facts of the problem: its source, its difficulty where the data gives one, the
lengths of question and answer, how many numbers the question holds and how large they are, and whether the answer is one of
them. One regression is of all problems,
and each source corrects it by one of its own. Both are fitted anew from the measurements at hand, so that nothing but these has
to be kept. What a problem's own group showed then counts beside the prediction, as the counts of a Beta distribution do.

The reward's variance within a group, which a group teaches by, is p (1 - p). GRESO (arXiv 2506.02177) predicts from a problem's
own past whether its group will be dead, MoPPS (2507.04632) keeps a Beta distribution for each problem; neither says
anything of a problem that was never asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.records import Problem

Floats = NDArray[np.float64]
NUMBER = re.compile(r"\d+(?:\.\d+)?")
OF_PREDICTION, OF_GROUP = 2.0, 4.0
"""how many responses a prediction counts for, and a problem's own running pass rate"""
PENALTY = 1.0
"""of the squares of weights"""
NUM_STEPS = 25
"""of Newton's method; some ten suffice"""
LARGEST_LOGIT, LARGEST_STEP = 12.0, 2.0
LARGEST_NUMBER = 1e30


@dataclass(frozen=True)
class Measured:
    """A pass rate that was measured, of a problem that may be outside training."""

    source: str
    facts: Sequence[float]
    rate: float


def facts(problem: Problem) -> list[float]:
    """What the prediction reads of a problem beside its source, each on a scale on which steps are alike."""
    question = problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
    numbers = [_number(number) for number in NUMBER.findall(question)]
    answer = (problem.answer or "").strip().removeprefix("-")
    size = _number(answer) if NUMBER.fullmatch(answer) else None
    largest, smallest = max(numbers, default=0.0), min(numbers, default=0.0)
    scaled = map(math.log1p, (len(question), len(answer), len(numbers), size or 0.0, largest, smallest))
    stands_there = (float(bool(numbers) and size == number) for number in (largest, smallest))
    return [problem.difficulty or 0.0, *scaled, *stands_there]


def _number(digits: str) -> float:
    return min(float(digits), LARGEST_NUMBER)


def predict(sources: Sequence[str], facts_of: Floats, measured: Sequence[Measured]) -> Floats:
    """(N,) pass rates of problems of these `sources` and (N, F) facts; 1/2 for all where nothing was measured."""
    if not measured:
        return np.full(len(sources), 0.5)
    known = np.array([row.facts for row in measured], dtype=np.float64)
    middle, spread = known.mean(axis=0), known.std(axis=0)
    scale = np.where(spread > 0, spread, np.inf)  # a fact that never varied says nothing
    features, wanted = (_with_level((values - middle) / scale) for values in (known, facts_of))
    rates = np.array([row.rate for row in measured])
    of_all = _fit(features, rates, np.zeros(len(rates)))
    logits = wanted @ of_all
    source_of, source_of_wanted = np.array([row.source for row in measured]), np.array(sources)
    for source in np.unique(source_of):
        its, its_wanted = source_of == source, source_of_wanted == source
        correction = _fit(features[its], rates[its], features[its] @ of_all)
        logits[its_wanted] += wanted[its_wanted] @ correction
    return _logistic(logits)


def expected_variance(predicted: Floats, own: Floats) -> Floats:
    """(N,) mean of p (1 - p) where p has a Beta distribution, whose counts come from the predictions and from the problems'
    own running pass rates, NaN where there is none."""
    seen = ~np.isnan(own)
    rates = np.where(seen, own, 0.0)
    right = OF_PREDICTION * predicted + OF_GROUP * rates * seen
    wrong = OF_PREDICTION * (1 - predicted) + OF_GROUP * (1 - rates) * seen
    total = right + wrong
    return np.asarray(right * wrong / (total * (total + 1)))


def _with_level(scaled: Floats) -> Floats:
    return np.concatenate([np.ones((len(scaled), 1)), scaled], axis=1)


def _fit(features: Floats, rates: Floats, offsets: Floats) -> Floats:
    """(D,) weights of a penalised logistic regression whose logits begin at `offsets` (N,), by Newton's method."""
    weights = np.zeros(features.shape[1])
    for _ in range(NUM_STEPS):
        predicted = _logistic(features @ weights + offsets)
        gradient = features.T @ (predicted - rates) + PENALTY * weights
        curvature = (features * (predicted * (1 - predicted))[:, None]).T @ features
        step = np.linalg.solve(curvature + PENALTY * np.eye(len(weights)), gradient)
        weights = weights - step * min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), LARGEST_STEP))
    return weights


def _logistic(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT))))

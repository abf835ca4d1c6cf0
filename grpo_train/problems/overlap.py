"""Questions that stand on both sides of a split: the same text, or for written text a long run of the same words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"\w+")


def normalized(text: str) -> str:
    """Unicode's compatible form in lower case, with single spaces; punctuation stays, since it may be the arithmetic.

    >>> normalized("  What is\\n2 + 3?")
    'what is 2 + 3?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact_matches(training: Sequence[str], held_out: Sequence[str]) -> dict[int, int]:
    """{index in training: index in held_out} of questions that are equal once normalised."""
    places = {normalized(text): i for i, text in reversed(list(enumerate(held_out)))}
    found = ((i, places.get(normalized(text))) for i, text in enumerate(training))
    return {i: place for i, place in found if place is not None}


def ngram_matches(training: Sequence[str], held_out: Sequence[str], *, n: int, common_share: float) -> dict[int, int]:
    """{index in training: index in held_out} of questions that share `n` words in a row.

    N-grams in more than `common_share` of the training questions do not count (phrases of a template); one that is
    in a single training question always does.
    """
    grams = [ngrams(text, n) for text in training]
    counts = Counter(gram for question in grams for gram in question)
    most = max(1.0, common_share * len(training))
    places = {gram: i for i, text in reversed(list(enumerate(held_out))) for gram in ngrams(text, n)}
    matches = {}
    for i, question in enumerate(grams):
        shared = [places[gram] for gram in question if gram in places and counts[gram] <= most]
        if shared:
            matches[i] = min(shared)
    return matches


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """Every run of `n` words, without punctuation and in lower case.

    >>> sorted(ngrams("One two, three!", 2))
    [('one', 'two'), ('two', 'three')]
    """
    words = WORD.findall(normalized(text))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

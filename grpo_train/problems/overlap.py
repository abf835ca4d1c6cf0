"""Finds questions on both sides of a split: the same text, or for written text a long run of the same words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

WORD = re.compile(r"\w+")


def normalized(text: str) -> str:
    """The text in NFKC form, lower case, with single spaces; punctuation stays, since it may be arithmetic.

    >>> normalized("  What is\\n2 + 3?")
    'what is 2 + 3?'
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact_matches(training: Sequence[str], held_out: Sequence[str]) -> dict[int, int]:
    """{index in training: index in held_out} of questions that are equal after normalisation."""
    held_out_index = {normalized(text): i for i, text in reversed(list(enumerate(held_out)))}
    pairs = ((i, held_out_index.get(normalized(text))) for i, text in enumerate(training))
    return {i: j for i, j in pairs if j is not None}


def ngram_matches(training: Sequence[str], held_out: Sequence[str], *, n: int, common_share: float) -> dict[int, int]:
    """{index in training: index in held_out} of questions that share `n` words in a row.

    N-grams in more than `common_share` of the training questions do not count, as they are phrases of a template; an
    n-gram in a single training question always counts.
    """
    grams = [ngrams(text, n) for text in training]
    counts = Counter(gram for question in grams for gram in question)
    max_count = max(1.0, common_share * len(training))
    held_out_index = {gram: i for i, text in reversed(list(enumerate(held_out))) for gram in ngrams(text, n)}
    matches = {}
    for i, question in enumerate(grams):
        shared = [held_out_index[gram] for gram in question if gram in held_out_index and counts[gram] <= max_count]
        if shared:
            matches[i] = min(shared)
    return matches


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of `n` words, in lower case and without punctuation.

    >>> sorted(ngrams("One two, three!", 2))
    [('one', 'two'), ('two', 'three')]
    """
    words = WORD.findall(normalized(text))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

"""Finds questions on both sides of a split: the same text, or for written text a long run of the same words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher

WORD = re.compile(r"\w+")
VALUED = re.compile("([\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209f\u2150-\u215f\u2460-\u249b])")
"""signs that NFKC would make plain digits of"""
Gram = tuple[str, ...]
Copy = tuple[str, str | None]
"""the text of a question, and its gold answer"""


def normalized(text: str) -> str:
    """The text in NFKC form, lower case, with single spaces; punctuation stays, since it may be arithmetic, and so do powers,
    indices and fractions.

    >>> normalized("  What is\\n2 + 3?"), normalized("\uff12x²?")
    ('what is 2 + 3?', '2x²?')
    """
    parts = VALUED.split(text)
    folded = "".join(part if i % 2 else unicodedata.normalize("NFKC", part) for i, part in enumerate(parts))
    return " ".join(folded.casefold().split())


def spelled(text: str) -> str:
    """The text without white space around it, in which different signs, cases, lines and indentation stay different.

    >>> spelled(" Which is larger, a or A?\\n")
    'Which is larger, a or A?'
    """
    return unicodedata.normalize("NFC", text).strip()


def exact_matches(training: Sequence[Copy], held_out: Sequence[Copy]) -> dict[int, int]:
    """{index in training: index in held_out} of questions that are equal as they are spelled, or have the same gold answer and
    are equal after normalisation."""
    held_out_index = {name: j for j, copy in reversed(list(enumerate(held_out))) for name in _names(copy)}
    found = (
        (i, [held_out_index[name] for name in _names(copy) if name in held_out_index])
        for i, copy in enumerate(training)
    )
    return {i: min(places) for i, places in found if places}


def _names(copy: Copy) -> tuple[Hashable, ...]:
    text, gold = copy
    return spelled(text), (normalized(text), None if gold is None else normalized(gold))


def ngram_matches(
    training: Sequence[str], held_out: Sequence[str], *, n: int, common_share: float, min_share: float = 0.0
) -> dict[int, int]:
    """{index in training: index in held_out} of questions that share runs of `n` words which make up at least `min_share`
    of the words of either; the one with the largest share.

    N-grams in more than `common_share` of the training questions do not count, as they are phrases of a template; an
    n-gram in a single training question always counts. Two questions that only share a phrase ("how much money does she have
    left") do not overlap under a `min_share` of 0.5, and two that differ in a name or the last sentence do.
    """
    grams = [_grams(text, n) for text in training]
    counts = Counter(gram for question in grams for gram in set(question))
    max_count = max(1.0, common_share * len(training))
    places: dict[Gram, list[tuple[int, int]]] = {}
    sizes = []
    for j, text in enumerate(held_out):
        held_out_grams = _grams(text, n)
        sizes.append(len(held_out_grams) + n - 1)
        for position, gram in enumerate(held_out_grams):
            places.setdefault(gram, []).append((j, position))
    matches = {}
    for i, question in enumerate(grams):
        starts: dict[int, tuple[set[int], set[int]]] = {}
        for position, gram in enumerate(question):
            for j, other in places.get(gram, ()) if counts[gram] <= max_count else ():
                mine, its = starts.setdefault(j, (set(), set()))
                mine.add(position)
                its.add(other)
        size = len(question) + n - 1
        shares = {j: max(_covered(mine, n) / size, _covered(its, n) / sizes[j]) for j, (mine, its) in starts.items()}
        best = max(shares, key=lambda j: (shares[j], -j), default=None)
        if best is not None and shares[best] >= min_share:
            matches[i] = best
    return matches


def _covered(starts: set[int], n: int) -> int:
    """Number of words that the runs of `n` words from these positions cover."""
    return len({start + k for start in starts for k in range(n)})


def shared_words(first: str, second: str, n: int) -> str:
    """The longest run of words that stands in both texts, if it has at least `n`; else the first text, normalised.

    >>> shared_words("Ann has two red apples. Why?", "Where are two red apples?", 2)
    'two red apples'
    """
    words, others = WORD.findall(normalized(first)), WORD.findall(normalized(second))
    match = SequenceMatcher(None, words, others, autojunk=False).find_longest_match()
    return " ".join(words[match.a : match.a + match.size]) if match.size >= n else normalized(first)


def _grams(text: str, n: int) -> list[Gram]:
    """All runs of `n` words in their order, in lower case and without punctuation."""
    words = WORD.findall(normalized(text))
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def ngrams(text: str, n: int) -> set[tuple[str, ...]]:
    """All runs of `n` words, in lower case and without punctuation.

    >>> sorted(ngrams("One two, three!", 2))
    [('one', 'two'), ('two', 'three')]
    """
    return set(_grams(text, n))

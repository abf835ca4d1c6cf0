"""Finds the answer that a text commits to: its last one, unless denied, withdrawn, a placeholder, or one of several.

`extract` says where the answer must be: in a tag, in a box, after ####, after a phrase such as "the answer is", in a
JSON field, as the last number, or (`final`) in whichever of these places the text has, the last number being tried
last. Thoughts, such as those in <think>, do not count.

If a text has several places with different contents, the last one counts only if words stand between them:
"... <answer>9</answer> Wait, I counted one twice: <answer>8</answer>" is a correction, but
<answer>8</answer><answer>9</answer> is fishing for the right one.
"""

from __future__ import annotations

import re
from itertools import pairwise

from reward_training.answers.finding.committed_number import committed_number
from reward_training.answers.finding.denials import DENIED_AFTER, NEAR, SAID_TO_BE_FALSE, WITHDRAWN
from reward_training.answers.finding.places import (
    FINDERS,
    Place,
    innermost,
    innermost_phrases,
    is_placeholder,
    is_same,
    joined,
)
from reward_training.answers.finding.thoughts import answer_of
from reward_training.answers.finding.unmarked import bare_answer, bare_choice, committed_letter
from reward_training.answers.plain_text import plain, visible
from reward_training.answers.values.reading import read
from reward_training.answers.values.value import Words

OTHERS_WORDS = re.compile(
    r"<(grader|judge|marker|examiner|evaluator|reviewer|teacher|verifier|system|user|human|verdict|grading|evaluation)>.*?(?:</\1>|$)",
    re.IGNORECASE | re.DOTALL,
)
MAX_SHORT = 400
"""characters of a short answer; denials are not looked for in longer contents"""


def final_answer(
    text: str,
    extract: str,
    *,
    tag: str = "answer",
    field: str = "answer",
    prompt: str = "",
    letters: bool = False,
    units: bool = True,
) -> str | None:
    """The answer in the place that `extract` names, stripped; None where the text commits to nothing there.

    With `letters`, `final` looks for a letter in texts without such a place, before it looks for a number. With
    `units`, a number in a sentence brings its unit.
    """
    text = without_thoughts(visible(text))
    if extract == "whole":
        return _committed(text.strip())
    if extract == "last_number":
        return committed_number(text, prompt, units=units)
    if extract == "final":
        return _final(text, tag, field, prompt, letters=letters, units=units)
    places = list(FINDERS[extract](text, tag, field))
    return _last(text, innermost_phrases(places) if extract == "answer_is" else places)


def without_thoughts(text: str) -> str:
    """The text without thoughts and words attributed to a grader or user."""
    return OTHERS_WORDS.sub("", answer_of(text))


def _final(text: str, tag: str, field: str, prompt: str, *, letters: bool, units: bool) -> str | None:
    places = [place for find in FINDERS.values() for place in find(text, tag, field)]
    if not places and letters:
        return committed_letter(text) or bare_choice(text) or committed_number(text, prompt, units=units)
    if not places and (bare := bare_answer(text)) is not None:
        return _committed(bare)
    answer = _last(text, innermost(places))
    if answer is not None:
        return answer
    ends = [place.end for place in places if not is_placeholder(place.content)]
    rest = text[max(ends, default=0) :]
    if ends and not WITHDRAWN.search(rest):
        return None  # several answers without a correction, or a denied one
    found = (committed_letter(rest) if letters else None) or committed_number(rest, prompt, units=units)
    return found or (None if re.search(r"\d", plain(rest)) else committed_letter(rest))


def _last(text: str, places: list[Place]) -> str | None:
    """The answer in the last place that is no placeholder; None if it is denied, withdrawn or contradicted."""
    places = joined(text, sorted(places, key=lambda p: p.start))
    real = _without_words([place for place in places if _may_count(text, place)])
    if not real:
        return None
    last, rest = real[-1], text[real[-1].end :]
    if last.kind == "boxed" and OPERATED.match(rest):
        return None
    if last.kind != "answer_is" and DENIED_AFTER.match(rest[:NEAR].lstrip("$*`)}]. ")):
        return None
    if any(_contradicts(text, before, after) for before, after in pairwise(real)) or WITHDRAWN.search(rest):
        return None
    if len(real) > 1 and not is_same(real[-2].content, last.content) and UNDECIDED.search(rest):
        return None
    return _committed(last.content.strip())


OPERATED = re.compile(
    r"\s*(?:\\times|\\cdot|\\(?:pi|sqrt|frac)\b|\*(?!\*)|/\s*[\d(]|\^(?!\s*\{?\s*\\(?:circ|prime))|[-+]\s*\d|(?:or|and)\s+[$\\(]*-?\d|,\s*[$\\(]*-?\d|(?:million|billion|thousand|hundred|dozen)\b)"
    r"|\d|\.\d|_\d"
)
"""after a box: the formula goes on"""


def _without_words(places: list[Place]) -> list[Place]:
    """The places without phrases that introduce words, where a tag, box or line holds something else."""
    marked = [place for place in places if place.kind != "answer_is"]
    if not any(not isinstance(read(place.content), Words) for place in marked):
        return places
    return [place for place in places if place.kind != "answer_is" or not isinstance(read(place.content), Words)]


PART_OF_MORE = re.compile(
    r"(?:\bnot\s|≠\s*|\\neq?\s*|\d|\^\s*\{?|[$=(]\s*-|\\(?:frac|sqrt|ln|log)\s*(?:\{[^{}\n]*\}\s*)?\{?)\$?\Z"
)
"""before a box: it is only a part of the answer, or not the answer"""
CALLED_WRONG = re.compile(r"\b(?:was|were|is) (?:a |an |the |my )?(?:wrong|incorrect|false|mistaken)\b", re.IGNORECASE)


def _may_count(text: str, place: Place) -> bool:
    """Whether a place has an answer in it that the text before does not call false."""
    before = text[max(place.start - NEAR, 0) : place.start]
    if place.kind == "boxed" and PART_OF_MORE.search(before):
        return False
    is_denied = SAID_TO_BE_FALSE.search(before) or CALLED_WRONG.search(place.content)
    return not is_placeholder(place.content) and not is_denied


def _contradicts(text: str, before: Place, after: Place) -> bool:
    """Whether a place says something else than the one before it, and does not replace it."""
    rest_of_sentence = re.split(r"\n|[.!?;]", text[after.end : after.end + NEAR], maxsplit=1)[0]
    is_replaced = _is_replaced(text[before.end : after.start], rest_of_sentence)
    return not is_replaced and not is_same(before.content, after.content)


RESTATED = re.compile(r"\b(?:that is|i\.e\.|equivalently|in other words|equals?|the same as)\b|=", re.IGNORECASE)
UNDECIDED = re.compile(r"\b(?:either|both|whichever|not sure|can't decide|cannot decide)\b", re.IGNORECASE)
OPTION = re.compile(r"\b(?:options?|guess(?:es)?|possibilit\w+|candidates?|case|second|if)\b", re.IGNORECASE)
"""a word before an answer that is one of several"""
ALTERNATIVE = re.compile(r"\b(?:or|another|others?|alternatively|also|either|else)\b", re.IGNORECASE)


def _is_replaced(between: str, rest: str) -> bool:
    """Whether the text between two answers makes the second one replace the first.

    It does if the text has two words, or one that corrects. `rest` is the end of the second answer's sentence.
    """
    if (
        WITHDRAWN.search(between)
        or RESTATED.search(between)
        or re.search(r"(?i)\b(?:no|so|then|thus|hence|final|finally)\b|##", between)
    ):
        return True
    if OPTION.search(between) and not re.search(r"(?i)\b(?:so|therefore|final|finally)\b", between):
        return False
    if ALTERNATIVE.search(f"{between} {rest}") and not re.search(r"[\n.!?;]", between):
        return False
    words = [word for word in re.findall(r"[A-Za-z]+", between) if word.lower() not in ("answer", "boxed", "json")]
    return len(words) >= 2


DENIAL = re.compile(r"^(?:not|isn't|is not|never|n't|neither)\b\s*", re.IGNORECASE)
EXCLUSION = re.compile(r"^(?:anything|everything|all|any\w*)\s+(?:but|except)\b", re.IGNORECASE)
ASIDE_DENIAL = re.compile(r"\s*\(\s*(?:and not|not|rather than|instead of)\b[^()]*\)", re.IGNORECASE)
TRAILING_DENIAL = re.compile(
    r"(?:,\s*|(?<!\bis)(?<!\bare)(?<!\bbut)(?<!\bdo)(?<!\bdoes)(?<!\bcan)(?<!\bwas)\s+|^)\b(?:and not|not|rather than|instead of|as opposed to)\b(?!\s+sure)(?:[^,;()]|\([A-H]\))*$",
    re.IGNORECASE,
)
ASSURANCE = re.compile(
    r",?\s*(?:(?:no|without(?: a)?) doubt|of course|certainly|indeed|obviously|for sure|i am sure|definitely|exactly)\s*$",
    re.IGNORECASE,
)
CORRECTION = re.compile(r"\.{2,}\s*no,? wait,?\s*|\bno,? wait,?\s*|\bscratch that[,;:]?\s*", re.IGNORECASE)
TURN = re.compile(r"[,;:]?\s*\b(?:but|so|it's|it is|hence|therefore)\b\s*(?:it's|it is)?\s*", re.IGNORECASE)


def _committed(content: str) -> str | None:
    """What a short answer does not deny: `Paris` of `Paris, not Lyon`, `B` of `not A, so B`; None if all is denied."""
    content = re.sub(r"^none other than\s+", "", content.strip(), flags=re.IGNORECASE)
    if "\n" in content or len(content) > MAX_SHORT:
        return content or None
    if EXCLUSION.match(content):
        return None
    content = ASSURANCE.sub("", CORRECTION.split(content)[-1])
    if DENIAL.match(content):
        turn = TURN.search(content)
        is_word = turn is None and not re.search(r"\d", plain(content))
        return content if is_word else (content[turn.end() :].strip() or None) if turn else None
    return TRAILING_DENIAL.sub("", ASIDE_DENIAL.sub("", content)).strip() or None

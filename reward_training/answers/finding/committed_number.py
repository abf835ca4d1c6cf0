"""Finds the last number that a text commits to, for texts that mark no place for the answer.

The last number in a text is often not its answer: it may be denied, one end of a range, an operand, a list number, the
exponent of a unit, an echo of the prompt, or part of a question, an unfinished sentence, a check or a footer. Such
numbers are passed over, or make the text commit to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from reward_training.answers import markup
from reward_training.answers.finding.denials import DENIED_AFTER, DENIED_VERB, DENIES, DOUBTS, NEAR, TAKEN_BACK
from reward_training.answers.number import GROUPED, SIGN, unsigned
from reward_training.answers.plain_text import plain
from reward_training.answers.values.evaluation import CONSTANTS
from reward_training.answers.values.number_words import LARGE
from reward_training.answers.values.quantity import NUMBER_WORDS, Quantity
from reward_training.answers.values.reading import read
from reward_training.answers.values.units import unit_after
from reward_training.answers.values.value import Expression, Named, Relation, Words

GOES_ON = re.compile(r"\b(?:we|i|you|they|and|then|to|the|is|are|now|so|by|that|which|let)\b", re.IGNORECASE)
MAX_UNIT_WORDS = 3
"""number of words that may follow the number in an unfinished sentence"""
MAX_CHARACTERS = 8000
"""characters at the end of a text that are read; its answer is there"""
MIXED_NUMBER = r"\d{1,6}\s\d{1,6}\s?/\s?\d{1,6}(?![\d/])"
POWER_OR_FRACTION = r"\s*/\s*\d+(?![\d/])|\s*[*x]\s*10\s*\^\s*\{?\s*[-+]?\d+\s*\}?"
CANDIDATE = re.compile(
    rf"(?<![A-Za-z\d_.,]){SIGN}\s?(?:{MIXED_NUMBER}|{unsigned(spaces=True)}(?:{POWER_OR_FRACTION})?)|[\ue000-\uf770]"
)
"""a number or a fraction that stands apart from words and other numbers"""
LIST_MARK = re.compile(
    r"(?m)^[ \t]*(?:\(?\d{1,2}[.)](?=\s)|(?:step|part|method|case|line|question|q)\s*\d{1,2}\s*[:.)-]|[-*•]\s+(?=\D))",
    re.IGNORECASE,
)
CIRCLED_NUMBER = re.compile(r"[①-⑳⓪❶-❿]")
EXPONENT_OF_UNIT = re.compile(r"(?<=[a-zA-Z])\^\{?(-?\d+)\}?")
SENTENCE = re.compile(
    r"[^\n.!?;\u3002\uff01\uff1f\uff1b]*(?:\.(?=\d)[^\n.!?;\u3002\uff01\uff1f\uff1b]*)*(?:[.!?;\u3002\uff01\uff1f\uff1b]+|\n|$)"
)
CHECKS = re.compile(r"^\s*(?:let me |to |we )?(?:check|verify|proof|double-check|test|sanity)\b", re.IGNORECASE)
BOILERPLATE = re.compile(
    r"\b(?:24/7|24 hours a day|our (?:tutors?|team|support|experts?)|sent from|signature|unsubscribe|let me know|feel free|copyright|all rights|version|page|chapter|https?|www|©|happy to help|good luck|have a (?:great|nice)|thank|rated?|stars?|tokens?|generated|updated|contact|call|visit)\b|©",
    re.IGNORECASE,
)
REFERENCE = re.compile(
    r"(?m)^\s*\[\d+\]\s+\S.*$|\b(?:pp?|ch|vol|sec|fig|eq)\.\s*\d+(?:\s*-\s*\d+)?"
    r"|(?<=[a-z]{4})(?<!equals)\s\[\d{1,3}\](?=[.,])",
    re.IGNORECASE,
)
"""an entry in a list of sources, a reference to a page or chapter, and a mark such as [2] that points to a source"""
SUPPOSES = re.compile(
    r"^\s*(?:but |and |so |now )?(?:if|suppose|assum\w+|when|since|because|although|imagine)\b", re.IGNORECASE
)
GRADING = re.compile(
    r"\b(?:confidence|certainty|scores?|grades?|rewards?|verdict|rating)\b|\d\s*(?:marks|points)\b|\b(?:marks|points)\s*[:=]",
    re.IGNORECASE,
)
ENUMERATION = re.compile(r"(?<!\d)(?:\d{1,20}(?:\s*,\s*|\s+)){6,}\d")
"""seven whole numbers or more in a row"""
UNCERTAIN = re.compile(
    r"\b(?:possible|candidates?|options|guess(?:es)?|any of|one of|between|either|or|maybe|perhaps|could be|might be|possibly|more than|less than|at least|at most)\b",
    re.IGNORECASE,
)
FILLERS = {"the", "and", "that", "are", "told", "has", "have", "was", "were", "know", "given"}
OPERATOR_BEFORE = re.compile(
    r"(?:[+*/^]|\*\*|(?<=\d)\s*-|(?<=\s)x|\btimes|\bplus|\bminus|divided by)\s*\(?$", re.IGNORECASE
)
OPERATOR_AFTER = re.compile(
    r"^\s*\)?\s*(?:[+*/^!]|\*\*|-\s*\d|x\s*\d|\btimes|\bplus|\bminus|divided by|percent of|% of)", re.IGNORECASE
)


def committed_number(text: str, prompt: str = "", *, units: bool = True) -> str | None:
    r"""The number, or the inline formula, in ASCII digits, otherwise as it is written; None without one.

    With `units`, the unit behind it is part of it.

    >>> committed_number("So he has 9 cards, not 8."), committed_number("There are 40-50 people."), committed_number("5 + 3 = 8")
    ('9', None, '8')
    >>> committed_number(r"The speed is $3 \times 10^{8}$ m/s.")
    '3 \\times 10^{8} m/s'
    """
    asked = plain(prompt)
    text, formulas = _with_marks(LISTED.sub(_as_one_formula, text[-MAX_CHARACTERS:]))
    found = _committed(text, asked, units)
    return None if found is None else FORMULA_MARK.sub(lambda match: formulas[ord(match.group()) - FIRST_MARK], found)


FIRST_MARK, MAX_FORMULAS = 0xE000, 6000
FORMULA_MARK = re.compile("[\ue000-\uf770]")
"""stands for a formula while its sentence is read"""
INLINE = re.compile(r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]{1,400}?)(?<!\\)\$", re.DOTALL)
PLAIN = re.compile(rf"\s*{SIGN}\s*{unsigned(spaces=True)}\s*(?:\\?%)?\s*")


ONE_FORMULA = r"(?:\$[^$\n]{1,80}\$|\\\([^\n]{1,80}?\\\))"
LISTED = re.compile(rf"{ONE_FORMULA}(?:(?:\s*,\s*(?:and|or)?\s*|\s+(?:and|or)\s+){ONE_FORMULA})+")
"""inline formulas with only commas and conjunctions between them: they are one list"""


def _as_one_formula(match: re.Match[str]) -> str:
    formulas = [
        found.strip("$").removeprefix("\\(").removesuffix("\\)") for found in re.findall(ONE_FORMULA, match.group())
    ]
    return f"${', '.join(formulas)}$"


def _with_marks(text: str) -> tuple[str, list[str]]:
    """The text with a mark for each inline formula that is a value by itself and no plain number; and those formulas."""
    formulas: list[str] = []

    def marked(match: re.Match[str]) -> str:
        content = next(group for group in match.groups() if group is not None)
        if len(formulas) >= MAX_FORMULAS or not _is_result(content):
            return match.group()
        formulas.append(content.strip())
        return chr(FIRST_MARK + len(formulas) - 1)

    return INLINE.sub(marked, FORMULA_MARK.sub(" ", text)), formulas


def _is_result(formula: str) -> bool:
    """Whether an inline formula may be an answer that is more than a plain number, a name or a true equation of numbers."""
    if PLAIN.fullmatch(formula) or ("\\" not in formula and formula[:1].isspace() != formula[-1:].isspace()):
        return False
    value = read(formula)
    if isinstance(value, Named | Quantity) and "=" in formula:
        number = value.value if isinstance(value, Named) else value
        return not isinstance(number, Quantity) or PLAIN.fullmatch(formula.rpartition("=")[2]) is None
    if isinstance(value, Relation):
        return PLAIN.fullmatch(formula.rpartition("=")[2]) is None  # in a + b = 5 the number counts
    is_name = isinstance(value, Expression) and value.tree.operation == "symbol" and value.tree.name not in CONSTANTS
    return not isinstance(value, Words) and not is_name


def only_number(text: str) -> str | None:
    """The number that a short text states in prose, with its unit; None where it has several, or bounds or changes it.

    >>> only_number("There are 42 pupils."), only_number("one of 40, 41 and 42"), only_number("half of 42")
    ('42', None, None)
    """
    if any(word in NUMBER_WORDS for word in re.findall(r"[a-z]+", text.lower())):
        return None
    text = HAN.sub(" of ", text)
    if not PROSE.fullmatch(text) or len(CANDIDATE.findall(_readable(text))) != 1 or CHANGES.search(text):
        return None
    return committed_number(text.rstrip(" .") + ".")


HAN = re.compile(r"[\u4e00-\u9fff]+")
PROSE = re.compile(r"(?=.*(?<![\\A-Za-z])[A-Za-z]{2})[\w ,.'\u2019\"()$%:/°*\\{}\n!-]+", re.ASCII)
CHANGES = re.compile(
    r"\b(?:half|third|quarter|twice|thrice|double|triple|square[sd]?|cube[sd]?|root|percent|percentage|more|less|fewer|greater|smaller|larger"
    r"|times|dozens?|most|least|than|up to|if|unless|multiples?|factors?|divisors?|power|inverse|reciprocal|minus|negative|hundreds?|thousands?|"
    r"millions?|billions?|nearly|almost|roughly|around|over|under|above|below|until|before|after|exceeds?|some|per|base|modulo|mod|or|guess|but|except|anything|other|not|never|no|neither|nor|cannot|without|false|wrong|incorrect|near|close|probably|perhaps|maybe|possibly|factorial|inverse|excluded|impossible|point|choose|plus|else|also|halves|thirds|quarters|fifths|tenths|hundredths)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
"""words beside a number that make it another one, or a bound"""


def _committed(text: str, asked: str, units: bool) -> str | None:
    sentences = [s for s in _sentences(_readable(text), asked) if not CHECKS.match(s) and not BOILERPLATE.search(s)]
    if sentences and SUPPOSES.match(sentences[-1]) and not _is_finished(sentences[-1]):
        del sentences[-1]
    committing = [s for s in sentences if GRADING.search(asked) or not GRADING.search(s)]
    for sentence in reversed(committing):
        if TAKEN_BACK.search(sentence) and not _speaks_of_numbers(sentence):
            return None
        if _speaks_of_numbers(sentence):
            return _in_sentence(sentence, units)
    return None


QUOTE = re.compile(r"(?m)^[ \t]*>[ \t]*")
CALCULATED = re.compile(r"<<[^<>\n]*>>")
"""what a calculator was asked, as in GSM8K's solutions"""
EMPHASISED = re.compile(r"(?<![\w*])\*([^*\s][^*\n]{0,40})\*(?![\w*])")


def _readable(text: str) -> str:
    """The text without markup, sources, list marks, exponents of units and signs of currencies."""
    text = QUOTE.sub("", CALCULATED.sub("", text))
    text = EMPHASISED.sub(r"\1", markup.code_and_bold_as_spaces(markup.tags_as_spaces(text)))
    text = re.sub(r"\bnone other than\b", "", REFERENCE.sub(" ", text), flags=re.IGNORECASE)
    text = markup.fractions_of_numbers(markup.operators(text))
    text = CIRCLED_NUMBER.sub(" ", LIST_MARK.sub(" ", plain(text)))
    text = markup.thousands(
        EXPONENT_OF_UNIT.sub(lambda match: "\u00b2\u00b3"[int(match[1]) - 2] if match[1] in ("2", "3") else "", text)
    )
    return re.sub(r"[$€£₹\\]", "", text)


def _sentences(text: str, prompt: str) -> Iterator[str]:
    """The sentences of a text, except questions and those that the prompt has too."""
    asked = {_letters(sentence) for sentence in SENTENCE.findall(prompt)} | {_letters(prompt)}
    asked.discard("")
    for sentence in SENTENCE.findall(text):
        is_told = sentence.strip() and not sentence.rstrip().endswith("?") and _letters(sentence) not in asked
        if is_told and not _restates(sentence, prompt):
            yield sentence


STATED = re.compile(r"\b(?:is|are|equals?)\s+\$?(-?\d[\d,.]*)")
RESULT = re.compile(r"\b(?:is|are|equals?)\s+\$?(-?\d[\d,]*(?:\.\d+)?)\W*$")


def _restates(sentence: str, prompt: str) -> bool:
    """Whether a sentence has no equation or result, only numbers of the prompt, and hardly a word that is not in it."""
    if "=" in sentence:
        return False
    result = RESULT.search(sentence)
    if (
        result is not None
        and "," not in sentence
        and result.group(1) not in {stated.group(1) for stated in STATED.finditer(prompt)}
    ):
        return False  # the least common multiple of 6 and 2 is 6
    words = {word for word in re.findall(r"[a-z]{3,}", sentence.casefold()) if word not in FILLERS}
    known = set(re.findall(r"[a-z]{3,}", prompt.casefold()))
    numbers, given = set(re.findall(r"\d+", sentence)), set(re.findall(r"\d+", prompt))
    return len(words) >= 3 and numbers <= given and len(words - known) <= len(words) // 5


def _letters(text: str) -> str:
    """The letters and digits of a text, for comparing it whatever its punctuation."""
    return re.sub(r"\W", "", text).casefold()


def _speaks_of_numbers(sentence: str) -> bool:
    return CANDIDATE.search(sentence) is not None


def _is_finished(sentence: str) -> bool:
    return sentence.rstrip()[-1:] in ".!;" or sentence.endswith("\n")


def _in_sentence(sentence: str, units: bool) -> str | None:
    """The last number that a sentence states as its result; None where it states none, or leaves open which."""
    matches = list(CANDIDATE.finditer(sentence))
    if not matches or _leaves_open(sentence, num_numbers=len(matches)):
        return None
    index = next((i for i in reversed(range(len(matches))) if not _is_denied(*_around(sentence, matches[i]))), None)
    if index is None:
        return None
    match, end_of_previous = matches[index], matches[index - 1].end() if index else 0
    before, after = _around(sentence, match)
    is_one_of_several = _is_range(before, after) or UNCERTAIN.search(sentence[end_of_previous : match.start()])
    if is_one_of_several or (not _is_finished(sentence) and _goes_on(after)):
        return None
    if (whole := _within(sentence, match)) is not None:
        around = sentence[: whole.start()], sentence[whole.end() :]
        return None if _is_denied(*around) else whole.group()
    is_signed_apart = re.match(r"[-+]\s", match.group()) and before.rstrip()[-1:].isalnum()
    if is_signed_apart or _is_operand(before, after) or _is_division(match.group()) or NO_RESULT.search(before):
        return None
    large = LARGE.match(after)
    rest = after[large.end() :] if large else after
    variables = VARIABLES.match(rest)
    unit = variables.group() if variables and not unit_after(rest) else unit_after(rest) if units else ""
    number = MIXED.sub(r"\1_\2", match.group().strip()).replace(" ", "").replace("_", " ")
    return number + (large.group().lower() if large else "") + unit.rstrip()


MIXED = re.compile(r"(\d)\s(\d+\s?/)")
NO_RESULT = re.compile(
    r"(?:[\u221a\u2265\u2264<\u2261\u221d]|(?<![=-])>|\b(?:mod|modulo|divisible by|divides|multiples? of|factors? of|log|ln|sin|cos|tan|sqrt|root of|power of|base|sum of|product of|square of|negative|exclud\w+|ruled? out|eliminat\w+|discard\w*|reject\w*|all but|far from|exceeds?|divide by|multiply by|double|within \d+ of|problem))\s*\(?$",
    re.IGNORECASE,
)
"""before a number that is a part of something else"""
GROUP = re.compile(r"\([^()]*,[^()]*\)|\[[^\[\]]*,[^\[\]]*\]|\{[^{}]*,[^{}]*\}|[\[(][^()\[\]]*,[^()\[\]]*[\])]")
SIMPLE = rf"{SIGN}\d{{1,15}}(?:\.\d{{1,15}})?(?![\d])"
RATIO = re.compile(rf"{SIMPLE}\s*:\s*{SIMPLE}(?:\s*:\s*{SIMPLE})?")
ASSIGNED = re.compile(rf"\b[a-z]\s*=\s*{SIMPLE}(?:\s*(?:,\s*(?:and)?|and)\s*[a-z]\s*=\s*{SIMPLE})+")
ENUMERATED = re.compile(rf"{SIMPLE}(?:\s*,\s*{SIMPLE}){{0,8}}\s*,?\s+and\s+{SIMPLE}")


def _within(sentence: str, match: re.Match[str]) -> re.Match[str] | None:
    """The tuple, list, ratio or assignments that a number at the end of a sentence is a part of; None without one."""
    for pattern in (GROUP, RATIO, ASSIGNED, ENUMERATED):
        for found in pattern.finditer(sentence, max(0, match.start() - NEAR), match.end() + NEAR):
            if found.start() <= match.start() and match.end() <= found.end() and not _is_unread(found.group()):
                return found
    return None


def _is_unread(text: str) -> bool:
    value = read(text)
    return isinstance(value, Words) and RATIO.fullmatch(text) is None


VARIABLES = re.compile(
    r"(?!st\b|nd\b|rd\b|th\b)[A-Za-z]+(?![A-Za-z\u00b2\u00b3])|\s(?:[b-zB-HJ-Z](?![\w'/^-]|\s*/)|pi\b|\u03c0)"
)
"""letters right after a number, or one alone behind it: 12x, 12 x"""


def _around(sentence: str, match: re.Match[str]) -> tuple[str, str]:
    """NEAR characters of text before a match, and NEAR after it."""
    return sentence[max(0, match.start() - NEAR) : match.start()], sentence[match.end() : match.end() + NEAR]


def _leaves_open(sentence: str, num_numbers: int) -> bool:
    """Whether a sentence lists numbers, or names several of them as possible."""
    if ENUMERATION.search(re.sub(GROUPED, "0", sentence)):
        return True
    is_uncertain = UNCERTAIN.search(sentence) and num_numbers > 1
    return bool(is_uncertain) and not re.search(r"\bnot\b|\bbut\b", sentence)


def _is_denied(before: str, after: str) -> bool:
    return any(phrase.search(before) for phrase in (DENIES, DENIED_VERB, DOUBTS)) or bool(DENIED_AFTER.match(after))


def _goes_on(after: str) -> bool:
    """Whether the text after a number in an unfinished sentence is more than a unit."""
    following = re.split(r",?\s*\b(?:not|rather than|instead of|and not|because|since|as)\b", after)[0]
    return bool(GOES_ON.search(following)) or len(re.findall(r"[A-Za-z]+", following)) > MAX_UNIT_WORDS


def _is_range(before: str, after: str) -> bool:
    """Whether a number is one end of a range: 40-50."""
    return bool(re.search(r"\d\s*-\s*$", before) or re.match(r"\s*-\s*\d", after))


def _is_division(value: str) -> bool:
    """Whether a fraction is a division with a whole result that was not worked out: 64 / 8."""
    top, slash, bottom = value.partition("/")
    if not slash or not top.strip().isdigit() or not bottom.strip().isdigit():
        return False
    return int(bottom) != 0 and int(top) % int(bottom) == 0


def _is_operand(before: str, after: str) -> bool:
    """Whether a number stands in a sum without a result."""
    if OPERATOR_AFTER.match(after) and not re.match(r"^!+\s*$|^!+\s", after):
        return True
    side = before.rpartition("=")[2] if "=" in before else before
    return OPERATOR_BEFORE.search(side) is not None

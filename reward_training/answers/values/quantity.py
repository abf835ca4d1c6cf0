"""Reads a short text as one number.

The number may have separators or a unit, and be a fraction, a percentage, a power of ten, or words. A text with more than
one value (a list, a range, two alternatives) is no number, nor is one with a value that would have to be computed (5!,
5^2, a product). Only fractions are evaluated; `reading` reads equations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from reward_training.answers import markup
from reward_training.answers.number import SIGN, as_fraction, power_of_ten, unsigned
from reward_training.answers.plain_text import plain
from reward_training.answers.values.number_words import LARGE, LARGE_VALUES, MAGNITUDES, WORDS, chinese, english
from reward_training.answers.values.units import canonical, is_known, unit_after

MAX_CHARACTERS = 2000
"""of a short text; a longer one is no number"""

UNSIGNED = unsigned(spaces=True, open_point=True)
WRITTEN = re.compile(rf"{SIGN}\s*{UNSIGNED}")
FRACTION = re.compile(rf"({SIGN}\s*{UNSIGNED})\s*/\s*({UNSIGNED})")
"""a quotient of two numbers: 3/4"""
MIXED = re.compile(rf"({SIGN})(\d+)\s+(\d+)\s*/\s*(\d+)")
"""a whole number and a fraction: 2 1/2"""
EXPONENT = r"10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d+)(?:\s*\})?"
"""10^3, 10**3, 10^{3}; its group is the exponent"""
PURE_POWER = re.compile(rf"({SIGN})\s*{EXPONENT}")
TIMES_POWER = re.compile(rf"\s*(?:\*|x|{markup.TIMES})\s*{EXPONENT}")
LEADING_CURRENCY = re.compile(r"([-+]?)\s*([$€£₹¥])\s*(?=[\d.])")
LOOKALIKE = re.compile(r"[OoI\u0417\u0437\u041e\u043e\u039f\u03bf](?!\w)")
"""a letter that looks like a digit, right after a number"""
LOOKALIKES = re.compile(r"[OoIl\u041e\u043e\u0417]{2,}")
UNIT = re.compile(r"[\s\-]*((?:[^\W\d_]|[°%$€£₹/. ']|\^-?\d+)*)")
"""letters, signs of units and powers of them, to the end of a text"""
MAX_UNIT_WORDS = 4
LEADING = re.compile(
    r"^(?:(?:it|that|this|which|they|x|y|z|n|k|[a-zA-Z]\([a-z]\)|(?:the )?(?:answer|result|total|sum|product|value|area|length))\s*(?:is|are|=|equals|:)\s*"
    r"|(?:is|are|equals|exactly|about|approximately|approx\.?|around|just|so|therefore|thus|hence)\s+|[=:≈~]\s*|(?:us|eur|usd|rs\.?)\s*(?=[\d$€£]))+",
    re.IGNORECASE,
)
"""words that introduce a number without changing it"""
OTHER_VALUES = re.compile(
    r"\b(?:or|and|to|between|versus|vs|than|least|most|either|maybe|perhaps|probably|possibly|not|no|never|i|if|plus|minus|times|point|over|choose|mod|modulo|below|above|beyond|else|also|"
    r"hal(?:f|ves)|thirds?|quarters?|fifths?|tenths?|hundredths?|thousandths?|factorial|inverse|doubled|twice|negat\w+|undefined|imaginary|unknown|anything|upwards|ninths|sixths|eighths|sevenths|tens|bn|mn|dozens|pairs|gross|pi|hex|excluded|impossible|wrong|squared|cubed|or so)\b",
    re.IGNORECASE,
)
"""words after a number that bring in another value, or leave it open"""
ASIDE = re.compile(r"(.+?)\s*\(([^()]*)\)\s*\.?")


@dataclass(frozen=True)
class Quantity:
    """A value and the unit after it."""

    value: Fraction
    unit: str = ""
    """as `units.canonical` spells it; empty where there is none"""


def quantity(text: str) -> Quantity | None:
    """The one number that the text states; None where it states none, or more than one.

    >>> quantity("$1,250.50").value == Fraction("1250.5"), quantity("3/4").value, quantity("15 cm").unit
    (True, Fraction(3, 4), 'cm')
    >>> quantity("4 or 5"), quantity("5!"), quantity("3 + 5"), quantity("10,00")
    (None, None, None, None)
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = LEADING.sub("", _undecorated(plain(text)))
    if (aside := ASIDE.fullmatch(text)) is not None:
        return _with_aside(aside.group(1), aside.group(2))
    return in_words(text) or _written(text)


def _undecorated(text: str) -> str:
    """The text without Markdown, HTML, LaTeX's commands and a full stop at the end."""
    text = markup.without_bold(markup.without_formatting_tags(text).strip()).strip(markup.DECORATION)
    text = markup.unwrapped(markup.without_maths_delimiters(text), gap=" ")
    text = markup.spaces(markup.degrees(markup.thousands(text)))
    text = markup.fractions_of_numbers(markup.unescaped(text))
    text = re.sub(r"!{2,}$", "", text.strip())
    return re.sub(r"\s+", " ", text.strip().rstrip(".;,").strip(markup.EMPHASIS + "_ ")).strip()


def _with_aside(before: str, inside: str) -> Quantity | None:
    """The number before an aside that names no other, `8 (eight)`, or denies one, `18 (not 20)`; else None."""
    found = quantity(before)
    if found is None or re.match(r"\s*(?:not|instead of|rather than)\b", inside, re.IGNORECASE):
        return found
    other = quantity(inside)
    names_no_value = not re.search(r"\d", plain(inside)) and not re.search(r"\bor\b", inside, re.IGNORECASE)
    return found if (other is not None and other.value == found.value) or (other is None and names_no_value) else None


def in_words(text: str) -> Quantity | None:
    """The value of an English or Chinese number in words, or of any number after `minus` or `negative`; else None."""
    if (signed := re.fullmatch(r"(?:minus|negative)\s+(.+)", text.lower())) is not None:
        found = quantity(signed.group(1))
        return None if found is None or found.value < 0 else Quantity(-found.value, found.unit)
    if (numeral := chinese(text)) is not None:
        return Quantity(Fraction(numeral))
    words = english(text)
    if words is None or OTHER_VALUES.search(words[1]):
        return None
    value, unit = words
    return Quantity(Fraction(value), unit)


def _written(text: str) -> Quantity | None:
    """A number in digits and at most a unit after it; None for anything else."""
    currency = LEADING_CURRENCY.match(text)
    sign = _sign(currency.group(1)) if currency else 1
    read = _value_and_rest(text[currency.end() :] if currency else text)
    if read is None:
        return None
    value, rest = read
    unit = _unit(rest)
    if unit is None:
        return None
    return Quantity(sign * value, (canonical(currency.group(2)) + unit if currency and unit != "$" else unit))


def _value_and_rest(text: str) -> tuple[Fraction, str] | None:
    """The value of the number at the start, by the first notation that fits and the text after it; None without one."""
    value: Fraction | None
    if (match := PURE_POWER.match(text)) is not None:
        value = power_of_ten(match.group(2))
        value = None if value is None else _sign(match.group(1)) * value
    elif (match := MIXED.match(text)) is not None:
        value = _mixed(match)
    elif (match := FRACTION.match(text)) is not None:
        value = _quotient(as_fraction(match.group(1)), as_fraction(match.group(2)))
    else:
        return _multiplied(text)
    return None if value is None else (value, text[match.end() :])


def _multiplied(text: str) -> tuple[Fraction, str] | None:
    """The value of a number times the power of ten and the word such as million that may stand after it, and the text
    after those; None where no value is there.
    """
    match = WRITTEN.match(text)
    value = as_fraction(match.group()) if match else None
    if match is None or value is None:
        return None
    rest = text[match.end() :]
    if (times := TIMES_POWER.match(rest)) is not None:
        power = power_of_ten(times.group(1))
        if power is None:
            return None
        value, rest = value * power, rest[times.end() :]
    if (large := LARGE.match(rest)) is not None:
        value, rest = value * LARGE_VALUES[large.group(1).lower()], rest[large.end() :]
    return value, rest


def _sign(written: str) -> int:
    return -1 if written == "-" else 1


def _quotient(top: Fraction | None, bottom: Fraction | None) -> Fraction | None:
    """The quotient; None where a side has no value, or the lower one is zero."""
    return top / bottom if top is not None and bottom else None


def _mixed(match: re.Match[str]) -> Fraction | None:
    """The value of a match of MIXED; None where it divides by zero."""
    sign, whole, top, bottom = match.groups()
    return _sign(sign) * (int(whole) + Fraction(int(top), int(bottom))) if int(bottom) else None


ORDINAL = re.compile(r"(?:st|nd|rd|th)$")
GREEK = re.compile(r"[\u0370-\u03ff]")
NUMBER_WORDS = MAGNITUDES | WORDS.keys()
MIN_WORD = 4
"""letters of a word that may be a unit right after a number; shorter ones have to be known: 12ab is a product"""


def _is_variable(rest: str, words: list[str]) -> bool:
    """Whether the letters after a number are variables: 12x, 12 x y, 12π."""
    first = re.match(r"[A-Za-z]*", words[0] if words else "")
    letters = first.group() if first else ""
    if GREEK.search(rest):
        return True
    if not letters or is_known(letters):
        return len(letters) == 1 and not rest[0].isspace() and not unit_after(rest)
    if rest[0].isspace() or rest[0] == "-":
        return len(letters) == 1 or (len(letters) == 2 and len(words) == 1)
    return len(letters) < MIN_WORD


def _unit(rest: str) -> str | None:
    """The unit, or the few words, after a number, folded; None where they may change the value."""
    if not rest.strip():
        return ""
    if ORDINAL.fullmatch(rest):
        return ""
    match = UNIT.fullmatch(rest)
    if match is None or rest[0] in "^.,":
        return None
    text = match.group(1).strip()
    words = text.split()
    if LOOKALIKE.match(rest) or LOOKALIKES.fullmatch(text):
        return None
    if OTHER_VALUES.search(text) or len(words) > MAX_UNIT_WORDS:
        return None
    if any(word.strip(".").lower() in NUMBER_WORDS for word in words) or _is_variable(rest, words):
        return None
    return canonical(text)

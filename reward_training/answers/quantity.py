"""A short text as one number: with separators, as a fraction, a percentage, a power of ten, in words, with a unit or an equation.

Anything that holds more than one value (a list, a range, two alternatives, a false equation) or a value that is not plainly
written (5!, 5^2, a product) is no number. Nothing is evaluated but fractions and the two sides of an equation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from reward_training.answers.arithmetic import equations
from reward_training.answers.plain_text import plain

MAX_EXPONENT = 1000
"""of ten; a larger one is no sensible answer and costs memory to expand"""
MAX_CHARACTERS = 2000
DECORATION = "`*_\"'\u201c\u201d "

GROUPED = r"\d{1,3}(?:,\d{2,3})*,\d{3}|\d{1,3}(?: \d{3})+(?!\d)"
UNSIGNED = rf"(?:(?:{GROUPED}|\d+)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
NUMBER = re.compile(rf"([-+]?)\s*({UNSIGNED})")
POWER_OF_TEN = re.compile(r"\s*(?:\*|x|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d+)(?:\s*\})?")
PURE_POWER = re.compile(r"([-+]?)\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\d+)(?:\s*\})?")
MIXED = re.compile(r"([-+]?)(\d+)\s+(\d+)\s*/\s*(\d+)")
FRACTION = re.compile(rf"([-+]?)\s*({UNSIGNED})\s*/\s*({UNSIGNED})")
LOOKALIKE = re.compile(r"[OoI\u0417\u0437\u041e\u043e\u039f\u03bf](?!\w)")
"""a letter that is written like a digit, right behind a number"""
UNIT = re.compile(r"[\s\-]*((?:[^\W\d_]|[°%$€£₹/. ']|\^-?\d+)*)")
LEADING = re.compile(
    r"^(?:(?:it|that|this|which|they|x|y|z|n|k|[a-zA-Z]\([a-z]\)|(?:the )?(?:answer|result|total|sum|product|value|area|length))\s*(?:is|are|=|equals|:)\s*"
    r"|(?:is|are|equals|exactly|about|approximately|approx\.?|around|just|so|therefore|thus|hence)\s+|[=:≈~]\s*|(?:us|eur|usd|rs\.?)\s*(?=[\d$€£]))+",
    re.IGNORECASE,
)
MAGNITUDES = {
    "hundred",
    "thousand",
    "million",
    "billion",
    "trillion",
    "dozen",
    "k",
    "lakh",
    "crore",
    "squared",
    "cubed",
}
LARGE_VALUES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
LARGE = re.compile(r"\s*\b(thousand|million|billion|trillion)\b", re.IGNORECASE)
"""a word that multiplies the number before it"""
OTHER_VALUES = re.compile(
    r"\b(?:or|and|to|between|versus|vs|than|least|most|either|maybe|perhaps|not|no|never|i|if)\b", re.IGNORECASE
)

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = {word: number for number, word in enumerate(ONES)} | {word: 10 * (n + 2) for n, word in enumerate(TENS)}
HAN = {character: number for number, character in enumerate("零一二三四五六七八九")} | {"\u3007": 0, "两": 2}
HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
HAN_MYRIADS = {"万": 10**4, "亿": 10**8}


@dataclass(frozen=True)
class Quantity:
    """A value and the unit that stands after it."""

    value: Fraction
    unit: str = ""
    """folded to lower case, without spaces; empty where there is none"""


def quantity(text: str) -> Quantity | None:
    """The one number that the text is, or None.

    >>> quantity("$1,250.50").value == Fraction("1250.5"), quantity("1/2 = 0.5").value, quantity("15 cm").unit
    (True, Fraction(1, 2), 'cm')
    >>> quantity("4 or 5"), quantity("5!"), quantity("3 + 5"), quantity("10,00")
    (None, None, None, None)
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = _undecorated(plain(text))
    if "=" in text:
        return _equation(text)
    text = LEADING.sub("", text)
    if (aside := re.fullmatch(r"(.+?)\s*\(([^()]*)\)\s*\.?", text)) is not None:
        return _with_aside(aside.group(1), aside.group(2))
    return in_words(text) or _written(text)


def _undecorated(text: str) -> str:
    """Without Markdown, LaTeX's wrappers and a full stop at the end."""
    text = re.sub(r"</?(?:b|i|u|em|strong|p|span|div|br|code)\s*/?>", "", text, flags=re.IGNORECASE)
    text = text.strip().replace("**", "").strip(DECORATION)
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"(?<=\d)\\[,;! ](?=\d)|(?<=\d)\{,\}(?=\d)", ",", text)
    text = re.sub(r"\s*\^\s*\{?\s*\\circ\s*\}?", "°", text)
    text = re.sub(r"\\[,;:! ]", " ", text).replace("\\%", "%").replace("\\$", "$").replace("~", " ")
    text = re.sub(r"(\d)\s*\\d?t?frac\{(\d+)\}\{(\d+)\}", r"\1 \2/\3", text)
    text = re.sub(r"\\d?t?frac\{([-+]?\d+(?:\.\d+)?)\}\{(\d+(?:\.\d+)?)\}", r"\1/\2", text)
    text = re.sub(r"!{2,}$", "", text.strip())
    return re.sub(r"\s+", " ", text.strip().rstrip(".;,").strip("`*_ ")).strip()


def _equation(text: str) -> Quantity | None:
    """The last side of an equation that is true, or that names an unknown on its left."""
    sides = [side.strip() for side in text.split("=")]
    last = quantity(sides[-1])
    if last is None:
        return None
    if len(sides) == 2 and re.fullmatch(r"[a-zA-Z](?:_?\w)?|\\?[a-zA-Z]+(?:\([a-z]\))?|", sides[0]):
        return last
    others = [quantity(side) for side in sides[:-1]]
    if all(other is not None and other.value == last.value for other in others):
        return last
    verdicts = equations(text)
    return last if verdicts and all(verdicts) else None


def _with_aside(before: str, inside: str) -> Quantity | None:
    """`8 (eight)`, `18 (not 20)`: an aside that names no other value."""
    found = quantity(before)
    if found is None or re.match(r"\s*(?:not|instead of|rather than)\b", inside, re.IGNORECASE):
        return found
    other = quantity(inside)
    names_no_value = not re.search(r"\d", plain(inside)) and not re.search(r"\bor\b", inside, re.IGNORECASE)
    return found if (other is not None and other.value == found.value) or (other is None and names_no_value) else None


def in_words(text: str) -> Quantity | None:
    """Numbers in English words up to a thousand, and in simple Chinese numerals; `minus` and `negative` before a number."""
    lowered = text.lower()
    if (signed := re.fullmatch(r"(?:minus|negative)\s+(.+)", lowered)) is not None:
        found = quantity(signed.group(1))
        return None if found is None or found.value < 0 else Quantity(-found.value, found.unit)
    if (value := _han(text)) is not None:
        return Quantity(Fraction(value))
    parts = re.split(r"[\s-]+|\band\b", lowered)
    total, unit = 0, ""
    seen = False
    for number, part in enumerate(word for word in parts if word):
        if part in WORDS:
            total, seen = total + WORDS[part], True
        elif part == "hundred" and seen:
            total *= 100
        elif seen and number and not unit and part not in MAGNITUDES:
            unit = part
        else:
            return None
    return Quantity(Fraction(total), unit) if seen and not OTHER_VALUES.search(unit) else None


def _han(text: str) -> int | None:
    """Chinese numerals, with units (三千五百) or digit by digit (二〇二四).

    >>> _han("三千零五"), _han("十二万"), _han("二〇二四"), _han("五六百")
    (3005, 120000, 2024, None)
    """
    if not text or any(c not in HAN and c not in HAN_UNITS and c not in HAN_MYRIADS for c in text):
        return None
    if all(c in HAN for c in text):
        return int("".join(str(HAN[c]) for c in text)) if len(text) == 1 or len(text) > 2 else None
    total, below, digit = 0, 0, None
    smallest = 10**9
    for character in text:
        if character in HAN:
            if digit:
                return None
            digit = HAN[character]
            continue
        unit = HAN_UNITS.get(character) or HAN_MYRIADS[character]
        if character in HAN_MYRIADS:
            total, below, digit, smallest = total + (below + (digit or 0)) * unit, 0, None, 10**9
            continue
        if unit >= smallest or (digit is None and unit != 10):
            return None
        below, digit, smallest = below + (1 if digit is None else digit) * unit, None, unit
    return total + below + (digit or 0)


def _written(text: str) -> Quantity | None:
    """A number in digits, then at most a unit."""
    sign, text = _leading_currency(text)
    for pattern, read in ((PURE_POWER, _power), (MIXED, _mixed), (FRACTION, _fraction), (NUMBER, _number)):
        match = pattern.match(text)
        if match is None:
            continue
        value = read(match)
        rest = text[match.end() :]
        if value is not None and pattern is NUMBER and (power := POWER_OF_TEN.match(rest)) is not None:
            exponent = int(power.group(1))
            value = value * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None
            rest = rest[power.end() :]
        if value is not None and pattern is NUMBER and (large := LARGE.match(rest)) is not None:
            value, rest = value * LARGE_VALUES[large.group(1).lower()], rest[large.end() :]
        if value is None:
            return None
        unit = _unit(rest)
        return None if unit is None else Quantity(sign * value, unit)
    return None


def _leading_currency(text: str) -> tuple[int, str]:
    match = re.match(r"([-+]?)\s*[$€£₹¥]\s*(?=[\d.])", text)
    if match is None:
        return 1, text
    return (-1 if match.group(1) == "-" else 1), text[match.end() :]


def _number(match: re.Match[str]) -> Fraction | None:
    sign, digits = match.group(1), match.group(2)
    mantissa, _, exponent = digits.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        return None
    whole = mantissa.replace(",", "").replace(" ", "")
    value = Fraction(whole.rstrip(".") or "0") * Fraction(10) ** int(exponent or 0)
    return -value if sign == "-" else value


def _power(match: re.Match[str]) -> Fraction | None:
    sign, exponent = match.group(1), int(match.group(2))
    if abs(exponent) > MAX_EXPONENT:
        return None
    return (-1 if sign == "-" else 1) * Fraction(10) ** exponent


def _fraction(match: re.Match[str]) -> Fraction | None:
    sign, top, bottom = match.groups()
    upper, lower = (NUMBER.fullmatch(part) for part in (top, bottom))
    assert upper is not None
    assert lower is not None
    values = _number(upper), _number(lower)
    if values[0] is None or not values[1]:
        return None
    return -values[0] / values[1] if sign == "-" else values[0] / values[1]


def _mixed(match: re.Match[str]) -> Fraction | None:
    sign, whole, top, bottom = match.groups()
    if int(bottom) == 0:
        return None
    value = int(whole) + Fraction(int(top), int(bottom))
    return -value if sign == "-" else value


def _unit(rest: str) -> str | None:
    """What stands after the number, where that is a unit or a few words; None where it may change the value."""
    if not rest.strip():
        return ""
    match = UNIT.fullmatch(rest)
    if match is None or rest[0] in "^.,":
        return None
    words = match.group(1).strip()
    if LOOKALIKE.match(rest) or re.fullmatch(r"[OoIl\u041e\u043e\u0417]{2,}", words):
        return None
    if OTHER_VALUES.search(words) or len(words.split()) > 4:
        return None
    if any(word.strip(".").lower() in MAGNITUDES for word in words.split()) or re.match(r"[a-zA-Z]\b(?!$)", rest):
        return None
    return re.sub(r"[\s.]", "", words).lower()

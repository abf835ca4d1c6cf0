"""Numbers in words: English up to a thousand, simple Chinese numerals, and words that multiply a number before them."""

from __future__ import annotations

import re

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
"""words that change the value of a number before them, so that they are no unit"""
LARGE_VALUES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
LARGE = re.compile(r"\s*\b(thousand|million|billion|trillion)\b", re.IGNORECASE)
"""a word that multiplies the number before it"""

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
WORDS = {word: value for value, word in enumerate(ONES)} | {word: 10 * (i + 2) for i, word in enumerate(TENS)}
HAN = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"\u3007": 0, "两": 2}
HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
HAN_MYRIADS = {"万": 10**4, "亿": 10**8}


def english(text: str) -> tuple[int, str] | None:
    """The value of a number in English words, and the one word that may follow it as its unit; None for other texts.

    >>> english("thirty-five apples"), english("two hundred and nine"), english("five million")
    ((35, 'apples'), (209, ''), None)
    """
    words = [word for word in re.split(r"[\s-]+|\band\b", text.lower()) if word]
    total, unit, last = 0, "", 0
    seen = False
    for index, word in enumerate(words):
        if word in WORDS:
            if seen and not _may_follow(last, WORDS[word]):
                return None
            total, seen, last = total + WORDS[word], True, WORDS[word]
        elif word == "hundred" and seen:
            total, last = total * 100, 100
        elif seen and index and not unit and word not in MAGNITUDES:
            unit = word
        else:
            return None
    return (total, unit) if seen else None


def _may_follow(last: int, value: int) -> bool:
    """Whether a number word may stand behind another one: five behind twenty, anything under a hundred behind hundred."""
    return last == 100 or (last in range(20, 100, 10) and 0 < value < 10)


def chinese(text: str) -> int | None:
    """The value of Chinese numerals, with units (三千五百) or digit by digit (二〇二四); None for other texts.

    >>> chinese("三千零五"), chinese("十二万"), chinese("二〇二四"), chinese("五六百")
    (3005, 120000, 2024, None)
    """
    if not text or any(c not in HAN and c not in HAN_UNITS and c not in HAN_MYRIADS for c in text):
        return None
    if all(c in HAN for c in text):
        return int("".join(str(HAN[c]) for c in text)) if len(text) == 1 or len(text) > 2 else None
    return _chinese_with_units(text)


def _chinese_with_units(text: str) -> int | None:
    """The value; None where two digits stand side by side, or the units within a myriad do not get smaller."""
    total, below_myriad, digit = 0, 0, None
    last_unit = max(HAN_MYRIADS.values())
    for character in text:
        if character in HAN:
            if digit:
                return None
            digit = HAN[character]
        elif character in HAN_MYRIADS:
            total += (below_myriad + (digit or 0)) * HAN_MYRIADS[character]
            below_myriad, digit, last_unit = 0, None, max(HAN_MYRIADS.values())
        else:
            unit = HAN_UNITS[character]
            if unit >= last_unit or (digit is None and unit != 10):
                return None
            below_myriad, digit, last_unit = below_myriad + (1 if digit is None else digit) * unit, None, unit
    return total + below_myriad + (digit or 0)

"""Units of measurement: one spelling for each, and whether an answer's unit is the one that its question asks for.

Nothing is converted: kilometres are wrong where metres are wanted.
"""

from __future__ import annotations

import re

KINDS = {
    "length": "mm millimetre millimeter|cm centimetre centimeter|m metre meter|km kilometre kilometer|inch in inches|ft foot feet|yd yard|mi mile",
    "mass": "mg milligram|g gram|kg kilogram kilo|ton tonne|oz ounce|lb lbs pound",
    "time": "ms millisecond|s sec second|min minute|h hr hour|day|week|month|year yr",
    "volume": "ml millilitre milliliter|l litre liter|gallon gal|pint|quart",
    "money": "$ dollar usd|cent ¢|€ euro eur|£ gbp|¥ yen yuan|₹ rupee",
    "temperature": "°c celsius|°f fahrenheit|k kelvin",
    "angle": "° degree deg|rad radian",
    "share": "% percent percentage pct",
    "speed": "mi/h mph|km/h kmh kph|m/s mps",
    "physics": "n newton|j joule|kj kilojoule|w watt|kw kilowatt|v volt|a amp ampere|pa pascal|kpa|hz hertz|khz|mol mole|ev|cal calorie|kcal|c coulomb|f farad|ohm",
}
UNITS = {
    name: (kind, group.split()[0])
    for kind, groups in KINDS.items()
    for group in groups.split("|")
    for name in group.split()
}
"""each name of a unit: its kind, and the first of its names"""
SYMBOLS = set("mgshlLNJWVAKCF")
"""single letters that are units; in other cases they are words or variables"""
ASKED = re.compile(r"\b(?:in|how many)\s+([a-z$€£¥°]+)", re.IGNORECASE)
COUNTED = re.compile(r"\bhow many\s+([a-z]+)", re.IGNORECASE)
NO_OTHER_KIND = ("share", "angle")
PART = re.compile(r"[^\W\d_]+|°[CFcf]\b|[°%$€£¥₹¢/]|\^?\{?-?\d+\}?")
NO_UNIT = re.compile(r"\b(?:(?:square|cubic|sq|cu)\s+)?units?\b(?:\s*(?:squared|cubed)|\s*\^\{?\d\}?)?", re.IGNORECASE)
SQUARED, CUBED = {"square", "sq", "squared"}, {"cubic", "cu", "cubed"}
TRAILING = re.compile(
    r"\s?-?(?:(?:square|sq\.?|cubic)\s)?([^\W\d_\u00b2\u00b3]+|°[CF]?|[%€£¥₹¢])(?:\s?\^\{?-?\d\}?|[\u00b2\u00b3])?(?:\s?(?:/|per)\s?([^\W\d_]+)(?:\^\{?\d\}?)?)?(?!\w)"
)
"""what looks like a unit at the start of a text"""


def canonical(unit: str) -> str:
    """One spelling for all that mean the same; words that are no unit are kept, in lower case and singular.

    >>> canonical("square metres"), canonical("m^2"), canonical("Miles per hour"), canonical("apples")
    ('m^2', 'm^2', 'mi/h', 'apple')
    """
    power, parts = "", list[str]()
    for part in PART.findall(NO_UNIT.sub("", unit.replace(".", ""))):
        word = part.lower()
        if word in SQUARED | CUBED:
            power = "^2" if word in SQUARED else "^3"
            if parts and word in ("squared", "cubed"):
                parts[-1], power = parts[-1] + power, ""
        elif word == "per":
            parts.append("/")
        elif word[-1:].isdigit() or word.endswith("}"):
            parts.append("^" + word.strip("^{}"))
        else:
            parts.append(_name(part) + power)
            power = ""
    joined = "".join(parts).replace("°celsius", "°c").replace("°fahrenheit", "°f").replace("°°", "°")
    return UNITS[joined][1] if joined in UNITS else joined


def is_known(word: str) -> bool:
    """Whether a word or sign is the name of a unit, in singular or plural.

    >>> is_known("feet"), is_known("hours"), is_known("x")
    (True, True, False)
    """
    return _known(word) is not None


def unit_after(text: str) -> str:
    """The unit at the start of a text, as it is written; empty where there is none that is known.

    >>> unit_after(" feet long"), unit_after(" m/s."), unit_after(" apples")
    (' feet', ' m/s', '')
    """
    match = TRAILING.match(text)
    if match is None or not is_known(match.group(1)) or (match.group(2) and not is_known(match.group(2))):
        return ""
    is_letter = len(match.group(1)) == 1 and match.group(1).isalpha()
    is_preposition = match.group(1) == "in" and re.match(r"\s+\w", text[match.end() :])
    is_bare_letter = is_letter and not text[:1].isspace() and not re.search(r"[\^/\u00b2\u00b3]", match.group())
    return "" if is_preposition or is_bare_letter else match.group()


def is_another_unit(unit: str, question: str) -> bool:
    """Whether `unit` differs from the last one of its kind that the question asks for; False for unknown units.

    >>> is_another_unit("km", "How wide is it in metres?"), is_another_unit("m", "How wide is it in metres?")
    (True, False)
    >>> is_another_unit("apples", "How many minutes?"), is_another_unit("cents", "What is the price in dollars?")
    (False, True)
    """
    given = _known(unit)
    if given is None:
        return False
    wanted = [known for name in ASKED.findall(question) if (known := _known(name)) is not None]
    of_its_kind = [known for known in wanted if known[0] == given[0]]
    if of_its_kind:
        return of_its_kind[-1] != given
    counted = [known for name in COUNTED.findall(question) if (known := _known(name)) is not None]
    return bool(counted) and given[0] not in NO_OTHER_KIND


def _name(word: str) -> str:
    """The first name of a unit; other words in lower case and singular. Mega and milli stay apart: MW, mW."""
    known = _known(word)
    if known is not None:
        return known[1]
    if re.match(r"[mM][A-Z]", word):
        return word
    return word.lower().removesuffix("s") if len(word) > 3 else word.lower()


def _known(name: str) -> tuple[str, str] | None:
    """The kind and the first name of a unit, in singular or plural; None where it is unknown."""
    lowered = name.lower()
    if len(name) == 1 and name.isalpha() and name not in SYMBOLS:
        return None
    return UNITS.get(lowered) or (UNITS.get(lowered.removesuffix("s")) if len(lowered) > 3 else None)

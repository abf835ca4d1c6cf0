"""Text with one character for each thing: what looks like a digit, a sign or a space is one, and what cannot be seen is gone.

Letters of other scripts stay what they are: a Cyrillic Ve is no B, and a Greek Alpha no A.
"""

from __future__ import annotations

import re
import unicodedata

MINUS = "\u2212\u2013\u2010\u2011\ufe63\uff0d"
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
SINGLE = {
    "\u066c": ",",
    "\u066b": ".",
    "\u066a": "%",
    "\u2044": "/",
    "\u2215": "/",
    "\u00d7": "*",
    "\u00f7": "/",
    "\u00b7": "*",
    "\u22c5": "*",
}


def visible(text: str) -> str:
    """Without characters that have no width; accents composed."""
    return "".join(c for c in unicodedata.normalize("NFC", text) if unicodedata.category(c) != "Cf")


def plain(text: str) -> str:
    r"""Digits, signs and spaces of all scripts as ASCII has them; powers as ^n, fractions as a/b.

    >>> plain("\uff15\u00b2"), plain("2\u00bd"), plain("\u2212\u0664\u0662"), plain("\uff22")
    ('5^2', '2 1/2', '-42', 'B')
    """
    text = re.sub(r"[⁰¹²³⁴-⁹⁻]+", lambda m: "^" + m.group().translate(SUPERSCRIPTS), visible(text))
    return re.sub(r"(?<=\d)['\u2019](?=\d{3})", ",", "".join(_plain_character(c, text, i) for i, c in enumerate(text)))


def _plain_character(character: str, text: str, place: int) -> str:
    if character.isascii():
        return character
    if character in MINUS:
        return "-"
    if character in SINGLE:
        return SINGLE[character]
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.digit(character))
    if category == "Zs":
        return " "
    if category == "No" and "VULGAR FRACTION" in unicodedata.name(character, ""):
        fraction = unicodedata.normalize("NFKC", character).replace("\u2044", "/")
        return f" {fraction}" if place and text[place - 1].isdigit() else fraction
    if "\uff00" <= character <= "\uffef" or "\U0001d400" <= character <= "\U0001d7ff":
        return unicodedata.normalize("NFKC", character)
    return character

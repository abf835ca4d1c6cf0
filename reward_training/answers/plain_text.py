"""Folds the many characters of Unicode for a digit, a sign or a space into ASCII's, and drops invisible ones.

Letters of other scripts are not folded: a Cyrillic Ve is no B, and a Greek Alpha is no A.
"""

from __future__ import annotations

import re
import unicodedata

MINUS = "\u2212\u2013\u2010\u2011\ufe63\uff0d"
SUPERSCRIPT = re.compile(r"[⁰¹²³⁴-⁹⁻]+")
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
APOSTROPHE_BEFORE_THOUSANDS = re.compile(r"(?<=\d)['\u2019](?=\d{3})")
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
    """The text without characters that have no width, and with accents composed."""
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFC", text) if c.isascii() or unicodedata.category(c) != "Cf")


def plain(text: str) -> str:
    r"""The text with ASCII digits, signs and spaces for those of all scripts, powers as ^n, and fractions as a/b.

    >>> plain("\uff15\u00b2"), plain("2\u00bd"), plain("\u2212\u0664\u0662"), plain("\uff22")
    ('5^2', '2 1/2', '-42', 'B')
    """
    if not text.isascii():
        text = SUPERSCRIPT.sub(lambda match: "^" + match.group().translate(SUPERSCRIPTS), visible(text))
        text = "".join(c if c.isascii() else _plain_character(c, text, i) for i, c in enumerate(text))
    return APOSTROPHE_BEFORE_THOUSANDS.sub(",", text)


def _plain_character(character: str, text: str, index: int) -> str:
    """The ASCII characters for one that is not ASCII, at `index`; a character that has none comes back as it is."""
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
        return f" {fraction}" if index and text[index - 1].isdigit() else fraction
    if "\uff00" <= character <= "\uffef" or "\U0001d400" <= character <= "\U0001d7ff":
        return unicodedata.normalize("NFKC", character)
    return character

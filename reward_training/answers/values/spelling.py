r"""Gives a short text one spelling, and takes it apart outside its brackets: what is done before it is parsed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reward_training.answers import markup
from reward_training.answers.plain_text import plain

DECORATION = re.compile(
    r"\\color\s*\{[^{}]*\}|\\(?:therefore|checkmark|tiny|small|normalsize|[lL]arge|LARGE|[hH]uge)(?![A-Za-z])"
)
DOUBLED = re.compile(
    r"(?<!\\)\\\\(?=(?:[dtc]?frac|sqrt|left|right|pi|text|mathrm|cdot|times|infty|le|leq|ge|geq|cup|in|begin|end|boxed|pm)(?![A-Za-z]))"
)
"""a backslash that was escaped once too often"""
SPACED_DIGITS = re.compile(r"\\mathbf\s*\{\s*(\d(?: \d)*)\s*\}")
COLOURED = re.compile(r"\\textcolor\s*\{[^{}]*\}\s*\{([^{}]*)\}")
OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}")
CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?")
SIZES_OF_BRACKETS = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?)(?![A-Za-z])\s*\.?")
STYLES = re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])\s*")
WIDE_SPACE = re.compile(r"(?<!\\)\\(?:quad|qquad|hspace\s*\{[^{}]*\}|enspace|thinspace|;|:|,|!| )|~|&nbsp;")
NAMES_OF_SIGNS = {
    r"\leqslant": "≤", r"\leq": "≤", r"\le": "≤", r"\geqslant": "≥", r"\geq": "≥", r"\ge": "≥", r"\neq": "≠", r"\ne": "≠",
    r"\lt": "<", r"\gt": ">", "<=": "≤", ">=": "≥", "!=": "≠", r"\cup": "∪", r"\bigcup": "∪", r"\in": "∈", r"\approx": "≈",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[", r"\rbrack": "]", r"\langle": "⟨", r"\rangle": "⟩", r"\colon": ":",
    r"\lvert": "|", r"\rvert": "|", r"\vert": "|", r"\mid": "|", r"\degree": "°", r"\%": "%", r"\simeq": "≈", r"\cong": "≈",
    r"\equiv": "≡", r"\varnothing": r"\emptyset", "∅": r"\emptyset", r"\$": "$", r"\implies": "⇒", r"\dots": "…", r"\ldots": "…", r"\cdots": "…",
}  # fmt: skip
SIGN_NAME = re.compile("|".join(re.escape(name) + ("(?![A-Za-z])" if name[-1].isalpha() else "") for name in sorted(NAMES_OF_SIGNS, key=len, reverse=True)))  # fmt: skip
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{(.*)\}\s*", re.DOTALL)
WRAPPED = re.compile(markup.WRAPPER + r"\{([^{}]*)\}")
POWER = re.compile(r"(?<=[\w)}\]])\*\*(?=[\w({-])")
SPECIAL_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>|<end_of_turn>|<eos>|</s>")
FRACTION = re.compile(r"\\(?:[dtc]|nice)frac(?![A-Za-z])")
PRIME = re.compile(r"\^\s*\{?\s*(?:\\prime|')+\s*\}?")
INLINE = re.compile(r"(?<!\\)\\[()\[\]]|\$\$|(?<!\\)\$(?!\s*\d+(?:\.\d\d)?\s*$)")


def tidy(text: str) -> str:
    r"""The text with one spelling for each sign, and without what changes no meaning: \left, sizes, $, Markdown."""
    text = DOUBLED.sub(r"\\", POWER.sub("^", SPECIAL_TOKEN.sub("", plain(text))))
    text = markup.without_phantoms(markup.without_bold(markup.without_formatting_tags(text)))
    before = None
    while text != before:
        before, text = text, text.strip().strip(markup.DECORATION).rstrip(".,;\\").strip()
        for wrapper in (BOX, WRAPPED):
            if (match := wrapper.fullmatch(text)) is not None:
                text = match.group(1)
        text = markup.without_maths_delimiters(text)
    text = SPACED_DIGITS.sub(lambda match: match[1].replace(" ", ""), text)
    text = COLOURED.sub(r"\1", DECORATION.sub("", FRACTION.sub(r"\\frac", PRIME.sub("'", text))))
    text = CHOOSE.sub(r"\\binom{\1}{\2}", OVER.sub(r"\\frac{\1}{\2}", REPEATING.sub(_as_fraction, text)))
    text = INLINE.sub("", markup.thousands(text))
    text = STYLES.sub("", SIZES_OF_BRACKETS.sub("", text))
    text = WIDE_SPACE.sub(" ", SIGN_NAME.sub(lambda match: NAMES_OF_SIGNS[match.group()], text))
    text = markup.degrees(text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".,;").strip()


def _as_fraction(repeating: re.Match[str]) -> str:
    r"""The fraction that a repeating decimal is: 0.1\overline{6} is (16 - 1) / 90."""
    whole, once, again = repeating.groups()
    top = int(whole + once + again) - int(whole + once or "0")
    return rf"\frac{{{top}}}{{{'9' * len(again)}{'0' * len(once)}}}"


# ---- splitting ------------------------------------------------------------------------------------------------------

OPENING, CLOSING = "([{⟨", ")]}⟩"


def _depths(text: str) -> Iterator[int]:
    """How many brackets are open at each character; \\begin and \\end count as brackets."""
    depth = 0
    for index, character in enumerate(text):
        if character in OPENING or text.startswith("\\begin", index):
            depth += 1
            yield depth
        elif character in CLOSING or text.startswith("\\end", index):
            yield depth
            depth -= 1
        else:
            yield depth


def positions(text: str, pattern: re.Pattern[str]) -> list[int]:
    """Where a pattern matches outside all brackets."""
    depths = list(_depths(text))
    return [match.start() for match in pattern.finditer(text) if depths[match.start()] <= 0]


def split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The parts of a text between the matches of a pattern outside all brackets, stripped."""
    depths = list(_depths(text))
    parts, start = [], 0
    for match in pattern.finditer(text):
        if match.group() and depths[match.start()] <= 0:
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def is_balanced(inner: str) -> bool:
    """Whether the text between two brackets closes all that it opens, and no more.

    >>> is_balanced("x + (y)"), is_balanced("x)(y")
    (True, False)
    """
    depth = 0
    for character in inner:
        depth += (character in OPENING) - (character in CLOSING)
        if depth < 0:
            return False
    return depth == 0

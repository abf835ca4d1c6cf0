r"""Taking LaTeX, Markdown and HTML off a text.

Each function takes off one thing; a caller composes those that it needs. Order matters to a caller in two places:
wrappers such as \text{} come off before spaces, and thousands become commas before spaces do, because a LaTeX space
between digits separates thousands.
"""

from __future__ import annotations

import re

from reward_training.answers import number

EMPHASIS = "*`"
"""Markdown's marks around a word"""
DECORATION = EMPHASIS + "_\"'\u201c\u201d "
"""what may stand around a whole answer: Markdown's marks, quotation marks, spaces"""

FORMATTING_TAG = re.compile(r"</?(?:b|i|u|em|strong|p|span|div|br|code)\s*/?>", re.IGNORECASE)
ANY_TAG = re.compile(r"<[^<>]{0,200}>")
CODE_OR_BOLD = re.compile(r"```\w*|\*\*|`")

WRAPPER = r"\\(?:text|textnormal|textrm|textit|mathrm|mathbf|textbf|mbox|operatorname)\s*"
r"""a command that sets its argument in another font: \text, to be followed by {...}"""
WRAPPED = re.compile(WRAPPER + r"\{([^{}]*)\}")
PHANTOM = re.compile(r"\\[hv]?phantom\s*\{[^{}]*\}")
MATHS_DELIMITERS = (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"))
SPACE = re.compile(r"\\[,;:! ]")
THOUSANDS = re.compile(r"(?<=\d)(?:\\[,;! ]|\{,\}|,\\!\s*|,\{\})(?=\d)")
DEGREES = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")
TIMES = r"\\(?:times|cdot)(?![a-zA-Z])"
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
FRACTION_OF_NUMBERS = re.compile(rf"\\[dt]?frac\{{([-+]?{number.unsigned()})\}}\{{({number.unsigned()})\}}")
MIXED_NUMBER = re.compile(r"(?<=\d)\s*\\[dt]?frac\{(\d+)\}\{(\d+)\}")


# ---- HTML and Markdown ----------------------------------------------------------------------------------------------


def without_formatting_tags(text: str) -> str:
    """The text without HTML's tags for formatting, nor those that appear once others are gone: <<b>b>.

    >>> without_formatting_tags("<b>5</b> <<i>i>cm <answer>")
    '5 cm <answer>'
    """
    before = None
    while before != text:
        before, text = text, FORMATTING_TAG.sub("", text)
    return text


def tags_as_spaces(text: str) -> str:
    """The text with a space for anything in angle brackets."""
    return ANY_TAG.sub(" ", text)


def code_and_bold_as_spaces(text: str) -> str:
    """The text with a space for each mark of bold text or code, and for the language that a block of code names."""
    return CODE_OR_BOLD.sub(" ", text)


def without_bold(text: str) -> str:
    """The text without Markdown's marks of bold text."""
    return text.replace("**", "")


# ---- LaTeX ----------------------------------------------------------------------------------------------------------


def unwrapped(text: str, gap: str = "") -> str:
    r"""The text with the content of \text{}, \mathrm{} and their like in their place, and `gap` before it.

    >>> unwrapped(r"\text{H}_2\text{O}"), unwrapped(r"5\text{cm}", gap=" ")
    ('H_2O', '5 cm')
    """
    return WRAPPED.sub(lambda match: gap + match.group(1), text)


def without_phantoms(text: str) -> str:
    r"""The text without \phantom{}, which takes space and shows nothing."""
    return PHANTOM.sub("", text)


def without_maths_delimiters(text: str) -> str:
    r"""The formula in a text that is one formula: $5$, \(5\). Other texts come back as they are."""
    for opening, closing in MATHS_DELIMITERS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing):
            text = text[len(opening) : -len(closing)].strip()
    return text


def without_inline_delimiters(text: str) -> str:
    r"""The text without \( and \), wherever they stand."""
    return text.replace("\\(", "").replace("\\)", "")


def spaces(text: str, gap: str = " ") -> str:
    r"""The text with `gap` for each of LaTeX's spaces: \, \; \: \! and a backslash before a space."""
    return SPACE.sub(gap, text)


def thousands(text: str) -> str:
    r"""The text with a comma for what LaTeX puts between the digits of a number.

    >>> thousands(r"1\,000{,}000")
    '1,000,000'
    """
    return THOUSANDS.sub(",", text)


def degrees(text: str) -> str:
    r"""The text with the sign of degrees for ^\circ."""
    return DEGREES.sub("°", text)


def unescaped(text: str) -> str:
    r"""The text with the characters for \% and \$, and a space for LaTeX's ~."""
    return text.replace("\\%", "%").replace("\\$", "$").replace("~", " ")


def operators(text: str) -> str:
    r"""The text with * and / for \times, \cdot and \div."""
    return re.sub(r"\\div(?![a-zA-Z])", "/", re.sub(TIMES, "*", text))


def fractions_of_numbers(text: str) -> str:
    r"""The text with a/b for each \frac{a}{b} of two numbers, apart from a whole number before it.

    >>> fractions_of_numbers(r"\frac{1,000}{4}"), fractions_of_numbers(r"2\dfrac{1}{2}"), fractions_of_numbers(r"\frac{x}{2}")
    ('1,000/4', '2 1/2', '\\frac{x}{2}')
    """
    return FRACTION_OF_NUMBERS.sub(r"\1/\2", MIXED_NUMBER.sub(r" \1/\2", text))


def fractions_in_brackets(text: str) -> str:
    r"""The text with (a)/(b) for each \frac{a}{b} of any two expressions.

    >>> fractions_in_brackets(r"\frac{1 + 2}{3}")
    '(1 + 2)/(3)'
    """
    return FRACTION.sub(r"(\1)/(\2)", text)

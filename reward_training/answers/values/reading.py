r"""Reads a short text as one value.

A text is taken apart from the outside in: a list at its commas and its `and` and `or`; an equation or inequality at its
signs; a union, a tuple, an interval, a set or a matrix by its brackets; a number with a unit by `quantity`; an
expression by `formula`. What none of these reads as a whole is words. No part of a text is left over: there is no
number in `one of 40, 41 and 42`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from fractions import Fraction

from reward_training.answers import markup
from reward_training.answers.plain_text import visible
from reward_training.answers.values.evaluation import constant, is_same
from reward_training.answers.values.formula import parsed
from reward_training.answers.values.quantity import NUMBER_WORDS, OTHER_VALUES, Quantity, quantity
from reward_training.answers.values.spelling import is_balanced, positions, split, tidy
from reward_training.answers.values.tokens import NotAFormulaError
from reward_training.answers.values.tree import (
    INFINITY,
    Node,
    has_both_signs,
    is_unknown,
    negative,
    number,
    symbol,
    symbols,
    with_sign,
    written_number,
)
from reward_training.answers.values.units import SYMBOLS, canonical, is_known, unit_after
from reward_training.answers.values.value import (
    Brackets,
    Expression,
    Matrix,
    Named,
    Relation,
    Set,
    Several,
    Union,
    Value,
    Words,
)

MAX_CHARACTERS = 2000
"""of a value; a longer text is words"""


class _UnreadError(ValueError):
    """A text, or a part of it, is no value."""


@functools.lru_cache(maxsize=10_000)
def read(text: str) -> Value:
    r"""The value of a text.

    >>> read("12 cm") == read(r"12\text{ cm}"), read("3xy+5") == read("3 xy + 5")
    (True, True)
    >>> read("one of 40, 41 and 42")
    Words(text='one of 40, 41 and 42', has_formula=False)
    """
    if len(text) > MAX_CHARACTERS:
        return Words(text)
    try:
        return _list(tidy(text))
    except (_UnreadError, NotAFormulaError, RecursionError):
        return _meant(text)


FORMULA = re.compile(r"[\\^_=<>≤≥≠≡∈{}|∪]|\d\s*[-+*/]\s*[\d(]")
"""signs of a formula"""


SINGLE_LETTERS = re.compile(r"[A-Za-z](?: [A-Za-z])+")


EMPTY = Words(r"\emptyset", has_formula=True)
MEANINGS: dict[str, Value] = {
    **dict.fromkeys(["no solution", "no solutions", "no real solutions", "no real solution", "empty set", "the empty set"], EMPTY),
    **dict.fromkeys(["all real numbers", "all reals", "the real numbers", "all real x"], Brackets("(", ")", (Expression(negative(INFINITY)), Expression(INFINITY)))),
}  # fmt: skip
"""what some words say as a value"""


def _meant(text: str) -> Value:
    """What words mean, or the words."""
    words = _words(text)
    return MEANINGS.get(words.text, words)


def _words(text: str) -> Words:
    content = markup.unwrapped(tidy(text).replace("$", " "))
    if FORMULA.search(content):
        return Words(re.sub(r"\s", "", content).casefold(), has_formula=True)
    if SINGLE_LETTERS.fullmatch(content):
        content = content.replace(" ", "")  # x y z
    folded = " ".join(re.sub(r"\s*([,;:])\s*", r"\1 ", visible(content)).casefold().split())
    folded = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", folded)
    return Words(re.sub(r"^\((.)\)$", r"\1", folded.strip(markup.DECORATION + ".!").strip()))


# ---- lists ----------------------------------------------------------------------------------------------------------

CONJUNCTION = markup.WRAPPER + r"\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
SEPARATOR = re.compile(rf"\s*(?:[,;]\s*(?:{CONJUNCTION})?|{CONJUNCTION})\s*")
COMMA = re.compile(r"\s*[,;]\s*")


def _list(text: str) -> Value:
    """The values between commas and conjunctions, or the one value."""
    if not RELATION.search(text) and (found := quantity(text)) is not None:
        return found  # also 1,000 and "thirty and one"
    parts = split(text, SEPARATOR)
    if len(parts) == 1:
        return _one(text)
    values = tuple(_one(part) for part in parts)
    if all(isinstance(value, Union) or (isinstance(value, Brackets) and value.is_interval) for value in values):
        return _intersection(values) if AND.search(text) and not OR.search(text) else Union(_joined(values))
    if all(isinstance(value, Quantity) and value == values[0] for value in values):
        return values[0]  # 3/4 or 0.75
    return Several(_without_common_name(values))


AND, OR = re.compile(r"(?<![A-Za-z])and(?![A-Za-z])"), re.compile(r"(?<![A-Za-z])or(?![A-Za-z])|,")


def _intersection(values: tuple[Value, ...]) -> Value:
    """The interval between two half-lines: x > 1 and x < 3; without points in it, the empty set."""
    match values:
        case [Brackets() as low, Brackets() as high] if _is_ray(low, 1) and _is_ray(high, 0):
            low, high = low, high
        case [Brackets() as high, Brackets() as low] if _is_ray(low, 1) and _is_ray(high, 0):
            low, high = low, high
        case _:
            raise _UnreadError
    ends = [constant(_as_tree(low.items[0])), constant(_as_tree(high.items[1]))]
    if ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
        return EMPTY
    return Brackets(low.opening, high.closing, (low.items[0], high.items[1]))


def _is_ray(value: Brackets, end: int) -> bool:
    return isinstance(item := value.items[end], Expression) and "infty" in symbols(item.tree)


def _as_tree(value: Value) -> Node:
    if isinstance(value, Quantity):
        return number(value.value)
    if isinstance(value, Expression):
        return value.tree
    raise _UnreadError


def _without_common_name(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """The values by themselves where all have one name, or only the first has it: x = 1 or x = 2; x = 4, -8, 10."""
    names = [value.name.split("_")[0] if isinstance(value, Named) else "" for value in values]  # x_1 and x_2 are x
    if len(set(names)) == 1 or (names[0] and not any(names[1:])):
        return tuple(value.value if isinstance(value, Named) else value for value in values)
    return values


# ---- equations and inequalities -------------------------------------------------------------------------------------

RELATION = re.compile(r"[=<>≤≥≠]")
ROUNDED = re.compile("≈")
TURNED = {">": "<", "≥": "≤"}
MEMBER = re.compile(r"\s*\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*∈\s*")
"""x is an element of ..."""
NO_NAME = r"(?!(?i:not|never|neither|nor|or|if)\b)"
WORD_NAME = rf"{markup.WRAPPER}\{{[^{{}}]*\}}|{NO_NAME}[A-Za-z]{{3,}}(?: {NO_NAME}[A-Za-z]+)*"
VARIABLE = r"[A-Z]{2}|[A-Za-z]|\\(?!frac|sqrt|infty|pi\b)[A-Za-z]+(?:\s*[A-Za-z])?"
SUBSCRIPT = r"(?:_(?:\w|\\[A-Za-z]+|\{[^{}]*\}))?'*"
ARGUMENTS = r"(?:\^\{?-1\}?)?(?:\s*\(\s*\\?[A-Za-z0-9]+(?:\s*,\s*\\?[A-Za-z]+)*\s*\))?"
SEGMENT = r"\|[A-Z]{1,2}\||\\(?:overline|angle)\s*\{?\s*[A-Z]+\s*\}?|m\\angle\s*[A-Z]+|\\frac\s*\{\s*[A-Z]{1,2}\s*\}\s*\{\s*[A-Z]{1,2}\s*\}|[A-Z]{2}\s*/\s*[A-Z]{2}"
PROBABILITY = r"(?:\\mathbb\s*\{?\s*[PE]\s*\}?|\\Pr|[PE])\s*[(\[][^()\[\]]*[)\]]|\\(?:vec|mathbf|hat|bar|overrightarrow)\s*\{?\s*[A-Za-z]+\s*\}?"
POINT = r"\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)"
NAME = re.compile(rf"(?:{WORD_NAME}|{VARIABLE}){SUBSCRIPT}{ARGUMENTS}|{SEGMENT}|{PROBABILITY}|{POINT}")
r"""what only names the other side: x, x_1, f(x), AB, (x, y), \text{Area}"""


def _is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


def _one(text: str) -> Value:
    """One value: an equation, an inequality, or a term."""
    text = MEMBER.sub("", text, count=1)
    exact, *rounded = split(text, ROUNDED)
    if rounded and exact and not _is_name(exact):
        text = exact  # sqrt(2) ≈ 1.41 is sqrt(2), but x ≈ 1.41 is 1.41
    elif rounded:
        text = f"{exact} = {rounded[-1]}" if exact else rounded[-1]
    signs = [text[index] for index in positions(text, RELATION)]
    if not signs:
        return _term(text)
    sides = split(text, RELATION)
    if not all(sides[1:]):
        raise _UnreadError
    return _equation(sides) if set(signs) == {"="} else _inequality(sides, signs)


def _equation(sides: list[str]) -> Value:
    """A named value, the last side of a true equation, or an equation with variables."""
    if len(sides) == 2 and _is_name(sides[1]) and not _is_name(sides[0]):
        sides = sides[::-1]
    first, last = sides[0], sides[-1]
    if not first:
        return _term(last)
    trees = [_tree(side) for side in sides]
    left, right = trees[0], trees[-1]
    relation = Relation("=", Node("-", (left, right))) if left and right and len(sides) == 2 else None
    is_named = _is_name(first) and not (right and first.lstrip("\\") in symbols(right))
    if is_named and (len(sides) == 2 or _are_same(trees[1:])):
        return Named(re.sub(r"\s", "", markup.unwrapped(first)), _term(last), relation)
    if _are_same(trees):
        return _term(last)
    if relation is None or constant(relation.tree) is not None:
        raise _UnreadError  # a chain that is not true, or a false equation of numbers
    return relation


def _are_same(trees: Sequence[Node | None]) -> bool:
    """Whether all sides can be read, and are equal."""
    known = [tree for tree in trees if tree is not None]
    return len(known) == len(trees) and all(is_same(tree, known[-1]) for tree in known)


def _inequality(sides: list[str], signs: list[str]) -> Value:
    r"""An interval where one unknown stands alone against constants, else an inequality. 1 \le x < 3 is [1, 3)."""
    trees = [parsed(side) for side in sides]
    if signs[0] in TURNED:
        trees, signs = trees[::-1], [TURNED.get(sign, "") for sign in reversed(signs)]
    if signs == ["≠"]:
        return Relation("≠", Node("-", (trees[0], trees[1])))
    if not set(signs) <= {"<", "≤"}:
        raise _UnreadError
    opening, closing = "[" if signs[0] == "≤" else "(", "]" if signs[-1] == "≤" else ")"
    match trees:
        case [low, middle, high] if is_unknown(middle) and _is_constant(low) and _is_constant(high):
            return Brackets(opening, closing, (_simple(low), _simple(high)))
        case [left, right] if is_unknown(left) and _is_constant(right):
            return Brackets("(", closing, (Expression(negative(INFINITY)), _simple(right)))
        case [left, right] if is_unknown(right) and _is_constant(left):
            return Brackets(opening, ")", (_simple(left), Expression(INFINITY)))
        case [left, right]:
            return Relation(signs[0], Node("-", (left, right)))
        case _:
            raise _UnreadError


def _is_constant(tree: Node) -> bool:
    return constant(tree) is not None


# ---- brackets -------------------------------------------------------------------------------------------------------

UNION = re.compile("∪")
BASED = re.compile(r"(\d{1,100})_\{?\s*(?:\\text\{)?(\d{1,3})\}?\s*\}?")
"""a number in another base: 2516_8"""
REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\R")
ENVIRONMENT = re.compile(
    r"\\begin\s*\{([pbvBV]?(?:small)?matrix|array)\}(?:\s*\{[^{}]*\})?(.*)\\end\s*\{\1\}", re.DOTALL
)
ROW = re.compile(r"\\\\(?:\s*\[[^\]]*\])?|\\cr")


def _term(text: str) -> Value:
    """A value without relation or comma at its top: a union, brackets, a matrix, a number or an expression."""
    if len(joined := split(text, UNION)) > 1:
        return Union(_joined([_term(part) for part in joined]))
    if (found := quantity(text)) is not None:
        return found
    if (based := BASED.fullmatch(text)) is not None:
        return Quantity(Fraction(based.group(1)), f"base {based.group(2)}")  # the base is kept as a unit
    if REALS.fullmatch(text):
        return Brackets("(", ")", (Expression(negative(INFINITY)), Expression(INFINITY)))
    if (matrix := ENVIRONMENT.fullmatch(text)) is not None:
        return _matrix(matrix.group(2))
    if text.startswith(r"\{") and text.endswith(r"\}") and is_balanced(text[2:-2]):
        return _set(text[2:-2])
    if text[:1] in "([⟨{" and text[-1:] in ")]⟩}" and is_balanced(text[1:-1]):
        return _in_brackets(text)
    return _expression(text)


def _joined(values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(part for value in values for part in (value.items if isinstance(value, Union) else (value,)))


def _matrix(content: str) -> Matrix:
    rows = [row for row in ROW.split(content.replace(r"\hline", "")) if row.strip()]
    return Matrix(tuple(tuple(_list(tidy(cell)) for cell in row.split("&")) for row in rows))


CONDITION = re.compile(r"\s*[a-zA-Z]\s*[|:]\s*(.+)")
"""of a set: x | x > 2"""


def _set(inner: str) -> Value:
    if not inner.strip():
        return EMPTY
    if (condition := CONDITION.fullmatch(inner)) is not None:
        return _list(condition[1])
    parts = split(inner, COMMA)
    try:
        return Set(tuple(_one(part) for part in parts))
    except (_UnreadError, NotAFormulaError):
        if re.search(r"[|:…]", inner):  # a condition, or a pattern
            raise
        return Set(tuple(_words(part) for part in parts))


def _in_brackets(text: str) -> Value:
    """A tuple, interval or list; what stands alone in round brackets is itself."""
    items = tuple(_one(part) for part in split(text[1:-1], COMMA))
    opening, closing = text[0].replace("⟨", "("), text[-1].replace("⟩", ")")
    if opening == "{" and closing == "}":
        return Set(items) if len(items) > 1 else items[0]
    if len(items) == 1 and opening + closing != "[]":
        if opening + closing != "()" or isinstance(items[0], Named):
            raise _UnreadError
        return items[0]
    return Brackets(opening, closing, items)


# ---- expressions with units -----------------------------------------------------------------------------------------

UNIT_AS_TEXT = re.compile(rf"(.+?)\s*{markup.WRAPPER}\{{([^{{}}]*)\}}\s*(\^\s*\{{?\d\}}?)?\s*", re.DOTALL)
UNIT_AT_END = re.compile(
    r"(.+?)\s((?:(?:square|cubic|sq\.?) )?[A-Za-z°/]+(?:\^\{?\d\}?)?(?: (?:per )?[a-z]+)?)\s*", re.DOTALL
)
SAYS_MORE = re.compile(r"\b(?:is|are)\b", re.IGNORECASE)
MAX_UNIT_WORDS = 4
LETTERS = re.compile(r"(?!(?:pi|oo|inf|infinity)$)[A-Za-z][A-Za-z\s]+")
"""letters alone: a word, and no product"""


def _expression(text: str) -> Value:
    r"""A formula with at most a unit after it; several values where it has \pm."""
    text, unit = _without_unit(text)
    if LETTERS.fullmatch(text):
        raise _UnreadError
    tree = parsed(text)
    if unit == "%" and tree.operation in ("+", "-") and tree.arguments[0] != number(0):
        raise _UnreadError  # in 1 + 50% only the last term is a percentage
    if not unit and tree.operation == "*" and tree.arguments[1] == symbol("°"):
        tree, unit = tree.arguments[0], "°"
    if has_both_signs(tree):
        return Several(tuple(Expression(with_sign(tree, sign), unit) for sign in (1, -1)))
    return _simple(tree, unit)


def _simple(tree: Node, unit: str = "") -> Value:
    """The number that a tree writes out, or the expression."""
    value = written_number(tree)
    return Expression(tree, unit) if value is None else Quantity(value, unit)


def _without_unit(text: str) -> tuple[str, str]:
    """The formula before a unit, and the unit; empty where there is none."""
    if (match := UNIT_AS_TEXT.fullmatch(text)) is not None and _is_unit(match[1], match[2]):
        return match[1], canonical(match[2] + (match[3] or ""))
    if (
        (match := UNIT_AT_END.fullmatch(text)) is not None
        and len(match[2]) > 1
        and unit_after(" " + match[2]).strip() == match[2]
    ):
        return match[1], canonical(match[2])
    if text.endswith("%"):
        return text[:-1].rstrip(), "%"
    if text.startswith("$"):
        return text[1:].lstrip(), "$"
    return text, ""


def _is_unit(before: str, text: str) -> bool:
    """Whether a text behind a formula is its unit: one that is known, or a few words behind a formula of numbers."""
    words = text.split()
    if not words or len(words) > MAX_UNIT_WORDS or SAYS_MORE.search(text) or OTHER_VALUES.search(text):
        return not words
    if len(text.strip()) == 1:
        return text.strip() in SYMBOLS
    if any(word.lower().strip(".") in NUMBER_WORDS for word in words):
        return False
    tree = _tree(before)
    return is_known(words[0]) or (tree is not None and _is_constant(tree))


def _tree(text: str) -> Node | None:
    """The formula, or the number without its unit; None where there is none."""
    try:
        return parsed(text)
    except NotAFormulaError:
        found = quantity(text)
        return None if found is None or found.unit else number(found.value)

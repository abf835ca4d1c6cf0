r"""Reads a short text as one value: the type of an answer, and its parts.

A text is taken apart from the outside in: a list at its commas and its `and` and `or`; an equation or inequality at its
signs; a union, a tuple, an interval, a set or a matrix by its brackets; a number with a unit by `quantity`; an
expression by `formula`. What none of these reads as a whole is words. No part of a text is left over: in
`one of 40, 41 and 42` there is no number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from reward_training.answers import markup
from reward_training.answers.evaluation import constant, is_same
from reward_training.answers.formula import Node, NotAFormulaError, has_both_signs, number, parsed, symbols, with_sign
from reward_training.answers.plain_text import plain, visible
from reward_training.answers.quantity import Quantity, quantity
from reward_training.answers.units import canonical, is_known, unit_after

MAX_CHARACTERS = 2000
"""of a value; a longer text is words"""


@dataclass(frozen=True)
class Expression:
    """A formula, or a number that has to be computed: 2^10."""

    tree: Node
    unit: str = ""


@dataclass(frozen=True)
class Several:
    """Values side by side, without brackets."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Brackets:
    """A tuple, a vector, an interval or a list, by its brackets: (1, 2], [1, 2, 3]."""

    opening: str
    closing: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Set:
    """Values in braces."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Union:
    """Intervals and sets that are joined."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Named:
    """A value and the name that it is given: x = 5, f(x) = 2x."""

    name: str
    value: Value
    equation: Relation | None = None
    """the same as an equation, where the name is a variable"""


@dataclass(frozen=True)
class Relation:
    """An equation or inequality: `tree` is the left side minus the right one."""

    sign: str
    """one of = < ≤ ≠; the other directions are turned around"""
    tree: Node


@dataclass(frozen=True)
class Words:
    """Any other text, folded so that case, white space and decoration do not matter."""

    text: str
    has_formula: bool = False
    """whether it has signs of a formula that could not be read"""


Value = Quantity | Expression | Several | Brackets | Set | Union | Matrix | Named | Relation | Words
KINDS: dict[type, str] = {
    Quantity: "number",
    Expression: "expression",
    Several: "list",
    Set: "set",
    Union: "interval",
    Matrix: "matrix",
    Words: "words",
}


def kind(value: Value) -> str:
    """The type of an answer, as the doctor shows it.

    >>> kind(read("[1, 2)")), kind(read("3xy + 5")), kind(read("x = 5")), kind(read(r"\\int_0^1 x"))
    ('interval', 'expression', 'number', 'unread')
    """
    match value:
        case Named(value=named):
            return kind(named)
        case Relation(sign=sign):
            return "equation" if sign == "=" else "inequality"
        case Brackets():
            return "interval" if is_interval(value) else "tuple"
        case Words(has_formula=True):
            return "unread"
        case _:
            return KINDS[type(value)]


def is_interval(value: Value) -> bool:
    """Whether brackets enclose two values and at least one of them is no round one, or an end is infinite."""
    if not isinstance(value, Brackets) or len(value.items) != 2:
        return False
    return "[" + "]" != value.opening + value.closing != "()" or any(_is_infinite(item) for item in value.items)


def _is_infinite(value: Value) -> bool:
    return isinstance(value, Expression) and "infty" in symbols(value.tree)


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
        return _several(tidy(text)) or _words(text)
    except RecursionError:
        return _words(text)


# ---- cleaning -------------------------------------------------------------------------------------------------------

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
SPECIAL_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>")
PRIME = re.compile(r"\^\s*\{?\s*(?:\\prime|')+\s*\}?")
INLINE = re.compile(r"\\\(|\\\)|\\\[|\\\]|\$\$|(?<!\\)\$(?!\s*\d+(?:\.\d\d)?\s*$)")


def tidy(text: str) -> str:
    r"""The text with one spelling for each sign, and without what changes no meaning: \left, sizes, $, Markdown."""
    text = POWER.sub("^", SPECIAL_TOKEN.sub("", plain(text)))
    text = markup.without_phantoms(markup.without_bold(markup.without_formatting_tags(text)))
    before = None
    while text != before:
        before, text = text, text.strip().strip(markup.DECORATION).rstrip(".,;\\").strip()
        for wrapper in (BOX, WRAPPED):
            if (match := wrapper.fullmatch(text)) is not None:
                text = match.group(1)
        text = markup.without_maths_delimiters(text)
    text = PRIME.sub("'", text)
    text = INLINE.sub("", markup.thousands(text))
    text = STYLES.sub("", SIZES_OF_BRACKETS.sub("", text))
    text = WIDE_SPACE.sub(" ", SIGN_NAME.sub(lambda match: NAMES_OF_SIGNS[match.group()], text))
    text = markup.degrees(text)
    return re.sub(r"\s+", " ", text).strip().rstrip(".,;").strip()


def _words(text: str) -> Words:
    """The text as words."""
    content = markup.unwrapped(tidy(text).replace("$", " "))
    has_formula = re.search(r"[\\^_=<>≤≥≠≡∈{}|∪]|\d\s*[-+*/]\s*[\d(]", content) is not None
    if has_formula:
        return Words(re.sub(r"[\s$]", "", content).casefold(), has_formula=True)
    folded = " ".join(re.sub(r"\s*([,;:])\s*", r"\1 ", visible(content)).casefold().split())
    bare = folded.strip(markup.DECORATION + ".!").strip()
    return Words(re.sub(r"^\((.)\)$", r"\1", bare))


# ---- from the outside in --------------------------------------------------------------------------------------------

OPENING, CLOSING = "([{⟨", ")]}⟩"
SEPARATOR = re.compile(
    r"\s*(?:[,;]\s*(?:(?:\\(?:text|mathrm|mbox)\s*\{\s*)?\b(?:and|or)\b(?:\s*\})?)?|\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
RELATION = re.compile(r"[=<>≤≥≠]")
TURNED = {">": "<", "≥": "≤"}
MEMBER = re.compile(r"\s*\\?[A-Za-z]+(?:_\{?\w+\}?)?\s*∈\s*")
ENVIRONMENT = re.compile(r"\\begin\s*\{([pbvBV]?(?:small)?matrix|array|cases)\}(?:\s*\{[^{}]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)  # fmt: skip
BASED = re.compile(r"(\d{1,100})_\{?\s*(?:\\text\{)?(\d{1,3})\}?\s*\}?")
"""a number in another base, 2516_8, of which the base is kept as its unit"""
NAME = re.compile(
    r"\(\s*[a-zA-Z](?:\s*,\s*[a-zA-Z])+\s*\)|"
    r"(?:\\(?:text|mathrm|mathbf|operatorname|mbox)\s*\{[^{}]*\}|(?!(?i:not|never|neither|nor|or|if)\b)[A-Za-z]{3,}(?: (?!(?i:not|never)\b)[A-Za-z]+)*|[A-Z]{2}|[A-Za-z]|\\(?!frac|sqrt|infty|pi\b)[A-Za-z]+(?:\s*[A-Za-z])?)(?:_(?:\w|\\[A-Za-z]+|\{[^{}]*\}))?'*"
    r"(?:\^\{?-1\}?)?(?:\s*\(\s*(?:\\?[A-Za-z0-9]+)(?:\s*,\s*\\?[A-Za-z]+)*\s*\))?|\|[A-Z]{2}\||\\(?:overline|angle)\s*\{?\s*[A-Z]+\s*\}?|m?\\angle\s*[A-Z]+"
    r"|\\frac\s*\{\s*[A-Z]{1,2}\s*\}\s*\{\s*[A-Z]{1,2}\s*\}|[A-Z]{2}\s*/\s*[A-Z]{2}"
)
"""a left side that only names its right side: x, x_1, f(x), AB, \\text{Area}"""


def _several(text: str) -> Value | None:
    """The list, or the one value, that a text is; None where a part of it is no value."""
    if (found := quantity(text)) is not None and not RELATION.search(text):
        return found
    parts = _split(text, SEPARATOR)
    if len(parts) < 2:
        return _one(text)
    items = [_one(part) for part in parts]
    if any(item is None for item in items):
        return None
    values = tuple(item for item in items if item is not None)
    if all(isinstance(value, Brackets | Union) and _is_stretch(value) for value in values):
        return Union(_joined(values))
    if _num_names(values) == 1:
        return Several(tuple(value.value for value in values if isinstance(value, Named)))
    if isinstance(values[0], Named) and not any(isinstance(value, Named) for value in values[1:]):
        return Several((values[0].value, *values[1:]))  # x = 4, -8, 10
    return Several(values)


def _num_names(values: tuple[Value, ...]) -> int:
    """How many different names the values have, x_1 and x_2 being the same; 0 where one has none."""
    names = [value.name.split("_")[0] if isinstance(value, Named) else "" for value in values]
    return len(set(names)) if all(names) else 0


def _is_stretch(value: Value) -> bool:
    return isinstance(value, Union) or is_interval(value)


def _one(text: str) -> Value | None:
    """One value: an equation, an inequality, or a term."""
    text = MEMBER.sub("", text, count=1)
    exact, *rounded = _split(text, re.compile("≈"))
    if rounded:  # sqrt(2) ≈ 1.41 is sqrt(2), but x ≈ 1.41 is 1.41
        text = exact if exact and NAME.fullmatch(exact) is None and "=" not in exact else " = ".join([exact, *rounded]) if exact else rounded[-1]
    signs = [text[i] for i in _positions(text, RELATION)]
    if not signs:
        return _term(text)
    sides = _split(text, RELATION)
    if not all(sides[1:]):
        return None
    return _equation(sides) if set(signs) == {"="} else _inequality(sides, signs)


def _equation(sides: list[str]) -> Value | None:
    """A named value, a true equation's last side, or an equation."""
    if len(sides) == 2 and NAME.fullmatch(sides[0]) is None and NAME.fullmatch(sides[1]) is not None:
        sides = sides[::-1]
    first, last = sides[0], sides[-1]
    if not first:
        return _term(last)
    trees = [_tree(side) for side in sides]
    is_named = NAME.fullmatch(first) is not None and (trees[-1] is None or not _has_name(trees[-1], first))
    middle = trees[1:] if is_named else trees
    known = [tree for tree in middle if tree is not None]
    are_equal = len(known) == len(middle) and all(is_same(tree, known[-1]) for tree in known)
    relation = Relation("=", Node("-", (trees[0], trees[-1]))) if trees[0] and trees[-1] else None
    if is_named and (len(sides) == 2 or are_equal):
        value = _term(last)
        name = re.sub(r"\s", "", markup.unwrapped(first))
        return None if value is None else Named(name, value, relation if len(sides) == 2 else None)
    if not is_named and are_equal:
        return _term(last)
    has_variables = relation is not None and constant(relation.tree) is None
    return relation if has_variables and len(sides) == 2 else None


def _has_name(tree: Node, name: str) -> bool:
    return name.lstrip("\\") in symbols(tree)


def _inequality(sides: list[str], signs: list[str]) -> Value | None:
    r"""An interval where one variable stands alone against constants; else an inequality. 1 \le x < 3 is [1, 3)."""
    trees = [_tree(side) for side in sides]
    known = [tree for tree in trees if tree is not None]
    if len(known) < len(sides) or len(sides) > 3 or "=" in signs:
        return None
    if len(sides) == 3:
        return _between(known, signs)
    left, right = known
    if signs[0] in TURNED:
        left, right, signs = right, left, [TURNED[signs[0]]]
    closed = signs[0] == "≤"
    if signs[0] != "≠" and left.operation == "symbol" and constant(right) is not None:
        return Brackets("(", "]" if closed else ")", (Expression(_infinity(-1)), _simple(right)))
    if signs[0] != "≠" and right.operation == "symbol" and constant(left) is not None:
        return Brackets("[" if closed else "(", ")", (_simple(left), Expression(_infinity(1))))
    return Relation(signs[0], Node("-", (left, right)))


def _between(trees: list[Node], signs: list[str]) -> Value | None:
    if signs[0] in TURNED:
        trees, signs = trees[::-1], signs[::-1]
        signs = [TURNED.get(sign, "") for sign in signs]
    low, middle, high = trees
    if not set(signs) <= {"<", "≤"} or not _is_unknown(middle) or constant(low) is None or constant(high) is None:
        return None
    return Brackets("[" if signs[0] == "≤" else "(", "]" if signs[1] == "≤" else ")", (_simple(low), _simple(high)))


def _is_unknown(tree: Node) -> bool:
    """Whether a tree is a variable, or a function of one: f(x)."""
    return bool(symbols(tree)) and (tree.operation == "symbol" or tree.operation.endswith("()"))


def _infinity(sign: int) -> Node:
    infinity = parsed(r"\infty")
    return infinity if sign > 0 else Node("-", (number(0), infinity))


def _simple(tree: Node, unit: str = "") -> Value:
    """The number that a tree writes out: a decimal, a fraction or a mixed number, with its sign; else the expression."""
    value = _written_out(tree)
    return Expression(tree, unit) if value is None else Quantity(value, unit)


def _written_out(tree: Node) -> Fraction | None:
    match tree.operation, tree.arguments:
        case "number", ():
            return tree.value
        case "-", (Node(value=zero), inner) if zero == 0:
            value = _written_out(inner)
            return None if value is None else -value
        case "/", (top, bottom) if (high := _signed(top)) is not None and (low := _signed(bottom)):
            return high / low
        case "+", (Node(value=whole), Node(operation="/") as part) if whole is not None:
            fraction = _written_out(part)
            return None if fraction is None or not 0 < fraction < 1 or whole.denominator > 1 else whole + fraction
        case _:
            return None


def _signed(tree: Node) -> Fraction | None:
    return None if tree.operation == "/" else _written_out(tree)


def _term(text: str) -> Value | None:
    """A value without relation or comma at its top: a union, brackets, a matrix, a number or an expression."""
    joined = _split(text, re.compile("∪"))
    if len(joined) > 1:
        parts = [_term(part) for part in joined]
        values = tuple(part for part in parts if part is not None)
        return Union(_joined(values)) if len(values) == len(parts) else None
    if (found := quantity(text)) is not None:
        return found
    if (based := BASED.fullmatch(text)) is not None:
        return Quantity(Fraction(int(based.group(1))), f"base {based.group(2)}")
    if re.fullmatch(r"\\mathbb\s*\{?\s*R\s*\}?|\\R", text):
        return Brackets("(", ")", (Expression(_infinity(-1)), Expression(_infinity(1))))
    if (matrix := ENVIRONMENT.fullmatch(text)) is not None:
        return _matrix(matrix.group(2))
    return _in_brackets(text) or _expression(text)


def _joined(values: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(part for value in values for part in (value.items if isinstance(value, Union) else (value,)))


def _matrix(content: str) -> Matrix | None:
    rows = [row for row in re.split(r"\\\\(?:\s*\[[^\]]*\])?|\\cr", content.replace(r"\hline", "")) if row.strip()]
    cells = [[_several(tidy(cell)) for cell in row.split("&")] for row in rows]
    if not cells or any(cell is None for row in cells for cell in row):
        return None
    return Matrix(tuple(tuple(cell for cell in row if cell is not None) for row in cells))


def _in_brackets(text: str) -> Value | None:
    r"""A tuple, interval, list or set; None for other texts, and for round brackets around one value."""
    is_set = text.startswith("\\{") and text.endswith("\\}")
    inner = text[2:-2] if is_set else text[1:-1]
    if not is_set and not (text[:1] in "([⟨{" and text[-1:] in ")]⟩}" and len(text) > 2):
        return None
    if not _is_balanced(inner) or (text[0] == "{") != (text[-1] == "}") and not is_set:
        return None
    parts = _split(inner, re.compile(r"\s*[,;]\s*"))
    if is_set and inner.strip() == "":
        return Words("\\emptyset", has_formula=True)
    items = [_one(part) for part in parts]
    if any(item is None for item in items):
        return _set_of_words(inner) if is_set else None
    values = tuple(item for item in items if item is not None)
    if is_set or (text[0] == "{" and len(values) > 1):
        return Set(values)
    if len(values) < 2 and text[0] != "[":
        return values[0] if text[0] == "(" and text[-1] == ")" and not isinstance(values[0], Named) else None
    return None if len(values) < 2 and text[-1] != "]" else Brackets(*_bracket_names(text), values)


def _bracket_names(text: str) -> tuple[str, str]:
    return text[0].replace("⟨", "("), text[-1].replace("⟩", ")")


def _set_of_words(inner: str) -> Value | None:
    parts = _split(inner, re.compile(r"\s*[,;]\s*"))
    if any(re.search(r"[|:…]", part) for part in parts):
        return None
    return Set(tuple(_words(part) for part in parts))


def _expression(text: str) -> Value | None:
    r"""A formula with at most a unit after it; several values where it has \pm."""
    text, unit = _without_unit(text)
    tree = _tree(text)
    if tree is None or (tree.operation == "symbol" and len(tree.name) > 1 and tree.name.isalpha() and "\\" not in text):
        return None
    if re.fullmatch(r"[A-Za-z\s]+", text) and len(text) > 1 and not re.search(r"\\", text) and text not in ("pi", "oo", "inf", "infinity"):
        return None  # letters alone are a word
    if not unit and tree.operation == "*" and tree.arguments[1] == Node("symbol", name="°"):
        tree, unit = tree.arguments[0], "°"
    if has_both_signs(tree):
        return Several((Expression(with_sign(tree, 1), unit), Expression(with_sign(tree, -1), unit)))
    return _simple(tree, unit)


UNIT_AS_TEXT = re.compile(rf"\s*{markup.WRAPPER}\{{([^{{}}]*)\}}\s*(\^\s*\{{?\d\}}?)?\s*$")
UNIT_AT_END = re.compile(r"\s((?:(?:square|cubic|sq\.?) )?[A-Za-z°/]+(?:\^\{?\d\}?)?(?: (?:per )?[a-z]+)?)\s*$")


def _without_unit(text: str) -> tuple[str, str]:
    """The formula without the unit, or the few words, behind it; and the unit."""
    if (match := UNIT_AS_TEXT.search(text)) is not None and match.start() > 0:
        content = match.group(1).strip() + (match.group(2) or "").replace(" ", "")
        words = match.group(1).split()
        if len(words) <= 4 and (is_known(words[0]) if words else True) or _may_be_unit(text[: match.start()]):
            if not NO_UNIT_WORDS.search(content):
                return text[: match.start()].rstrip(), canonical(content)
    if (match := UNIT_AT_END.search(text)) is not None and unit_after(" " + match.group(1)).strip() == match.group(1):
        return text[: match.start()].rstrip(), canonical(match.group(1))
    if text.endswith("%") or text.endswith("°"):
        return text[:-1].rstrip(), canonical(text[-1])
    if text.startswith("$") and len(text) > 1:
        return text[1:].lstrip(), "$"
    return text, ""


NO_UNIT_WORDS = re.compile(r"\b(?:or|and|to|between|than|least|most|either|maybe|not|no|if|mod|is|are)\b", re.IGNORECASE)


def _may_be_unit(before: str) -> bool:
    """Whether unknown words behind a formula may be its unit: it has no variables."""
    tree = _tree(before)
    return tree is not None and constant(tree) is not None


def _tree(text: str) -> Node | None:
    """The formula, or the number without its unit; None where there is none."""
    try:
        return parsed(text)
    except NotAFormulaError:
        found = quantity(text)
        return number(found.value) if found is not None and not found.unit else None


# ---- splitting ------------------------------------------------------------------------------------------------------


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


def _positions(text: str, pattern: re.Pattern[str]) -> list[int]:
    """Where a pattern matches outside all brackets."""
    depths = list(_depths(text))
    return [match.start() for match in pattern.finditer(text) if depths[match.start()] <= 0]


def _split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The parts of a text between the matches of a pattern outside all brackets, stripped."""
    depths = list(_depths(text))
    parts, start = [], 0
    for match in pattern.finditer(text):
        if match.group() and depths[match.start()] <= 0 and all(depths[i] <= 0 or text[i] == "{" or "\\text" in match.group() or "\\m" in match.group() for i in range(match.start(), match.end())):  # fmt: skip
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _is_balanced(inner: str) -> bool:
    """Whether the text between two brackets closes all that it opens, and no more."""
    depths = list(_depths(inner))
    return not depths or (min(depths) >= 0 and depths[-1] - (inner[-1] in CLOSING) == 0)

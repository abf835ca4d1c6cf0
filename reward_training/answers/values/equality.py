"""Whether two values are equal, by their types: a set is no tuple, an open interval no closed one, 5 feet no 5 metres."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath

from reward_training.answers.values.evaluation import constant, is_multiple, is_same
from reward_training.answers.values.formula import parsed
from reward_training.answers.values.quantity import Quantity
from reward_training.answers.values.tree import Node, is_undone, number, symbol, symbols
from reward_training.answers.values.units import is_another_unit
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

IN_ORDER = re.compile(
    r"\b(?:in (?:\w+ ){0,3}order|order (?:them|these|the)|respectively|sort(?:ed)?|arrange[ds]?|rank(?:ed)?|ascending|descending|(?:smaller|smallest|larger|largest|lower|lowest|higher|highest|negative|positive|least|greatest)(?: \w+)? first|first\b[^.?]*\bthen|followed by|left to right|starting with|beginning with"
    r"|(?:least|smallest|smaller|lowest|shortest|youngest) to|(?:greatest|largest|larger|highest|longest|oldest) to|next (?:two|three|four|\d))\b",
    re.IGNORECASE,
)
"""what a question says where the order of an answer's values matters"""
ASKS_FOR_PERCENT = re.compile(
    r"\b(?:what|which|find|how many|in|as an?|the|by)\s+(?:\w+\s+){0,3}?(?:percent(?:age)?|%)|percent(?:age)?\s+(?:of|did|does|do|is|are|was|were|increase|decrease|change)",
    re.IGNORECASE,
)
MIN_DIGITS = 6
"""significant digits, or decimals with at least MIN_SIGNIFICANT of them, from which a decimal may be a rounded value"""
MIN_SIGNIFICANT = 5
DOUBLE_DIGITS = 15
ENDLESS = 10
"""decimals from which a number is taken for one whose decimals do not end"""
MAX_DECIMALS = 30
MAX_ITEMS = 50
"""of a list or set whose order does not matter; longer ones are compared in order"""


ORDERED = re.compile(r"\bordered\b|\b(\w)\b,? (?:and )?then \w\b", re.IGNORECASE)
"""what it says of values without brackets besides"""


def order_matters(question: str) -> bool:
    """Whether a question asks for its values in an order.

    >>> order_matters("Sort 3, 1, 2."), order_matters("Find all roots of x^2 = 4.")
    (True, False)
    """
    return IN_ORDER.search(question) is not None


def is_equal(answer: Value, gold: Value, question: str = "") -> bool:
    """Whether an answer has the value of the gold answer. The question says which unit and whether an order is asked.

    >>> from reward_training.answers.values.reading import read
    >>> is_equal(read("(1, 2)"), read("(1,2)")), is_equal(read(r"\\{1, 2\\}"), read("(1,2)"))
    (True, False)
    """
    if answer == gold:
        return True
    if isinstance(answer, Named) or isinstance(gold, Named):
        return _are_named_equal(answer, gold, question)
    match answer, gold:
        case Quantity() | Expression(), Quantity() | Expression():
            return _are_terms_equal(answer, gold, question)
        case Several() | Set(), Several() | Set():
            return _are_lists_equal(answer, gold, question)
        case Brackets(), Brackets():
            same_brackets = (answer.opening, answer.closing) == (gold.opening, gold.closing)
            return same_brackets and _all_in_order(answer.items, gold.items, question)
        case Union(), Union():
            return _all_in_any_order(answer.items, gold.items, question)
        case Matrix(), Matrix():
            same_shape = [len(row) for row in answer.rows] == [len(row) for row in gold.rows]
            return same_shape and _all_in_order(sum(answer.rows, ()), sum(gold.rows, ()), question)
        case Relation(), Relation():
            return answer.sign == gold.sign and is_multiple(answer.tree, gold.tree, positive=answer.sign not in "=≠")
        case Words(), Words():
            return answer.text == gold.text
        case _:
            return _are_other_forms(answer, gold, question)


def _are_lists_equal(answer: Several | Set, gold: Several | Set, question: str) -> bool:
    """Whether both have the same values: in order where the question asks for one, or where one side alone has names."""
    in_order = isinstance(answer, Several) and isinstance(gold, Several) and order_matters(question)
    if not any(isinstance(item, Brackets) for item in gold.items):  # "all ordered pairs" is about what is in brackets
        in_order = in_order or ORDERED.search(question) is not None
    if _are_named(answer) != _are_named(gold):
        are_functions = _name_functions(answer) or _name_functions(gold)
        return not are_functions and _all_in_order(answer.items, gold.items, question)
    if in_order:
        return _all_in_order(answer.items, gold.items, question)
    return _all_in_any_order(answer.items, gold.items, question)


def _are_other_forms(answer: Value, gold: Value, question: str) -> bool:
    """Whether two values of different types say the same.

    A set or list of one value is that value; values with names, x = 1 and y = 2, are a tuple in the names' order; a list
    in its brackets is the list, where order matters or the brackets are square.
    """
    match answer, gold:
        case Matrix(rows=rows), Brackets(opening="(", closing=")", items=items) if len(rows) == 1 or len(rows[0]) == 1:
            return _all_in_order(sum(rows, ()), items, question)
        case Brackets(opening="(", closing=")", items=items), Matrix(rows=rows) if len(rows) == 1 or len(rows[0]) == 1:
            return _all_in_order(items, sum(rows, ()), question)
        case ((Set(items=(item,)) | Brackets(opening="[", closing="]", items=(item,))), _):
            return is_equal(item, gold, question)
        case _, Set(items=(item,)):
            return is_equal(answer, item, question)
        case Several(), Brackets(opening="(", closing=")"):
            return _all_in_order(_by_name(answer.items), gold.items, question)
        case Brackets(opening="(", closing=")"), Several() if _by_name(gold.items):
            return _all_in_order(answer.items, _by_name(gold.items), question)
        case Brackets(opening=opening), Several() if opening == "[" or order_matters(question):
            return _all_in_order(answer.items, gold.items, question)
        case _:
            return False


def _are_named(value: Several | Set) -> bool:
    """Whether values have names of their own: x = 1, y = 2."""
    return any(isinstance(item, Named) for item in value.items)


def _name_functions(value: Several | Set) -> bool:
    return any(isinstance(item, Named) and "(" in item.name for item in value.items)


def _by_name(items: Sequence[Value]) -> tuple[Value, ...]:
    """The values in the order of their names; none where one has no name."""
    named = sorted((item for item in items if isinstance(item, Named)), key=lambda item: item.name)
    return tuple(item.value for item in named) if len(named) == len(items) else ()


def _are_named_equal(answer: Value, gold: Value, question: str) -> bool:
    """As is_equal, where a side has a name: `x = 5` is 5, but `y = 5` is not `x = 5`."""
    if isinstance(answer, Named) and isinstance(gold, Named):
        if answer.equation and gold.equation and is_multiple(answer.equation.tree, gold.equation.tree):
            return True
        are_names = _is_symbolic(answer.name) and _is_symbolic(gold.name)
        return not (are_names and answer.name != gold.name) and is_equal(answer.value, gold.value, question)
    if isinstance(gold, Named):
        if isinstance(answer, Relation):
            if isinstance(gold.value, Quantity):
                return False  # an equation that is still to be solved
            return gold.equation is not None and is_equal(answer, gold.equation)
        return is_equal(answer, gold.value, question)
    assert isinstance(answer, Named)
    if isinstance(gold, Relation):
        return answer.equation is not None and is_equal(answer.equation, gold)
    return is_equal(answer.value, gold, question)


def _is_symbolic(name: str) -> bool:
    """Whether a name is one of mathematics, which another one does not equal: x, f(2), AB; and no word."""
    return "(" in name or len(name.lstrip("\\").split("_")[0]) <= 2


# ---- numbers --------------------------------------------------------------------------------------------------------


def are_units_equal(answer: str, gold: str, question: str) -> bool:
    """Whether the units do not differ; without one in the gold answer, the question's counts.

    A base is no unit that a gold answer may leave out.
    """
    if answer and gold:
        return answer == gold
    if answer.startswith("base "):
        return f"base {answer.removeprefix('base ')}" in question
    return not is_another_unit(answer, question)


def _are_terms_equal(answer: Quantity | Expression, gold: Quantity | Expression, question: str) -> bool:
    """Whether two numbers or formulas are equal, with their units."""
    if isinstance(gold, Quantity) and isinstance(answer, Expression) and is_undone(answer.tree):
        return False
    if are_units_equal(answer.unit, gold.unit, question) and _are_numbers_equal(answer, gold):
        return not _is_share_of_whole(answer, gold, question)
    return any(same(answer, gold) for same in (_are_shares_equal, _are_letters_equal, _are_products_equal))


def _are_numbers_equal(answer: Quantity | Expression, gold: Quantity | Expression) -> bool:
    if isinstance(answer, Quantity) and isinstance(gold, Quantity):
        return (
            answer.value == gold.value or is_rounded(answer.value, gold.value) or is_rounded(gold.value, answer.value)
        )
    if is_same(_tree(answer), _tree(gold)):
        return True
    decimal, formula = (answer, gold) if isinstance(answer, Quantity) else (gold, answer)
    exact = constant(_tree(formula))
    return isinstance(decimal, Quantity) and exact is not None and is_rounded(decimal.value, exact)


PERCENT = parsed("1/100")


def _are_shares_equal(answer: Quantity | Expression, gold: Quantity | Expression) -> bool:
    """Whether one side is the other in percent: 33.5% is 0.335."""
    if (answer.unit == "%") == (gold.unit == "%") or {answer.unit, gold.unit} != {"", "%"}:
        return False
    trees = [Node("*", (_tree(side), PERCENT)) if side.unit == "%" else _tree(side) for side in (answer, gold)]
    return is_same(*trees)


def _is_share_of_whole(answer: Quantity | Expression, gold: Quantity | Expression, question: str) -> bool:
    """Whether a gold answer without % is no percentage, so that the same number in percent is another one."""
    if answer.unit != "%" or gold.unit or ASKS_FOR_PERCENT.search(question):
        return False
    return bool(question) or (isinstance(gold, Quantity) and gold.value.denominator > 1 and abs(gold.value) < 1)


def _are_letters_equal(answer: Quantity | Expression, gold: Quantity | Expression) -> bool:
    """Whether both are one letter, in whichever case."""
    trees = [_tree(answer), _tree(gold)]
    are_letters = all(tree.operation == "symbol" and len(tree.name) == 1 for tree in trees)
    return are_letters and trees[0].name.casefold() == trees[1].name.casefold()


def _are_products_equal(answer: Quantity | Expression, gold: Quantity | Expression) -> bool:
    """Whether one side is a product with a letter that the other one's unit may be as well: 3s and 3 s."""
    for quantity, formula in ((answer, gold), (gold, answer)):
        if (
            isinstance(quantity, Quantity)
            and isinstance(formula, Expression)
            and len(quantity.unit) == 1
            and not formula.unit
        ):
            letters = {name for name in symbols(formula.tree) if name.casefold() == quantity.unit}
            return any(is_same(Node("*", (number(quantity.value), symbol(name))), formula.tree) for name in letters)
    return False


def _tree(value: Quantity | Expression) -> Node:
    return number(value.value) if isinstance(value, Quantity) else value.tree


def is_rounded(decimal: Fraction, exact: Fraction | mpmath.mpf) -> bool:
    """Whether a decimal with enough digits is an exact value that was rounded at its last place.

    >>> is_rounded(Fraction("0.333333"), Fraction(1, 3)), is_rounded(Fraction("0.33"), Fraction(1, 3))
    (True, False)
    """
    places = _decimals(decimal)
    if not places or isinstance(exact, mpmath.mpc):
        return False
    if isinstance(exact, Fraction) and (_decimals(exact) or MAX_DECIMALS) < max(places + 1, ENDLESS):
        return False  # the other one has all of its digits
    significant = len(str(abs(decimal.numerator * 10**places // decimal.denominator)))
    has_enough = significant >= MIN_DIGITS or (places >= MIN_DIGITS and significant >= MIN_SIGNIFICANT)
    difference = abs(_minus(decimal, exact)) * 10**places
    limit = 0.5 if significant < DOUBLE_DIGITS else 1.0  # a double's last digit need not be right
    return has_enough and bool(difference <= limit)


def _minus(decimal: Fraction, exact: Fraction | mpmath.mpf) -> Fraction | mpmath.mpf:
    if isinstance(exact, Fraction):
        return decimal - exact
    with mpmath.workdps(50):
        return mpmath.mpf(decimal.numerator) / decimal.denominator - exact


def _decimals(value: Fraction) -> int | None:
    """How many decimals a value has; None where they do not end, or not soon."""
    for places in range(MAX_DECIMALS + 1):
        if (10**places) % value.denominator == 0:
            return places
    return None


# ---- collections ----------------------------------------------------------------------------------------------------


def _all_in_order(answers: Sequence[Value], golds: Sequence[Value], question: str) -> bool:
    if len(answers) != len(golds) or not golds:
        return False
    return all(is_equal(answer, gold, question) for answer, gold in zip(answers, golds, strict=True))


def _all_in_any_order(answers: Sequence[Value], golds: Sequence[Value], question: str) -> bool:
    """Whether each answer has a gold answer of its own that it equals. Equality is no matter of who comes first."""
    if len(answers) > MAX_ITEMS:
        return _all_in_order(answers, golds, question)
    left = list(golds)
    if len(answers) != len(golds):
        return False
    for answer in answers:
        index = _first(left, lambda gold, answer=answer: is_equal(answer, gold, question))  # type: ignore[misc]
        if index is None:
            return False
        del left[index]
    return True


def _first(items: Sequence[Value], fits: Callable[[Value], bool]) -> int | None:
    return next((index for index, item in enumerate(items) if fits(item)), None)

#!/usr/bin/env bash
# Versions: sympy 1.14.0, antlr4-python3-runtime 4.11.0, lark 1.3.1, Python 3.11. Seen on 2026-11-28.
# Guess: parse_latex's backend chooses how the text is parsed: both give the same formula, and one that they cannot read is an error.
# Behaviour: the two disagree on short formulas without a word, and each is right where the other is not. antlr, the default, reads as far
#   as it can and drops the rest unless strict=True, and loses the x of 2x 3 even then. lark gives a tree of all readings for f(x)
#   or \cos x + 1, takes the spaces of thousands for products and y into a cosine that is closed before it.
# Output seen (formula, antlr, antlr with strict=True, lark):
#   1,2           1            error        error
#   1{,}234       1            error        error
#   2x 3          6            6            6*x
#   \pi - \pi     0            0            error
#   \sin\pi       sin(pi)      sin(pi)      error
#   1\,000        1000         1000         0
#   x_12          x_{12}       x_{12}       2*x_{1}
#   \cos(x) y     y*cos(x)     y*cos(x)     cos(x*y)
#   \cos x + 1    cos(x) + 1   cos(x) + 1   a tree
#   x(x+1)        x(x + 1)     x(x + 1)     a tree
#   pi of antlr is a variable: True
# Way out: strict=True with antlr, subs(Symbol("pi"), pi), and \cdot before a bracket; with lark check that the result is no Tree.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check sympy==1.14.0 antlr4-python3-runtime==4.11.0 lark==1.3.1
venv/bin/python - <<'PY'
import sys

import lark
import sympy
from sympy.parsing.latex import parse_latex


def read(formula, **options):
    try:
        value = parse_latex(formula, **options)
    except (sympy.parsing.latex.LaTeXParsingError, lark.exceptions.UnexpectedInput):
        return "error"
    return "a tree" if isinstance(value, lark.Tree) else str(value.doit())


cases = [
    ("1,2", "1", "error", "error"),
    ("1{,}234", "1", "error", "error"),
    ("2x 3", "6", "6", "6*x"),
    (r"\pi - \pi", "0", "0", "error"),
    (r"\sin\pi", "sin(pi)", "sin(pi)", "error"),
    (r"1\,000", "1000", "1000", "0"),
    ("x_12", "x_{12}", "x_{12}", "2*x_{1}"),
    (r"\cos(x) y", "y*cos(x)", "y*cos(x)", "cos(x*y)"),
    (r"\cos x + 1", "cos(x) + 1", "cos(x) + 1", "a tree"),
    ("x(x+1)", "x(x + 1)", "x(x + 1)", "a tree"),
]
changed = False
for formula, *expected in cases:
    said = [read(formula), read(formula, strict=True), read(formula, backend="lark")]
    print(f"{formula:13} {said[0]:12} {said[1]:12} {said[2]}")
    changed |= said != expected
variable = parse_latex(r"\pi") == sympy.Symbol("pi")
print(f"pi of antlr is a variable: {variable}")
if changed or not variable:
    sys.exit("the behaviour has changed")
PY

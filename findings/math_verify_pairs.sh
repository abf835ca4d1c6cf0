#!/usr/bin/env bash
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy as math-verify asks for it, Python 3.11. Seen on 2026-11-28.
# Guess: `(1,2)` is an ordered pair, which is no set and no range of x; and verify says the same with its two sides exchanged.
# Behaviour: a pair in rising order is read as an open interval, one in falling order as a tuple. Either equals a set whose elements were
#   written in the same order. As gold answer it does not equal the same set written the other way round, as the answer to be graded it
#   does, though the sets themselves are equal. So a gold point is graded by how the elements of a set happen to be ordered.
# Output seen (gold, answer, verify(gold, answer), verify(answer, gold)):
#   (1,2)      \{1,2\}    True  True
#   (1,2)      \{2,1\}    False True
#   \{1,2\}    \{2,1\}    True  True
#   (2,1)      \{1,2\}    False True
#   (1,2,3)    1,2,3      True  True
#   (1,2)      x\in(1,2)  True  True
#   (1,2) is read as Interval, (2,1) as Tuple
# Way out: where the gold answer is a point or a tuple, compare the coordinates one by one, and see that the answer has its brackets.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2
venv/bin/python - <<'PY'
import sys

from math_verify import parse, verify

cases = [
    ("(1,2)", r"\{1,2\}", (True, True)),
    ("(1,2)", r"\{2,1\}", (False, True)),
    (r"\{1,2\}", r"\{2,1\}", (True, True)),
    ("(2,1)", r"\{1,2\}", (False, True)),
    ("(1,2,3)", "1,2,3", (True, True)),
    ("(1,2)", r"x\in(1,2)", (True, True)),
]
changed = False
for gold, answer, expected in cases:
    left, right = parse(f"${gold}$"), parse(f"${answer}$")
    said = verify(left, right), verify(right, left)
    print(f"{gold:10} {answer:10} {said[0]!s:5} {said[1]!s}")
    changed |= said != expected
kinds = [type(parse(f"${pair}$")[0]).__name__ for pair in ("(1,2)", "(2,1)")]
print(f"(1,2) is read as {kinds[0]}, (2,1) as {kinds[1]}")
if changed or kinds != ["Interval", "Tuple"]:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0, Python 3.11. Seen on 2026-11-28.
# Guess: notation that stands in every textbook is read as it is meant, or not at all.
# Behaviour: the digits that repeat, the base of a number and the degree sign are dropped, a thin space is a product, and i is a variable.
#   What is left is a number too, so no error tells of it: with a gold answer 0.\overline{3} the answer 0 is right and 1/3 wrong.
# Output seen (gold, what it means, verify; then something else and verify):
#   0.\overline{3}      \frac{1}{3}   False   0               True
#   0.\overline{27}     \frac{3}{11}  False   0.\overline{5}  True
#   5\,000              5000          False   0               True
#   1011_2              11            False   1011_3          True
#   \sin 30^\circ       \frac{1}{2}   False   \sin 30         True
#   (1+i)^2             2i            False   (1+i)(i+1)      True
#   |3+4i|              5             False   |4i+3|          True
# Way out: write gold answers as fractions or plain decimals, and ask for the same in the prompt; compute complex answers and angles
#   oneself. Thousands with a comma (5,000) are read well.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
venv/bin/python - <<'PY'
import sys

from math_verify import parse, verify


def equal(gold, answer):
    return verify(parse(f"${gold}$"), parse(f"${answer}$"))


cases = [
    (r"0.\overline{3}", r"\frac{1}{3}", "0"),
    (r"0.\overline{27}", r"\frac{3}{11}", r"0.\overline{5}"),
    (r"5\,000", "5000", "0"),
    ("1011_2", "11", "1011_3"),
    (r"\sin 30^\circ", r"\frac{1}{2}", r"\sin 30"),
    ("(1+i)^2", "2i", "(1+i)(i+1)"),
    ("|3+4i|", "5", "|4i+3|"),
]
changed = not equal("5,000", "5000")
for gold, meant, other in cases:
    said = equal(gold, meant), equal(gold, other)
    print(f"{gold:19} {meant:13} {said[0]!s:7} {other:15} {said[1]!s}")
    changed |= said != (False, True)
if changed:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0, Python 3.11. Seen on 2026-11-28.
# Guess: float_rounding=6 and numeric_precision=15 are digits that count, so numbers of any size are compared alike.
# Behaviour: both are places after the point. A plain decimal equals any number that rounds to the same six places. Of two numbers written
#   with a power, the difference is taken and put to zero when it is smaller than about 5e-17: then charges, Planck's constants and small
#   probabilities are all equal, also with the other sign and many powers of ten apart. Zero itself is compared exactly.
# Output seen (gold, answer, verify, verify with 50 for both options):
#   1.6\times 10^{-19}   4.8\times 10^{-19}   True  False
#   1.6\times 10^{-19}   -1.6\times 10^{-19}  True  False
#   1.6\times 10^{-19}   9\times 10^{-31}     True  False
#   (\frac{1}{6})^{25}   (\frac{1}{6})^{26}   True  False
#   1.6\times 10^{-19}   0                    False False
#   3.2\times 10^{-8}    4.1\times 10^{-8}    False False
#   3.2\times 10^{-8}    0.000000041          True  False
#   0.0000012            0.0000014            True  False
# Way out: divide gold and answer by the power of ten of the gold answer and compare those; or raise both options, which then also asks
#   for all the digits of 0.333333.
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

cases = [
    (r"1.6\times 10^{-19}", r"4.8\times 10^{-19}", True),
    (r"1.6\times 10^{-19}", r"-1.6\times 10^{-19}", True),
    (r"1.6\times 10^{-19}", r"9\times 10^{-31}", True),
    (r"(\frac{1}{6})^{25}", r"(\frac{1}{6})^{26}", True),
    (r"1.6\times 10^{-19}", "0", False),
    (r"3.2\times 10^{-8}", r"4.1\times 10^{-8}", False),
    (r"3.2\times 10^{-8}", "0.000000041", True),
    ("0.0000012", "0.0000014", True),
]
changed = False
for gold, answer, expected in cases:
    left, right = parse(f"${gold}$"), parse(f"${answer}$")
    said = verify(left, right), verify(left, right, float_rounding=50, numeric_precision=50)
    print(f"{gold:20} {answer:20} {said[0]!s:5} {said[1]!s}")
    changed |= said != (expected, False)
if changed or verify(parse(r"$\frac{1}{3}$"), parse("$0.333333$"), float_rounding=50, numeric_precision=50):
    sys.exit("the behaviour has changed")
PY

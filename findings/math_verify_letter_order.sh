#!/usr/bin/env bash
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0, Python 3.11. Seen on 2026-11-28.
# Guess: letters that are no formula, as the order of finishing in \boxed{BAC}, are compared as letters, or at least not found equal in
#   another order.
# Behaviour: they are variables, a*b*c, so every order of them is right, capital or not. Primes are taken for quotation marks and go, so
#   f' is f. In \text{} the order counts, and against letters without it too: which answers are right depends on the gold answer's dress.
# Output seen (gold, answer, verify):
#   BAC          CAB          True
#   BAC          abc          True
#   f'(x)        f(x)         True
#   A'           A            True
#   \text{BAC}   \text{CAB}   False
#   \text{BAC}   BAC          True
#   \text{BAC}   CAB          False
# Way out: compare such answers as strings; or have \text{} around the gold answer, which takes BAC with it and without.
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
    ("BAC", "CAB", True),
    ("BAC", "abc", True),
    ("f'(x)", "f(x)", True),
    ("A'", "A", True),
    (r"\text{BAC}", r"\text{CAB}", False),
    (r"\text{BAC}", "BAC", True),
    (r"\text{BAC}", "CAB", False),
]
changed = False
for gold, answer, expected in cases:
    said = verify(parse(rf"\boxed{{{gold}}}"), parse(rf"\boxed{{{answer}}}"))
    print(f"{gold:12} {answer:12} {said}")
    changed |= said != expected
if changed:
    sys.exit("the behaviour has changed")
PY

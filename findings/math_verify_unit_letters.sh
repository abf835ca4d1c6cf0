#!/usr/bin/env bash
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0, Python 3.11. Seen on 2026-11-28.
# Guess: units are words (cm, kg) or stand in \text{}; a letter after a number is a variable, so 2t is not 2 and not 2s.
# Behaviour: parse takes off a unit at the end of a formula, twice, and its list of units has the letters c, d, g, h, l, m, o, s, t and
#   pairs as ab, bc, st. A last variable with one of these names goes, with its space or number before it: 2t, 2s and 2 are one answer,
#   and half of gt is a half. A variable with another name, or before a plus sign, stays.
# Output seen (gold, answer, verify):
#   2t                 2                True
#   2t                 2s               True
#   3ab                3bc              True
#   x^{2}h             x^{2}            True
#   \frac{1}{2} g t    0.5              True
#   2n                 2                False
#   2t+1               3                False
#   without units:
#   2t                 2s               False
#   7\text{ cm}        7                False
#   letters that are units: c d g h l m o s t
# Way out: LatexExtractionConfig(normalization_config=NormalizationConfig(units=False)) for gold and answer where answers have variables.
#   Then 7\text{ cm} is no longer 7.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
venv/bin/python - <<'PY'
import string
import sys

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

WITH = LatexExtractionConfig()
WITHOUT = LatexExtractionConfig(normalization_config=NormalizationConfig(units=False))


def equal(gold, answer, config=WITH):
    return verify(parse(f"${gold}$", [config]), parse(f"${answer}$", [config]))


cases = [
    ("2t", "2", WITH, True),
    ("2t", "2s", WITH, True),
    ("3ab", "3bc", WITH, True),
    ("x^{2}h", "x^{2}", WITH, True),
    (r"\frac{1}{2} g t", "0.5", WITH, True),
    ("2n", "2", WITH, False),
    ("2t+1", "3", WITH, False),
    ("2t", "2s", WITHOUT, False),
    (r"7\text{ cm}", "7", WITHOUT, False),
]
changed = False
for place, (gold, answer, config, expected) in enumerate(cases):
    if config is WITHOUT and cases[place - 1][2] is WITH:
        print("without units:")
    said = equal(gold, answer, config)
    print(f"{gold:18} {answer:16} {said}")
    changed |= said != expected
letters = " ".join(letter for letter in string.ascii_lowercase if equal("2" + letter, "2"))
print(f"letters that are units: {letters}")
if changed or letters != "c d g h l m o s t":
    sys.exit("the behaviour has changed")
PY

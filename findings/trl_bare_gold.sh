#!/usr/bin/env bash
# Versions: trl 1.16.0 (without its dependencies, which this reward does not need), math-verify 0.9.0, latex2sympy2_extended 1.11.0,
#   sympy 1.14.0, Python 3.11. Seen on 2026-11-28.
# Guess: accuracy_reward's gold answers may be bare LaTeX, for its own example has "\frac{1}{3}"; one that it cannot read gives None.
# Behaviour: without dollar signs only plain numbers and a fraction of two numbers are read, wherever they stand in the gold answer. Of
#   2\sqrt{3} the 2 is left, of 5x the 5: the right completion gets 0 and \boxed{2} gets 1. Only where no number is found it is None.
# Output seen (gold, reward of the same in \boxed{}, what is read instead and its reward; reward of the same if gold has dollar signs):
#   \frac{1}{3}              1.0   \frac{1}{3}  1.0   1.0
#   2\sqrt{3}                0.0   2            1.0   1.0
#   \frac{2}{3}\sqrt{5}      0.0   \frac{2}{3}  1.0   1.0
#   2^{10}                   0.0   2            1.0   1.0
#   5x                       0.0   5            1.0   1.0
#   -1 < x < 2               0.0   2            1.0   1.0
#   x=2, y=3                 0.0   3            1.0   1.0
#   \frac{\pi}{4}            None  -            -     1.0
#   x+1                      None  -            -     1.0
# Way out: put every gold answer between dollar signs or into \boxed{}, and see that it gets 1 as its own completion.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0 packaging==25.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps trl==1.16.0
venv/bin/python - <<'PY'
import sys

from math_verify import parse
from trl.rewards import accuracy_reward


def reward(answer, gold):
    return accuracy_reward([[{"role": "assistant", "content": rf"\boxed{{{answer}}}"}]], [gold])[0]


cases = [
    (r"\frac{1}{3}", 1.0, r"\frac{1}{3}"),
    (r"2\sqrt{3}", 0.0, "2"),
    (r"\frac{2}{3}\sqrt{5}", 0.0, r"\frac{2}{3}"),
    ("2^{10}", 0.0, "2"),
    ("5x", 0.0, "5"),
    ("-1 < x < 2", 0.0, "2"),
    ("x=2, y=3", 0.0, "3"),
    (r"\frac{\pi}{4}", None, "-"),
    ("x+1", None, "-"),
]
changed = False
for gold, expected, part in cases:
    found = (parse(gold) or ["-"])[-1]
    of_part = "-" if found == "-" else reward(found, gold)
    said = reward(gold, gold), found, of_part, reward(gold, f"${gold}$")
    print(f"{gold:24} {said[0]!s:5} {said[1]:12} {said[2]!s:5} {said[3]}")
    changed |= said != (expected, part, "-" if part == "-" else 1.0, 1.0)
if changed or reward(r"2\sqrt{3}", r"\boxed{2\sqrt{3}}") != 1.0:
    sys.exit("the behaviour has changed")
PY

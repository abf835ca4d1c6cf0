#!/usr/bin/env bash
# Versions: verl 0.9.1 and lm-eval 0.4.13 (without their dependencies; the one file that scores is loaded from each), math-verify 0.9.0,
#   latex2sympy2_extended 1.11.0, sympy 1.14.0, antlr4-python3-runtime 4.11.0, Python 3.11. Seen on 2026-11-28.
# Guess: verl's math_dapo (its scorer for data sources math, math_dapo and aime) and lm-eval's minerva_math drop articles and units around
#   an answer, and compare the answer.
# Behaviour: both take out "a " and "an " everywhere, before the spaces go. A variable a with a space behind it is lost, so a + b equals
#   + b, 2a + b equals 2 + b, and a+b is wrong. And only what stands behind the last "=" is compared, of several values the last one.
# Output seen (gold, answer, verl's score, lm-eval's exact_match):
#   a + b          a+b             -1.0  False
#   a + b          + b             1.0   True
#   2a + b         2 + b           1.0   True
#   2a + b         2a+b            -1.0  False
#   2n + b         2 + b           -1.0  False
#   2n + b         2n+b            1.0   True
#   x = 2, y = 3   x = 7, y = 3    1.0   True
#   x = 2, y = 3   3               1.0   True
# Way out: write gold answers without spaces and ask for them so, or leave such rows to a scorer that reads formulas (math-verify's result
#   stands beside exact_match in lm-eval; verl has reward_score/math_verify.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.11.0 sympy==1.14.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps verl==0.9.1 lm-eval==0.4.13
venv/bin/python - <<'PY'
import runpy
import sys
import sysconfig

packages = sysconfig.get_path("purelib")
verl = runpy.run_path(f"{packages}/verl/utils/reward_score/math_dapo.py")
minerva = runpy.run_path(f"{packages}/lm_eval/tasks/minerva_math/utils.py")


def by_lm_eval(gold, answer):
    said = minerva["get_unnormalized_answer"](f"Final Answer: The final answer is ${answer}$. I hope it is correct.")
    normal = minerva["normalize_final_answer"]
    return minerva["is_equiv"](normal(said), normal(f"${gold}$"))


cases = [
    ("a + b", "a+b", False),
    ("a + b", "+ b", True),
    ("2a + b", "2 + b", True),
    ("2a + b", "2a+b", False),
    ("2n + b", "2 + b", False),
    ("2n + b", "2n+b", True),
    ("x = 2, y = 3", "x = 7, y = 3", True),
    ("x = 2, y = 3", "3", True),
]
changed = False
for gold, answer, expected in cases:
    said = verl["compute_score"](f"Answer: ${answer}$", gold)["score"], by_lm_eval(gold, answer)
    print(f"{gold:14} {answer:15} {said[0]!s:5} {said[1]}")
    changed |= said != (1.0 if expected else -1.0, expected)
if changed:
    sys.exit("the behaviour has changed")
PY

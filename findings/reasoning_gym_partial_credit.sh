#!/usr/bin/env bash
# Versions: reasoning-gym 0.1.25, Python 3.11. Seen on 2026-11-28.
# Guess: a wrong number scores 0 (or the 0.01 of some data sets), and a score in between says that an answer is partly right.
# Behaviour: the scorer that most data sets with numbers use gives length of gold by length of answer wherever the gold digits stand in the
#   answer. A digit too many or a wrong sign gets half to three quarters of the reward and the next number nothing; the right number with
#   a decimal point or a line break behind it gets no more than that. gsm_symbolic has a scorer of its own and takes either sign as right.
# Output seen (mean score of 50 items; n is the gold number):
#                     n     n0    1n    -n    n+1   n.0   n and a line break
#   gcd               1.00  0.52  0.52  0.52  0.00  0.36  0.52
#   lcm               1.00  0.76  0.76  0.76  0.00  0.61  0.76
#   simple_equations  1.00  0.65  0.65  0.65  0.00  0.49  0.65
#   count_primes      1.00  0.71  0.71  0.71  0.00  0.56  0.71
#   leg_counting      1.00  0.74  0.74  0.74  0.00  0.59  0.74
#   gsm_symbolic      1.00  0.01  0.01  1.00  0.01  1.00  1.00
# Way out: strip the answer first, and count a score below 1 as 0 where the answer is a number; for gsm_symbolic compare the numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check reasoning-gym==0.1.25
venv/bin/python - <<'PY'
import sys

import reasoning_gym

SIZE = 50
FORMS = ["{}", "{}0", "1{}", "-{}", "next", "{}.0", "{}\n"]
NAMES = ["gcd", "lcm", "simple_equations", "count_primes", "leg_counting", "gsm_symbolic"]


def means(name):
    rows = reasoning_gym.create_dataset(name, seed=5, size=SIZE)
    sums = dict.fromkeys(FORMS, 0.0)
    for index in range(SIZE):
        row = rows[index]
        number = int(row["answer"])
        for form in FORMS:
            answer = str(number + 1) if form == "next" else form.format(number)
            sums[form] += rows.score_answer(answer, row)
    return [total / SIZE for total in sums.values()]


print(f"{'':17} n     n0    1n    -n    n+1   n.0   n and a line break")
changed = False
for name in NAMES:
    exact, longer, before, minus, after, point, line = seen = means(name)
    print(f"{name:17}", "  ".join(f"{mean:.2f}" for mean in seen))
    if name == "gsm_symbolic":
        changed |= exact != 1 or minus != 1 or after > 0.02
    else:
        changed |= exact != 1 or min(longer, before, minus) < 0.4 or after != 0 or point >= longer or line > longer
if changed:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: reasoning-gym 0.1.25, Python 3.11. Seen on 2026-11-28.
# Guess: two seeds give two independent sets, so seed 0 is for training and seed 1 for the test.
# Behaviour: in 7 of the 8 data sets that are tried here, seed 1 is seed 0 moved on by one. Of a chain_sum training set of 1000
#   items with seed 0 and a test set of 100 with seed 1, every test question is a training question.
# Output seen:
#   chain_sum: 100 of 100 test questions are training questions, as item i + 1
#   data sets where seed 1 is seed 0 moved on by one: 7 of 8; not gsm_symbolic
#   with seeds 0 and 1000000: 0 of 100
# Way out: seeds further apart than the longest set; or one set, split by index.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check reasoning-gym==0.1.25
venv/bin/python - <<'PY'
import sys

import reasoning_gym


def questions(name, seed, size):
    rows = reasoning_gym.create_dataset(name, seed=seed, size=size)
    return [rows[index]["question"] for index in range(size)]


train, test = questions("chain_sum", 0, 1000), questions("chain_sum", 1, 100)
shared = sum(question in set(train) for question in test)
in_order = test == train[1:101]
print(f"chain_sum: {shared} of 100 test questions are training questions{', as item i + 1' if in_order else ''}")
names = ["chain_sum", "countdown", "knights_knaves", "maze", "simple_equations", "sudoku", "word_sorting", "gsm_symbolic"]
moved = [name for name in names if questions(name, 0, 6)[1:] == questions(name, 1, 5)]
others = ", ".join(sorted(set(names) - set(moved)))
print(f"data sets where seed 1 is seed 0 moved on by one: {len(moved)} of {len(names)}; not {others}")
apart = sum(question in set(train) for question in questions("chain_sum", 1_000_000, 100))
print(f"with seeds 0 and 1000000: {apart} of 100")
if not in_order or len(moved) != 7 or apart:
    sys.exit("the behaviour has changed")
PY

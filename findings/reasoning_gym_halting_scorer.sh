#!/usr/bin/env bash
# Versions: reasoning-gym 0.1.25, Python 3.11. Seen on 2026-11-29.
# Guess: a family's own score_answer tells its gold answer from the opposite one.
# Behaviour: the scorer of game_of_life_halting gives 1.0 to every text that is not empty: the gold answer, its opposite, and prose. Used as a
#   reward it pays for anything; a family of yes and no that is tried beside it tells the answers apart.
# Output seen (share of 20 problems with score 1):
#   game_of_life_halting  gold 1.00  opposite 1.00  "I do not know." 1.00  empty 0.00
#   syllogism             gold 1.00  opposite 0.00  "I do not know." 0.00  empty 0.00
# Way out: compare with the gold answer as a text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check reasoning-gym==0.1.25
venv/bin/python -W ignore - <<'PY'
import sys

import reasoning_gym

OPPOSITE = {"True": "False", "False": "True", "Yes": "No", "No": "Yes"}


def shares(family):
    data = reasoning_gym.create_dataset(family, size=20, seed=3)
    tries = (lambda gold: gold, OPPOSITE.__getitem__, lambda gold: "I do not know.", lambda gold: "")
    return [sum(data.score_answer(written(str(entry["answer"])), entry) == 1 for entry in data) / 20 for written in tries]


seen = {family: shares(family) for family in ("game_of_life_halting", "syllogism")}
for family, (gold, opposite, prose, empty) in seen.items():
    print(f'{family:21} gold {gold:.2f}  opposite {opposite:.2f}  "I do not know." {prose:.2f}  empty {empty:.2f}')
if seen != {"game_of_life_halting": [1, 1, 1, 0], "syllogism": [1, 0, 0, 0]}:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: numpy 2.4.6, Python 3.11. Seen on 2026-11-28.
# Guess: default_rng([seed, round, step]) makes another stream for each list, as a hash of the list would.
# Behaviour: SeedSequence fills its entropy up with zeros to four words, so trailing zeros do not count: the streams of seed, [seed, 0]
#   and [seed, 0, 0, 0] are one. At round 0, step 0 the "own" stream of a step is the run's stream. With more than four words the rest
#   is what spawn_key holds: [seed, 0, 0, 0, k] is the child k of SeedSequence(seed).spawn.
# Output seen:
#   5                670790055
#   [5, 0]           670790055
#   [5, 0, 0, 0]     670790055
#   [0, 5]           696403954
#   [5, 0, 0, 0, 1]  538439988
#   second child     538439988
# Way out: put a word that is never zero last ([seed, round, step, 1]), or use spawn_key for the coordinates and nothing else.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6
venv/bin/python - <<'PY'
import sys

import numpy as np


def first(seed):
    return int(np.random.default_rng(seed).integers(10**9))


seeds = [5, [5, 0], [5, 0, 0, 0], [0, 5], [5, 0, 0, 0, 1]]
drawn = [first(seed) for seed in seeds]
child = first(np.random.SeedSequence(5).spawn(2)[1])
for seed, value in zip([*seeds, "second child"], [*drawn, child]):
    print(f"{str(seed):16} {value}")
if not drawn[0] == drawn[1] == drawn[2] or drawn[0] == drawn[3] or drawn[4] != child:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: inspect-ai 0.3.285, Python 3.11. Seen on 2026-11-28.
# Guess: match(numeric=True), the scorer for numbers, compares numbers: 5 equals 5.0, and 123461 is not 123456.
# Behaviour: both numbers are rounded to five digits that count and compared as text, so from six digits on wrong answers are correct. A
#   number counts only if it stands between spaces: \boxed{5}, x=5, 50% and 5cm are passed over and the number before them is scored, or
#   1/2 against 0.5 none. The comma always goes: 1,5 is 15. The number of "1 000" is its last part, 0.
# Output seen (completion, target, value, number that was scored):
#   123461                           123456    C  1.2346e+05
#   2024001                          2023999   C  2.024e+06
#   99999.7                          100000    C  1e+05
#   12346                            12345     I  12346
#   With 3 apples it is \boxed{5}    5         I  3
#   With 3 apples it is \boxed{5}    3         C  3
#   With 3 apples it is 50%          3         C  3
#   With 3 apples it is $5$          5         C  5
#   1,5                              15        C  15
#   1 000                            0         C  0
#   1/2                              0.5       I
# Way out: pattern() with an expression of one's own that finds the number, or model answers on a line of their own; for targets of six
#   and more digits compare the numbers in a scorer of one's own.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check inspect-ai==0.3.285
export HOME="$work" XDG_DATA_HOME="$work" XDG_CACHE_HOME="$work"
venv/bin/python - <<'PY'
import asyncio
import sys

from inspect_ai.model import ModelOutput
from inspect_ai.scorer import Target, match
from inspect_ai.solver import TaskState


def scored(completion, target):
    output = ModelOutput.from_content("mockllm/model", completion)
    state = TaskState(model="mockllm/model", sample_id=1, epoch=1, input="", messages=[], output=output)
    score = asyncio.run(match(numeric=True)(state, Target(target)))
    return score.value, score.answer


cases = [
    ("123461", "123456", "C", "1.2346e+05"),
    ("2024001", "2023999", "C", "2.024e+06"),
    ("99999.7", "100000", "C", "1e+05"),
    ("12346", "12345", "I", "12346"),
    (r"With 3 apples it is \boxed{5}", "5", "I", "3"),
    (r"With 3 apples it is \boxed{5}", "3", "C", "3"),
    ("With 3 apples it is 50%", "3", "C", "3"),
    ("With 3 apples it is $5$", "5", "C", "5"),
    ("1,5", "15", "C", "15"),
    ("1 000", "0", "C", "0"),
    ("1/2", "0.5", "I", ""),
]
changed = False
for completion, target, *expected in cases:
    said = scored(completion, target)
    print(f"{completion:32} {target:9} {said[0]}  {said[1]}".rstrip())
    changed |= list(said) != expected
if changed:
    sys.exit("the behaviour has changed")
PY

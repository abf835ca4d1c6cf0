#!/usr/bin/env bash
# Versions: datasets 5.2.0, pyarrow 25.0.1, Python 3.11. Seen on 2026-11-28.
# Guess: casting a column to ClassLabel looks each answer up among the names, or says that it is none of them.
# Behaviour: a number is taken for the place of a name, and so is a string that is no name but reads as one; a boolean is a number. With
#   the names 1, 2, 3, 4 the answers 1, 2, 3 become 2, 3, 4, and the names True and False change places. A place that does not exist is
#   kept by cast_column and fails only when its name is asked for. class_encode_column does look numbers up, but sorts them as strings.
# Output seen (answers, names, what the column says afterwards):
#   [1, 2, 3]          ['1', '2', '3', '4']   ['2', '3', '4']
#   ['1', '2', '3']    ['1', '2', '3', '4']   ['1', '2', '3']
#   ['0', '1']         ['1', '2', '3', '4']   ['1', '1']
#   ['yes', '1']       ['no', 'yes']          ['yes', 'yes']
#   [True, False]      ['True', 'False']      ['False', 'True']
#   [4, 9]             ['1', '2', '3', '4']   kept as [4, 9]
#   class_encode_column of [1, 2, 10]: names ['1', '10', '2'], classes [0, 2, 1]
# Way out: map the answers to places oneself (names.index(str(answer))), which fails on a stranger, and then cast.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==25.0.1
export HF_HOME="$work/home" HF_HUB_OFFLINE=1
venv/bin/python - <<'PY'
import sys

import datasets

datasets.disable_progress_bars()


def cast(answers, names):
    rows = datasets.Dataset.from_dict({"answer": answers}).cast_column("answer", datasets.ClassLabel(names=names))
    try:
        return rows.features["answer"].int2str(rows["answer"][:])
    except ValueError:
        return f"kept as {rows['answer'][:]}"


choices = ["1", "2", "3", "4"]
cases = [
    ([1, 2, 3], choices, ["2", "3", "4"]),
    (["1", "2", "3"], choices, ["1", "2", "3"]),
    (["0", "1"], choices, ["1", "1"]),
    (["yes", "1"], ["no", "yes"], ["yes", "yes"]),
    ([True, False], ["True", "False"], ["False", "True"]),
    ([4, 9], choices, "kept as [4, 9]"),
]
changed = False
for answers, names, expected in cases:
    said = cast(answers, names)
    print(f"{answers!s:18} {names!s:22} {said}")
    changed |= said != expected
encoded = datasets.Dataset.from_dict({"answer": [1, 2, 10]}).class_encode_column("answer")
names, classes = encoded.features["answer"].names, encoded["answer"][:]
print(f"class_encode_column of [1, 2, 10]: names {names}, classes {classes}")
if changed or (names, classes) != (["1", "10", "2"], [0, 2, 1]):
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: datasets 5.2.0, pyarrow 25.0.1, Python 3.11. Seen on 2026-11-28.
# Guess: a column that map makes holds what the function gave, or map raises.
# Behaviour: the first 1000 rows (writer_batch_size) settle the column's type, and later rows are cast to it. A score that is True or
#   False in those rows and 0.5 further down is stored as True; if the half comes within them, it is kept (type Json). A column that
#   begins with numbers does raise on 0.5 after integers, so only some of such mixtures are caught.
# Output seen:
#   half in row 999   Json(decode=True) 0.5
#   half in row 1000  Value('bool') True
#   half in row 1000, writer_batch_size=2000  Json(decode=True) 0.5
#   integers first    ArrowInvalid
# Way out: give floats throughout, or name the type: map(..., features=Features({"score": Value("float64")})).
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
import pyarrow

datasets.disable_progress_bars()


def scored(half, other=True, **settings):
    rows = datasets.Dataset.from_dict({"row": list(range(1100))})
    rows = rows.map(lambda one: {"score": 0.5 if one["row"] == half else other}, **settings)
    return str(rows.features["score"]), rows[half]["score"]


early, late, wide = scored(999), scored(1000), scored(1000, writer_batch_size=2000)
try:
    integers = scored(1000, other=1)
except pyarrow.ArrowInvalid as error:
    integers = type(error).__name__
print("half in row 999  ", *early)
print("half in row 1000 ", *late)
print("half in row 1000, writer_batch_size=2000 ", *wide)
print("integers first   ", integers)
if early[1] != 0.5 or late != ("Value('bool')", True) or wide[1] != 0.5 or integers != "ArrowInvalid":
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: datasets 5.2.0, pyarrow 25.0.1, Python 3.11. Seen on 2026-11-28.
# Guess: a JSON string comes back as a string; at worst a column that mixes numbers and strings is refused, or all of it becomes text.
# Behaviour: such a column gets the type Json, and every string in it that is itself JSON is parsed once more, by load_dataset and by
#   Dataset.map alike: an answer "007" becomes 7, "null" a missing value, "[1, 2]" a list. A column of nothing but dates becomes
#   timestamps. A column of strings alone is left alone, so one number among the answers changes how the others read.
# Output seen:
#   strings only  Value('string')       ['007', 'null', '[1, 2]', 'two']
#   one number    Json(decode=True)     [7, None, [1, 2], 'two', 2.5]
#   by map        Json(decode=True)     [2.5, 7]
#   dates only    Value('timestamp[s]') [datetime.datetime(2026, 1, 2, 0, 0)]
#   named string  Value('string')       ['007', 'null', '[1, 2]', '"two"', '2.5']
#   named string  Value('string')       ['2026-01-02 00:00:00']
# Way out: not features= with Value("string"), which comes too late (the last two lines: plain words get quotation marks, dates a time).
#   Make each answer a string with the json module and give the rows to Dataset.from_list.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==25.0.1
export HF_HOME="$work/home" HF_HUB_OFFLINE=1
venv/bin/python - <<'PY'
import datetime
import json
import sys

import datasets

datasets.disable_progress_bars()


STRING = datasets.Features({"answer": datasets.Value("string")})


def load(name, values, features=None):
    with open(f"{name}.jsonl", "w") as lines:
        lines.writelines(json.dumps({"answer": value}) + "\n" for value in values)
    return datasets.load_dataset("json", data_files=f"{name}.jsonl", split="train", features=features)


texts = ["007", "null", "[1, 2]", "two"]
mixed = [2.5, "7"]
by_map = datasets.Dataset.from_dict({"row": [0, 1]}).map(lambda one: {"answer": mixed[one["row"]]})
cases = [
    ("strings only", load("texts", texts), texts),
    ("one number", load("mixed", [*texts, 2.5]), [7, None, [1, 2], "two", 2.5]),
    ("by map", by_map, [2.5, 7]),
    ("dates only", load("dates", ["2026-01-02"]), [datetime.datetime(2026, 1, 2)]),
    ("named string", load("named", [*texts, 2.5], STRING), ["007", "null", "[1, 2]", '"two"', "2.5"]),
    ("named string", load("named_dates", ["2026-01-02"], STRING), ["2026-01-02 00:00:00"]),
]
for name, rows, _ in cases:
    print(f"{name:13} {str(rows.features['answer']):21} {rows['answer'][:]}")
types = [str(rows.features["answer"]).split("(")[0] for _, rows, _ in cases]
as_seen = types == ["Value", "Json", "Json", "Value", "Value", "Value"] and "timestamp" in str(cases[3][1].features["answer"])
if not as_seen or any(rows["answer"][:] != expected for _, rows, expected in cases):
    sys.exit("the behaviour has changed")
PY

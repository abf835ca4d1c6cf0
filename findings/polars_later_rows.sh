#!/usr/bin/env bash
# Versions: polars 2.1.0, Python 3.11. Seen on 2026-12-01.
# Guess: pl.DataFrame(rows) of dicts, with strict=True by default ("Throw an error if any data value does not exactly match the given or inferred data
#   type"), either keeps each value or raises, as it does for columns.
# Behaviour: the first 100 rows settle names and types, and what comes later is made to fit where it can be: a reward of 0.5 after whole numbers becomes 0, 1.9
#   becomes 1, after booleans 0.5 and 2 become False. Text that reads as a number is one, and a key that first comes later (an evaluation's metric, the
#   tool calls of a message) is dropped. Where a type is given, values are made to fit it from the first row on. Only text that is no number, and NaN, raise.
#   read_ndjson raises for all of these values, but drops keys as well.
# Output seen (100 rows with the first value and one with the second, and what the second is then; 99 rows: one fewer of the first; columns:
#   pl.DataFrame({"x": [...]}) of the same values):
#   1     0.5    rows: 0, 99 rows: 0.5, read_ndjson: ComputeError, columns: TypeError
#   1     1.9    rows: 1, 99 rows: 1.9, read_ndjson: ComputeError, columns: TypeError
#   True  0.5    rows: False, 99 rows: 0.5, read_ndjson: ComputeError, columns: TypeError
#   False 2      rows: False, 99 rows: 2, read_ndjson: ComputeError, columns: TypeError
#   1     7      rows: 7, 99 rows: '7', read_ndjson: ComputeError, columns: TypeError
#   1     seven  rows: ComputeError, 99 rows: 'seven', read_ndjson: ComputeError, columns: TypeError
#   1     nan    rows: ComputeError, 99 rows: nan, read_ndjson: ComputeError, columns: TypeError
#   0.5 as Int64, strict=True: [0]
#   tool_calls in row 101: {'role': 'assistant'}
#   eval_reward in row 101: ['step'], read_ndjson: ['step'], infer_schema_length=None: ['step', 'eval_reward']
# Way out: pl.DataFrame(rows, infer_schema_length=None), or columns in the place of rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check polars==2.1.0
venv/bin/python - <<'PY'
import json
import sys

import polars as pl


def last(make):
    try:
        return repr(make()["x"][-1])
    except (TypeError, pl.exceptions.PolarsError) as error:
        return type(error).__name__


found = {}
for first, later in ((1, 0.5), (1, 1.9), (True, 0.5), (False, 2), (1, "7"), (1, "seven"), (1, float("nan"))):
    values = [first] * 100 + [later]
    rows = [{"x": value} for value in values]
    with open("rows.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    ways = {
        "rows": lambda rows=rows: pl.DataFrame(rows),
        "99 rows": lambda rows=rows: pl.DataFrame(rows[1:]),
        "read_ndjson": lambda: pl.read_ndjson("rows.jsonl"),
        "columns": lambda values=values: pl.DataFrame({"x": values}),
    }
    seen = found[repr(first), repr(later)] = {way: last(make) for way, make in ways.items()}
    print(f"{first!s:5} {later!s:5}  " + ", ".join(f"{way}: {value}" for way, value in seen.items()))
given = pl.DataFrame([{"x": 0.5}], schema={"x": pl.Int64}, strict=True)["x"].to_list()
print(f"0.5 as Int64, strict=True: {given}")
said = {"role": "assistant"}
messages = pl.DataFrame([{"message": said}] * 100 + [{"message": said | {"tool_calls": 2}}])["message"][-1]
print(f"tool_calls in row 101: {messages}")
rows = [{"step": step} for step in range(100)] + [{"step": 100, "eval_reward": 0.7}]
with open("rows.jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
names = pl.DataFrame(rows).columns, pl.read_ndjson("rows.jsonl").columns, pl.DataFrame(rows, infer_schema_length=None).columns
print(f"eval_reward in row 101: {names[0]}, read_ndjson: {names[1]}, infer_schema_length=None: {names[2]}")
kept = {pair: seen["rows"] for pair, seen in found.items()}
wanted = {("1", "0.5"): "0", ("1", "1.9"): "1", ("True", "0.5"): "False", ("False", "2"): "False", ("1", "'7'"): "7"}
if any(kept[pair] != value or found[pair]["columns"] != "TypeError" for pair, value in wanted.items()):
    sys.exit("the behaviour has changed")
if given != [0] or messages != said or names != (["step"], ["step"], ["step", "eval_reward"]):
    sys.exit("the behaviour has changed")
PY

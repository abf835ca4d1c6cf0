#!/usr/bin/env bash
# Versions: datasets 5.2.0, pandas 3.1.1, Python 3.11. Seen on 2026-11-28.
# Guess: JSON Lines that Dataset.to_json writes hold the column's float64 values, as those of Dataset.to_csv do.
# Behaviour: to_json goes through pandas, whose default is ten decimals. 1e-12 becomes 0.0, -1e-12 becomes -0.0, and a number with
#   seventeen digits loses the last ones, without a warning. Small probabilities and learning rates are lost like this.
# Output seen:
#   held      [1e-12, -1e-12, 0.12345678901234568]
#   to_json   [0.0, -0.0, 0.123456789]
#   to_csv    [1e-12, -1e-12, 0.12345678901234568]
#   precision [1e-12, -1e-12, 0.123456789012346]
# Way out: to_json(path, double_precision=15), which is the most that pandas takes and not always enough; or json.dumps row by row.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pandas==3.1.1
export HF_HOME="$work/home" HF_HUB_OFFLINE=1
venv/bin/python - <<'PY'
import csv
import json
import sys

import datasets

datasets.disable_progress_bars()
held = [1e-12, -1e-12, 0.12345678901234568]
rows = datasets.Dataset.from_dict({"p": held})
rows.to_json("plain.jsonl")
rows.to_json("precise.jsonl", double_precision=15)
rows.to_csv("rows.csv")


def read_json(path):
    with open(path) as lines:
        return [json.loads(line)["p"] for line in lines]


with open("rows.csv") as lines:
    from_csv = [float(row["p"]) for row in csv.DictReader(lines)]
plain, precise = read_json("plain.jsonl"), read_json("precise.jsonl")
print("held     ", held)
print("to_json  ", plain)
print("to_csv   ", from_csv)
print("precision", precise)
as_seen = (str(plain), str(precise)) == ("[0.0, -0.0, 0.123456789]", "[1e-12, -1e-12, 0.123456789012346]")  # 0.0 == -0.0
if not as_seen or from_csv != held:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: prefect 3.8.8 (with sqlalchemy 2.0.58 and fastapi 0.150.0), Python 3.11. Seen on 2026-11-28.
# Guess: with cache_policy=INPUTS a result is taken from the cache if and only if the arguments are equal.
# Behaviour: the key is a hash of the arguments as JSON. Arguments that JSON cannot tell apart share a result: {1: ...} and {"1": ...},
#   (1, 2) and [1, 2]. A set goes in by its iteration order, which for strings is another in each process, so the same set misses the
#   cache of the last process.
# Output seen:
#   process 1: {1: 'a'} -> {1: 'a'}; {'1': 'a'} -> {1: 'a'}; (1, 2) -> (1, 2); [1, 2] -> (1, 2); set: Completed; sorted set: Completed
#   process 2: {1: 'a'} -> {1: 'a'}; {'1': 'a'} -> {1: 'a'}; (1, 2) -> (1, 2); [1, 2] -> (1, 2); set: Completed; sorted set: Cached
# Way out: pass sorted lists, keep the keys of dictionaries strings, or give cache_key_fn.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check prefect==3.8.8 sqlalchemy==2.0.58 fastapi==0.150.0
export PREFECT_HOME="$work/home" PREFECT_LOGGING_LEVEL=CRITICAL PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
cat > program.py <<'PY'
import sys

from prefect import flow, task
from prefect.cache_policies import INPUTS


@task(cache_policy=INPUTS, persist_result=True)
def shown(value):
    return repr(value)


@task(cache_policy=INPUTS, persist_result=True)
def count(names):
    return len(names)


@flow
def main():
    values = [shown(value) for value in ({1: "a"}, {"1": "a"}, (1, 2), [1, 2])]
    names = {"accuracy", "entropy", "length", "loss"}
    return values, [count(given, return_state=True).name for given in (names, sorted(names))]


process = int(sys.argv[1])
values, states = main()
told = [f"{value!r} -> {text}" for value, text in zip(({1: "a"}, {"1": "a"}, (1, 2), [1, 2]), values)]
print(f"process {process}:", "; ".join([*told, f"set: {states[0]}", f"sorted set: {states[1]}"]))
expected = ["Completed", "Completed" if process == 1 else "Cached"]
if values != ["{1: 'a'}"] * 2 + ["(1, 2)"] * 2 or states != expected:
    sys.exit("the behaviour has changed")
PY
PYTHONHASHSEED=1 venv/bin/python program.py 1
PYTHONHASHSEED=2 venv/bin/python program.py 2

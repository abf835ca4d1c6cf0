#!/usr/bin/env bash
# Versions: pebble 5.2.3, Python 3.11. Seen on 2026-11-28.
# Guess: a worker process that ends in the middle of a task is noticed at once, whatever its exit code, as in concurrent.futures.
# Behaviour: pebble's ProcessPool recognises a dead worker by a non-zero exit code. After a task that ends its process with code 0 the pool
#   waits until the task's time limit and reports a timeout. What looks like slow tasks can thus be a library that ends the process.
# Output seen (limit 3 s):
#   pebble, code 1: ProcessExpired after 0.1 s
#   pebble, code 0: TimeoutError after 3.0 s
#   concurrent.futures, code 0: BrokenProcessPool after 0.0 s
# Way out: end such a process with a code other than 0, and give every task a time limit.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pebble==5.2.3
cat > program.py <<'PY'
import concurrent.futures
import os
import sys
import time

import pebble


def told(future):
    started = time.monotonic()
    error = future.exception()
    return type(error).__name__, time.monotonic() - started


def pebbles(code):
    with pebble.ProcessPool(max_workers=1) as pool:
        return told(pool.schedule(os._exit, args=(code,), timeout=3))


if __name__ == "__main__":
    one, zero = pebbles(1), pebbles(0)
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        standard = told(pool.submit(os._exit, 0))
    for name, (error, seconds) in {"pebble, code 1": one, "pebble, code 0": zero, "concurrent.futures, code 0": standard}.items():
        print(f"{name}: {error} after {seconds:.1f} s")
    if (one[0], zero[0], standard[0]) != ("ProcessExpired", "TimeoutError", "BrokenProcessPool") or zero[1] < 2.5:
        sys.exit("the behaviour has changed")
PY
venv/bin/python program.py

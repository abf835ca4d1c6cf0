#!/usr/bin/env bash
# Versions: torch 2.13.0 (CPU, with the libgomp of its wheel), Linux, Python 3.11. Seen on 2026-11-28. Needs torch, some hundred MB, and two
#   processor cores.
# Guess: two threads beside one busy process on two cores have at least one core to themselves, so a training step takes no longer than
#   with one thread, give or take a little.
# Behaviour: libgomp's threads wait at the end of each operation by spinning. When one of the two loses its core to the other process, its
#   partner spins through its own time slice and then waits for a core too. Steps of many small operations become several times slower
#   than with one thread. Where threads sleep while they wait (OMP_WAIT_POLICY=passive), two are about as fast as one.
# Output seen (milliseconds per step beside a busy process, median of three; something else ran too, at low priority; the first number was
#   between 170 and 601 in three runs, the others within a quarter of these):
#   2 threads             447.7
#   2 threads, passive     30.4
#   1 thread               33.7
# Way out: OMP_WAIT_POLICY=passive, set before torch is loaded, on machines that others use too; or fewer threads than cores.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
cat > step.py <<'PY'
import sys
import time

import torch

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(30)])
rows = torch.randn(64, 256)


def step():
    model.zero_grad()
    model(rows).square().mean().backward()


for _ in range(5):
    step()
steps, start = 0, time.perf_counter()
while time.perf_counter() < start + 3:
    step()
    steps += 1
print(1000 * (time.perf_counter() - start) / steps)
PY
venv/bin/python - <<'PY'
import os
import statistics
import subprocess
import sys

cores = sorted(os.sched_getaffinity(0))[:2]
if len(cores) < 2:
    sys.exit("two processor cores are needed")
os.sched_setaffinity(0, cores)
plain = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
KINDS = [("2 threads", "2", {}), ("2 threads, passive", "2", {"OMP_WAIT_POLICY": "passive"}), ("1 thread", "1", {})]
seen = {name: [] for name, _, _ in KINDS}
busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
try:
    for _ in range(3):
        for name, threads, more in KINDS:
            command = [sys.executable, "-W", "ignore", "step.py", threads]
            seen[name].append(float(subprocess.run(command, env=plain | more, check=True, capture_output=True).stdout))
finally:
    busy.kill()
    busy.wait()
median = {name: statistics.median(times) for name, times in seen.items()}
for name, time in median.items():
    print(f"{name:20} {time:6.1f}")
if median["2 threads"] < 2 * median["2 threads, passive"]:
    sys.exit("the behaviour has changed")
PY

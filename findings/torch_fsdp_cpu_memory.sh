#!/usr/bin/env bash
# Versions: torch 2.13.0 (CPU, gloo), numpy 2.4.6, Python 3.11, glibc 2.36 (Debian 12). Seen on 2026-11-29. Needs torch, some hundred MB.
# Guess: fully_shard over two ranks on CPUs lowers the memory of each, as it halves weights, gradients and optimizer state.
# Behaviour: each rank needs half as much again as one process with the whole model, and more with every step. What is in use is small: the
#   arrays that are gathered and freed all the time leave pieces that glibc does not use again, since torch asks for aligned memory. Memory that
#   is mapped for each large array and given back at once (MALLOC_MMAP_THRESHOLD_, which also ends glibc's raising of the threshold by
#   itself) halves a rank's peak. For one process, which keeps its arrays, it makes little difference.
# Output seen (MiB at the peak after steps 1 to 6; 41.6 million parameters, AdamW):
#   one process: 971 1022 1022 1022 1025 1028
#   one process, MALLOC_MMAP_THRESHOLD_=131072: 943 943 943 943 943 943
#   one of two ranks: 1140 1411 1478 1506 1507 1507
#   one of two ranks, MALLOC_MMAP_THRESHOLD_=131072: 631 788 788 788 788 788
#   glibc before 2.38 does so (its bug 14581); newer ones were not tried.
# Way out: that variable in the environment of the ranks; it costs some processor time for pages that are mapped anew.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=""
unset MALLOC_MMAP_THRESHOLD_ MALLOC_ARENA_MAX MALLOC_TRIM_THRESHOLD_ LD_PRELOAD
cat > train.py <<'PY'
import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

WIDTH, DEPTH, WORDS = 512, 12, 16000


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden):
        return hidden + self.down(torch.relu(self.up(hidden)))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(WORDS, WIDTH)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(DEPTH))
        self.head = torch.nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids):
        hidden = self.embed(ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


def peak_mib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))


torch.manual_seed(0)
model, rank = Net(), os.environ.get("RANK")
if rank is not None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for unit in (*model.blocks, model):
        fully_shard(unit, mesh=mesh)
optimizer, peaks = torch.optim.AdamW(model.parameters(), fused=True), []
for step in range(6):
    ids = torch.randint(0, WORDS, (4, 64), generator=torch.Generator().manual_seed(step))
    model(ids).logsumexp(-1).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    peaks.append(peak_mib())
if rank in (None, "0"):
    with open(sys.argv[1], "w") as file:
        json.dump(peaks, file)
if rank is not None:
    dist.destroy_process_group()
PY
two=(venv/bin/torchrun --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0)
venv/bin/python train.py one.json
MALLOC_MMAP_THRESHOLD_=131072 venv/bin/python train.py one_mapped.json
"${two[@]}" train.py two.json > two.log 2>&1 || { cat two.log; exit 1; }
MALLOC_MMAP_THRESHOLD_=131072 "${two[@]}" train.py two_mapped.json > two.log 2>&1 || { cat two.log; exit 1; }
venv/bin/python - <<'PY'
import json
import sys

peaks = {name: json.load(open(f"{name}.json")) for name in ("one", "one_mapped", "two", "two_mapped")}
for name, values in peaks.items():
    who = "one of two ranks" if name.startswith("two") else "one process"
    print(f"{who}{', MALLOC_MMAP_THRESHOLD_=131072' if name.endswith('mapped') else ''}: {' '.join(map(str, values))}")
last = {name: values[-1] for name, values in peaks.items()}
if not (last["two"] > 1.2 * last["one"] and last["two"] > peaks["two"][1] and last["two_mapped"] < 0.65 * last["two"]):
    sys.exit("the behaviour has changed")
if last["one_mapped"] < 0.8 * last["one"]:
    sys.exit("the behaviour of one process has changed")
PY

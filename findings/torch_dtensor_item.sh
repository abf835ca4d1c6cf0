#!/usr/bin/env bash
# Versions: torch 2.13.0 (CPU, gloo), numpy 2.4.6, Python 3.11. Seen on 2026-11-29. Needs torch, some hundred MB.
# Guess: a DTensor stands for the whole tensor, so weight.square().sum().item() of a model under fully_shard is the sum over the whole weight, the
#   same number on every rank.
# Behaviour: sum and mean of a sharded tensor are DTensors that are still partial, each rank with its own summand, and item() and float() read that
#   summand as it is. Each rank gets another number, none of them the sum, without an error or a warning; `if float(x) > bound` can send the ranks
#   different ways. A comparison of the DTensor itself (x > bound) is of the whole sum, and what clip_grad_norm_ returns is whole.
# Output seen (two ranks; the sum of squares of a weight is 2.4381):
#   rank 0: item 1.0217, float 1.0217, full_tensor 2.4381, x > 2: True, clip_grad_norm_ whole: True, 0 warnings
#   rank 1: item 1.4165, float 1.4165, full_tensor 2.4381, x > 2: True, clip_grad_norm_ whole: True, 0 warnings
# Way out: .full_tensor() before item() and float(), on all ranks.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
export OMP_NUM_THREADS=1
cat > ranks.py <<'PY'
import json
import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

dist.init_process_group("gloo")
torch.manual_seed(0)
model, plain = torch.nn.Linear(4, 8), torch.nn.Linear(4, 8)
plain.load_state_dict(model.state_dict())
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
for each in (model, plain):
    each(torch.ones(2, 4)).sum().backward()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    squares = model.weight.detach().square().sum()
    seen = {"item": squares.item(), "float": float(squares), "x > 2": bool(squares > 2)}
whole = squares.full_tensor().item()
norms = [torch.nn.utils.clip_grad_norm_(each.parameters(), 1e9).item() for each in (model, plain)]
seen |= {"full_tensor": whole, "true": plain.weight.detach().square().sum().item()}
seen |= {"clip_grad_norm_ whole": abs(norms[0] - norms[1]) < 1e-5, "warnings": len(told)}
with open(f"rank{dist.get_rank()}.json", "w") as file:
    json.dump(seen, file)
dist.barrier()
dist.destroy_process_group()
PY
venv/bin/torchrun --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:0 ranks.py 2>&1 | grep -v -i warn || true
venv/bin/python - <<'PY'
import json
import sys

ranks = [json.load(open(f"rank{rank}.json")) for rank in range(2)]
for rank, seen in enumerate(ranks):
    numbers = f"item {seen['item']:.4f}, float {seen['float']:.4f}, full_tensor {seen['full_tensor']:.4f}, x > 2: {seen['x > 2']}"
    print(f"rank {rank}: {numbers}, clip_grad_norm_ whole: {seen['clip_grad_norm_ whole']}, {seen['warnings']} warnings")
parts = [seen["item"] for seen in ranks]
summands = abs(sum(parts) - ranks[0]["true"]) < 1e-4 and min(parts) > 0.1
silent = not any(seen["warnings"] for seen in ranks) and all(seen["x > 2"] for seen in ranks)
right = all(abs(seen["full_tensor"] - seen["true"]) < 1e-4 and seen["clip_grad_norm_ whole"] for seen in ranks)
if not (summands and silent and right):
    sys.exit("the behaviour has changed")
PY

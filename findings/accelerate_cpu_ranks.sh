#!/usr/bin/env bash
# Versions: accelerate 1.15.0, torch 2.13.0 (CPU, gloo), numpy 2.4.6, Python 3.11. Seen on 2026-11-29. Needs torch, some hundred MB.
# Guess: `accelerate launch` with a configuration file for two processes on a CPU (num_processes: 2, use_cpu: true) starts two ranks that know of
#   each other; with distributed_type FSDP each holds half of the model, or the command says that it can't.
# Behaviour: with distributed_type FSDP two processes start, and each believes to be alone: num_processes 1, process_index 0, is_main_process true,
#   distributed_type NO, the whole model in each, gradients never averaged. RANK and WORLD_SIZE are set, ACCELERATE_USE_CPU is not. Both would save to the same
#   files. With distributed_type MULTI_CPU one process starts instead of two. All exit with 0, and no error or warning tells of it.
# Output seen:
#   FSDP: exit 0, 2 processes, each of 1, main processes: 2, held by each: 8320 of 8320 parameters, type DistributedType.NO
#   MULTI_CPU: exit 0, 1 processes, each of 1, main processes: 1, held by each: 8320 of 8320 parameters, type DistributedType.NO
#   FSDP with ACCELERATE_USE_CPU=true: exit 0, 2 processes, each of 2, main processes: 1, held by each: 8320 of 8320 parameters, type DistributedType.MULTI_CPU
# Way out: ACCELERATE_USE_CPU=true in the environment makes two ranks that know of each other (torchrun does too); FSDP stays off on a CPU, so shard by torch's
#   own fully_shard. Check accelerator.num_processes and distributed_type before training.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 accelerate==1.15.0
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES="" HF_HUB_OFFLINE=1
cat > ranks.py <<'PY'
import json
import os

import torch
from accelerate import Accelerator

accelerator = Accelerator()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 64))
model, _ = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
held = sum((each.to_local() if hasattr(each, "to_local") else each).numel() for each in model.parameters())
seen = {"of": accelerator.num_processes, "main": accelerator.is_main_process, "held": held, "type": str(accelerator.distributed_type)}
with open(f"{os.environ['SEEN']}-{os.getpid()}.json", "w") as file:
    json.dump(seen, file)
accelerator.end_training()
PY
cat > multi_cpu.yaml <<'YAML'
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_CPU
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: true
YAML
cat > fsdp.yaml <<'YAML'
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_reshard_after_forward: true
  fsdp_auto_wrap_policy: SIZE_BASED_WRAP
  fsdp_min_num_params: 1
  fsdp_state_dict_type: SHARDED_STATE_DICT
mixed_precision: 'no'
num_machines: 1
num_processes: 2
use_cpu: true
YAML
launch() {
    local code=0
    SEEN=$1 venv/bin/accelerate launch --config_file "$2" --main_process_port 0 ranks.py > "$1.log" 2>&1 || code=$?
    echo "$code" > "$1.code"
}
launch FSDP fsdp.yaml
launch MULTI_CPU multi_cpu.yaml
ACCELERATE_USE_CPU=true launch with_variable fsdp.yaml
venv/bin/python - <<'PY'
import glob
import json
import sys

names = {"FSDP": "FSDP", "MULTI_CPU": "MULTI_CPU", "with_variable": "FSDP with ACCELERATE_USE_CPU=true"}
found = {}
for key, name in names.items():
    code = open(f"{key}.code").read().strip()
    ranks = [json.load(open(path)) for path in glob.glob(f"{key}-*.json")]
    told = [word for word in ("FSDP is", "not supported on CPU", "falling back") if word in open(f"{key}.log").read()]
    if told or not ranks:
        sys.exit(f"the behaviour has changed: {name}: {told} {open(f'{key}.log').read()[-2000:]}")
    of, held, kind = ({rank[field] for rank in ranks} for field in ("of", "held", "type"))
    mains = sum(rank["main"] for rank in ranks)
    found[key] = (code, len(ranks), of, mains, held, kind)
    words = [", ".join(map(str, values)) for values in (of, held, kind)]
    print(f"{name}: exit {code}, {len(ranks)} processes, each of {words[0]}, main processes: {mains}, "
          f"held by each: {words[1]} of 8320 parameters, type {words[2]}")
alone = {"DistributedType.NO"}
if found["FSDP"] != ("0", 2, {1}, 2, {8320}, alone) or found["MULTI_CPU"] != ("0", 1, {1}, 1, {8320}, alone):
    sys.exit("the behaviour has changed")
if found["with_variable"] != ("0", 2, {2}, 1, {8320}, {"DistributedType.MULTI_CPU"}):
    sys.exit("the way out has changed")
PY

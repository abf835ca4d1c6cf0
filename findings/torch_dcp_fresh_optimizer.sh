#!/usr/bin/env bash
# Versions: torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11. Seen on 2026-11-29. Needs torch, some hundred MB.
# Guess: torch.distributed.checkpoint.load into {"model": model.state_dict(), "optim": optimizer.state_dict()} of a fresh model and
#   optimizer brings back what save was given under the same names, as torch.load does, or raises an Exception where the two do not fit.
# Behaviour: load fills in the entries of the dict that it is given, and a fresh optimizer has no moments yet: AdamW's are in the checkpoint and
#   stay there, without an error or a warning. The weights are back, so the loss goes on where it was, but the optimizer's next step is its first
#   again, here six times as large. The other way round, an entry that the checkpoint lacks, raises: a CheckpointException, which is a
#   BaseException, so that `except Exception` lets it through.
# Output seen (a weight after five steps, and after a sixth):
#   goes on by itself            moments 2  0.0021 -> 0.0194
#   resumed, fresh optimizer     moments 0  0.0021 -> 0.1021
#   resumed, by its own helper   moments 2  0.0021 -> 0.0194
#   an entry that is not there   CheckpointException, an Exception: False
#   0 warnings
# Way out: get_optimizer_state_dict and set_optimizer_state_dict of torch.distributed.checkpoint.state_dict, which make the moments first; or
#   compare len(optimizer.state) with the number of parameters after a resume. Catch CheckpointException by its name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
export OMP_NUM_THREADS=1
venv/bin/python - <<'PY'
import sys
import warnings

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

ONE_PROCESS = ".*in a single process.*"  # a warning that is meant, and about something else


def fresh():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def tell(name, model, optimizer):
    moments, before = len(optimizer.state), float(model.weight.detach()[0, 0])
    step(model, optimizer)
    after = float(model.weight.detach()[0, 0])
    print(f"{name:28} moments {moments}  {before:.4f} -> {after:.4f}")
    return moments, before, after


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    warnings.filterwarnings("ignore", message=ONE_PROCESS)
    model, optimizer = fresh()
    for _ in range(5):
        step(model, optimizer)
    dcp.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, checkpoint_id="plain")
    dcp.save({"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)}, checkpoint_id="helper")
    goes_on = tell("goes on by itself", model, optimizer)

    model, optimizer = fresh()
    state = {"model": model.state_dict(), "optim": optimizer.state_dict()}
    dcp.load(state, checkpoint_id="plain")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optim"])
    plain = tell("resumed, fresh optimizer", model, optimizer)

    model, optimizer = fresh()
    state = {"model": model.state_dict(), "optim": get_optimizer_state_dict(model, optimizer)}
    dcp.load(state, checkpoint_id="helper")
    model.load_state_dict(state["model"])
    set_optimizer_state_dict(model, optimizer, state["optim"])
    helper = tell("resumed, by its own helper", model, optimizer)

refusal = None
try:
    warnings.simplefilter("ignore")
    dcp.load({"model": model.state_dict() | {"other": torch.zeros(1)}}, checkpoint_id="plain")
except BaseException as error:  # see above
    refusal = error
print(f"{'an entry that is not there':28} {type(refusal).__name__}, an Exception: {isinstance(refusal, Exception)}")
print(f"{len(told)} warnings", *(str(each.message) for each in told))
same = goes_on == helper and goes_on[:2] == (2, plain[1])
if not (same and not isinstance(refusal, Exception) and plain[0] == 0 and abs(plain[2] - goes_on[2]) > 0.01 and not told and refusal is not None):
    sys.exit("the behaviour has changed")
PY

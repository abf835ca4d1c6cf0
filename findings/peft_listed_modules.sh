#!/usr/bin/env bash
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11. Seen on 2026-11-29.
# Guess: a name in LoraConfig(target_modules=[...]) that no module has is refused, since a list without any match is.
# Behaviour: it is passed over without a word as long as another name of the list fits. A slip of the pen trains less than was asked for.
# Output seen:
#   ['q_proj', 'v_proj']  adapts q_proj v_proj, warnings of it: 0
#   ['q_proj', 'vproj']   adapts q_proj, warnings of it: 0
#   ['vproj']             ValueError
# Way out: compare the list with the names of model.named_modules() beforehand.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
venv/bin/python - <<'PY'
import sys
import warnings

from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def adapted(names):
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            model = get_peft_model(model, LoraConfig(target_modules=names, task_type="CAUSAL_LM"))
        except ValueError:
            return "ValueError"
    modules = sorted({name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name})
    of_it = sum("vproj" in str(warning.message) for warning in told)
    return f"adapts {' '.join(modules)}, warnings of it: {of_it}"


seen = {str(names): adapted(names) for names in (["q_proj", "v_proj"], ["q_proj", "vproj"], ["vproj"])}
for names, what in seen.items():
    print(f"{names:21} {what}")
sys.exit(list(seen.values()) != ["adapts q_proj v_proj, warnings of it: 0", "adapts q_proj, warnings of it: 0", "ValueError"])
PY

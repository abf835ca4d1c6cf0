#!/usr/bin/env bash
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11. Seen on 2026-12-01. Needs torch, some hundred MB.
# Guess: a name that is taken is refused, as by add_adapter, or load_adapter(folder, "default") puts the adapter of the folder in the place of the old one; and
#   add_weighted_adapter(["mean", "new"], [0.9, 0.1], "mean") makes the new mean of what is called so.
# Behaviour: load_adapter reads the weights only and keeps the old config. With another lora_alpha or use_rslora the scaling is the old one's, layers that the new
#   adapter lacks keep the old weights, and those it has besides are left out; only another rank raises. What is saved afterwards has the old lora_alpha.
#   add_weighted_adapter returns at once and changes nothing, so a running mean stands still. No warning comes from either.
# Output seen (largest difference of the logits from those of the second adapter loaded by itself):
#   load_adapter, no change          off by 0.0, warnings 0
#   load_adapter, lora_alpha 4 -> 16 off by 3.39, warnings 0
#   load_adapter, use_rslora         off by 2.61, warnings 0
#   load_adapter, without v_proj     off by 2.58, warnings 0
#   load_adapter, with k_proj        off by 2.3, warnings 0
#   load_adapter, r 4 -> 8           RuntimeError, warnings 0
#   lora_alpha saved afterwards: 4
#   add_weighted_adapter into a taken name: nothing changed True, warnings 0
#   add_adapter of a taken name: ValueError
# Way out: a new name each time: load_adapter or add_weighted_adapter under it, set_adapter, then delete_adapter of the old one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
venv/bin/python -W ignore - <<'PY'
import json
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
torch.manual_seed(0)
base = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.2)).eval()
start = {name: value.clone() for name, value in base.state_dict().items()}
tokens = torch.arange(10)[None]


def fresh():
    model = LlamaForCausalLM(base.config).eval()
    model.load_state_dict(start)
    return model


def logits(model):
    with torch.no_grad():
        return model(tokens).logits


def save(folder, **options):
    settings = dict(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False) | options
    get_peft_model(fresh(), LoraConfig(**settings)).save_pretrained(folder)


others = {
    "lora_alpha 4 -> 16": dict(lora_alpha=16),
    "use_rslora": dict(use_rslora=True),
    "without v_proj": dict(target_modules=["q_proj"]),
    "with k_proj": dict(target_modules=["q_proj", "k_proj", "v_proj"]),
    "r 4 -> 8": dict(r=8),
}
save("first")
found, about_all = {}, 0
for name, options in {"no change": {}, **others}.items():
    save("second", **options)
    wanted = logits(PeftModel.from_pretrained(fresh(), "second").eval())
    model = PeftModel.from_pretrained(fresh(), "first").eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.load_adapter("second", "default")
            model.eval()
            found[name] = round((logits(model) - wanted).abs().max().item(), 2)
        except RuntimeError as error:
            found[name] = type(error).__name__
    about = sum("adapter" in str(warning.message) for warning in caught)
    about_all += about
    print(f"load_adapter, {name:18} {found[name] if isinstance(found[name], str) else f'off by {found[name]}'}, warnings {about}")
save("second", lora_alpha=16)
model = PeftModel.from_pretrained(fresh(), "first")
model.load_adapter("second", "default")
model.save_pretrained("saved")
kept = json.load(open("saved/adapter_config.json"))["lora_alpha"]
print(f"lora_alpha saved afterwards: {kept}")

model = PeftModel.from_pretrained(fresh(), "first", adapter_name="mean")
model.load_adapter("second", "new")
before = {name: value.clone() for name, value in model.state_dict().items()}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model.add_weighted_adapter(["mean", "new"], [0.9, 0.1], "mean", combination_type="svd")
same = all(torch.equal(before[name], value) for name, value in model.state_dict().items())
print(f"add_weighted_adapter into a taken name: nothing changed {same}, warnings {len(caught)}")
try:
    model.add_adapter("new", LoraConfig(r=8, target_modules=["q_proj"]))
    refused = "nothing"
except ValueError as error:
    refused = type(error).__name__
print(f"add_adapter of a taken name: {refused}")
wrong = [value for name, value in found.items() if name in ("lora_alpha 4 -> 16", "use_rslora", "without v_proj", "with k_proj")]
expected = found["no change"] == 0 and found["r 4 -> 8"] == "RuntimeError" and all(value > 0.5 for value in wrong)
if not (expected and about_all == 0 and kept == 4 and same and not caught and refused == "ValueError"):
    sys.exit("the behaviour has changed")
PY

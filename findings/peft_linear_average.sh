#!/usr/bin/env bash
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11. Seen on 2026-12-01. Needs torch, some hundred MB.
# Guess: add_weighted_adapter(names, [1/5] * 5, combination_type="linear") of five checkpoints of one run, hardly different from each other, is about any
#   one of them. The documentation calls linear "a very rough approximation", so not exactly.
# Behaviour: A and B are each summed with the square roots of the weights, and the product of the sums is the update. Of n like adapters with weights 1/n it is n
#   times the update: here five times, and what was learned is gone. "ties" averages instead of summing, so with the same weights it is a fifth.
#   Of unlike adapters it is their mean and products of one's A with another's B. "svd" (the default) and "cat" do what the weights say.
# Output seen (200 steps on 64 random tokens; each loss is of the same tokens):
#   no adapter    loss  4.24
#   step 192      loss  1.44
#   step 200      loss  1.44
#   linear        loss  4.37, update 5.00 times the mean of the updates, off it by 4.000
#   ties          loss  3.52, update 0.20 times the mean of the updates, off it by 0.800
#   svd           loss  1.43, update 1.00 times the mean of the updates, off it by 0.000
#   cat           loss  1.43, update 1.00 times the mean of the updates, off it by 0.000
#   linear_1_25   loss  1.43, update 1.00 times the mean of the updates, off it by 0.000
# Way out: combination_type="cat" (exact, the rank adds up) or "svd"; for checkpoints of one run also weights of 1/n^2 with "linear".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
venv/bin/python -W ignore - <<'PY'
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

COUNT = 5
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
torch.manual_seed(0)
base = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.1))
start = {name: value.clone() for name, value in base.state_dict().items()}
tokens = torch.randint(64, (4, 16))


def fresh():
    model = LlamaForCausalLM(base.config)
    model.load_state_dict(start)
    return model


def loss(model):
    with torch.no_grad():
        return model(tokens, labels=tokens).loss.item()


def update(model, name):
    return torch.cat([module.get_delta_weight(name).flatten() for module in model.modules() if name in getattr(module, "lora_A", {})])


model = get_peft_model(fresh(), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
for step in range(1, 201):
    model(tokens, labels=tokens).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step > 200 - 2 * COUNT and step % 2 == 0:
        model.save_pretrained(f"step-{step}")

names = [str(step) for step in range(202 - 2 * COUNT, 201, 2)]
model = PeftModel.from_pretrained(fresh(), f"step-{names[0]}", adapter_name=names[0])
for name in names[1:]:
    model.load_adapter(f"step-{name}", name)
with model.disable_adapter():
    print(f"no adapter    loss {loss(model):5.2f}")
for name in (names[0], names[-1]):
    model.set_adapter(name)
    print(f"step {name}      loss {loss(model):5.2f}")
wanted = sum(update(model, name) for name in names) / COUNT
factors = {}
ways = {
    "linear": ("linear", 1 / COUNT, {}),
    "ties": ("ties", 1 / COUNT, {"density": 1.0}),
    "svd": ("svd", 1 / COUNT, {}),
    "cat": ("cat", 1 / COUNT, {}),
    "linear_1_25": ("linear", 1 / COUNT**2, {}),
}
for way, (combination, weight, options) in ways.items():
    model.add_weighted_adapter(names, [weight] * COUNT, way, combination_type=combination, **options)
    model.set_adapter(way)
    got = update(model, way)
    factors[way] = (got @ wanted / (wanted @ wanted)).item()
    error = ((got - wanted).norm() / wanted.norm()).item()
    print(f"{way:13} loss {loss(model):5.2f}, update {factors[way]:.2f} times the mean of the updates, off it by {error:.3f}")
exact = {factors["svd"], factors["cat"], factors["linear_1_25"]}
if not (factors["linear"] > 4.5 and factors["ties"] < 0.25 and all(abs(factor - 1) < 0.05 for factor in exact)):
    sys.exit("the behaviour has changed")
PY

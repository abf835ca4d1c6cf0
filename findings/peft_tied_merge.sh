#!/usr/bin/env bash
# Versions: peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11. Seen on 2026-11-28. Needs torch, some hundred MB.
# Guess: with tied embeddings and LoRA on lm_head, ensure_weight_tying=True, which peft's warning about merging names, makes
#   merge_and_unload exact.
# Behaviour: the option puts an adapter on the embedding too and ties the two; merging then adds both to the one matrix that they share.
#   The merged model gives other logits than the adapted one, further off than without the option, where only lm_head's adapter lands in
#   the embedding. LoRA on every linear layer ("all-linear") leaves lm_head out and merges exactly.
# Output seen (largest difference of the logits before and after merging; the weights are drawn with a fixed seed):
#   lm_head                             4.2
#   lm_head, ensure_weight_tying=True 112.0
#   all-linear                          0.0
#   lm_head, untied beforehand          0.0
# Way out: untie first (clone lm_head's weight, set tie_word_embeddings to False), or leave lm_head and the embedding alone.
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
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def model(untied=False):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True)).eval()
    if untied:
        made.lm_head.weight = torch.nn.Parameter(made.lm_head.weight.detach().clone())
        made.config.tie_word_embeddings = False
    return made


def merge_error(base, targets, **settings):
    adapted = get_peft_model(base, LoraConfig(r=4, init_lora_weights=False, target_modules=targets, **settings)).eval()
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        before = adapted(tokens).logits
        return float((adapted.merge_and_unload()(tokens).logits - before).abs().max())


seen = {
    "lm_head": merge_error(model(), ["lm_head"]),
    "lm_head, ensure_weight_tying=True": merge_error(model(), ["lm_head"], ensure_weight_tying=True),
    "all-linear": merge_error(model(), "all-linear"),
    "lm_head, untied beforehand": merge_error(model(untied=True), ["lm_head"]),
}
for name, error in seen.items():
    print(f"{name:33} {error:5.1f}")
plain, tying, linear, untied = seen.values()
if not (plain > 0.1 and tying > 0.1 and linear < 1e-4 and untied < 1e-4):
    sys.exit("the behaviour has changed")
PY

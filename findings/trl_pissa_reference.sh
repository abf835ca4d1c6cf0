#!/usr/bin/env bash
# Versions: trl 1.16.0, peft 0.21.2, transformers 5.23.0, torch 2.13.0 (CPU), Python 3.11. Seen on 2026-12-01. Needs torch, some hundred MB.
# Guess: LoraConfig(init_lora_weights="pissa" or "olora") trains with TRL's DPOTrainer and GRPOTrainer as the default does: the reference is the model
#   as it was before training, so at the first step DPO's loss is ln 2 = 0.693 and GRPO's KL is 0.
# Behaviour: these two ways take a part of the base weights out and put it into the adapter. With peft_config=, TRL's reference is the model with its adapter
#   switched off, which is then what is left of the base: DPO's loss starts at 0.47, GRPO's KL at 1.5, and the KL term pulls towards that torso. With a model
#   that is wrapped beforehand, TRL adds a second adapter "ref" by the same config, and that takes the part out once more: the model that is trained is
#   another one than was given, from before the first step on, while loss and KL look right. No error or warning tells of it.
# Output seen (before any update; a logit's standard deviation is 1.6; random weights with a fixed seed):
#   True   peft_config          logits moved 0.0, DPO's loss 0.693, GRPO's KL 0.00
#   True   wrapped              logits moved 0.0, DPO's loss 0.693, GRPO's KL 0.00
#   True   wrapped, init reset  logits moved 0.0, DPO's loss 0.693, GRPO's KL 0.00
#   pissa  peft_config          logits moved 0.0, DPO's loss 0.475, GRPO's KL 1.52
#   pissa  wrapped              logits moved 9.3, DPO's loss 0.693, GRPO's KL 0.00
#   pissa  wrapped, init reset  logits moved 0.0, DPO's loss 0.693, GRPO's KL 0.00
#   olora  peft_config          logits moved 0.0, DPO's loss 0.392, GRPO's KL 2.85
#   olora  wrapped              logits moved 7.1, DPO's loss 0.693, GRPO's KL 0.00
#   olora  wrapped, init reset  logits moved 0.0, DPO's loss 0.693, GRPO's KL 0.00
#   pissa  peft_config and ref_model: DPO's loss 0.693
#   standard deviation of the logits 1.6
# Way out: wrap the model yourself and set model.peft_config["default"].init_lora_weights = True before the trainer gets it (and merge before saving: the
#   saved config then no longer tells of the changed base); for DPO also ref_model=. Or init_lora_weights="orthogonal", which leaves the base as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 peft==0.21.2 trl==1.16.0 accelerate==1.15.0 datasets==5.2.0
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
venv/bin/python -W ignore - <<'PY'
import sys

import datasets
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

datasets.disable_progress_bars()
backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
special = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
torch.manual_seed(0)
base = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.2, **sizes, **special))
start = {name: value.clone() for name, value in base.state_dict().items()}
tokens = torch.arange(20)[None]
pairs = datasets.Dataset.from_list([{"prompt": "1+1=", "chosen": "2", "rejected": "three"}] * 4)
common = dict(max_steps=1, per_device_train_batch_size=4, learning_rate=0.0, logging_steps=1, bf16=False, gradient_checkpointing=False)
common |= dict(use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, log_level="error")


def fresh():
    model = LlamaForCausalLM(base.config)
    model.load_state_dict(start)
    return model


def moved(model):
    with torch.no_grad():
        return (model.eval()(tokens).logits - base.eval()(tokens).logits).abs().max().item()


def dpo(model, config, reference=None):
    return DPOTrainer(model, ref_model=reference, args=DPOConfig("out", **common), train_dataset=pairs, processing_class=tokenizer, peft_config=config)


def letters(completions, **rest):
    return [float(len(set(completion))) for completion in completions]


def grpo(model, config):
    args = GRPOConfig("out", num_generations=4, max_completion_length=8, beta=0.04, **common)
    return GRPOTrainer(model, reward_funcs=letters, args=args, train_dataset=pairs, processing_class=tokenizer, peft_config=config)


def first(trainer, name):
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return next(entry[name] for entry in trainer.state.log_history if name in entry)


found = {}
for initial in (True, "pissa", "olora"):
    for way in ("peft_config", "wrapped", "wrapped, init reset"):
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights=initial, task_type="CAUSAL_LM")
        trainers = []
        for make in (dpo, grpo):
            if way == "peft_config":
                trainers.append(make(fresh(), config))
            else:
                model = get_peft_model(fresh(), config)
                if way != "wrapped":
                    model.peft_config["default"].init_lora_weights = True
                trainers.append(make(model, None))
        change = moved(trainers[0].model)
        loss, kl = first(trainers[0], "loss"), first(trainers[1], "kl")
        found[initial, way] = round(change, 1), round(loss, 3), round(kl, 2)
        print(f"{initial!s:5}  {way:19}  logits moved {change:.1f}, DPO's loss {loss:.3f}, GRPO's KL {kl:.2f}", flush=True)
config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", init_lora_weights="pissa", task_type="CAUSAL_LM")
print(f"pissa  peft_config and ref_model: DPO's loss {first(dpo(fresh(), config, fresh()), 'loss'):.3f}")
print(f"standard deviation of the logits {base(tokens).logits.std().item():.1f}")
right = (0.0, 0.693, 0.0)
for (initial, way), seen in found.items():
    if initial is True or way == "wrapped, init reset":
        as_before = seen == right
    elif way == "wrapped":
        as_before = seen[0] > 1 and seen[1:] == right[1:]
    else:
        as_before = seen[0] == 0 and seen[1] < 0.65 and seen[2] > 0.5
    if not as_before:
        sys.exit("the behaviour has changed")
PY

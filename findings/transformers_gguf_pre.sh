#!/usr/bin/env bash
# Versions: transformers 5.23.0, gguf 0.19.0, torch 2.13.0 (CPU; transformers reads no GGUF without it), Python 3.11. Seen on 2026-11-28.
# Guess: AutoTokenizer.from_pretrained(gguf_file=...) splits text as the file's tokenizer.ggml.pre says, or refuses a name it does not know.
# Behaviour: some names have their own rule (here llama-bpe and qwen2). The others that are tried, smollm, deepseek-v3 and one that does
#   not exist, get GPT-2's without a warning: "1234" is then one token, and a double line break is cut in two.
# Output seen (a vocabulary of bytes with "12", "123", "1234" and a double line break; text "1234 a\n\nb"):
#   llama-bpe       123|4|Ġ|a|ĊĊ|b
#   qwen2           1|2|3|4|Ġ|a|ĊĊ|b
#   gpt-2           1234|Ġ|a|Ċ|Ċ|b
#   smollm          1234|Ġ|a|Ċ|Ċ|b
#   deepseek-v3     1234|Ġ|a|Ċ|Ċ|b
#   no-such-name    1234|Ġ|a|Ċ|Ċ|b
# Way out: take the tokenizer from the model's own files, or set backend_tokenizer.pre_tokenizer by hand after loading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 gguf==0.19.0
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error PYTHONUTF8=1 OMP_NUM_THREADS=1
venv/bin/python -W ignore - <<'PY'
import sys

from gguf import GGUFWriter
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer


def pieces(pre):
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "123", "1234", "ĊĊ"]
    writer = GGUFWriter(f"{pre}.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([1] * len(vocabulary))
    writer.add_token_merges(["1 2", "12 3", "123 4", "Ċ Ċ"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return "|".join(AutoTokenizer.from_pretrained(".", gguf_file=f"{pre}.gguf").tokenize("1234 a\n\nb"))


seen = {}
for name in ("llama-bpe", "qwen2", "gpt-2", "smollm", "deepseek-v3", "no-such-name"):
    seen[name] = pieces(name)
    print(f"{name:15} {seen[name]}")
like_gpt2 = {name for name, split in seen.items() if split == seen["gpt-2"]}
own = seen["llama-bpe"] == "123|4|Ġ|a|ĊĊ|b" and seen["qwen2"] == "1|2|3|4|Ġ|a|ĊĊ|b" and seen["gpt-2"] == "1234|Ġ|a|Ċ|Ċ|b"
if like_gpt2 != {"gpt-2", "smollm", "deepseek-v3", "no-such-name"} or not own:
    sys.exit("the behaviour has changed")
PY

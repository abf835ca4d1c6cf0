#!/usr/bin/env bash
# Versions: transformers 5.23.0, tokenizers 0.23.3, jinja2 3.1.6, Python 3.11. Seen on 2026-11-28.
# Guess: return_assistant_tokens_mask marks every token of what stands between {% generation %} and {% endgeneration %}.
# Behaviour: the end of the mask is the first token of the last character. With a byte-level tokenizer a character can take several
#   tokens, and the rest of them stay unmarked: a turn that ends with an accented letter, a Chinese character or an emoji is trained on
#   without its last bytes. A template whose block takes in the end-of-turn token is safe, for that is one token.
# Output seen (marked of all tokens of the turn, and what the marked ones decode to; bytes are the tokens here):
#   turn 'yes'  marked 3 of 3  'yes'
#   turn 'olé'  marked 3 of 4  'ol\ufffd'
#   turn '日本'   marked 4 of 6  '日\ufffd'
#   turn '日本.'  marked 7 of 7  '日本.'
#   turn '日本' with the end of turn in the block: marked 7 of 7  '日本<|end|>'
# Way out: close the block after the end-of-turn token, as one wants for training anyway.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error PYTHONUTF8=1
venv/bin/python - <<'PY'
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
backend = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(alphabet)}, merges=[]))
backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
backend.decoder = decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
OUTSIDE = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}<|end|>{% endfor %}"
INSIDE = "{% for m in messages %}{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% endfor %}"


def marked(turn, template):
    encoded = tokenizer.apply_chat_template(
        [{"role": "assistant", "content": turn}],
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = [token for token, mark in zip(encoded["input_ids"], encoded["assistant_masks"]) if mark]
    wanted = len(encoded["input_ids"]) - (template is OUTSIDE)
    return len(ids), wanted, tokenizer.decode(ids).replace("\ufffd", r"\ufffd")


seen = []
for turn in ("yes", "olé", "日本", "日本."):
    seen.append(marked(turn, OUTSIDE))
    print("turn {!r:6} marked {} of {}  '{}'".format(turn, *seen[-1]))
seen.append(marked("日本", INSIDE))
print("turn '日本' with the end of turn in the block: marked {} of {}  '{}'".format(*seen[-1]))
if [(some, wanted) for some, wanted, _ in seen] != [(3, 3), (3, 4), (4, 6), (7, 7), (7, 7)]:
    sys.exit("the behaviour has changed")
PY

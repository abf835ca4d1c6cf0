#!/usr/bin/env bash
# Versions: transformers 5.23.0, jinja2 3.1.6, Python 3.11. Seen on 2026-11-29.
# Guess: a keyword argument of apply_chat_template reaches the template as it is, so `strftime_now=lambda format: ...` fixes the date of a template
#   that calls strftime_now (Llama 3.2, gpt-oss), as a keyword `date_string="..."` does with its variable.
# Behaviour: values keep their type (a text, a number, a list), but a function arrives as the text that str() makes of it. The template's call then
#   raises TypeError: 'str' object is not callable.
# Output seen:
#   a text    26 Jul 2024
#   a list    2 tools
#   a function is callable: False, is a string: True
#   calling it: TypeError: 'str' object is not callable
# Way out: put a macro of that name in front of the template while it is rendered.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 jinja2==3.1.6
export HF_HOME="$work/home" HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error PYTHONUTF8=1
venv/bin/python -W ignore - <<'PY'
import sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
chat = [{"role": "user", "content": "a"}]


def rendered(template, **variables):
    return tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, **variables)


def year(format):
    return "1999"


text = rendered("{{ date_string }}", date_string="26 Jul 2024")
items = rendered("{{ items | length }} tools", items=["x", "y"])
kinds = rendered("callable: {{ strftime_now is callable }}, is a string: {{ strftime_now is string }}", strftime_now=year)
try:
    called = rendered("{{ strftime_now('%Y') }}", strftime_now=year)
except TypeError as error:
    called = f"TypeError: {error}"
print("a text   ", text)
print("a list   ", items)
print("a function is", kinds)
print("calling it:", called)
as_seen = ("26 Jul 2024", "2 tools", "callable: False, is a string: True", "TypeError: 'str' object is not callable")
if (text, items, kinds, called) != as_seen:
    sys.exit("the behaviour has changed")
PY

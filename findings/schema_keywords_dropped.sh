#!/usr/bin/env bash
# Versions: outlines-core 0.2.14, xgrammar 0.2.9, llguidance 1.9.1, torch 2.13.0 (CPU, which xgrammar needs), Python 3.11. Seen on 2026-12-01. Some hundred MB.
# Guess: an engine that holds a model's output to a JSON schema (vLLM's and SGLang's structured outputs, a judge's verdict) either holds it to all of the schema
#   or refuses the schema. So what parses also validates.
# Behaviour: each engine has keywords that it neither holds nor refuses, others for each, and no exception or return value tells of them. outlines-core drops the
#   bounds of numbers, multipleOf, minProperties, propertyNames and all below; xgrammar holds these, and drops uniqueItems, contains, not, dependentRequired
#   and if/then without a word (of allOf and oneOf it warns on its log); llguidance alone refuses what it does not know, by validate_grammar.
#   So the same schema and engine name give a verdict of 7 out of 5, or the same item twice, and a change of engine changes what comes.
# Output seen (an instance that the schema forbids; "accepts" means that the engine lets a model write it):
#   minimum, maximum    outlines-core accepts   xgrammar refuses   llguidance takes the schema
#   multipleOf          outlines-core accepts   xgrammar refuses   llguidance takes the schema
#   minProperties       outlines-core accepts   xgrammar refuses   llguidance refuses the schema
#   propertyNames       outlines-core accepts   xgrammar refuses   llguidance refuses the schema
#   uniqueItems         outlines-core accepts   xgrammar accepts   llguidance refuses the schema
#   contains            outlines-core accepts   xgrammar accepts   llguidance refuses the schema
#   not                 outlines-core accepts   xgrammar accepts   llguidance refuses the schema
#   dependentRequired   outlines-core accepts   xgrammar accepts   llguidance refuses the schema
#   if, then            outlines-core accepts   xgrammar accepts   llguidance refuses the schema
#   maxItems (control)  outlines-core refuses   xgrammar refuses   llguidance takes the schema
#   pattern (control)   outlines-core refuses   xgrammar refuses   llguidance takes the schema
# Way out: validate what comes with a JSON schema validator as if nothing had held it; write bounds as an enum where there are few values.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check outlines-core==0.2.14 xgrammar==0.2.9 llguidance==1.9.1 torch==2.13.0 jsonschema==4.26.0
export HF_HUB_OFFLINE=1
venv/bin/python -W ignore - <<'PY'
import json
import re
import sys

import jsonschema
import xgrammar
from llguidance import LLMatcher
from outlines_core.json_schema import build_regex_from_schema
from xgrammar.testing import _is_grammar_accept_string

LETTERS = {"type": "array", "items": {"enum": ["a", "b"]}}
PAIR = {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}}
CASES = {
    "minimum, maximum": ({"type": "integer", "minimum": 1, "maximum": 5}, 7),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, 7),
    "minProperties": (PAIR | {"minProperties": 1}, {}),
    "propertyNames": ({"type": "object", "additionalProperties": {"const": 1}, "propertyNames": {"pattern": "^a$"}}, {"b": 1}),
    "uniqueItems": (LETTERS | {"uniqueItems": True}, ["a", "a"]),
    "contains": (LETTERS | {"contains": {"const": "b"}}, ["a"]),
    "not": ({"type": "string", "not": {"const": "x"}}, "x"),
    "dependentRequired": (PAIR | {"dependentRequired": {"a": ["b"]}}, {"a": 1}),
    "if, then": (PAIR | {"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}),
    "maxItems (control)": (LETTERS | {"maxItems": 1}, ["a", "a"]),
    "pattern (control)": ({"type": "string", "pattern": "^a+$"}, "b"),
}
EXPECTED = ["art", "art", "arr", "arr", "aar", "aar", "aar", "aar", "aar", "rrt", "rrt"]

seen = []
for name, (schema, instance) in CASES.items():
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(instance)), name
    told, text = json.dumps(schema), json.dumps(instance, separators=(",", ":"))
    outlines = bool(re.fullmatch(build_regex_from_schema(told), text))
    grammar = _is_grammar_accept_string(xgrammar.Grammar.from_json_schema(told, any_whitespace=True), text)
    fault = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(told))
    seen.append(("a" if outlines else "r") + ("a" if grammar else "r") + ("r" if fault else "t"))
    words = {True: "accepts", False: "refuses"}
    print(f"{name:19} outlines-core {words[outlines]}   xgrammar {words[grammar]}   llguidance {'refuses' if fault else 'takes'} the schema")
sys.exit(0 if seen == EXPECTED else 1)
PY

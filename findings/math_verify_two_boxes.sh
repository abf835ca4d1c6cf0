#!/usr/bin/env bash
# Versions: math-verify 0.9.0, latex2sympy2_extended 1.11.0, sympy 1.14.0, Python 3.11. Seen on 2026-11-28.
# Guess: of two boxed answers the last one counts, as in other scorers.
# Behaviour: it counts alone unless less than ten characters lie between the boxes, or less than seventy with a comma, a semicolon, "and" or
#   "or" among them; then the two are one set. So whether an answer that was corrected is right hangs on a comma of the sentence that
#   corrects it, and with thoughts on how the last sentence of the thought goes on behind its box.
# Output seen (text, what is read, verify against the gold answer 5):
#   I had \boxed{4}. Checking gives \boxed{5}.              5       True
#   I had \boxed{4}, but checking gives \boxed{5}.          {4, 5}  False
#   I had \boxed{4}; that is wrong. It is \boxed{5}.        {4, 5}  False
#   I had \boxed{4}. The sum and the sign give \boxed{5}.   {4, 5}  False
#   I had \boxed{4}. No: \boxed{5}.                         {4, 5}  False
#   <think>It is \boxed{4}.</think> \boxed{5}               5       True
#   <think>It is \boxed{4}, or not?</think> \boxed{5}       {4, 5}  False
# Way out: cut the text before its last \boxed (and after the thought) and parse the rest.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    math-verify==0.9.0 latex2sympy2_extended==1.11.0 antlr4-python3-runtime==4.13.2 sympy==1.14.0
venv/bin/python - <<'PY'
import sys

from math_verify import parse, verify

cases = [
    (r"I had \boxed{4}. Checking gives \boxed{5}.", True),
    (r"I had \boxed{4}, but checking gives \boxed{5}.", False),
    (r"I had \boxed{4}; that is wrong. It is \boxed{5}.", False),
    (r"I had \boxed{4}. The sum and the sign give \boxed{5}.", False),
    (r"I had \boxed{4}. No: \boxed{5}.", False),
    (r"<think>It is \boxed{4}.</think> \boxed{5}", True),
    (r"<think>It is \boxed{4}, or not?</think> \boxed{5}", False),
]
changed = False
for text, expected in cases:
    answer = parse(text)
    said = verify(parse("$5$"), answer)
    print(f"{text:55} {answer[0]!s:7} {said}")
    changed |= said != expected or str(answer[0]) != ("5" if expected else "{4, 5}")
    changed |= not verify(parse("$5$"), parse(text[text.rindex(r"\boxed") :]))
if changed:
    sys.exit("the behaviour has changed")
PY

#!/usr/bin/env bash
# Versions: cyclopts 5.4.0, Python 3.11. Seen on 2026-11-28.
# Guess: `--rate 1.5` for a parameter `int | float` is 1.5, for `int | str` it is "1.5", and for `int` it is an error, as with argparse
#   or pydantic.
# Behaviour: int takes a decimal number and rounds it (to even at a half), and the members of a union are tried from left to right. So
#   `int | float` never yields a fraction, in a list or a dictionary neither; 0.5 becomes 0. What `1e3` does depends on the point: "1e3"
#   is refused as int, "1.0e3" is taken.
# Output seen:
#   int                    1.5 -> 2
#   int                    2.5 -> 2
#   int                    1e3 -> CoercionError
#   int                    1.0e3 -> 1000
#   int | float            0.5 -> 0
#   float | int            0.5 -> 0.5
#   int | str              1.5 -> 2
#   list[int | float]      1.5 -> [2]
# Way out: write float alone, or float first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check cyclopts==5.4.0
venv/bin/python - <<'PY'
import sys

from cyclopts import App, CoercionError


def parsed(kind, text):
    app = App(result_action="return_value")

    def command(*, rate):
        return rate

    command.__annotations__["rate"] = kind
    app.default(command)
    try:
        return app(["--rate", text], exit_on_error=False, print_error=False)
    except CoercionError as error:
        return type(error).__name__


cases = [
    (int, "1.5", 2),
    (int, "2.5", 2),
    (int, "1e3", "CoercionError"),
    (int, "1.0e3", 1000),
    (int | float, "0.5", 0),
    (float | int, "0.5", 0.5),
    (int | str, "1.5", 2),
    (list[int | float], "1.5", [2]),
]
changed = False
for kind, text, expected in cases:
    value = parsed(kind, text)
    print(f"{kind.__name__ if kind is int else str(kind):22} {text} -> {value}")
    changed |= value != expected
if changed:
    sys.exit("the behaviour has changed")
PY

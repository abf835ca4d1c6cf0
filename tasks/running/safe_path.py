"""Keeps the files of the current folder from being taken for modules of a Python process that we start.

Python puts the current folder, or the folder of a script, first on the path where it looks for modules, so a file
`random.py` or `tasks.py` there would be imported in the place of Python's or of ours. PYTHONSAFEPATH prevents it for a process and
for those that it starts. What a user's reward starts is the user's, so a process of ours that calls rewards takes the
variable away again.
"""

from __future__ import annotations

import os

VARIABLE = "PYTHONSAFEPATH"
OURS = "regroup"
"""any text switches it on; this one says that we did"""


def with_safe_path() -> dict[str, str]:
    """The variable, to be added to a process's environment; what the user set stays."""
    return {VARIABLE: os.environ.get(VARIABLE) or OURS}


def give_up_safe_path() -> None:
    """Take the variable out of this process's environment, if we set it; its own path stays as it is."""
    if os.environ.get(VARIABLE) == OURS:
        del os.environ[VARIABLE]

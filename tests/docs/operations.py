"""The blocks of docs/operations.md, for tests that run them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.paths import ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def blocks(language: str, title: str = "") -> list[str]:
    """The texts of all code blocks of a language, or of the one with that title."""
    wanted = rf" {re.escape(title)}" if title else "[^\n]*"
    return re.findall(rf"^ *```{language}{wanted}\n(.*?)^ *```", TEXT, re.DOTALL | re.MULTILINE)


FILES = dict(re.findall(r"```ini (\S+)\n(.*?)```", TEXT, re.DOTALL))
"""{path: text} of the files that a server gets"""
COMMANDS = [line for text in blocks("sh") for line in text.splitlines()]


def installed_at(folder: Path, text: str) -> str:
    """`text` with the test's own folder and programs in the place of the server's."""
    programs = f"{Path(sys.executable).parent}/"
    return (
        text.replace("/srv/regroup/venv/bin/", programs)
        .replace("/srv/regroup", str(folder))
        .replace("/etc/regroup", str(folder))
    )

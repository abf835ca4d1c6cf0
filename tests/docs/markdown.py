"""Code blocks and links of the project's documents."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A fenced block: ```language title."""

    language: str
    title: str
    text: str


def blocks(path: Path) -> list[Block]:
    found = re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(*groups) for groups in found]


def commands(path: Path, program: str) -> list[list[str]]:
    """Argument lists of the lines in a document's sh blocks that call `program`."""
    lines = [line for block in blocks(path) if block.language == "sh" for line in block.text.splitlines()]
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program]


def links(path: Path) -> list[str]:
    """Targets of a document's links, code blocks left out."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)]+)\)", text)


def anchors(path: Path) -> set[str]:
    """Names of a document's headings, as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

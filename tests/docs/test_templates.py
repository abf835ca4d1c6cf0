"""The table of chat templates in docs/models.md is what our functions make of the templates that TRL ships."""

from __future__ import annotations

import re
from pathlib import Path

import trl

from configs.errors import TemplateRefusal
from configs.records import Message
from reward_training.transformer.chat_template import reads_date, variables_of
from reward_training.transformer.rendering import holds, prompt_text, try_conversation_text
from reward_training.transformer.turn_ends import turn_end
from tests.paths import ROOT
from tests.reward_training.transformer.templates import of_trl, tokenizer_with

NAMES = sorted(
    path.stem
    for path in (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")
    if not path.stem.endswith("_training")  # the same for TRL's own masks
)
SYSTEM: Message = {"role": "system", "content": "Be brief."}
ASKED: Message = {"role": "user", "content": "What is 2 + 3?"}
AGAIN: Message = {"role": "user", "content": "Show it."}


def outcome(name: str) -> str:
    """The cells of the template's row."""
    tokenizer = tokenizer_with(of_trl(name))

    def taken(messages: list[Message]) -> str:
        try:
            text = prompt_text(tokenizer, messages)
        except TemplateRefusal:
            return "refused"
        return "yes" if all(holds(text, message) for message in messages) else "dropped"

    if taken([ASKED]) != "yes":
        return "refused: it takes lists of parts, not text | | | | | |"
    empty = try_conversation_text(tokenizer, [ASKED], "")
    thoughts = try_conversation_text(tokenizer, [ASKED], "<think>\n2 and 3\n</think>\n\n5")
    end = turn_end(tokenizer)
    assert thoughts is not None
    given = [f"`{variable}`" for variable in variables_of(tokenizer)] + ["the date"] * reads_date(tokenizer)
    cells = [
        taken([SYSTEM, ASKED]),
        taken([ASKED, AGAIN]),
        "refused" if empty is None else "yes",
        "kept" if "2 and 3" in thoughts else "stripped",
        "none" if end is None else f"`{end.text}`" if end.token is not None else f"text `{end.text}`",
        ", ".join(given) or "none",
    ]
    return " | ".join(cells).replace("<|", "<\\|").replace("|>", "\\|>") + " |"


def rows() -> list[str]:
    """A row for each outcome, with the templates that have it."""
    names: dict[str, list[str]] = {}
    for name in NAMES:
        names.setdefault(outcome(name), []).append(name)
    return [f"| {', '.join(members)} | {cells}" for cells, members in names.items()]


def test_the_table_of_chat_templates() -> None:
    section = (
        (ROOT / "docs" / "models.md")
        .read_text(encoding="utf-8")
        .partition("## Chat templates")[2]
        .partition("\n## ")[0]
    )
    table = [line for line in section.splitlines() if re.match(r"\| (?!template|---)", line)]
    assert table == rows()

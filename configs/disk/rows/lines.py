"""Limits on how long lines and texts may be.

A file without line ends would be read into memory as a whole, and a tokenizer needs several hundred bytes a character.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from configs.errors import ConfigError, UnreadableRow

MAX_LINE = 100_000_000
"""most characters of a line, and of an object in an array"""
MAX_CHARACTERS = 1_000_000
"""most characters of a prompt, an answer or a response"""


def bounded_lines(text: TextIO, path: str, num_before: int = 0) -> Iterator[str]:
    """The lines of a text of which `num_before` were read already.

    Raises:
        ConfigError: a line has more than MAX_LINE characters.
    """
    number = num_before
    while line := text.readline(MAX_LINE + 1):
        number += 1
        refuse_long(line, f"{path} line {number}", "a line")
        yield line


def refuse_long(text: str, location: str, what: str) -> None:
    if len(text) > MAX_LINE:
        raise ConfigError(
            f"{location}: {what} of more than {MAX_LINE:,} characters; is it one of these files? Write an object a line"
        )


def within_limit(text: str, what: str) -> str:
    """The text.

    Raises:
        UnreadableRow: it has more than MAX_CHARACTERS.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnreadableRow(f"{what} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read")
    return text

"""`regroup review`: what people are asked as a file to fill in, and their answers. MLflow is not needed."""

import csv
import getpass
import json
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from configs.disk.files import write_atomic
from configs.disk.rows import Row, read_jsonl_rows
from configs.errors import ConfigError
from configs.records import CHOICES, Prompt, ReviewItem, Verdict
from tasks.people.review_desk import Asked, ReviewDesk
from tasks.showing.terminal import Terminal

FORMULA = re.compile(r"[=@\t\r]|[-+](?!\d[\d.,]*\s*$)")
"""how a cell begins that a spreadsheet would compute; a response may have been written by somebody who wants that"""
COLUMNS = ("item", "question", "first", "second", "choice", "person", "comment")


def show_review(root: Path) -> None:
    """A line for each run, round and purpose: asked, answered, since when."""
    terminal, desk = Terminal(), ReviewDesk(root)
    asked = desk.asked()
    if not asked:
        terminal.print(
            "nobody was asked anything; a reward model with labeler {kind: people}, or promotion.people, asks people"
        )
        return
    answered = desk.answers([entry.item for entry in asked])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for column in ("run", "round", "about", "asked", "answered", "since"):
        table.add_column(column, justify="right" if column in ("round", "asked", "answered") else "left")
    groups: dict[tuple[str, int, str], list[Asked]] = {}
    for entry in asked:
        groups.setdefault((entry.item.run, entry.item.round, _purpose(entry.item)), []).append(entry)
    for (run, round_index, purpose), entries in groups.items():
        done = sum(entry.item.id in answered for entry in entries)
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(entries[0].asked_ms / 1000))
        table.add_row(run, str(round_index), purpose, str(len(entries)), str(done), since)
    terminal.print(table)


def _purpose(item: ReviewItem) -> str:
    return "champion or challenger" if item.kind == "policies" else f"reward model {item.objective}"


def export_items(root: Path, file: Path, run_name: str | None) -> None:
    """Write the unanswered items; refuses to write over a file, which may hold answers."""
    _check_ending(file)
    if file.exists():
        raise ConfigError(f"{file} exists already and may hold answers; name a file that does not exist")
    desk = ReviewDesk(root)
    items = [entry.item for entry in desk.asked() if run_name in (None, entry.item.run)]
    answered = desk.answers(items)
    rows = [_row(item) for item in items if item.id not in answered]
    if not rows:
        raise ConfigError("nothing is left to answer; `regroup review status` shows what was asked")
    write_atomic(file, _as_csv(rows) if file.suffix == ".csv" else "".join(json.dumps(row) + "\n" for row in rows))
    terminal = Terminal()
    terminal.say(f"{len(rows)} items; fill in `choice` ({', '.join(CHOICES)}), then: regroup review import {file}")
    terminal.print_path(file)


def _row(item: ReviewItem) -> dict[str, str]:
    values = (item.id, as_text(item.prompt), item.first, item.second, "", "", "")
    return dict(zip(COLUMNS, values, strict=True))


def as_text(prompt: Prompt) -> str:
    """A prompt for a person's eye: one message as it is, several with who says it."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n\n".join(f"[{message['role']}] {message['content']}" for message in prompt)


def _as_csv(rows: Iterable[dict[str, str]]) -> str:
    from io import StringIO

    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows({name: _inert(cell) for name, cell in row.items()} for row in rows)
    return text.getvalue()


def _inert(cell: str) -> str:
    """
    >>> _inert("=HYPERLINK(1)"), _inert("-4"), _inert("-4+1"), _inert("8")
    ("'=HYPERLINK(1)", '-4', "'-4+1", '8')
    """
    return f"'{cell}" if FORMULA.match(cell) else cell


def import_verdicts(root: Path, file: Path, person: str | None) -> None:
    """Add the file's answers; where one row is at fault nothing is added."""
    _check_ending(file)
    desk = ReviewDesk(root)
    known = {entry.item.id for entry in desk.asked()}
    now_ms, somebody = int(time.time() * 1000), person or getpass.getuser()
    verdicts = [
        _verdict(row, place, known, somebody, now_ms)
        for place, row in _rows(file)
        if str(row.get("choice") or "").strip()
    ]
    if not verdicts:
        raise ConfigError(f"{file} has no row with a choice; fill in {', '.join(CHOICES)} in the column `choice`")
    given = desk.answers([entry.item for entry in desk.asked()])
    latest = {(old.item, old.person): old.choice for answers in given.values() for old in answers}
    added = desk.add(new for new in verdicts if latest.get((new.item, new.person)) != new.choice)
    Terminal().print_path(f"{added} answers taken in, {len(verdicts) - added} were known")


def _check_ending(file: Path) -> None:
    if file.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"{file} must end in .csv or .jsonl")


def _rows(file: Path) -> Iterator[Row]:
    if not file.exists():
        raise ConfigError(f"{file} does not exist; `regroup review export {file}` makes it")
    if file.suffix == ".jsonl":
        yield from read_jsonl_rows(file, "FILE")
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    for row in (reader := csv.DictReader(text.splitlines(keepends=True))):
        yield f"{file} line {reader.line_num}", row


def _verdict(row: dict[str, Any], place: str, known: set[str], somebody: str, now_ms: int) -> Verdict:
    choice, item = str(row["choice"]).strip().lower(), str(row.get("item") or "")
    if choice not in CHOICES:
        raise ConfigError(f"{place}: choice is {row['choice']!r}; write {', '.join(CHOICES)}, or leave it empty")
    if item not in known:
        raise ConfigError(
            f"{place}: item {item[:12]!r} was not asked in this workspace; keep the column `item` as exported"
        )
    return Verdict(
        item=item,
        choice=choice,
        person=str(row.get("person") or "").strip() or somebody,
        given_ms=now_ms,
        via="file",
        comment=str(row.get("comment") or "").strip(),
    )

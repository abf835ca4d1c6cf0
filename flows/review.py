"""The commands `regroup review`: export what people are asked to a file, and import their answers, without MLflow."""

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
from configs.disk.rows.columns import Row
from configs.disk.rows.reading import DEFAULT_SPLIT, read_rows
from configs.errors import ConfigError
from configs.records import CHOICES, Prompt, ReviewItem, Verdict
from tasks.people.review_desk import Asked, ReviewDesk
from tasks.showing.terminal import Terminal

FORMULA = re.compile(r"[=@\t\r]|[-+](?!\d[\d.,]*\s*$)")
"""beginning of a cell that a spreadsheet would execute as a formula; a response may contain one on purpose"""
COLUMNS = ("item", "question", "first", "second", "choice", "person", "comment")


def show_review(root: Path) -> None:
    """Print a row for each run, round and purpose: items asked, items answered, and since when."""
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
        num_answered = sum(entry.item.id in answered for entry in entries)
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(entries[0].asked_ms / 1000))
        table.add_row(run, str(round_index), purpose, str(len(entries)), str(num_answered), since)
    terminal.print(table)


def _purpose(item: ReviewItem) -> str:
    return "champion or challenger" if item.kind == "policies" else f"reward model {item.objective}"


def export_items(root: Path, file: Path, run_name: str | None) -> None:
    """Write the unanswered items to `file`.

    Raises:
        ConfigError: the file exists already (it may hold answers), has the wrong suffix, or no item is unanswered.
    """
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
    """A prompt as readable text: a single message as it is, several messages each with its role."""
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
    """The cell, with a leading quote if a spreadsheet would execute it as a formula.

    >>> _inert("=HYPERLINK(1)"), _inert("-4"), _inert("-4+1"), _inert("8")
    ("'=HYPERLINK(1)", '-4', "'-4+1", '8')
    """
    return f"'{cell}" if FORMULA.match(cell) else cell


def import_verdicts(root: Path, file: Path, person: str | None) -> None:
    """Add the answers in `file`; `person` defaults to the login name.

    Raises:
        ConfigError: a row is faulty, or none has a choice; then nothing is added.
    """
    _check_ending(file)
    desk = ReviewDesk(root)
    known = {entry.item.id for entry in desk.asked()}
    now_ms, default_person = int(time.time() * 1000), person or getpass.getuser()
    verdicts = [
        _verdict(row, location, known, default_person, now_ms)
        for location, row in _rows(file)
        if str(row.get("choice") or "").strip()
    ]
    if not verdicts:
        raise ConfigError(f"{file} has no row with a choice; fill in {', '.join(CHOICES)} in the column `choice`")
    previous = desk.answers([entry.item for entry in desk.asked()])
    latest = {(old.item, old.person): old.choice for answers in previous.values() for old in answers}
    added = desk.add(new for new in verdicts if latest.get((new.item, new.person)) != new.choice)
    Terminal().print_path(f"{added} answers taken in, {len(verdicts) - added} were known")


def _check_ending(file: Path) -> None:
    if file.suffix not in (".csv", ".jsonl"):
        raise ConfigError(f"{file} must end in .csv or .jsonl")


def _rows(file: Path) -> Iterator[Row]:
    if not file.exists():
        raise ConfigError(f"{file} does not exist; `regroup review export {file}` makes it")
    if file.suffix == ".jsonl":
        yield from read_rows(str(file), None, DEFAULT_SPLIT, None, "FILE")
        return
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    for row in (reader := csv.DictReader(text.splitlines(keepends=True))):
        yield f"{file} line {reader.line_num}", row


def _verdict(row: dict[str, Any], location: str, known: set[str], default_person: str, now_ms: int) -> Verdict:
    choice, item = str(row["choice"]).strip().lower(), str(row.get("item") or "")
    if choice not in CHOICES:
        raise ConfigError(f"{location}: choice is {row['choice']!r}; write {', '.join(CHOICES)}, or leave it empty")
    if item not in known:
        raise ConfigError(
            f"{location}: item {item[:12]!r} was not asked in this workspace; keep the column `item` as exported"
        )
    return Verdict(
        item=item,
        choice=choice,
        person=str(row.get("person") or "").strip() or default_person,
        given_ms=now_ms,
        via="file",
        comment=str(row.get("comment") or "").strip(),
    )

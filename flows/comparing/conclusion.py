"""What is concluded from the finished members of a comparison: files, MLflow's run, and what the terminal shows."""

import json
from pathlib import Path

from flows.comparing.planning import planned
from tasks.comparing.analysis import best_of_each, compared, read_members
from tasks.comparing.comparison_file import FILE, RESULT, ComparisonFile, comparison_folder, write_result
from tasks.comparing.metrics import metrics
from tasks.comparing.page import PAGE, write_page
from tasks.comparing.result import Compared
from tasks.comparing.tables import tables
from tasks.comparing.words import notes, verdicts
from tasks.runs.run_file import read_run
from tasks.showing.terminal import Terminal
from tasks.tracking.comparison import send_comparison
from tasks.tracking.store import Store


def conclude(root: Path, file: ComparisonFile, terminal: Terminal) -> Path:
    """Write the result of a comparison, tell MLflow of it, and print it; returns the path of `compare.html`.

    Raises:
        ConfigError: its members were given different problems, or were scored by different code.
    """
    comparison, folder = file.comparison, comparison_folder(root, file.comparison.name)
    found = read_members(root, comparison)
    result = compared(comparison, found)
    write_result(folder, result)
    page = write_page(folder, comparison, result, best_of_each(found, comparison.compare.rate_seeds))
    _send(root, folder, file, result, terminal)
    for table in tables(result):
        terminal.print(table)
    for line in [*verdicts(result), *notes(result)]:
        terminal.print(line)
    return page


def _send(root: Path, folder: Path, file: ComparisonFile, result: Compared, terminal: Terminal) -> None:
    """Tell MLflow of the comparison, unless it knows."""
    members = planned(root, file.comparison, file.date)
    compare = file.comparison.compare.model_dump(mode="json", exclude={"methods"})
    methods = {f"methods.{name}": json.dumps(given) for name, given in file.comparison.compare.methods.items()}
    send_comparison(
        Store(root, name=folder.name, uid=file.uid, config=members[0].config, warn=terminal.warn),
        folder,
        members=[read_run(root, member.name).uid for member in members],
        params=methods | {name: json.dumps(value) for name, value in compare.items()},
        metrics=metrics(result),
        files=[folder / name for name in (FILE, RESULT, PAGE)],
        at_ms=file.created_ms,
        warn=terminal.warn,
    )

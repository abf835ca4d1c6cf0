"""Terminal output: a progress line for each stage, warnings, and one table of rounds at the end.

Progress and warnings go to standard error, so that standard output holds the table and, as its last line, the path of
summary.json. Messages, warnings and what libraries log also go to the run's log file.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LOGGER_NAME = "regroup"
LIBRARIES = (
    "transformers",
    "datasets",
    "trl",
    "accelerate",
    "mlflow",
    "alembic",
    "prefect",
    "httpx",
    "httpcore",
    "uvicorn",
)
LINE_EVERY_S = 15.0
LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
WIDTH_AWAY_FROM_A_TERMINAL = 80

logger = logging.getLogger(LOGGER_NAME)
logger.addHandler(logging.NullHandler())  # or logging would print warnings to the terminal a second time


class StageProgress:
    """Progress of one stage. `total` and `unit` may be set later; `note` is a short text beside the count."""

    def __init__(self, title: str, total: int | None, unit: str, show: Callable[[StageProgress], None]) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = 0
        self.note = ""
        self.started = time.monotonic()
        self._show = show

    def set(self, done: int, *, total: int | None = None, unit: str | None = None) -> None:
        """Set how many units are done in all. A note was of what came before, if more are."""
        if done > self.done:
            self.note = ""
        self.done = done
        self.total = self.total if total is None else total
        self.unit = self.unit if unit is None else unit
        self._show(self)

    def say(self, note: str) -> None:
        """Show what the stage is doing, for instance `dev, greedy`."""
        self.note = note
        self._show(self)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Units per second since the start; 0 before the first unit."""
        return self.done / self.seconds if self.done and self.seconds > 0 else 0.0

    @property
    def count(self) -> str:
        if self.total is None:
            return f"{self.done} {self.unit}".strip() if self.done else ""
        return f"{self.done}/{self.total} {self.unit}".strip()

    @property
    def speed(self) -> str:
        if not self.rate:
            return ""
        return f"{self.rate:.1f}/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s each"

    @property
    def remaining(self) -> str:
        if self.total is None or not self.rate:
            return ""
        return f"{clock(max(0, self.total - self.done) / self.rate)} left"

    def line(self) -> str:
        """For instance `round 1 · policy: 12/40 updates, 1.9 s each, 0:53 left (sampling)`."""
        parts = ", ".join(part for part in (self.count, self.speed, self.remaining) if part)
        note = f" ({self.note})" if self.note else ""
        return f"{self.title}: {parts or 'working'}{note}"

    def last_line(self) -> str:
        what = f", {self.done} {self.unit}".rstrip() if self.done else ""
        return f"{self.title}: done in {clock(self.seconds)}{what}"


def clock(seconds: float) -> str:
    """A duration as `0:07`, `12:05` or `1:02:09`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Terminal:
    """Standard output and standard error of one command. `quiet` shows warnings only."""

    def __init__(self, *, out: Console | None = None, err: Console | None = None, quiet: bool = False) -> None:
        self.out = out or _console(stderr=False)
        self.err = err or _console(stderr=True)
        self.quiet = quiet
        self._warned_of: set[str] = set()

    def print(self, *objects: Any) -> None:
        """Print to standard output."""
        self.out.print(*objects, highlight=False)

    def print_path(self, path: Path | str) -> None:
        """Print one line to standard output, never wrapped."""
        self.out.print(str(path), highlight=False, soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """Print one line to standard error, and log it."""
        logger.info(text)
        if not self.quiet:
            self.err.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Print a warning to standard error, even when `quiet`, and log it."""
        logger.warning(text)
        self.err.print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)

    def warn_once(self, text: str) -> None:
        """The same, unless it was warned of before."""
        if text not in self._warned_of:
            self._warned_of.add(text)
            self.warn(text)

    def skipped(self, title: str) -> None:
        """Say that an earlier call finished the stage."""
        self.say(f"{title}: already done")

    @contextmanager
    def stage(self, title: str, *, total: int | None = None, unit: str = "") -> Iterator[StageProgress]:
        """Show the progress of one stage: a bar on a terminal, otherwise a line every `LINE_EVERY_S` seconds."""
        logger.info("%s: started", title)
        painter = self._bar if self.err.is_terminal and not self.quiet else self._lines
        with painter(title, total, unit) as progress:
            yield progress
        self.say(progress.last_line())

    @contextmanager
    def _bar(self, title: str, total: int | None, unit: str) -> Iterator[StageProgress]:
        bar = Progress(*_columns(), console=self.err, transient=True, refresh_per_second=4)
        with bar:
            task = bar.add_task(title, total=total)
            show = _paint(bar, task)
            progress = StageProgress(title, total, unit, show)
            show(progress)
            yield progress

    @contextmanager
    def _lines(self, title: str, total: int | None, unit: str) -> Iterator[StageProgress]:
        last = time.monotonic()

        def show(progress: StageProgress) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                self.say(progress.line())

        yield StageProgress(title, total, unit, show)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else WIDTH_AWAY_FROM_A_TERMINAL)


class _Field(ProgressColumn):
    """A column that shows a text field of the progress task."""

    def __init__(self, name: str, style: str = "") -> None:
        super().__init__()
        self.name = name
        self.style = style

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self.name, "")), style=self.style)


def _columns() -> list[ProgressColumn]:
    return [
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        _Field("count"),
        _Field("speed", "dim"),
        TimeRemainingColumn(compact=True),
        _Field("note", "dim"),
    ]


def _paint(bar: Progress, task: Any) -> Callable[[StageProgress], None]:
    def show(progress: StageProgress) -> None:
        fields: dict[str, Any] = {"count": progress.count, "speed": progress.speed, "note": progress.note}
        bar.update(task, completed=progress.done, total=progress.total, **fields)

    return show


# ---- log file -------------------------------------------------------------------------------------------------------


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what Regroup and the libraries log to `path`, and keep libraries off the terminal meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    handler.setLevel(logging.INFO)
    with _attached(handler):
        yield


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    quiet_libraries(handler)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.setLevel(before)
        for name in ("", *LIBRARIES):
            logging.getLogger(name).removeHandler(handler)
        handler.close()


def quiet_libraries(handler: logging.Handler | None = None) -> None:
    """Let the libraries' own terminal handlers print critical errors only; `handler` still receives their warnings.

    Some libraries (transformers, prefect) install handlers and do not propagate, so each logger is configured by name.
    """
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        for own in library.handlers:
            if isinstance(own, logging.StreamHandler) and not isinstance(own, logging.FileHandler):
                own.setLevel(logging.CRITICAL)
        if handler is not None and not library.propagate and handler not in library.handlers:
            library.addHandler(handler)
    _no_progress_bars()


def _no_progress_bars() -> None:
    """Switch off the progress bars of those of datasets, huggingface_hub and transformers that are imported."""
    for module in ("datasets", "huggingface_hub.utils", "transformers.utils.logging"):
        loaded = sys.modules.get(module)
        for name in ("disable_progress_bars", "disable_progress_bar"):
            with suppress(AttributeError):
                getattr(loaded, name)()
                break

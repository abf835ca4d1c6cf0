"""Finds the files of a data set's splits: in a folder that `datasets` saved, in one that it can load, or on a hub.

`datasets` says which files a split has, and fetches them; the rows are read here, since its own readers of JSON and CSV turn
texts into numbers, and keep a copy of everything. What is no such file (pictures, sound, archives) it loads itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from configs.disk.rows.columns import Row
from configs.disk.rows.files import read_file
from configs.errors import ConfigError

READ_HERE = ("json", "csv", "parquet", "arrow")
"""builders of `datasets` whose files are read here"""
Rows = Callable[[], Iterator[Row]]


@dataclass(frozen=True)
class Splits:
    """The splits of a data set; each is a function that reads its rows from the start."""

    by_name: dict[str, Rows]
    path: str

    def read(self, asked: str) -> Iterator[Row]:
        """The rows of a split, a part of one, or a sum of these, as `datasets` writes them: `train[:10%]+test`.

        Raises:
            ConfigError: there is no such split.
        """
        if asked in self.by_name:
            return self.by_name[asked]()
        if asked == "all":
            return chain.from_iterable(rows() for rows in self.by_name.values())
        return self._parts(asked)

    def _parts(self, asked: str) -> Iterator[Row]:
        import datasets  # takes over a second to import

        names = [part.partition("[")[0].strip() for part in asked.split("+")]
        if missing := [name for name in names if name not in self.by_name]:
            raise ConfigError(
                f"{self.path} has no split {missing[0]!r}; set dataset_split to one of {', '.join(map(repr, self.by_name))}, "
                "or a part such as train[:1000]"
            )
        sizes = {name: sum(1 for _ in self.by_name[name]()) for name in names}
        try:
            parts = datasets.ReadInstruction.from_spec(asked).to_absolute(sizes)
        except (ValueError, AssertionError) as error:
            raise ConfigError(f"dataset_split={asked!r}: {error}; write it as train[:1000] or train[:10%]") from error
        for part in parts:
            yield from islice(self.by_name[part.splitname](), part.from_, part.to)


# ---- saved by save_to_disk ------------------------------------------------------------------------------------------


def saved_splits(folder: Path) -> Splits | None:
    """The splits in a folder that a Dataset or a DatasetDict was saved to; None for another folder.

    A Dataset goes by the name of its split, and by `train`.
    """
    if (folder / "dataset_dict.json").is_file():
        names: list[str] = _json(folder / "dataset_dict.json")["splits"]
        return Splits({name: _files(_saved_files(folder / name)) for name in names}, str(folder))
    if (folder / "state.json").is_file():
        own = _json(folder / "state.json").get("_split") or "train"
        return Splits(dict.fromkeys([own.partition("[")[0], "train"], _files(_saved_files(folder))), str(folder))
    return None


def _saved_files(folder: Path) -> list[Path]:
    return [folder / file["filename"] for file in _json(folder / "state.json")["_data_files"]]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; save the data set again") from error


def _files(paths: list[Path]) -> Rows:
    return lambda: chain.from_iterable(map(read_file, paths))


# ---- loaded by datasets ---------------------------------------------------------------------------------------------


def splits_by_datasets(path: str, name: str | None, dataset_split: str, revision: str | None) -> Splits:
    """The splits that `datasets` finds in a folder or on a hub.

    Raises:
        ConfigError: it finds none; the message has the first cause.
    """
    import datasets

    with _quiet(), _explained(path, name, dataset_split):
        builder = datasets.load_dataset_builder(path, name, revision=revision)
        files = builder.config.data_files
        if files is None or builder.name not in READ_HERE or getattr(builder.config, "column_names", None):
            return Splits(_loaded(path, name, revision), path)
        manager = datasets.DownloadManager(dataset_name=builder.dataset_name)
        wanted = {str(split): list(names) for split, names in files.items() if _is_wanted(str(split), dataset_split)}
        fetched = {split: [Path(file) for file in manager.download(names)] for split, names in wanted.items()}
    others: dict[str, Rows] = {str(split): _files([]) for split in files}
    return Splits(others | {split: _files(paths) for split, paths in fetched.items()}, path)


def _is_wanted(split: str, asked: str) -> bool:
    return asked == "all" or split in {part.partition("[")[0].strip() for part in asked.split("+")}


def _loaded(path: str, name: str | None, revision: str | None) -> dict[str, Rows]:
    """The splits as `datasets` loads them itself."""
    import datasets

    loaded = datasets.load_dataset(path, name, revision=revision)
    return {str(split): _numbered(rows, path) for split, rows in loaded.items()}


def _numbered(rows: Any, path: str) -> Rows:
    return lambda: ((f"{path} row {number}", dict(row)) for number, row in enumerate(rows, start=1))


@contextmanager
def _quiet() -> Iterator[None]:
    import datasets

    had_progress_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if had_progress_bars:
            datasets.enable_progress_bars()


@contextmanager
def _explained(path: str, name: str | None, dataset_split: str) -> Iterator[None]:
    import datasets

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"data set {path} (name={name}, dataset_split={dataset_split}) could not be loaded: {causes(error)}; "
            "check path, name, dataset_split and the network, or use a local folder"
        ) from error


def causes(error: BaseException) -> str:
    """The first line of an error's message and of the one that it came from first.

    >>> try:
    ...     try:
    ...         raise ValueError("broken JSON in line 3")
    ...     except ValueError as first:
    ...         raise RuntimeError("the data set was not made") from first
    ... except RuntimeError as last:
    ...     causes(last)
    'the data set was not made, because of ValueError: broken JSON in line 3'
    """
    first = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    message = str(error).partition("\n")[0]
    cause = str(first).partition("\n")[0]
    return message if first is error or cause in message else f"{message}, because of {type(first).__name__}: {cause}"

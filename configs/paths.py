"""Paths in the files of a run, which lead to the same things wherever the workspace lies.

On disk a path in the workspace is relative to it, so that the folder may be moved, copied, or mounted elsewhere; one outside is
as it was given. In memory both are absolute.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, SerializationInfo, ValidationInfo

from configs.older_paths import below, old_roots

RUN_FILE = "run.json"
CONTEXT = "place"


class Place:
    """Where a workspace is now; `run_dir` is the run whose files are read or written."""

    def __init__(self, root: Path, run_dir: Path | None = None) -> None:
        self.root = root.absolute()
        self._run_dir = run_dir

    @property
    def context(self) -> dict[str, Place]:
        """What pydantic's methods are given, so that each `StoredPath` is read or written by this place."""
        return {CONTEXT: self}

    def stored(self, path: str) -> str:
        """The path as it is written down."""
        inside = self._inside(path) if os.path.isabs(path) else None
        return path if inside is None else inside

    def found(self, path: str) -> str:
        """Where the path that was written down leads."""
        if not os.path.isabs(path):
            return str(self.root / path)
        inside = below(path, self._old_roots)
        return path if inside is None else str(self.root / inside)

    @cached_property
    def _old_roots(self) -> list[str]:
        if self._run_dir is None or not (self._run_dir / RUN_FILE).is_file():
            return []
        return old_roots(json.loads((self._run_dir / RUN_FILE).read_bytes()), self._run_dir)

    def _inside(self, path: str) -> str | None:
        """The path relative to the workspace, by whichever link it leads there; None if it lies outside."""
        plain = Path(os.path.normpath(path))
        for folder in plain.parents:
            with suppress(OSError):
                if folder == self.root or folder.samefile(self.root):
                    return plain.relative_to(folder).as_posix()
        return None


def place_of(path: Path) -> Place | None:
    """The place of a file or folder that belongs to a run; None where there is no run."""
    for folder in path.absolute().parents:
        if (folder / RUN_FILE).is_file():
            return Place(folder.parent.parent, folder)
    return None


def context_of(path: Path) -> dict[str, Place] | None:
    """The context in which pydantic reads and writes a file that belongs to a run."""
    place = place_of(path)
    return None if place is None else place.context


def _found(path: str, info: ValidationInfo) -> str:
    place = (info.context or {}).get(CONTEXT)
    return place.found(path) if isinstance(place, Place) else path


def _stored(path: str, info: SerializationInfo) -> str:
    place = (info.context or {}).get(CONTEXT)
    return place.stored(path) if isinstance(place, Place) else path


StoredPath = Annotated[str, AfterValidator(_found), PlainSerializer(_stored, return_type=str)]
"""A path that is relative on disk if it lies in the workspace; without a `Place` in pydantic's context it stays as it is"""

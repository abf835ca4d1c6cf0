"""Checkpoints of a stage that is not finished yet: `checkpoints/step_000040/`, sealed by its digests, written last.

A checkpoint is made under a temporary name and renamed, so that a kill leaves it whole or not at all. It is not flushed: a
killed process loses nothing that it wrote, and after a power failure the digests tell a torn one, and the one before is used.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from configs.disk.files import digest_files

CHECKPOINTS = "checkpoints"
STEP = "step_"
TEMPORARY = ".unfinished"
SEAL = "checkpoint.json"


class Seal(BaseModel):
    """`checkpoint.json`: what a checkpoint is and the digests of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    fingerprint: str
    """of the configuration and the inputs that the stage worked on"""
    files: dict[str, str]
    """{path relative to the checkpoint: sha256}"""
    lengths: dict[str, int]
    """{name: bytes} of the stage's growing files (journal, rollouts) at that step"""
    seconds: float
    """that the stage had worked until then, over all its attempts"""


class Checkpoints:
    """The checkpoints of one stage's folder."""

    def __init__(self, stage: Path, *, fingerprint: str, every: int, keep: int, warn: Callable[[str], None]) -> None:
        self.stage = stage
        self.folder = stage / CHECKPOINTS
        self.fingerprint = fingerprint
        self.every = every
        self.keep = keep
        self.last_step = 0
        self._begun = time.monotonic()
        self._seconds_before = 0.0
        self.warn = warn

    def due(self, step: int) -> bool:
        """Whether one is to be made after `step` in passing."""
        return self.wanted(step) and step % self.every == 0

    def wanted(self, step: int) -> bool:
        """Whether one is to be made where training stops after `step`; never where `every` is 0."""
        return self.every > 0 and step > self.last_step

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write(folder)` writes as the checkpoint of `step`, and how long the stage's files are now."""
        temporary, target = self.folder / TEMPORARY, self.folder / f"{STEP}{step:06d}"
        _remove(temporary)
        temporary.mkdir(parents=True)
        write(temporary)
        seal = Seal(
            step=step,
            fingerprint=self.fingerprint,
            files=digest_files(temporary),
            lengths={path.name: path.stat().st_size for path in sorted(self.stage.glob("*.jsonl"))},
            seconds=self._seconds_before + time.monotonic() - self._begun,
        )
        (temporary / SEAL).write_text(seal.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _remove(target)
        temporary.rename(target)
        self.last_step = step
        for old in saved_steps(self.stage)[: -self.keep]:
            shutil.rmtree(old)

    def newest(self) -> tuple[Path, Seal] | None:
        """The newest checkpoint that is whole and of the same configuration and inputs; others are warned of."""
        for folder in reversed(saved_steps(self.stage)):
            try:
                seal = self._check(folder)
            except (OSError, ValueError) as error:
                self.warn(f"checkpoint {folder} is not used: {error}")
            else:
                self.last_step, self._seconds_before = seal.step, seal.seconds
                return folder, seal
        return None

    def newest_before(self, step: int) -> Path | None:
        """The newest whole checkpoint of a step before `step`; where none is left, the oldest there is."""
        whole = []
        for folder in saved_steps(self.stage):
            try:
                whole.append((self._check(folder).step, folder))
            except (OSError, ValueError) as error:
                self.warn(f"checkpoint {folder} is not used: {error}")
        before = [folder for saved, folder in whole if saved < step]
        return before[-1] if before else whole[0][1] if whole else None

    def _check(self, folder: Path) -> Seal:
        """Raises ValueError or OSError where the checkpoint cannot be gone on from."""
        seal = Seal.model_validate_json((folder / SEAL).read_bytes())
        if seal.fingerprint != self.fingerprint:
            raise ValueError("it was made for another configuration or other inputs")
        found = digest_files(folder, leave_out=[SEAL])
        if torn := sorted(name for name in seal.files.keys() | found if seal.files.get(name) != found.get(name)):
            raise ValueError(f"torn: {', '.join(torn)}")
        if short := sorted(name for name, size in seal.lengths.items() if (self.stage / name).stat().st_size < size):
            raise ValueError(f"shorter than then: {', '.join(short)}")
        return seal

    def rewind(self) -> Seal | None:
        """Take the stage's folder back to its newest checkpoint and return its seal; without one empty it and return None."""
        newest = self.newest()
        lengths = newest[1].lengths if newest else {}
        for path in list(self.stage.iterdir()) if self.stage.exists() else []:
            if path.name in lengths:
                os.truncate(path, lengths[path.name])
            elif path != self.folder:
                _remove(path)
        for path in list(self.folder.iterdir()) if self.folder.exists() else []:
            if newest is None or path.name > newest[0].name or path.name == TEMPORARY:
                _remove(path)
        self.stage.mkdir(parents=True, exist_ok=True)
        return newest[1] if newest else None


def saved_steps(stage: Path) -> list[Path]:
    """The checkpoints of a stage, oldest first, whether they are whole or not."""
    return sorted((stage / CHECKPOINTS).glob(f"{STEP}*"))


def last_saved_step(stage: Path) -> int:
    """Step of the newest checkpoint, unchecked; 0 where there is none."""
    saved = saved_steps(stage)
    return int(saved[-1].name.removeprefix(STEP)) if saved else 0


def discard_checkpoints(stage: Path) -> None:
    """A finished stage needs none."""
    _remove(stage / CHECKPOINTS)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

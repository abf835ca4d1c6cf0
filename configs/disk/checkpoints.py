"""Saves and finds the checkpoints of an unfinished stage, for instance `checkpoints/step_000040/`.

A checkpoint is written under a temporary name and renamed, so after a kill it is complete or absent. Its last file,
`checkpoint.json`, holds the digests of the others. Nothing is fsynced: the writes of a killed process are not lost, and
after a power failure the digests reveal an incomplete checkpoint and the previous one is used.
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
    """The content of `checkpoint.json`: what the checkpoint belongs to, and the digests of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    fingerprint: str
    """digest of the configuration and of the inputs of the stage"""
    files: dict[str, str]
    """{path relative to the checkpoint: sha256}, without `checkpoint.json`"""
    lengths: dict[str, int]
    """{file name: size in bytes at this step} of the files that the stage appends to (journal, rollouts)"""
    seconds: float
    """time that the stage had worked up to this step, over all its attempts"""


class Checkpoints:
    """The checkpoints in the folder of one stage."""

    def __init__(
        self,
        stage: Path,
        *,
        fingerprint: str,
        older: str | None = None,
        every: int,
        keep: int,
        warn: Callable[[str], None],
    ) -> None:
        """`older` is the fingerprint that an earlier version gave to the same work; its checkpoints are used too."""
        self.stage = stage
        self.older = older
        self.folder = stage / CHECKPOINTS
        self.fingerprint = fingerprint
        self.every = every
        self.keep = keep
        self.last_step = 0
        self._begun = time.monotonic()
        self._seconds_before = 0.0
        self.warn = warn

    def due(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` while training goes on."""
        return self.wanted(step) and step % self.every == 0

    def wanted(self, step: int) -> bool:
        """Whether to save a checkpoint if training stops after `step`; never if `every` is 0."""
        return self.every > 0 and step > self.last_step

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save what `write(folder)` writes as the checkpoint of `step`, with the current sizes of the JSONL files.

        Only the newest `keep` checkpoints stay.
        """
        self.open()
        write(self.unfinished)
        self.seal(step)

    @property
    def unfinished(self) -> Path:
        """The folder of a checkpoint that is being written."""
        return self.folder / TEMPORARY

    def open(self) -> None:
        """Make an empty folder `unfinished`."""
        _remove(self.unfinished)
        self.unfinished.mkdir(parents=True)

    def seal(self, step: int) -> None:
        """Make what is in `unfinished` the checkpoint of `step`, as `save` does."""
        temporary, target = self.unfinished, self.folder / f"{STEP}{step:06d}"
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
        """The newest complete checkpoint of the same configuration and inputs, or None; warns of those it skips."""
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
        """The newest usable checkpoint of a step before `step`; without one, the oldest usable checkpoint, or None."""
        usable = []
        for folder in saved_steps(self.stage):
            try:
                usable.append((self._check(folder).step, folder))
            except (OSError, ValueError) as error:
                self.warn(f"checkpoint {folder} is not used: {error}")
        before = [folder for saved_step, folder in usable if saved_step < step]
        return before[-1] if before else usable[0][1] if usable else None

    def _check(self, folder: Path) -> Seal:
        """The seal of a checkpoint; raises ValueError or OSError if training cannot resume from it."""
        seal = Seal.model_validate_json((folder / SEAL).read_bytes())
        if seal.fingerprint not in (self.fingerprint, self.older):
            raise ValueError("it was made for another configuration or other inputs")
        digests = digest_files(folder, leave_out=[SEAL])
        if torn := sorted(name for name in seal.files.keys() | digests if seal.files.get(name) != digests.get(name)):
            raise ValueError(f"torn: {', '.join(torn)}")
        if short := sorted(name for name, size in seal.lengths.items() if (self.stage / name).stat().st_size < size):
            raise ValueError(f"shorter than then: {', '.join(short)}")
        return seal

    def rewind(self) -> Seal | None:
        """Restore the stage's folder to the newest checkpoint and return its seal; without one, empty the folder.

        Growing files are truncated to their size at the checkpoint; newer checkpoints and all other files are deleted.
        """
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
    """The checkpoint folders of a stage, oldest first, complete or not."""
    return sorted((stage / CHECKPOINTS).glob(f"{STEP}*"))


def last_saved_step(stage: Path) -> int:
    """Step of the newest checkpoint, whether it is complete or not; 0 without one."""
    saved = saved_steps(stage)
    return int(saved[-1].name.removeprefix(STEP)) if saved else 0


def discard_checkpoints(stage: Path) -> None:
    """Delete all checkpoints of a stage, which a finished one no longer needs."""
    _remove(stage / CHECKPOINTS)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

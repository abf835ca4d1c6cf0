"""Files that survive a kill: atomic writes, digests, JSON lines, the journal and the manifest."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

RecordT = TypeVar("RecordT", bound=BaseModel)

SETTLED_NS = 2 * 10**9
"""a file that changed less long ago may change again in the same tick of its file system's clock (2 s on FAT)"""
_DIGESTS: dict[tuple[int, int, int, int], str] = {}
MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write under a temporary name, fsync, rename: a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON with sorted keys, written atomically. NaN and infinity raise ValueError."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[BaseModel | dict[str, Any]]) -> None:
    """One JSON object a line, written atomically."""
    write_atomic(path, "".join(json_line(record) for record in records))


def append_jsonl(path: Path, records: Iterable[BaseModel | dict[str, Any]]) -> None:
    """Add lines at the end; a kill in between may leave a torn last line, which `read_jsonl` leaves out."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json_line(record) for record in records)


def json_line(record: BaseModel | dict[str, Any]) -> str:
    text = record.model_dump_json() if isinstance(record, BaseModel) else json.dumps(record, allow_nan=False)
    return text + "\n"


def read_jsonl(path: Path, record_type: type[RecordT]) -> list[RecordT]:
    """Every whole line of `path` as a `record_type`."""
    return [record_type.model_validate_json(line) for line in whole_lines(path)]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every whole line of `path` as a JSON object."""
    return [json.loads(line) for line in whole_lines(path)]


def whole_lines(path: Path, start: int = 0) -> list[bytes]:
    """The lines from byte `start` on that end in a newline; a last one that is torn, or still being written, is left out."""
    with path.open("rb") as file:
        file.seek(start)
        return [line for line in file if line.endswith(b"\n")]


def digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex. A process reads them once, as long as the file's size and time of change stay as they are."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        seen = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if seen in _DIGESTS:
            return _DIGESTS[seen]
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - state.st_mtime_ns > SETTLED_NS:
        _DIGESTS[seen] = found
    return found


def digest_json(value: Any) -> str:
    """sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_files(folder: Path, *, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """{path relative to folder: sha256} of every file below `folder` whose first path part is not in `leave_out`."""
    skipped = set(leave_out)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    relative = [path.relative_to(folder) for path in files]
    return {str(path): digest(folder / path) for path in relative if path.parts[0] not in skipped}


def weights_id(folder: Path) -> str:
    """Content hash of a saved model: sha256 over the sorted (file name, sha256) of its safetensors files, in hex.

    Raises:
        FileNotFoundError: the folder holds no safetensors file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.safetensors file; save the model there as safetensors")
    return digest_json([[file.name, digest(file)] for file in files])


class JournalLine(BaseModel):
    """One measured value. `key` is `group/name` as docs/metrics.md defines it; keys under `time/` differ between runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    step: int
    value: float
    timestamp_ms: int


class Journal:
    """A stage's metrics on disk, one fsynced JSON line a value. MLflow is sent from here, never the other way round."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, step: int, values: dict[str, float]) -> None:
        """Raises ValueError, naming the key, on NaN or infinity."""
        now = int(time.time() * 1000)
        for key, value in values.items():
            if not math.isfinite(value):
                raise ValueError(f"{key} is {value} at step {step}; a journal holds finite numbers only")
        lines = [JournalLine(key=key, step=step, value=value, timestamp_ms=now) for key, value in values.items()]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json_line(line) for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[JournalLine]:
        """Every whole line; empty where nothing was written yet."""
        return read_jsonl(self.path, JournalLine) if self.path.exists() else []


class Manifest(BaseModel):
    """Written last in a stage's folder: its presence, matching, says that the stage is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    round: int
    config_digest: str
    """of the part of the configuration that the stage reads"""
    inputs: dict[str, str]
    """digest of each data file (or id of each model) that the stage read"""
    outputs: dict[str, str]
    """digest of each file that the stage wrote, by path relative to its folder, checkpoints apart"""
    seed: int
    versions: dict[str, str]
    started_ms: int
    ended_ms: int
    mlflow_run_id: str | None = None
    prefect_flow_run_id: str | None = None

    @property
    def seconds(self) -> float:
        return (self.ended_ms - self.started_ms) / 1000


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage, or None."""
    with suppress(FileNotFoundError):
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system allows it, otherwise a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        temporary.write_bytes(source.read_bytes())
    temporary.replace(target)

"""Crash-safe files: atomic writes, digests, JSON lines, the journal and the manifest."""

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
"""resolution of the coarsest file-system clock (2 s on FAT). A file modified more recently may change again without a
new modification time, so its digest is not cached"""
_DIGESTS: dict[tuple[int, int, int, int], str] = {}
MANIFEST = "manifest.json"
JOURNAL = "journal.jsonl"


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write under a temporary name, fsync and rename, so that a reader sees the old file or the complete new one."""
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
    """Write indented JSON with sorted keys, atomically. Raises ValueError on NaN and infinity."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_jsonl(path: Path, records: Iterable[BaseModel | dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    write_atomic(path, "".join(json_line(record) for record in records))


def append_jsonl(path: Path, records: Iterable[BaseModel | dict[str, Any]]) -> None:
    """Append one JSON object per line. A kill may leave an incomplete last line, which `read_jsonl` skips."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json_line(record) for record in records)


def json_line(record: BaseModel | dict[str, Any]) -> str:
    text = record.model_dump_json() if isinstance(record, BaseModel) else json.dumps(record, allow_nan=False)
    return text + "\n"


def read_jsonl(path: Path, record_type: type[RecordT]) -> list[RecordT]:
    """Every complete line of `path`, parsed as a `record_type`."""
    return [record_type.model_validate_json(line) for line in whole_lines(path)]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Every complete line of `path`, parsed as a JSON object."""
    return [json.loads(line) for line in whole_lines(path)]


def whole_lines(path: Path, start: int = 0) -> list[bytes]:
    """The complete lines from byte `start` on; a last line without a newline (cut off, or in writing) is skipped."""
    with path.open("rb") as file:
        file.seek(start)
        return [line for line in file if line.endswith(b"\n")]


def digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex; cached per process while its size and modification time stay the same."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if identity in _DIGESTS:
            return _DIGESTS[identity]
        value = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - state.st_mtime_ns > SETTLED_NS:
        _DIGESTS[identity] = value
    return value


def digest_json(value: Any) -> str:
    """sha256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_files(folder: Path, *, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """{path relative to `folder`: sha256} of every file below it, without the top-level names in `leave_out`."""
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


OF_PROCESS = ("time/", "memory/")


class JournalLine(BaseModel):
    """One measured value. `key` is a `group/name` of docs/metrics.md; those that begin with one of OF_PROCESS differ between
    runs that are otherwise equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    step: int
    value: float
    timestamp_ms: int


class Journal:
    """The metrics of a stage on disk, one fsynced JSON line per value. MLflow is sent them from here and never read."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append `{key: value}` of one step. Raises ValueError, naming the key, on NaN or infinity."""
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
        """Every complete line; empty if nothing was written yet."""
        return read_jsonl(self.path, JournalLine) if self.path.exists() else []


class Manifest(BaseModel):
    """Marks a stage as done. Written last; on resume it is compared with configuration, inputs and outputs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    round: int
    config_digest: str
    """digest of the part of the configuration that the stage reads"""
    inputs: dict[str, str]
    """{name: digest of a data file, or id of a model} of everything that the stage read"""
    outputs: dict[str, str]
    """{path relative to the stage's folder: digest} of each file that the stage wrote, without checkpoints"""
    seed: int
    versions: dict[str, str]
    started_ms: int
    ended_ms: int
    worked_s: float | None = None
    """time that went into what the stage wrote, over all its attempts and without pauses; None in older manifests"""
    copied_from: str | None = None
    """run of the workspace that wrote these files for the same inputs; None where the stage wrote them itself"""
    mlflow_run_id: str | None = None
    prefect_flow_run_id: str | None = None

    @property
    def seconds(self) -> float:
        return (self.ended_ms - self.started_ms) / 1000 if self.worked_s is None else self.worked_s


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a finished stage; None if the stage is not finished."""
    with suppress(FileNotFoundError):
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `target` to `source` if the file system allows it, otherwise copy; an existing `target` is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        temporary.write_bytes(source.read_bytes())
    temporary.replace(target)

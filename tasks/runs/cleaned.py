"""What was cleaned away of a finished stage, which stays finished: its manifest still has the digests of the files."""

from __future__ import annotations

import time
from pathlib import Path

from configs.disk.files import digest_json, read_manifest, weights_id, write_json
from configs.errors import ConfigError
from configs.records import Policy, Record
from tasks.runs.facts import load

CLEANED = "cleaned.json"


class Cleaned(Record):
    """`cleaned.json` of a stage. It is written before anything is removed, so some of it may still be there."""

    files: list[str]
    """files of the stage's manifest, relative to its folder"""
    at_ms: int


def cleaned_of(stage_dir: Path) -> Cleaned | None:
    return load(stage_dir / CLEANED, Cleaned)


def cleaned_files(stage_dir: Path) -> set[str]:
    """Files of the stage's manifest that are gone because they were cleaned away."""
    record = cleaned_of(stage_dir)
    return {name for name in record.files if not (stage_dir / name).exists()} if record else set()


def note_cleaned(stage_dir: Path, files: list[str]) -> None:
    """Write down that these files may be gone from now on."""
    before = cleaned_of(stage_dir)
    names = sorted({*files, *(before.files if before else [])})
    write_json(stage_dir / CLEANED, Cleaned(files=names, at_ms=int(time.time() * 1000)).model_dump())


def is_cleaned(model: Path) -> bool:
    """Whether files of a stage's model folder were cleaned away."""
    return any(name.startswith(f"{model.name}/") for name in cleaned_files(model.parent))


def saved_id(model: Path) -> str:
    """Content hash of the weights in a model's folder; of one that was cleaned away, from the manifest of its stage.

    Raises:
        FileNotFoundError: the folder holds no weights, and they were not cleaned away.
    """
    manifest = read_manifest(model.parent) if is_cleaned(model) else None
    if manifest is None:
        return weights_id(model)
    files = {Path(name): sha256 for name, sha256 in manifest.outputs.items()}
    weights = {path.name: files[path] for path in files if path.parent.name == path.parts[0] == model.name}
    return digest_json([[name, weights[name]] for name in sorted(weights) if name.endswith(".safetensors")])


def saved_policy(model: Path, round_index: int) -> Policy:
    """The record of a saved policy, whether or not it was cleaned away."""
    return Policy(path=str(model), id=saved_id(model), round=round_index)


def refuse_cleaned(model: Path) -> None:
    """Check that a model is whole.

    Raises:
        ConfigError: it was cleaned away; the message says when.
    """
    record = cleaned_of(model.parent)
    if record is not None and is_cleaned(model):
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.at_ms / 1000))
        raise ConfigError(
            f"{model} was cleaned away on {day}; copy its files back from a backup or from MLflow's artifacts of "
            "that stage, or use a newer round or run"
        )

"""Reads and writes `run.json`, which says what a run is and what it started from.

Creates runs, and resumes them if the configuration fits.
"""

from __future__ import annotations

import datetime
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from configs import reader
from configs.config_paths import names_kept, with_paths
from configs.disk.files import write_json
from configs.errors import ConfigError
from configs.older_paths import brought_up
from configs.paths import RUN_FILE, Place
from configs.records import Policy, Record
from configs.schema.config import Config
from configs.schema.operational import without_operational
from configs.schema.preferences import FileLabeler
from tasks.runs.history import ModelRef
from tasks.runs.workspace import refuse_wedged, run_folder, runs_folder


class InheritedFile(Record):
    """A file that an earlier run made."""

    path: str
    """relative to the folder of the predecessor"""
    digest: str


class Inherited(Record):
    """Files that the predecessor had made when the run was started, oldest first. Those that it inherited itself stand in
    its own `run.json`."""

    pairs: list[InheritedFile]
    review: list[InheritedFile]


class RunFile(Record):
    """The content of `run.json`."""

    name: str
    uid: str
    """random id, which distinguishes runs of the same name in different workspaces"""
    config: dict[str, Any]
    created_ms: int
    rounds_asked: list[int]
    """`rounds` at the start, then each value that it was raised to"""
    initial_policy: Policy | None = None
    """the policy that KL is measured from; a follow-on keeps its predecessor's. None until `prepare` has run"""
    given_policy: Policy | None = None
    """the policy that round 0 measures; None until `prepare` has run"""
    before_cold_start: Policy | None = None
    """the policy that `cold_start` fine-tuned, which made the given and initial policy; None before, and in runs without"""
    predecessor: str | None = None
    inherited: Inherited | None = None
    """None without a predecessor, and in runs of older versions, which copied the files"""
    reward_models: dict[str, ModelRef] = Field(default_factory=dict)
    """the predecessor's last accepted reward models by name"""
    curriculum: dict[str, Any] | None = None
    """epoch and pass rates at the end of the predecessor's last training, where an older version wrote the file; now
    they are a file of their own"""
    old_roots: list[str] = Field(default_factory=list)
    """folders that the workspace was in while earlier versions wrote absolute paths; empty for runs of this version"""
    spelled: dict[str, str] = Field(default_factory=dict)
    """{path in the workspace: as an earlier version wrote it, absolute}, of the paths in `config`: what digests cover"""


# ---- reading and writing --------------------------------------------------------------------------------------------


def read_run(root: Path, name: str) -> RunFile:
    """The content of the run's `run.json`.

    Raises:
        ConfigError: there is no such run, or its file does not fit this version.
    """
    path = run_folder(root, name) / RUN_FILE
    try:
        file = RunFile.model_validate(run_content(path.parent), context=Place(root, path.parent).context)
    except FileNotFoundError as error:
        known = ", ".join(run_names(root)) or "none"
        raise ConfigError(f"no run {name!r} in {runs_folder(root)}; runs there: {known}") from error
    except ValueError as error:
        raise ConfigError(
            f"{path} does not fit this version: {error}; give the run a new name with --run NAME"
        ) from error
    if file.name != name:
        raise ConfigError(
            f"{path} is of run {file.name!r}: the folder was copied or renamed; rename it back, or keep the copy elsewhere"
        )
    return file


def run_content(folder: Path) -> dict[str, Any]:
    """The JSON values in the folder's `run.json`; those of an earlier version with what they lack.

    Raises:
        FileNotFoundError, ValueError: there is none, or it holds no run.
    """
    content = json.loads((folder / RUN_FILE).read_bytes())
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise ValueError("it holds no run")
    return brought_up(content, folder, Place(folder.parent.parent).stored)


def write_run(root: Path, file: RunFile) -> None:
    write_json(run_folder(root, file.name) / RUN_FILE, file.model_dump(mode="json", context=Place(root).context))


def run_files(root: Path) -> list[RunFile]:
    """The workspace's runs, oldest first, without copies of a run in folders of other names.

    Raises:
        ConfigError: a run's file does not fit this version, or a run lies where a file of the workspace has to be.
    """
    refuse_wedged(root)
    folders = [path.parent for path in runs_folder(root).glob(f"*/{RUN_FILE}") if _is_its_own(path)]
    files = [read_run(root, folder.name) for folder in folders]
    return sorted(files, key=lambda file: (file.created_ms, file.name))


def _is_its_own(path: Path) -> bool:
    """Whether a `run.json` is of the run that its folder is called after; a broken one counts, so that it is named."""
    try:
        name = json.loads(path.read_bytes())["name"]
    except (ValueError, KeyError, TypeError):
        return True
    return bool(name == path.parent.name)


def run_names(root: Path) -> list[str]:
    """Names of the workspace's runs, oldest first."""
    return [file.name for file in run_files(root)]


def stored_config(file: RunFile) -> Config:
    """The configuration that a run was last started or resumed with, and its date: the day on which it was created if
    an older version wrote the file."""
    created = datetime.datetime.fromtimestamp(file.created_ms / 1000).date()
    return on_day(reader.parse_stored_config(file.config, file.name), created)


def in_workspace(root: Path, config: Config, spelled: Mapping[str, str] | None = None) -> Config:
    """The configuration in which paths that lie in the workspace are relative to it; `spelled` as in the run's file."""
    values = with_paths(config.model_dump(mode="json"), Place(root).stored)
    return Config.model_validate(names_kept(values, spelled or {}))


def on_day(config: Config, date: datetime.date | None) -> Config:
    """The configuration with that date, unless it names one itself."""
    run = config.run
    return config.model_copy(update={"run": run.model_copy(update={"date": run.date or date})})


def refuse_without_pairs(root: Path, config: Config) -> None:
    """Check that there are pairs for reward models to learn from.

    Raises:
        ConfigError: there is no run of that name, and no reward model has a preference file.
    """
    if not any(isinstance(model.labeler, FileLabeler) for model in config.trained_reward_models.values()):
        read_run(root, config.run_name)


# ---- starting and going on ------------------------------------------------------------------------------------------


def refuse_taken_name(root: Path, name: str) -> None:
    """Check that no file lies where the run's folder has to be.

    Raises:
        ConfigError: one does.
    """
    folder = run_folder(root, name)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            f"run.name={name!r}: {folder} is a file; move it away, or give the run another name by --run NAME"
        )


def create_run(root: Path, config: Config, **fields: Any) -> RunFile:
    """Write the `run.json` of a new run; `fields` are the fields of `RunFile` that a follow-on sets besides."""
    refuse_taken_name(root, config.run_name)
    now = time.time()
    file = RunFile(
        name=config.run_name,
        uid=uuid.uuid4().hex,
        config=on_day(in_workspace(root, config), datetime.datetime.fromtimestamp(now).date()).model_dump(mode="json"),
        created_ms=int(now * 1000),
        rounds_asked=[config.rounds],
        **fields,
    )
    write_run(root, file)
    return file


def open_run(root: Path, config: Config) -> RunFile:
    """Create the run that `config.run.name` names, or resume it.

    Raises:
        ConfigError: the run was started with another configuration; the changed fields are named.
    """
    if not (run_folder(root, config.run_name) / RUN_FILE).exists():
        return create_run(root, config)
    file = read_run(root, config.run_name)
    before = stored_config(file)
    config = _as_resumed(root, file, before, config)
    if before != config:
        asked = sorted({*file.rounds_asked, config.rounds})
        file = file.model_copy(update={"config": config.model_dump(mode="json"), "rounds_asked": asked})
        write_run(root, file)
    return file


def refuse_other_config(root: Path, config: Config) -> None:
    """Check that a run which is there may go on with this configuration; nothing is written.

    Raises:
        ConfigError: it was started with another one; the changed fields are named.
    """
    file = read_run(root, config.run_name)
    _as_resumed(root, file, stored_config(file), config)


def _as_resumed(root: Path, file: RunFile, before: Config, config: Config) -> Config:
    """The configuration with which a run goes on that was started with `before`."""
    config = on_day(in_workspace(root, config, file.spelled), before.run.date)
    if changes := list(_forbidden_changes(before, config)):
        raise ConfigError(
            f"run {file.name!r} was started with another configuration:\n"
            + "".join(f"  {change}\n" for change in changes)
            + "undo the change, or start a run of its own with --run NEWNAME"
        )
    return config


def ask_for_rounds(root: Path, name: str, rounds: int) -> None:
    """Note in `run.json` that the run has `rounds` rounds, so that `prepare` makes problems for the added ones."""
    file = read_run(root, name)
    write_run(root, file.model_copy(update={"rounds_asked": sorted({*file.rounds_asked, rounds})}))


_LEFT_OUT = object()


def _forbidden_changes(before: Config, after: Config) -> Iterator[str]:
    """`name is X, was Y` for each field that may not change in a resumed run; `rounds` may only be raised."""
    if before.run.date != after.run.date:
        yield f"run.date is {after.run.date}, was {before.run.date}"
    for name, old, new in _differences("", *(without_operational(config) for config in (before, after))):
        if name != "rounds":
            yield f"{name} is {_shown(new)}, was {_shown(old)}"
        elif new < old:
            yield f"rounds is {new}, was {old} (it can only be raised)"


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, old value, new value) of what differs, down to the blocks and fields that only one of the two has."""
    if old == new or all(value is None or value is _LEFT_OUT for value in (old, new)):
        return
    parts = _parts(old), _parts(new)
    if None in parts:
        yield name, old, new
        return
    before, after = (part or {} for part in parts)
    for key in sorted(before.keys() | after.keys()):
        inner = f"{name}.{key}" if name else key
        yield from _differences(inner, before.get(key, _LEFT_OUT), after.get(key, _LEFT_OUT))


def _parts(value: Any) -> dict[str, Any] | None:
    """What a block or list consists of, by name or number; None for any other value."""
    if isinstance(value, list):
        return {str(i): item for i, item in enumerate(value)}
    return value if isinstance(value, dict) else None


def _shown(value: Any) -> str:
    """A field's value; of a block the names of what is in it."""
    if value is _LEFT_OUT:
        return "left out"
    return f"{{{', '.join(value)}}}" if isinstance(value, dict) else repr(value)

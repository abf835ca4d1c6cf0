"""Reads and writes `run.json`, which says what a run is and what it started from.

Creates runs, and resumes them if the configuration fits.
"""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from configs import reader
from configs.disk.files import write_json
from configs.errors import ConfigError
from configs.records import Policy, Record
from configs.schema.config import Config
from configs.schema.operational import flatten, without_operational
from configs.schema.preferences import FileLabeler
from tasks.runs.history import ModelRef
from tasks.runs.workspace import run_folder, runs_folder

RUN_FILE = "run.json"


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
    predecessor: str | None = None
    reward_models: dict[str, ModelRef] = Field(default_factory=dict)
    """the predecessor's last accepted reward models by name"""
    curriculum: dict[str, Any] | None = None
    """epoch and pass rates at the end of the predecessor's last training"""


# ---- reading and writing --------------------------------------------------------------------------------------------


def read_run(root: Path, name: str) -> RunFile:
    """The content of the run's `run.json`.

    Raises:
        ConfigError: there is no such run, or its file does not fit this version.
    """
    path = run_folder(root, name) / RUN_FILE
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        known = ", ".join(run_names(root)) or "none"
        raise ConfigError(f"no run {name!r} in {runs_folder(root)}; runs there: {known}") from error
    except ValidationError as error:
        raise ConfigError(
            f"{path} does not fit this version: {error}; give the run a new name with --run NAME"
        ) from error


def write_run(root: Path, file: RunFile) -> None:
    write_json(run_folder(root, file.name) / RUN_FILE, file.model_dump(mode="json"))


def run_names(root: Path) -> list[str]:
    """Names of the workspace's runs, oldest first."""
    paths = list(runs_folder(root).glob(f"*/{RUN_FILE}"))
    run_files = [RunFile.model_validate_json(path.read_bytes()) for path in paths]
    return [file.name for file in sorted(run_files, key=lambda file: (file.created_ms, file.name))]


def stored_config(file: RunFile) -> Config:
    """The configuration that a run was last started or resumed with, and its date: the day on which it was created if
    an older version wrote the file."""
    created = datetime.datetime.fromtimestamp(file.created_ms / 1000).date()
    return on_day(reader.parse_stored_config(file.config, file.name), created)


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


def create_run(root: Path, config: Config, **fields: Any) -> RunFile:
    """Write the `run.json` of a new run; `fields` are the fields of `RunFile` that a follow-on sets besides."""
    now = time.time()
    file = RunFile(
        name=config.run_name,
        uid=uuid.uuid4().hex,
        config=on_day(config, datetime.datetime.fromtimestamp(now).date()).model_dump(mode="json"),
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
    name = config.run_name
    if not (run_folder(root, name) / RUN_FILE).exists():
        return create_run(root, config)
    file = read_run(root, name)
    before = stored_config(file)
    config = on_day(config, before.run.date)
    if changes := list(_forbidden_changes(before, config)):
        raise ConfigError(
            f"run {name!r} was started with another configuration:\n"
            + "".join(f"  {change}\n" for change in changes)
            + "undo the change, or start a run of its own with --run NEWNAME"
        )
    if before != config:
        asked = sorted({*file.rounds_asked, config.rounds})
        file = file.model_copy(update={"config": config.model_dump(mode="json"), "rounds_asked": asked})
        write_run(root, file)
    return file


def ask_for_rounds(root: Path, name: str, rounds: int) -> None:
    """Note in `run.json` that the run has `rounds` rounds, so that `prepare` makes problems for the added ones."""
    file = read_run(root, name)
    write_run(root, file.model_copy(update={"rounds_asked": sorted({*file.rounds_asked, rounds})}))


def _forbidden_changes(before: Config, after: Config) -> Iterator[str]:
    """`name is X, was Y` for each field that may not change in a resumed run; `rounds` may only be raised."""
    if before.run.date != after.run.date:
        yield f"run.date is {after.run.date}, was {before.run.date}"
    old, new = (dict(flatten(without_operational(config))) for config in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if name != "rounds":
            yield f"{name} is {new.get(name, 'gone')!r}, was {old.get(name, 'not there')!r}"
        elif new["rounds"] < old["rounds"]:
            yield f"rounds is {new['rounds']}, was {old['rounds']} (it can only be raised)"

"""Reads a YAML file and its `--set` overrides into a Config, or raises a ConfigError that names every faulty field.

No other module reads YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.errors import ConfigError
from configs.schema.config import Config


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """The configuration in a YAML file after `a.b=value` overrides; run.name defaults to the stem of the file name.

    Raises:
        ConfigError: the file is missing, not YAML, or does not fit the schema; names every faulty field and its value.
    """
    data = _read_yaml(path)
    for override in overrides or []:
        _set(data, override)
    run = data.setdefault("run", {})
    if isinstance(run, dict):
        run.setdefault("name", path.stem)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path} does not fit:\n{_explain(error)}") from error


def parse_stored_config(data: dict[str, Any], run_name: str) -> Config:
    """The configuration stored in a run's run.json.

    Raises:
        ConfigError: it does not fit the schema of this version.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(
            f"the configuration in run.json of {run_name!r} does not fit this version:\n{_explain(error)}\n"
            "use the version that wrote it, or start a new run with --run NEWNAME"
        ) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; presets are in configs/") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text (byte {error.start} is no UTF-8); name a YAML file") from error
    try:
        data = _parse(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, not a mapping; see configs/tiny.yaml for an example")
    return data


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which tells where a value is that looks like a date or number and is none."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError) as error:
            problem = (
                f"{node.value!r} is no {node.tag.rpartition(':')[2]}: {error}; mend it, or quote it if it is a text"
            )
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _parse(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is none, or nested too deeply, or holds an impossible date.
    """
    try:
        return yaml.load(text, _Loader)  # a safe loader
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def _set(data: dict[str, Any], override: str) -> None:
    """Apply one override `a.b.0.c=value` to `data`; the value is parsed as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not key=value, for instance --set grpo_config.group_size=4")
    try:
        value = _parse(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is no YAML: {error}") from error
    *parents, last = key.split(".")
    target: Any = data
    for part in parents:
        target = _child(target, part, override)
    if isinstance(target, list):
        target[_index(target, last, override)] = value
    elif isinstance(target, dict):
        target[last] = value
    else:
        raise ConfigError(f"--set {override!r}: {'.'.join(parents)} is {target!r}, which has no field {last!r}")


def _child(target: Any, part: str, override: str) -> Any:
    if isinstance(target, list):
        return target[_index(target, part, override)]
    if isinstance(target, dict):
        if target.get(part) is None:
            target[part] = {}
        return target[part]
    raise ConfigError(f"--set {override!r}: {target!r} has no field {part!r}")


def _index(target: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(target):
        raise ConfigError(f"--set {override!r}: {part!r} is no position in a list of {len(target)}; count from 0")
    return int(part)


def _explain(error: ValidationError) -> str:
    return "\n".join(_explain_one(dict(detail)) for detail in error.errors())


def _explain_one(detail: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "the configuration"
    if detail["type"] == "extra_forbidden":
        return f"  {field}: unknown key; check its spelling in docs/configuration.md"
    if detail["type"] == "missing":
        return f"  {field}: missing; it has no default, see docs/configuration.md"
    message = detail["msg"].removeprefix("Value error, ")
    value = "" if isinstance(detail["input"], dict | list) else f" (got {detail['input']!r})"
    return f"  {field}: {message}{value}"

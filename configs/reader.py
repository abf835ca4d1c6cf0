"""Reads a YAML file and its `--set` overrides into a Config or Comparison, or raises a ConfigError that names every faulty field.

No other module reads configurations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.disk.yaml_text import parsed
from configs.errors import ConfigError
from configs.schema.block import NAME, SERVER, VARIABLE
from configs.schema.comparing.compare import Comparison
from configs.schema.config import Config
from configs.schema.credentials import credentials_in
from configs.schema.methods.method import PairMethod
from configs.schema.rewards import ADDRESS, FUNCTION
from configs.schema.sources.wheel import SHA256


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """The configuration in a YAML file after `a.b=value` overrides; run.name defaults to the stem of the file name.

    Raises:
        ConfigError: the file is missing, not YAML, or does not fit the schema; names every faulty field and its value, or an
            address has a credential in it, which is not shown.
    """
    data = _values(path, overrides or [])
    if "compare" in data:
        raise ConfigError(
            f"{path} has a block `compare`, and so is a comparison of several runs: regroup compare {path} (or drop the block to "
            "run its base)"
        )
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path} does not fit:\n{_explain(error)}") from error


def load_comparison(path: Path, overrides: list[str] | None = None) -> Comparison:
    """The comparison in a YAML file, a configuration with a block `compare`, after `a.b=value` overrides.

    Raises:
        ConfigError: as `load_config`, also for a member; or two members would be the same.
    """
    data = _values(path, overrides or [])
    if "compare" not in data:
        raise ConfigError(f"{path} has no block `compare`: nothing to compare; configs/compare.yaml is an example")
    base = {key: value for key, value in data.items() if key != "compare"}
    name = base["run"].get("name") if isinstance(base["run"], dict) else None
    try:
        comparison = Comparison.model_validate({"name": name, "base": base, "compare": data["compare"]})
    except ValidationError as error:
        raise ConfigError(f"{path} does not fit:\n{_explain(error)}") from error
    _refuse_faulty_members(path, comparison)
    return comparison


def load_methods(path: Path, overrides: list[str] | None = None) -> dict[str, Config]:
    """{method: configuration of its first member} of a comparison; of the configuration of one run {its name: itself}.

    Raises:
        ConfigError: as `load_config` and `load_comparison`.
    """
    if "compare" not in _values(path, overrides or []):
        config = load_config(path, overrides)
        return {config.run_name: config}
    comparison = load_comparison(path, overrides)
    return {method: next(comparison.members_of(method)).config for method in comparison.compare.methods}


def _refuse_faulty_members(path: Path, comparison: Comparison) -> None:
    names: list[str] = []
    for method in comparison.compare.methods:
        try:
            members = list(comparison.members_of(method))
        except ValidationError as error:
            raise ConfigError(f"{path}, method {method!r} does not fit:\n{_explain(error)}") from error
        if any(member.config.max_rounds > member.config.rounds for member in members):
            raise ConfigError(
                f"{path}, method {method!r}: a watch rule has extra_rounds, so that members may have other numbers of rounds and "
                "could not be compared; drop extra_rounds"
            )
        if "regeneration" in comparison.compare.methods[method]:
            _refuse_unpaid_samples(f"{path}, method {method!r} overrides regeneration", members[0].config)
        names += [member.name for member in members]
    if equal := comparison.equal_methods():
        raise ConfigError(f"{path}: methods {equal[0]!r} and {equal[1]!r} ask for the same; drop one, or change it")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path}: two members would be run {twice[0]!r}; give the methods other names")


def _refuse_unpaid_samples(told: str, config: Config) -> None:
    """Check that a method with samples of its own pays for them in tokens, and that nothing else learns from them.

    Raises:
        ConfigError: it does not, or a reward model does.
    """
    remedy = "drop it there, or set it for all of them outside of `compare`"
    if not isinstance(config.method, PairMethod):
        raise ConfigError(
            f"{told}, from whose samples the policy does not learn with method.kind={config.method.kind}, so that their tokens would be counted for "
            f"nobody; {remedy}"
        )
    if trained := sorted(config.trained_reward_models):
        raise ConfigError(
            f"{told}, on whose samples reward model {trained[0]!r} is trained, so that members would be scored by other reward "
            f"models; {remedy}"
        )


def _values(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The values in a YAML file after overrides, with a name for the run.

    Raises:
        ConfigError: the file is missing or not YAML, or an address has a credential in it, which is not shown.
    """
    data = _read_yaml(path)
    for override in overrides:
        _set(data, override)
    run = data.setdefault("run", {})
    if isinstance(run, dict):
        run.setdefault("name", path.stem)
    if found := list(credentials_in(data)):
        raise ConfigError(f"{path} does not fit:\n" + "\n".join(f"  {text}" for text in found))
    return data


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
        data = parsed(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, not a mapping; see configs/tiny.yaml for an example")
    return data


def _set(data: dict[str, Any], override: str) -> None:
    """Apply one override `a.b.0.c=value` to `data`; the value is parsed as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not key=value, for instance --set grpo_config.group_size=4")
    try:
        value = parsed(text)
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


PATTERNS = {
    NAME: "a name has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or a digit",
    VARIABLE: "an environment variable's name has letters, digits and underscores, and does not begin with a digit",
    SERVER: "an address begins with http:// or https:// and the name of the server",
    ADDRESS: "an address begins with http:// or https://",
    SHA256: "a sha256 digest has 64 digits and letters from a to f",
    FUNCTION: "a function is named as module:function, for instance my_rewards:brief",
}
"""{pattern of a field: what it asks for, in words}"""


def _explain(error: ValidationError) -> str:
    return "\n".join(_explain_one(dict(detail)) for detail in error.errors())


def _explain_one(detail: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "the configuration"
    if detail["type"] == "extra_forbidden":
        return f"  {field}: unknown key; check its spelling in docs/configuration.md"
    if detail["type"] == "missing":
        return f"  {field}: missing; it has no default, see docs/configuration.md"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "string_pattern_mismatch":
        message = PATTERNS.get(detail["ctx"]["pattern"], message)
    elif detail["type"] == "too_short" and not detail["input"]:
        message = f"is empty, and needs {detail['ctx']['min_length']} or more"
    elif detail["type"] in ("dict_type", "model_type", "model_attributes_type"):
        message = "is a block: write its fields below it with two more spaces, or {} for none"
    elif detail["type"] == "union_tag_invalid":
        message = f"{detail['ctx']['discriminator'].strip(chr(39))}={detail['ctx']['tag']!r} is none of {detail['ctx']['expected_tags']}"
    value = "" if isinstance(detail["input"], dict | list) else f" (got {detail['input']!r})"
    return f"  {field}: {message}{value}"

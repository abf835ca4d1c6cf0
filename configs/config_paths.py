"""The paths that a configuration names, in its form as JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

PATH_FIELDS = ("path", "config_file", "rubric", "folder", "sources")
"""fields that name files; a source is named by its path where it has no other name, and rewards name sources"""


def with_paths(config: Any, change: Callable[[str], str]) -> Any:
    """The configuration with each path changed.

    >>> with_paths({"policy": {"path": "/w/m"}, "name": "/w/m"}, lambda path: path.removeprefix("/w/"))
    {'policy': {'path': 'm'}, 'name': '/w/m'}
    """
    if isinstance(config, list):
        return [with_paths(item, change) for item in config]
    if not isinstance(config, dict):
        return config
    return {
        name: _changed(value, change) if name in PATH_FIELDS else with_paths(value, change)
        for name, value in config.items()
    }


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value) if isinstance(value, str) else with_paths(value, change)


def paths_in(config: Any) -> set[str]:
    """All paths that the configuration names."""
    found: set[str] = set()

    def note(path: str) -> str:
        found.add(path)
        return path

    with_paths(config, note)
    return found


def names_kept(config: dict[str, Any], spelled: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with the names of sources as they were before their paths, the keys of `spelled`, were changed."""
    if not spelled:
        return config
    problems = config["problems"]
    sources = [_named(source, spelled) for source in problems["sources"]]
    evaluation = config["evaluation"] | {"rewards": _scopes_kept(config["evaluation"]["rewards"], spelled)}
    rewards = {"rewards": _scopes_kept(config["rewards"], spelled), "evaluation": evaluation}
    return config | rewards | {"problems": problems | {"sources": sources}}


def as_spelled(part: Any, spelled: Mapping[str, str]) -> Any:
    """A part of a configuration with its paths, and the names of its sources, as they were before `names_kept`."""
    if isinstance(part, list):
        return [as_spelled(item, spelled) for item in part]
    if not isinstance(part, dict):
        return part
    before = {
        name: _changed(value, lambda path: spelled.get(path, path))
        if name in PATH_FIELDS and name != "sources"
        else as_spelled(value, spelled)
        for name, value in part.items()
    }
    was_named = before != part and before.get("source") == _name(before.get("path"))
    return {name: value for name, value in before.items() if name != "source"} if was_named else before


def _named(source: dict[str, Any], spelled: Mapping[str, str]) -> dict[str, Any]:
    before = as_spelled({"path": source.get("path")}, spelled)["path"]
    if source.get("source") is not None or before == source.get("path"):
        return source
    return source | {"source": _name(before)}


def _name(path: str | list[str] | None) -> str | None:
    """The name of a source without another one, as `configs.schema.scopes.source_name` gives it."""
    return ", ".join(path) if isinstance(path, list) else path


def _scopes_kept(rewards: list[dict[str, Any]], spelled: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        reward | {"sources": [spelled.get(name, name) for name in reward["sources"]]}
        if reward.get("sources")
        else reward
        for reward in rewards
    ]

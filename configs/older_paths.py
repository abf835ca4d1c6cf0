"""Absolute paths in the files of runs that versions up to 0.1.0 began.

From the paths that Regroup made itself follows where the workspace was then, since their ends are known. What lay below that
folder lies in the workspace.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.config_paths import names_kept, paths_in, with_paths

OLD_ROOTS, SPELLED = "old_roots", "spelled"
"""fields of `run.json` that those versions did not write"""
MADE_BY_REGROUP = re.compile(r"(?P<root>/.*)/(?P<tail>runs/[^/]+/round_\d{3,}/.+|models/[^/]+)")


def brought_up(content: dict[str, Any], run_dir: Path, stored: Callable[[str], str]) -> dict[str, Any]:
    """The content of a `run.json` in which paths of the configuration are relative where they lie in the workspace.

    `stored` makes a path in the workspace's present folder relative. What digests cover is kept in the field SPELLED.
    """
    if SPELLED in content:
        return content
    roots, spelled = old_roots(content, run_dir), dict[str, str]()

    def relative(path: str) -> str:
        now = below(path, roots) or stored(path)
        if now != path:
            spelled[now] = path
        return now

    config = with_paths(content["config"], relative)
    return content | {"config": names_kept(config, spelled), OLD_ROOTS: roots, SPELLED: spelled}


def old_roots(content: dict[str, Any], run_dir: Path) -> list[str]:
    """The folders that the workspace of a run was in when its `run.json`, which has `content`, got absolute paths."""
    if OLD_ROOTS in content:
        return list(content[OLD_ROOTS])
    return list(dict.fromkeys([*_by_rounds(run_dir), *_by_models(content, run_dir.parent.parent)]))


def _by_rounds(run_dir: Path) -> Iterator[str]:
    """By the policies that the run's rounds trained."""
    for file in sorted(run_dir.glob("round_[0-9]*/round.json")):
        own = "/".join(("", "runs", run_dir.name, file.parent.name, "policy", "model"))
        with suppress(ValueError, KeyError, TypeError):
            path = json.loads(file.read_bytes())["state"]["policy"]["path"]
            if path.endswith(own):
                yield path.removesuffix(own)


def _by_models(content: dict[str, Any], root: Path) -> Iterator[str]:
    """By the models that the run started from, without those that the user named by an absolute path."""
    given, named = paths_in(content["config"]), content["config"].get("policy", {}).get("path", "")
    models = [content.get("given_policy"), content.get("initial_policy"), *content.get("reward_models", {}).values()]
    for path in (model["path"] for model in models if model is not None):
        if path in given:
            continue
        if (match := MADE_BY_REGROUP.fullmatch(path)) and (root / match["tail"]).parent.is_dir():
            yield match["root"]
        elif named and os.path.isabs(path) and path.endswith(f"/{named}"):
            yield path.removesuffix(f"/{named}")


def below(path: str, folders: Iterable[str]) -> str | None:
    """The path relative to the first of the folders that it is below; None if it is below none.

    >>> below("/old/models/tiny", ["/o", "/old"])
    'models/tiny'
    """
    return next((path.removeprefix(f"{folder}/") for folder in folders if path.startswith(f"{folder}/")), None)

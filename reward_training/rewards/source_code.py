"""The code that a user's reward function consists of: the file of its module, and the files that it imports from the user.

Values that other code gave cannot be compared with today's, so stages remember the digest of the code that scored in them.

What belongs to it is found without running it: the statements `import` and `from ... import`, wherever they stand, and
`import_module("name")`. Followed are modules in the current folder or anywhere else on the path, and all of the package
that the function is in; not the standard library, installed packages (their versions stand in the stage's manifest), and
Regroup itself. Not found are modules whose names are made up at run time, and other files that the code reads.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path

from configs.disk.files import digest, digest_json

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = tuple(ROOT / room for room in ("configs", "reward_training", "grpo_train", "tasks", "flows"))
STANDARD_LIBRARY = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})
INSTALLED = {"site-packages", "dist-packages"}
IMPORTERS = {"import_module", "__import__"}


@dataclass(frozen=True)
class Code:
    """The code of a function."""

    files: dict[str, Path] = field(default_factory=dict)
    """{module: file} of the user's modules"""
    packages: set[str] = field(default_factory=set)
    """names under which it imports installed packages, and of the one that it is in"""

    @property
    def digest(self) -> str:
        """Digest of the files' bytes, whatever folder they lie in."""
        return digest_json({module: digest(file) for module, file in self.files.items()})

    @property
    def versions(self) -> dict[str, str]:
        """{distribution: version} of the installed packages."""
        names = {name for package in self.packages for name in _distributions().get(package, [])}
        return {name: version(name) for name in sorted(names)}


def code_of(function: str) -> Code:
    """The code of the function at `module:function`; empty where there is no such module."""
    importlib.invalidate_caches()  # a file may be newer than what the import system remembers of its folder
    module, folder = function.partition(":")[0], str(Path.cwd())
    own = module.partition(".")[0]
    code, seen = Code(), set[str]()
    waiting = [(module, [folder, *sys.path], True)]
    while waiting:
        name, path, by_user = waiting.pop()
        for spec in _specs(name, path):
            if spec.name in seen:
                continue
            seen.add(spec.name)
            if spec.origin is None or not spec.has_location:
                continue  # built in, or a folder without __init__.py
            first, file = spec.name.partition(".")[0], Path(spec.origin).resolve()
            is_users = _is_users(file)
            if not is_users and by_user:
                code.packages.add(first)
            if not is_users and first != own:
                break
            code.files[spec.name] = file
            package = spec.name if spec.submodule_search_locations is not None else spec.name.rpartition(".")[0]
            waiting += [(other, [*sys.path, folder], is_users) for other in _imports(file, digest(file), package)]
    return code


def _specs(name: str, path: list[str]) -> Iterator[ModuleSpec]:
    """The specification of each part of a dotted name that is a module, from the outermost on."""
    search: list[str] | None = path
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:end]), search)
        if spec is None and end == 1:
            spec = _found_otherwise(name.partition(".")[0])
        if spec is None:
            return
        yield spec
        if spec.submodule_search_locations is None:
            return
        search = list(spec.submodule_search_locations)


def _found_otherwise(name: str) -> ModuleSpec | None:
    """The specification of a module that is not on the path, as of a package that was installed to be edited."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module without one, such as __main__
        return None


def _is_users(file: Path) -> bool:
    if INSTALLED.intersection(file.parts):
        return False
    return not any(file.is_relative_to(folder) for folder in (*STANDARD_LIBRARY, *ROOMS))


@cache
def _imports(file: Path, content: str, package: str) -> tuple[str, ...]:
    """The dotted names that a module of `package` imports; `content` is the file's digest."""
    return tuple(_imports_of(file, package))


def _imports_of(file: Path, package: str) -> Iterator[str]:
    """The same; `from a import b` may mean the module a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # an extension module, or what cannot be imported either
        return
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                base = _absolute(node, package)
                yield from (f"{base}.{alias.name}" for alias in node.names)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(module)), *_]
            ) if name in IMPORTERS:
                yield module


def _absolute(node: ast.ImportFrom, package: str) -> str:
    """The dotted name that stands after `from`."""
    parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*parents, *([node.module] if node.module else [])])


@cache
def _distributions() -> dict[str, list[str]]:
    return dict(packages_distributions())


_LOADED: dict[str, str] = {}
"""{function: digest of its code when it was last loaded}"""


def forget_changed(function: str) -> None:
    """Let the next import read the function's modules anew, if their files changed since it was last loaded."""
    code = code_of(function)
    if _LOADED.get(function, code.digest) != code.digest:
        files = set(code.files.values())
        for name, module in list(sys.modules.items()):
            if (place := getattr(module, "__file__", None)) and Path(place).resolve() in files:
                del sys.modules[name]
        for file in files:  # a compiled file is taken for newest by the second and the size of its source
            if file.suffix == ".py":
                Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
    _LOADED[function] = code.digest

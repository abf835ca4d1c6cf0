"""Imports a user's module from the current folder, whatever its name is.

The current folder stands last on the path where Python looks for modules: what Python, a library or Regroup has under a name is never
replaced by a file that lies there, `random.py` or `tasks.py`. The module that a configuration names is the folder's own
all the same: if another one has its name already, it is loaded under a name of its own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

ALIAS = "workspace_"


def import_user_module(name: str) -> ModuleType:
    """The module at the dotted name, from the current folder if there is one, otherwise an installed one.

    Raises:
        Exception: whatever the module raises when it is imported.
    """
    folder = Path.cwd()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    file = _file_of(folder, name)
    if file is None or _is_found_at(name, file):
        return importlib.import_module(name)
    return importlib.import_module(_under_its_own_name(folder, name))


def hidden_file(error: ImportError) -> Path | None:
    """The file of the current folder that an import inside a user's module meant, where it found another module."""
    return _file_of(Path.cwd(), (error.name or "").partition(".")[0]) if error.name else None


def _file_of(folder: Path, name: str) -> Path | None:
    place = folder.joinpath(*name.split("."))
    candidates = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((file for file in candidates if file.is_file()), None)


def _is_found_at(name: str, file: Path) -> bool:
    """Whether an import of that name loads the file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a part of the name is no package; a module without a specification
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file.resolve()


def _under_its_own_name(folder: Path, name: str) -> str:
    """Load the first part of the dotted name under an alias; returns the name with the alias in its place."""
    first, dot, rest = name.partition(".")
    alias, place, file = ALIAS + first, folder / first, _file_of(folder, first)
    spec: ModuleSpec | None
    if file is None:  # a folder without __init__.py
        spec = ModuleSpec(alias, None, is_package=True)
        spec.submodule_search_locations = [str(place)]
    else:
        within = [str(place)] if file.parent == place else None
        spec = importlib.util.spec_from_file_location(alias, file, submodule_search_locations=within)
    assert spec is not None
    loaded = sys.modules.get(alias)
    if loaded is None or loaded.__spec__ is None or not _same_place(loaded.__spec__, spec):
        for other in [other for other in sys.modules if other == alias or other.startswith(f"{alias}.")]:
            del sys.modules[other]
        module = importlib.util.module_from_spec(spec)
        sys.modules[alias] = module
        if spec.loader is not None:
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[alias]
                raise
    return f"{alias}{dot}{rest}"


def _same_place(one: ModuleSpec, other: ModuleSpec) -> bool:
    return (one.origin, one.submodule_search_locations) == (other.origin, other.submodule_search_locations)

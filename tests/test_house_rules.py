"""Rules that no linter knows."""

import ast
from pathlib import Path

import pytest

from tests.paths import ROOT

MODULES = [path for room in ("flows", "tasks") for path in sorted((ROOT / room).rglob("*.py"))]


def _imported_names(module: ast.Module, package: str) -> set[str]:
    imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports if (node.module or "").split(".")[0] == package for alias in node.names}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_modules_with_flows_or_tasks_keep_their_annotations(path: Path) -> None:
    """Prefect reads a flow's annotations; as strings, they let every served run fail with "is not fully defined"."""
    module = ast.parse(path.read_text())
    if {"flow", "task"} & _imported_names(module, "prefect"):
        assert "annotations" not in _imported_names(module, "__future__")


def test_rule_sees_both_imports() -> None:
    module = ast.parse("from __future__ import annotations\nfrom prefect import flow, task\n")
    assert _imported_names(module, "__future__") == {"annotations"}
    assert _imported_names(module, "prefect") == {"flow", "task"}

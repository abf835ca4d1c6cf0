"""Rules that no linter knows."""

import ast
from pathlib import Path

import pytest

from tests.paths import ROOT

ROOMS = ("configs", "reward_training", "grpo_train", "tasks", "flows")
MOST_FILES = 15
"""in a folder of code: more are several ideas, which want rooms of their own"""
MOST_LINES = 400
"""in a file of the rooms"""
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def _imported_names(module: ast.Module, package: str) -> set[str]:
    imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in imports if (node.module or "").split(".")[0] == package for alias in node.names}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_modules_with_flows_keep_their_annotations(path: Path) -> None:
    """Prefect reads a flow's annotations, not a task's; as strings, they let every served run fail: "is not fully defined"."""
    module = ast.parse(path.read_text())
    if "flow" in _imported_names(module, "prefect"):
        assert "annotations" not in _imported_names(module, "__future__")


def test_rule_sees_both_imports() -> None:
    module = ast.parse("from __future__ import annotations\nfrom prefect import flow, task\n")
    assert _imported_names(module, "__future__") == {"annotations"}
    assert _imported_names(module, "prefect") == {"flow", "task"}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_no_simple_queue_is_waited_on_for_a_time(path: Path) -> None:
    """One whose wait is interrupted by a signal may wait for ever (CPython 3.11), so that Ctrl-C is never looked at."""
    text = path.read_text()
    assert not ("SimpleQueue" in text and ".get(timeout" in text), "take queue.Queue"


def _folders(*tops: str) -> list[Path]:
    found = [path for top in tops for path in [ROOT / top, *(ROOT / top).rglob("*")]]
    return sorted(path for path in found if path.is_dir() and path.name != "__pycache__")


@pytest.mark.parametrize(
    "folder", _folders(*ROOMS, "benchmarks", "tests"), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_folder_is_crowded(folder: Path) -> None:
    files = [path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".pyc"]
    assert len(files) <= MOST_FILES, f"{len(files)} files; give those that belong together an inner room"


def test_no_file_of_the_rooms_is_long() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_tests_mirror_the_rooms() -> None:
    """A folder of tests stands for a folder of code; those below `whole_runs` have tests of all of it together."""
    folders = [path.relative_to(ROOT / "tests") for room in ROOMS for path in _folders(f"tests/{room}")]
    together = ROOT / "flows/whole_runs"
    assert [
        str(path) for path in folders if not (ROOT / path).is_dir() and not (ROOT / path).is_relative_to(together)
    ] == []


LOADING = "reward_training/transformer/loading"
HOLD_NO_WEIGHTS = {"AutoConfig", "PeftConfig", "GenerationConfig"}
DECODING = "grpo_train/sampling/decoding.py"


def _methods_called(path: Path) -> set[tuple[str, str]]:
    """(what it is called on, name) of each method that a file calls."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {(ast.unparse(call.value), call.attr) for call in calls if isinstance(call, ast.Attribute)}


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_weights_and_tokenizers_are_loaded_in_one_place(path: Path) -> None:
    """Elsewhere a weight that a file lacks would be random, and nothing would say so."""
    called = _methods_called(path)
    loaders = {owner for owner, method in called if method in ("from_pretrained", "load_adapter")} - HOLD_NO_WEIGHTS
    assert not loaders or path.relative_to(ROOT).as_posix().startswith(LOADING), (
        f"{loaders}: call load_model, read_tokenizer"
    )


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_tokens_become_text_in_one_place(path: Path) -> None:
    """Elsewhere marks of thoughts and tags would be lost, or white space would be cleaned up."""
    imported = _imported_names(ast.parse(path.read_text()), "transformers")
    methods = {method for _, method in _methods_called(path)} & {"decode", "batch_decode", "convert_tokens_to_string"}
    knows_tokenizers = any("Tokenizer" in name for name in imported)
    assert not (knows_tokenizers and methods) or path.relative_to(ROOT).as_posix() == DECODING


def test_the_rules_see_calls(tmp_path: Path) -> None:
    assert ("self.kind", "from_pretrained") in _methods_called(_written(tmp_path, "self.kind.from_pretrained('x')"))
    assert ("self._tokenizer", "decode") in _methods_called(ROOT / DECODING)


def _written(folder: Path, text: str) -> Path:
    (folder / "module.py").write_text(text)
    return folder / "module.py"

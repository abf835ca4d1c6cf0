"""Which files are the code of a reward function, and that code which changed is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.errors import ConfigError
from reward_training.rewards.python_function import load_function
from reward_training.rewards.source_code import code_of

MODULE = """
import math
import numpy as np
from reward_training.reward import Unscored
from scr_helper import SHARE
from scr_package.sub import thing

def reward(problems, completions):
    import importlib
    from scr_package import lazy
    importlib.import_module("scr_late")
    return [SHARE] * len(completions)
"""


@pytest.fixture
def folder(workspace: Path) -> Iterator[Path]:
    """A workspace with a reward function, what it imports, and what it does not."""
    (workspace / "scr_package" / "sub").mkdir(parents=True)
    files = {
        "scr_mine.py": MODULE, "scr_helper.py": "SHARE = 0.0\n", "scr_late.py": "", "scr_unrelated.py": "",
        "scr_package/__init__.py": "", "scr_package/lazy.py": "x = 1\n", "scr_package/deep.py": "", "scr_package/idle.py": "",
        "scr_package/sub/__init__.py": "", "scr_package/sub/other.py": "try:\n    import scr_missing\nexcept ImportError:\n    pass\n",
        "scr_package/sub/thing.py": "from .. import deep\nfrom . import other\nfrom ..lazy import x\n",
    }  # fmt: skip
    for name, text in files.items():
        (workspace / name).write_text(text)
    path = list(sys.path)
    yield workspace
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("scr_")]:
        del sys.modules[name]


def test_the_code_is_what_the_function_imports_from_the_user(folder: Path) -> None:
    code = code_of("scr_mine:reward")
    assert sorted(code.files) == [
        "scr_helper", "scr_late", "scr_mine", "scr_package", "scr_package.deep", "scr_package.lazy", "scr_package.sub",
        "scr_package.sub.other", "scr_package.sub.thing",
    ]  # fmt: skip
    assert {"numpy", "regroup"} == code.versions.keys()


@pytest.mark.parametrize(
    ("file", "matters"),
    [
        ("scr_mine.py", True),
        ("scr_helper.py", True),
        ("scr_late.py", True),
        ("scr_package/__init__.py", True),
        ("scr_package/lazy.py", True),
        ("scr_package/sub/other.py", True),
        ("scr_unrelated.py", False),
        ("scr_package/idle.py", False),
    ],
)
def test_its_digest_tells_a_change_of_these_files_and_of_no_others(folder: Path, file: str, matters: bool) -> None:
    before = code_of("scr_mine:reward").digest
    (folder / file).write_text((folder / file).read_text() + "\nX = 1\n")
    assert (code_of("scr_mine:reward").digest != before) == matters


def test_a_new_module_of_the_same_bytes_is_the_same_code_wherever_the_folder_lies(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, elsewhere = code_of("scr_helper:f").digest, tmp_path_factory.mktemp("moved")
    (elsewhere / "scr_helper.py").write_bytes((folder / "scr_helper.py").read_bytes())
    monkeypatch.chdir(elsewhere)
    assert code_of("scr_helper:f").digest == before


def test_of_an_installed_function_its_package_is_the_code(folder: Path) -> None:
    code = code_of("trl.rewards:accuracy_reward")
    assert {name.partition(".")[0] for name in code.files} == {"trl"}
    assert code.versions.keys() == {"trl"}


def test_code_that_cannot_be_read_or_found_is_no_error_here(folder: Path) -> None:
    (folder / "scr_mine.py").write_text("def reward(:\n")
    assert sorted(code_of("scr_mine:reward").files) == ["scr_mine"]
    assert code_of("scr_nowhere:reward").files == {}
    with pytest.raises(ConfigError, match="SyntaxError"):
        load_function("scr_mine:reward")


def test_changed_code_runs_as_it_is_now_and_unchanged_code_stays_loaded(folder: Path) -> None:
    """The process went on with the code that it had loaded first, whatever the stages said that they were scored by."""
    first = load_function("scr_mine:reward")
    assert load_function("scr_mine:reward") is first
    assert first([], ["a"]) == [0.0]
    (folder / "scr_helper.py").write_text("SHARE = 1.0\n")  # of the same size, within the same second
    assert load_function("scr_mine:reward")([], ["a"]) == [1.0]
    (folder / "scr_unrelated.py").write_text("X = 1\n")
    assert load_function("scr_mine:reward") is load_function("scr_mine:reward")

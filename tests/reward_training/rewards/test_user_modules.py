"""A user's modules are imported from the current folder, and replace nobody else's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import ConfigError
from reward_training.rewards.python_function import load_function

REWARD = "def reward(problems, completions):\n    return [0.25]\n"


def _value(path: str) -> object:
    function: Callable[..., object] = load_function(path)
    return function([], [])


@pytest.mark.parametrize("name", ["my_own_reward", "random", "tasks", "reward_training", "datasets", "colorsys"])
def test_the_folders_module_is_the_one_that_is_named(workspace: Path, name: str) -> None:
    """Loaded or not, of Python, a library or Regroup: whose name it has does not matter."""
    (workspace / f"{name}.py").write_text(REWARD)
    assert _value(f"{name}:reward") == [0.25]


def test_what_others_have_under_the_name_stays(workspace: Path) -> None:
    (workspace / "random.py").write_text(REWARD)
    (workspace / "wave.py").write_text("raise RuntimeError('taken for another')")
    (workspace / "plain_reward.py").write_text(
        "import random\n" + REWARD.replace("0.25", "random.Random(0).random() < 2")
    )
    assert _value("random:reward") == [0.25]
    assert _value("plain_reward:reward") == [True]
    import wave  # noqa: F401 - a module of Python's that nothing has imported yet


def test_a_package_with_the_name_of_another_finds_its_own_parts(workspace: Path) -> None:
    for folder, marked in (("flows", True), ("configs", False)):
        (workspace / folder).mkdir()
        if marked:
            (workspace / folder / "__init__.py").touch()
        (workspace / folder / "half.py").write_text("HALF = 0.5")
        (workspace / folder / "scores.py").write_text("from .half import HALF\n" + REWARD.replace("0.25", "HALF"))
        assert _value(f"{folder}.scores:reward") == [0.5]


def test_modules_beside_it_are_found(workspace: Path) -> None:
    (workspace / "beside_it.py").write_text("QUARTER = 0.25")
    (workspace / "needs_it.py").write_text("from beside_it import QUARTER\n" + REWARD.replace("0.25", "QUARTER"))
    assert _value("needs_it:reward") == [0.25]


def test_each_folder_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0.1", "0.2", "0.3"):
        (tmp_path / value).mkdir()
        monkeypatch.chdir(tmp_path / value)
        (tmp_path / value / "same_name.py").write_text(REWARD.replace("0.25", value))
        assert _value("same_name:reward") == [float(value)]


def test_a_hidden_file_is_named(workspace: Path) -> None:
    (workspace / "tasks.py").write_text("QUARTER = 0.25")
    (workspace / "needs_tasks.py").write_text("from tasks import QUARTER\n" + REWARD)
    with pytest.raises(
        ConfigError, match=r"cannot import name 'QUARTER'.*tasks\.py has the name of another module.*rename"
    ):
        load_function("needs_tasks:reward")


def test_a_process_that_has_imported_little_keeps_to_the_same_rules(tmp_path: Path) -> None:
    (tmp_path / "statistics.py").write_text(REWARD)
    (tmp_path / "queue.py").write_text("raise RuntimeError('taken for another')")
    code = (
        "from reward_training.rewards.user_modules import import_user_module as load;"
        "print(load('statistics').reward([], []));"
        "import statistics; print(statistics.mean([1, 2]))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert (result.stdout, result.stderr) == ("[0.25]\n1.5\n", "")


def test_a_module_that_ends_the_process_when_it_is_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_script.py").write_text("raise SystemExit(0)")
    with pytest.raises(ConfigError, match=r"cannot import 'a_script' from .*: SystemExit: 0"):
        load_function("a_script:reward")

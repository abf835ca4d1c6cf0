"""Files of the current folder are no modules of the processes that we start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.running.safe_path import OURS, VARIABLE, give_up_safe_path, with_safe_path

CODE = "import random; print(random.Random(0).random() < 1)"


def test_a_process_does_not_look_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('taken for another')")
    for environment, code in ((os.environ | with_safe_path(), 0), (dict(os.environ), 1)):
        command = [sys.executable, "-c", CODE]
        assert (
            subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode == code
        )


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, given, kept in (("1", "1", "1"), ("", OURS, None), (None, OURS, None)):
        monkeypatch.delenv(VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(VARIABLE, value)
        assert with_safe_path() == {VARIABLE: given}
        monkeypatch.setenv(VARIABLE, given)
        give_up_safe_path()
        assert os.environ.get(VARIABLE) == kept

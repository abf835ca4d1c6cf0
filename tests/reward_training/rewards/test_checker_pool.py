"""Checks under a time limit: a worker that hangs or dies costs one check."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from reward_training.reward import Unscored
from reward_training.rewards.checker_pool import Check, CheckerPool

LIBRARY = """
import os, time

def get_score_answer_fn(family):
    def hang(answer, entry):
        time.sleep(60)
    def die(answer, entry):
        os._exit(3)
    def fail(answer, entry):
        raise KeyError(answer)
    def noisy(answer, entry):
        print("a library that prints")
        return 0.5
    return {"hang": hang, "die": die, "fail": fail, "noisy": noisy}[family]
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CheckerPool]:
    """Let the workers import a fake library as reasoning_gym."""
    (tmp_path / "reasoning_gym.py").write_text(LIBRARY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with CheckerPool(["reasoning_gym"], num_workers=2) as pool:
        yield pool


def check(family: str, timeout_s: float = 20.0) -> Check:
    return Check("reasoning_gym", ("5", family, {}), timeout_s)


def test_hung_check_is_unscored_and_the_others_are_not(pool: CheckerPool) -> None:
    assert pool.run([check("noisy"), check("hang", 0.3), check("noisy")]) == [0.5, Unscored("timeout after 0.3 s"), 0.5]


def test_check_that_raises_or_ends_its_process_is_unscored(pool: CheckerPool) -> None:
    results = pool.run([check("fail"), check("die"), check("noisy")])
    assert results == [Unscored("checker raised KeyError: '5'"), Unscored("checker died"), 0.5]


def test_worker_that_is_killed_between_calls_costs_one_check(pool: CheckerPool) -> None:
    """The job that could not be sent was written once more when the worker's input was closed, which raised BrokenPipeError."""
    assert pool.run([check("noisy")]) == [0.5]
    [worker] = [
        child for child in psutil.Process().children() if "reward_training.rewards.checker_worker" in child.cmdline()
    ]
    worker.kill()
    psutil.wait_procs([worker], timeout=20)
    assert pool.run([check("noisy")] * 3) == [Unscored("checker died"), 0.5, 0.5]


def test_pool_works_on_after_a_timeout(pool: CheckerPool) -> None:
    assert pool.run([check("hang", 0.2)]) == [Unscored("timeout after 0.2 s")]
    assert pool.run([check("noisy")] * 40) == [0.5] * 40


def test_no_process_is_left_behind() -> None:
    before = set(psutil.Process().children())
    with CheckerPool(["reasoning_gym"], num_workers=1) as pool:
        assert pool.run([]) == []
        assert pool.run([Check("regex", ("12", "[0-9]+"), 60.0)]) == [1.0]
        assert len(set(psutil.Process().children()) - before) == 1
    assert set(psutil.Process().children()) <= before


def test_library_that_does_not_import_is_told() -> None:
    with CheckerPool(["no_such_library"]) as pool, pytest.raises(RuntimeError, match="checker_worker no_such_library"):
        pool.run([Check("regex", ("1", "1"), 5.0)])


def test_worker_does_without_torch() -> None:
    code = (
        "import sys, reward_training.rewards.checker_worker as w; import reasoning_gym; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_hung_worker_ends_itself_when_nobody_is_left(tmp_path: Path) -> None:
    """If the parent is killed while a check hangs, the worker's own alarm ends the worker."""
    (tmp_path / "reasoning_gym.py").write_text(LIBRARY)
    script = (
        "import reward_training.rewards.checker_worker as w; w.GRACE_S = 0; import sys; sys.argv = ['w']; "
        f"sys.path.insert(0, {str(tmp_path)!r}); w.main()"
    )
    started = time.monotonic()
    job = '{"checker": "reasoning_gym", "arguments": ["5", "hang", {}], "timeout_s": 0.5}\n'
    result = subprocess.run([sys.executable, "-c", script], input=job, capture_output=True, text=True)
    assert result.returncode == -14  # SIGALRM
    assert time.monotonic() - started < 30

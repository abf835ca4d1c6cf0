"""Killed before any one of the calls by which runs come, go and move in MLflow: the next process ends with one run of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tasks.running.run import Run
from tasks.tracking.store import REPLACED
from tests.tasks.stage_kit import open_in
from tests.tasks.tracking.kit import THREE_STEPS, all_runs, by_key, close_round, policy_stage, rows, whole_run

WRITING = ("create_run", "delete_run", "set_tag", "set_terminated")


class Killed(BaseException):
    """As if the process were gone: nothing handles it."""


def die() -> None:
    raise Killed


def arm(patch: pytest.MonkeyPatch, number: int) -> None:
    """Die before the `number`-th call of those."""
    calls = count(1)

    def armed(name: str) -> Callable[..., object]:
        real = getattr(MlflowClient, name)

        def call(*args: object, **kwargs: object) -> object:
            if next(calls) == number:
                die()
            return real(*args, **kwargs)

        return call

    for name in WRITING:
        patch.setattr(MlflowClient, name, armed(name))


def interrupted(run: Run) -> None:
    run.tracking.start()
    run.tracking.end_stage = lambda *_, **__: None  # type: ignore[method-assign]
    with pytest.raises(Killed):
        policy_stage(run, steps=2, then=die)


def close_again(run: Run) -> None:
    """The round was closed with another gain; metrics that were sent cannot be taken back."""
    run.tracking.start()
    policy_stage(run)
    close_round(run, champion=1, gain=0.5, ended_ms=1_700_000_001_000)
    run.tracking.finish("FINISHED")


@pytest.mark.parametrize(
    ("before", "work", "gain"), [(interrupted, whole_run, 0.25), (whole_run, close_again, 0.5)], ids=["stage", "round"]
)
def test_each_run_is_there_once_whatever_call_was_the_last(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: Callable[[Run], None],
    work: Callable[[Run], None],
    gain: float,
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(empty_store, given / "mlflow.db")
    monkeypatch.chdir(given)
    before(open_in(given))
    for number in count(1):
        root = tmp_path / f"killed-{number}"
        shutil.copytree(given, root)
        monkeypatch.chdir(root)
        with pytest.MonkeyPatch.context() as patch:
            arm(patch, number)
            try:
                work(open_in(root))
            except Killed:
                pass
            else:
                break
        work(open_in(root))
        tree = by_key(root)
        assert sorted(tree) == ["", "round_001", "round_001/policy"], number
        assert not [run for run in all_runs(root) if REPLACED in run.data.tags]
        assert tree["round_001"].data.tags["mlflow.parentRunId"] == tree[""].info.run_id
        assert tree["round_001/policy"].data.tags["mlflow.parentRunId"] == tree["round_001"].info.run_id
        assert rows(root, tree["round_001/policy"]) == THREE_STEPS
        assert {(key, value) for key, _, value in rows(root, tree[""])} == {("promotion/gain", gain)}
        assert {run.info.status for run in tree.values()} == {"FINISHED"}
    assert number > len(WRITING)

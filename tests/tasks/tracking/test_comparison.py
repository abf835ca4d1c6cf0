"""A comparison in MLflow: one run, under which its members' runs hang."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun

from tasks.runs.facts import load
from tasks.tracking.comparison import SENT, Sent, send_comparison
from tasks.tracking.store import PARENT, Store
from tests.tasks.comparing.made_up import comparison
from tests.tasks.tracking.kit import all_runs, client, rows, store


def stores(root: Path) -> tuple[Store, list[Store]]:
    """The stores of the comparison and of its two members with seed 0."""
    members = [member for member in comparison().members() if member.seed == 0]
    of_members = [
        Store(root, name=member.name, uid=f"m{i}", config=member.config, warn=pytest.fail)
        for i, member in enumerate(members)
    ]
    whole = Store(root, name="compare-made-up", uid="whole", config=members[0].config, warn=pytest.fail)
    return whole, of_members


def send(whole: Store, folder: Path, metrics: dict[str, float], warn: list[str] | None = None) -> bool:
    folder.mkdir(exist_ok=True)
    (folder / "comparison.json").write_text(str(metrics))
    return send_comparison(
        whole,
        folder,
        members=["m0", "m1"],
        params={"seeds": "[0]"},
        metrics=metrics,
        files=[folder / "comparison.json"],
        at_ms=1_772_336_100_000,
        warn=pytest.fail if warn is None else warn.append,
    )


def refused(*_: object, **__: object) -> None:
    raise ConnectionError("refused")


def named(root: Path, name: str) -> MlflowRun:
    [run] = [run for run in all_runs(root) if run.info.run_name == name]
    return run


def test_members_hang_under_the_comparison_which_has_numbers_and_files(root: Path, tmp_path: Path) -> None:
    whole, members = stores(root)
    for member in members:
        member.parent_run()
    assert send(whole, tmp_path / "c", {"compare/test/grpo": 0.5})
    parent = named(root, "compare-made-up")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["seeds"] == "[0]"
    assert parent.data.metrics == {"compare/test/grpo": 0.5}
    assert [file.path for file in client(root).list_artifacts(parent.info.run_id)] == ["comparison.json"]
    children = [run.info.run_name for run in all_runs(root) if run.data.tags.get(PARENT) == parent.info.run_id]
    assert sorted(children) == ["made-up-grpo-s0", "made-up-rloo-s0"]


def test_what_mlflow_has_is_not_sent_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = stores(root)
    assert send(whole, tmp_path / "c", {"compare/test/grpo": 0.5})
    monkeypatch.setattr(Store, "parent_run", pytest.fail)
    assert send(whole, tmp_path / "c", {"compare/test/grpo": 0.5})


def test_a_comparison_that_changed_takes_the_place_of_the_old_one(root: Path, tmp_path: Path) -> None:
    """Metrics cannot be taken back: the run would have both numbers."""
    whole, members = stores(root)
    members[0].parent_run()
    send(whole, tmp_path / "c", {"compare/test/grpo": 0.5})
    again, _ = stores(root)
    send(again, tmp_path / "c", {"compare/test/grpo": 0.25})
    parent = named(root, "compare-made-up")
    assert set(rows(root, parent)) == {("compare/test/grpo", 0, 0.25)}
    assert named(root, "made-up-grpo-s0").data.tags[PARENT] == parent.info.run_id


def test_while_mlflow_is_away_it_is_said_and_the_next_call_sends_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    whole, _ = stores(root)
    with monkeypatch.context() as away:
        away.setattr(Store, "search", refused)
        assert not send(whole, tmp_path / "c", {"compare/test/grpo": 0.5}, warnings)
    [warning] = warnings
    assert "cannot be told of the comparison (refused); this command again sends it" in warning
    assert load(tmp_path / "c" / SENT, Sent) is None
    assert send(whole, tmp_path / "c", {"compare/test/grpo": 0.5})
    assert store(root).startswith("sqlite")

"""A watch rule that ends the last round's training can ask for one more round, in which the reward models are retrained."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.whole_runs.tiny_run import regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

RULE = "watch=[{metric: policy/entropy, above: 0.0, patience: 2, action: stop, extra_rounds: 2}]"
"""its bound is passed at once, so that every round's training ends after two updates"""


def test_a_run_gets_the_rounds_that_its_watch_rule_may_add_and_no_more(tmp_path: Path) -> None:
    command = ["run", str(TINY), "--set", "rounds=1", "--set", "regeneration.num_problems=20", "--set", RULE]
    call = regroup(tmp_path, *command)
    assert call.process.returncode == 0, call.err
    assert "round 2 is added" in call.err
    rounds = summary_of(tmp_path)["rounds"]
    assert [round_index["round"] for round_index in rounds] == [0, 1, 2, 3]
    models = [round_index["reward_models"]["taste"]["id"] for round_index in rounds[1:]]
    assert len(set(models)) == 3
    folder = tmp_path / "runs" / "tiny"
    shard = (folder / "problems_003" / "regenerate_003.jsonl").read_text().splitlines()
    assert shard
    assert not set(shard) & set((folder / "problems_003" / "train.jsonl").read_text().splitlines())
    again = regroup(tmp_path, *command)
    assert "is finished already" in again.err
    assert len(summary_of(tmp_path)["rounds"]) == 4

"""Each kind of reward that no other whole run has, turned on by YAML alone: what it says moves the policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.whole_runs.tiny_run import regroup, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FUNCTION = """
def even(problems, completions):
    return [float(len(completion.token_ids) % 2 == 0) for completion in completions]
"""
KINDS: list[dict[str, Any]] = [
    {"name": "fresh", "kind": "repetition", "ngram": 1, "free": 0.0, "weight": 0.3},
    {"name": "even", "kind": "python", "function": "mine:even", "weight": 0.3},
    {"name": "steps", "kind": "process", "checked_by": "even", "reduce": "min", "weight": 0.3},
    {"name": "kept", "kind": "process", "checked_by": "digits", "reduce": "per_step", "weight": 0.3},
]


def test_each_kind_has_its_share_of_the_advantage_and_its_column_everywhere(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FUNCTION)
    settings = yaml.safe_load(TINY.read_text())
    settings |= {"rounds": 1, "rewards": [*settings["rewards"], *KINDS]}
    (tmp_path / "kinds.yaml").write_text(yaml.safe_dump(settings))
    call = regroup(tmp_path, "run", "kinds.yaml")
    assert call.process.returncode == 0, call.err
    names = {reward["name"] for reward in KINDS}
    last = summary_of(tmp_path, "kinds")["rounds"][1]
    assert all(last["advantage_share"][name] > 0 for name in names), last["advantage_share"]
    assert {f"test/greedy/{name}" for name in names} <= set(last["evaluation"])
    rollouts = tmp_path / "runs/kinds/round_001/policy/rollouts.jsonl"
    rows = [json.loads(line) for line in rollouts.read_text().splitlines()]
    assert all(names <= set(row["parts"]) for row in rows)
    assert len({row["advantage"] for row in rows}) > 20

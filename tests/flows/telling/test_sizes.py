"""What Prefect is told of a run stays small, however much data the run has."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.records import Policy, RoundState
from flows import align as flows
from flows.telling import teller
from tasks import prefect_tasks as stages
from tasks.runs.facts import ROUND_FILE, RoundFile, load, save
from tasks.runs.run_file import create_run
from tasks.runs.workspace import round_folder
from tests.flows.telling.fake_prefect import FakePrefect
from tests.tasks.stage_kit import Untold, open_in, tiny

NUM_PROBLEMS = 20_000
MOST_BYTES = 8_000
"""of one request; a configuration of a hundred lines has half of it"""


def test_no_parameter_state_artifact_or_event_grows_with_the_data(
    fake: FakePrefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real flows and tasks, with stages that write 20,000 pass rates a round (1.3 MB), more than Prefect's 512 KiB."""
    monkeypatch.chdir(tmp_path)
    policy = Policy(path=str(tmp_path), id="a", round=0)
    config = tiny("curriculum={kind: band}")
    create_run(tmp_path, config, given_policy=policy, initial_policy=policy)
    run = replace(open_in(tmp_path, config, uri="sqlite://"), tracking=Untold())
    read = []

    def train(_run: Any, round_index: int, state: RoundState, _models: Any) -> Policy:
        from tasks.runs.history import curriculum_before

        before = curriculum_before(run.folder, round_index)
        read.append(None if before is None else len(before["rates"]))
        rates = {f"{i:064x}": [0.5, float(round_index)] for i in range(NUM_PROBLEMS)}
        folder = round_folder(run.folder, round_index) / "policy"
        folder.mkdir(parents=True)
        (folder / "curriculum.json").write_text(json.dumps({"epoch": 1.0, "rates": rates}))
        (folder / "result.json").write_text('{"num_updates": 1, "advantage_share": {}}')
        return Policy(path=str(folder / "model"), id=f"policy-{round_index}", round=round_index)

    def finish(_run: Any, state: RoundState) -> None:
        save(
            round_folder(run.folder, state.round) / ROUND_FILE,
            RoundFile(round=state.round, state=state, ended_ms=0, metrics={}, aliases=[]),
        )

    def nothing(*_: Any) -> Any:
        return {str(i): i for i in range(1000)}  # Prefect is not told what a task returns

    bodies = {"train_policy": train, "finish_round": finish, "promote": lambda *_: SimpleNamespace(promoted=True)}
    for name in ("prepare", "train_reward_model", "train_policy", "evaluate", "promote", "regenerate", "finish_round"):
        stage = getattr(stages, name).with_options()
        stage.fn = wraps(stage.fn)(partial(bodies.get(name, nothing)))
        monkeypatch.setattr(stages, name, stage)
    monkeypatch.setattr(flows, "usable_models", lambda *_: {})
    monkeypatch.setattr(flows, "work_alone", lambda *_: flows.all_rounds())
    token = flows.current_run.__globals__["_current"].set(run)
    warnings: list[str] = []
    teller.begin(tmp_path, warnings.append)
    try:
        flows.align(config)
    finally:
        teller.end()
        flows.current_run.__globals__["_current"].reset(token)

    assert read == [None, NUM_PROBLEMS]
    assert set(fake.states().values()) == {"COMPLETED"}
    assert sorted(fake.states()) == ["round-0", "round-1", "round-2", "tiny"]
    parameters = {run["name"]: run["parameters"] for run in fake.flow_runs()}
    assert parameters["round-2"] == {"round_index": 2}
    largest = max(fake.requests, key=lambda request: len(request[2]))
    assert len(largest[2]) < MOST_BYTES, largest[:2]
    round_file = load(round_folder(run.folder, 2) / ROUND_FILE, RoundFile)
    assert round_file is not None
    assert len(round_file.model_dump_json()) < MOST_BYTES

"""What ties stages into rounds: the state that a round hands on, and how it is closed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.disk.files import Manifest
from configs.records import Policy, RoundState
from grpo_train.observers.token_ledger import token_metrics
from tasks.running.run import Run
from tasks.runs.facts import ROUND_FILE, AliasFact, RoundFile, save
from tasks.runs.history import finished_round, last_accepted_models
from tasks.runs.stage_files import (
    decision,
    evaluation_reports,
    reward_model_report,
    round_manifests,
    train_result,
)
from tasks.runs.workspace import Champion, reward_model_folder, round_folder, write_champion
from tasks.stages import evaluate, reward_model


def first_state(run: Run) -> RoundState:
    """What round 0 stands on: the given policy is the champion."""
    return round_state(run, 0, run.given_policy, run.given_policy)


def round_state(run: Run, round_index: int, policy: Policy, champion: Policy) -> RoundState:
    """What a round hands to the next one; round 0 has what the run before handed on."""
    accepted = last_accepted_models(
        run.folder, run.config.trained_reward_models, before=round_index + 1, inherited=run.file.reward_models
    )
    return RoundState(
        round=round_index,
        policy=policy,
        champion=champion,
        initial_policy=run.initial_policy,
        reward_models={name: model.id for name, model in accepted.items()},
        curriculum=_handed_on(run, round_index) if round_index else run.file.curriculum,
    )


def _handed_on(run: Run, round_index: int) -> dict[str, Any]:
    """The curriculum's epoch and pass rates at the end of the round's training."""
    result = train_result(round_folder(run.folder, round_index) / "policy")
    assert result is not None, "the policy's stage is finished"
    return result.curriculum


def close_round(run: Run, state: RoundState) -> None:
    """Write champion.json and round.json, unless the round was closed before with the same stages."""
    fact = _round_file(run, state)
    before = finished_round(run.folder, state.round)
    if before is not None and (before.ended_ms, before.metrics) == (fact.ended_ms, fact.metrics):
        return
    champion = state.champion
    path = str(Path(champion.path).absolute())
    write_champion(run.workspace, Champion(run=run.name, round=champion.round, policy_id=champion.id, path=path))
    save(round_folder(run.folder, state.round) / ROUND_FILE, fact)


def _round_file(run: Run, state: RoundState) -> RoundFile:
    manifests = round_manifests(round_folder(run.folder, state.round))
    return RoundFile(
        round=state.round,
        state=state,
        ended_ms=max(manifest.ended_ms for manifest in manifests),
        metrics=_metrics(run, state, manifests),
        aliases=_aliases(run, state),
    )


def _metrics(run: Run, state: RoundState, manifests: list[Manifest]) -> dict[str, float]:
    """What a person compares across rounds; docs/metrics.md defines the keys."""
    folder = round_folder(run.folder, state.round)
    values = {f"time/{manifest.stage}": manifest.seconds for manifest in manifests}
    values["time/round"] = sum(manifest.seconds for manifest in manifests)
    values |= evaluate.estimates(evaluation_reports(folder / "evaluate"))
    for name in run.config.trained_reward_models:
        if (report := reward_model_report(reward_model_folder(run.folder, state.round, name))) is not None:
            values |= {f"reward_model/{name}/{key}": value for key, value in reward_model.metrics(report).items()}
    if state.round > 0:
        decided, trained = decision(folder / "promote"), train_result(folder / "policy")
        assert decided is not None, "the promotion's stage is finished"
        assert trained is not None, "the policy's stage is finished"
        values |= {"promotion/promoted": float(decided.promoted), "promotion/gain": decided.gain}
        if decided.people is not None:
            values["promotion/people_win_rate"] = decided.people.estimate
        values |= {f"objective/{name}/advantage_share": share for name, share in trained.advantage_share.items()}
        values |= token_metrics(trained.tokens)
    return values


def _aliases(run: Run, state: RoundState) -> list[AliasFact]:
    name = run.policy_model
    refused = state.policy.id != state.champion.id
    return [
        AliasFact(name=name, alias="champion", key=_policy_key(state.champion)),
        AliasFact(name=name, alias="challenger", key=_policy_key(state.policy) if refused else None),
    ]


def _policy_key(policy: Policy) -> str:
    """The stage that made a policy's registered version."""
    return f"round_{policy.round:03d}/policy" if policy.round > 0 else "problems"

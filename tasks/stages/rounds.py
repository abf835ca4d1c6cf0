"""Ties stages into rounds: the state that a round hands on, and the files that close it."""

from __future__ import annotations

from pathlib import Path

from configs.disk.files import Manifest
from configs.records import Policy, RoundState
from grpo_train.observers.token_ledger import token_metrics
from tasks.running.run import Run
from tasks.runs.facts import ROUND_FILE, AliasFact, RoundFile, save
from tasks.runs.history import finished_round, last_accepted_models, rolled_back_champion, round_policy
from tasks.runs.run_records import read_run_records
from tasks.runs.stage_files import (
    decision,
    evaluation_reports,
    retention_report,
    reward_model_report,
    round_manifests,
    train_result,
)
from tasks.runs.workspace import Champion, reward_model_folder, round_folder, write_champion
from tasks.stages import evaluate, retention, reward_model


def first_state(run: Run) -> RoundState:
    """The state of round 0, whose policy and champion are the given policy."""
    return round_state(run, 0, run.given_policy, run.given_policy)


def round_state(run: Run, round_index: int, policy: Policy, champion: Policy) -> RoundState:
    """What a round hands to the next one; after a rollback, the champion that is back. Round 0 hands on the predecessor's reward
    models, if any."""
    accepted = last_accepted_models(
        run.folder, run.config.trained_reward_models, before=round_index + 1, inherited=run.file.reward_models
    )
    return RoundState(
        round=round_index,
        policy=policy,
        champion=rolled_back_champion(run.folder, round_index) or champion,
        initial_policy=run.initial_policy,
        reward_models={name: model.id for name, model in accepted.items()},
    )


def handed_on(run: Run, round_index: int) -> RoundState:
    """What a finished round handed on, read from its `round.json`. The policies' paths are those of today, since a
    workspace may have been moved."""
    closed = finished_round(run.folder, round_index)
    assert closed is not None, f"round {round_index} is finished"
    state = closed.state
    policy, champion = (
        round_policy(run.folder, run.given_policy, policy.round, policy.id) for policy in (state.policy, state.champion)
    )
    return state.model_copy(update={"policy": policy, "champion": champion, "initial_policy": run.initial_policy})


def close_round(run: Run, state: RoundState) -> None:
    """Write champion.json and round.json, unless the round was closed before and its stages have not run again."""
    round_file = _round_file(run, state)
    closed = finished_round(run.folder, state.round)
    if closed is not None and (closed.ended_ms, closed.metrics) == (round_file.ended_ms, round_file.metrics):
        return
    champion = state.champion
    path = str(Path(champion.path).absolute())
    write_champion(run.workspace, Champion(run=run.name, round=champion.round, policy_id=champion.id, path=path))
    save(round_folder(run.folder, state.round) / ROUND_FILE, round_file)


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
    """The metrics to compare across rounds; docs/metrics.md defines the keys."""
    round_dir = round_folder(run.folder, state.round)
    values = {f"time/{manifest.stage}": manifest.seconds for manifest in manifests}
    values["time/round"] = sum(manifest.seconds for manifest in manifests)
    values |= evaluate.estimates(evaluation_reports(round_dir / "evaluate"))
    values |= _retention(run, state.round)
    for name in run.config.trained_reward_models:
        if (report := reward_model_report(reward_model_folder(run.folder, state.round, name))) is not None:
            values |= {f"reward_model/{name}/{key}": value for key, value in reward_model.metrics(report).items()}
    if state.round > 0:
        decided, trained = decision(round_dir / "promote"), train_result(round_dir / "policy")
        assert decided is not None, "the promotion's stage is finished"
        assert trained is not None, "the policy's stage is finished"
        values["promotion/promoted"] = float(decided.promoted)
        if decided.gain is not None:
            values["promotion/gain"] = decided.gain
        if decided.people is not None:
            values["promotion/people_win_rate"] = decided.people.estimate
        values |= {f"objective/{name}/advantage_share": share for name, share in trained.advantage_share.items()}
        values |= token_metrics(trained.tokens)
    return values


def _retention(run: Run, round_index: int) -> dict[str, float]:
    """What is left of old abilities, and the changes against the given policy and the champion."""
    report = retention_report(round_folder(run.folder, round_index) / "evaluate")
    if report is None:
        return {}
    records = read_run_records(run.folder)
    record = next(record for record in records.rounds if record.index == round_index)
    return retention.measured_metrics(report) | retention.change_metrics(records, record)


def _aliases(run: Run, state: RoundState) -> list[AliasFact]:
    name = run.policy_model
    refused = state.policy.id != state.champion.id
    return [
        AliasFact(name=name, alias="champion", key=_policy_key(run, state.champion)),
        AliasFact(name=name, alias="challenger", key=_policy_key(run, state.policy) if refused else None),
    ]


def _policy_key(run: Run, policy: Policy) -> str:
    """Key of the stage that registered the policy's version."""
    if policy.round > 0:
        return f"round_{policy.round:03d}/policy"
    return "problems" if run.file.before_cold_start is None else "round_000/cold_start"

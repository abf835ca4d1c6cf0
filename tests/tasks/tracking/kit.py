"""What MLflow holds of a run, and a run of one policy stage and one round, for tests of what MLflow is told."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType

from configs.records import Policy, RoundState
from tasks.running.run import Run
from tasks.running.stage import run_stage
from tasks.runs import facts
from tasks.runs.facts import AliasFact, DatasetFact, ModelFact, Outcome, RoundFile
from tasks.runs.workspace import round_folder
from tests.tasks.stage_kit import LetterSpec, write_letters


def store(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def client(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=store(root), registry_uri=store(root))


def all_runs(root: Path) -> list[MlflowRun]:
    """Runs that a person sees: deleted ones are not among them."""
    known = client(root)
    experiment = known.get_experiment_by_name("regroup")
    return list(known.search_runs([experiment.experiment_id], run_view_type=ViewType.ACTIVE_ONLY))


def by_key(root: Path) -> dict[str, MlflowRun]:
    """Runs by what follows the run's uid in their key: "" for the parent."""
    found = [(run.data.tags["regroup.key"].partition("/")[2], run) for run in all_runs(root)]
    assert len({key for key, _ in found}) == len(found)
    return dict(found)


def rows(root: Path, run: MlflowRun) -> Counter[tuple[str, int, float]]:
    history = [m for key in run.data.metrics for m in client(root).get_metric_history(run.info.run_id, key)]
    return Counter((metric.key, metric.step, metric.value) for metric in history)


THREE_STEPS = Counter(
    {
        (key, step, value): 1
        for step in (1, 2, 3)
        for key, value in (("reward/mean", step / 10), ("policy/entropy", 2.0))
    }
)


def policy_folder(run: Run) -> Path:
    return round_folder(run.folder, 1) / "policy"


def policy_stage(run: Run, *, policy_id: str = "p1", **options: Any) -> None:
    """A policy stage of round 1 with a data set and a model for the registry."""
    model = ModelFact(name=run.policy_model, folder="model", alias="challenger", tags={"regroup.policy_id": policy_id})
    run_stage(
        run,
        LetterSpec(config=run.config, round=1),
        policy_folder(run),
        partial(write_letters, **options),
        datasets=[DatasetFact(name="train", digest="d" * 64, context="training", source="train.jsonl", num_rows=5)],
        outcome=lambda: Outcome(model=model, tags={"regroup.policy_id": "p1"}),
    )


def close_round(run: Run, *, champion: int, gain: float = 0.25, ended_ms: int = 1_700_000_000_000) -> None:
    policies = [Policy(path="m", id=f"p{number}", round=number) for number in (0, 1)]
    state = RoundState(
        round=1, policy=policies[1], champion=policies[champion], initial_policy=policies[0], reward_models={}
    )
    challenger = None if champion == 1 else "round_001/policy"
    aliases = [
        AliasFact(name=run.policy_model, alias="champion", key="round_001/policy" if champion == 1 else "problems"),
        AliasFact(name=run.policy_model, alias="challenger", key=challenger),
    ]
    fact = RoundFile(round=1, state=state, ended_ms=ended_ms, metrics={"promotion/gain": gain}, aliases=aliases)
    facts.save(round_folder(run.folder, 1) / facts.ROUND_FILE, fact)
    run.tracking.send_missing()


def whole_run(run: Run) -> None:
    run.tracking.start()
    policy_stage(run)
    close_round(run, champion=1)
    run.tracking.finish("FINISHED")

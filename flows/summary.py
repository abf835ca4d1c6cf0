"""Makes summary.json, the results of a run, from the files of the run alone."""

import json
from pathlib import Path
from typing import Any

from configs.disk.files import write_json
from configs.paths import RUN_FILE, Place
from configs.records import Policy
from configs.schema.config import Config
from tasks.runs.cleaned import saved_policy
from tasks.runs.facts import load
from tasks.runs.history import last_champion
from tasks.runs.progress import rounds_wanted
from tasks.runs.rollbacks import ended_by_rollback
from tasks.runs.run_file import read_run
from tasks.runs.run_records import RoundRecords, RunRecords, read_run_records
from tasks.runs.times import run_time
from tasks.runs.workspace import run_folder
from tasks.showing.old_abilities import summarised
from tasks.tracking.outbox import TRACKING, RunTracking

Summary = dict[str, Any]
FILE = "summary.json"


def summarise(root: Path, name: str, *, status: str, mlflow: dict[str, str | None], flow_run_id: str | None) -> Summary:
    """The content of summary.json for the rounds of a run so far."""
    records = read_run_records(run_folder(root, name))
    return {
        "run": name,
        "status": status,
        "champion": champion_shown(root, records),
        "rollbacks": [str(back) for back in records.rollbacks],
        "parent_run": read_run(root, name).predecessor,
        "mlflow": mlflow,
        "prefect": {"flow_run_id": flow_run_id},
        "rounds": [_round(records, record) for record in records.rounds],
        "seconds": run_time(records.folder).model_dump(),
    }


def champion_shown(root: Path, records: RunRecords) -> Summary:
    """The champion of a run as summary.json names it; its path is relative to the workspace if it lies there."""
    champion = run_champion(records)
    return {"policy_id": champion.id, "round": champion.round, "path": Place(root).stored(champion.path)}


def _round(records: RunRecords, record: RoundRecords) -> Summary:
    objectives = [reward.name for reward in records.config.rewards]
    shares = {name: share for name in objectives if (share := record.advantage_share(name)) is not None}
    return {
        "round": record.index,
        "policy_id": record.policy_id,
        "promoted": record.decision is not None and record.decision.promoted,
        "reward_models": {
            name: report.model_dump(mode="json", include={"id", "accuracy", "accepted"})
            for name, report in record.reward_models.items()
        },
        "evaluation": {
            f"{split}/{name}": estimate.model_dump(mode="json")
            for split, report in record.reports.items()
            for name, estimate in report.values.items()
        },
        "advantage_share": shares,
        "seconds": record.seconds,
    } | summarised(records, record)


def old_abilities(root: Path, name: str, policy_ids: set[str]) -> Summary:
    """What a summary holds of the suites, for the rounds that measured one of these policies."""
    records = read_run_records(run_folder(root, name))
    measured = [record for record in records.rounds if record.policy_id in policy_ids]
    return {"rounds": [{"round": record.index} | summarised(records, record) for record in measured]}


def run_champion(records: RunRecords) -> Policy:
    """The last promoted policy of a run, or the one that a rollback went back to; else the policy that it started from."""
    if ended_by_rollback(records.folder) and (champion := last_champion(records.folder)) is not None:
        return champion
    record = records.champion
    if record is None or record.index == 0:
        assert records.given_policy is not None, "a run's policy is prepared before its first round"
        return records.given_policy
    return saved_policy(record.folder / "policy" / "model", round_index=record.index)


def write_summary(root: Path, summary: Summary) -> Path:
    path = run_folder(root, summary["run"]) / FILE
    write_json(path, summary)
    return path


def read_summary(root: Path, name: str) -> Summary | None:
    """The summary that was last written, or None if the run has never ended."""
    path = run_folder(root, name) / FILE
    if not path.exists():
        return None
    summary: Summary = json.loads(path.read_bytes())
    return summary


def finished_summary(root: Path, name: str, rounds: int) -> Summary | None:
    """The summary if `rounds` and all rounds that watch rules added are done by their manifests, else None."""
    summary = read_summary(root, name)
    wanted = rounds_wanted(run_folder(root, name), rounds)
    if summary is None or summary["status"] != "done" or len(summary["rounds"]) != wanted + 1:
        return None
    return summary if read_run_records(run_folder(root, name)).is_finished else None


def was_told(run_dir: Path) -> bool:
    """Whether the tracking server knows that the run is finished; if not, resuming the run sends what is missing."""
    record = load(run_dir / TRACKING, RunTracking)
    return record is not None and record.status == "FINISHED" and record.complete


def is_finished(root: Path, config: Config) -> bool:
    """Whether all rounds of the run that `config` names are done, and MLflow has them; also False if it has not begun."""
    folder = run_folder(root, config.run_name)
    if not (folder / RUN_FILE).exists() or finished_summary(root, config.run_name, config.rounds) is None:
        return False
    return was_told(folder)

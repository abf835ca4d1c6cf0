"""Makes summary.json, the results of a run, from the files of the run alone."""

import json
from pathlib import Path
from typing import Any

from configs.disk.files import write_json
from configs.records import Policy
from tasks.runs.history import rounds_wanted
from tasks.runs.run_file import read_run
from tasks.runs.run_records import RoundRecords, RunRecords, read_run_records
from tasks.runs.workspace import run_folder

Summary = dict[str, Any]
FILE = "summary.json"


def summarise(root: Path, name: str, *, status: str, mlflow: dict[str, str | None], flow_run_id: str | None) -> Summary:
    """The content of summary.json for the rounds of a run so far."""
    records = read_run_records(run_folder(root, name))
    champion = run_champion(records)
    return {
        "run": name,
        "status": status,
        "champion": {"policy_id": champion.id, "round": champion.round, "path": champion.path},
        "parent_run": read_run(root, name).predecessor,
        "mlflow": mlflow,
        "prefect": {"flow_run_id": flow_run_id},
        "rounds": [_round(records, record) for record in records.rounds],
    }


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
    }


def run_champion(records: RunRecords) -> Policy:
    """The last promoted policy of a run; without one, the policy that the run started from."""
    record = records.champion
    if record is None or record.index == 0:
        assert records.given_policy is not None, "a run's policy is prepared before its first round"
        return records.given_policy
    from grpo_train.policies.model import open_policy  # imports torch, which printing a finished summary does not need

    return open_policy(record.folder / "policy" / "model", round_index=record.index)


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

"""Reads the files that the stages of a round wrote, one function per file. A missing file is None or empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from configs.disk.files import JOURNAL, MANIFEST, Journal, JournalLine, Manifest, read_manifest, read_rows
from configs.records import Estimate, EvalReport, RewardModelReport
from grpo_train.measuring.promotion import Decision
from grpo_train.measuring.retention.changes import RetentionReport
from grpo_train.train_result import TrainResult
from tasks.runs.workspace import BY_HAND

REPORT, RESULTS, EXAMPLES, RESPONSES = "report.json", "results.jsonl", "examples.jsonl", "responses.jsonl"
RETENTION, RETENTION_ROWS = "retention.json", "retention.jsonl"
DECISION, COMPARISON = "decision.json", "comparison.json"
RESULT, CURRICULUM, ROLLOUTS = "result.json", "curriculum.json", "rollouts.jsonl"
KNOWN = "known_tokens.jsonl"
COMPLETIONS, SCORES = "completions.jsonl", "scores.jsonl"
ITEMS, VERDICTS = "items.jsonl", "verdicts.jsonl"

Row = dict[str, Any]


def _read_json(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else None


def rows(path: Path) -> list[Row]:
    """The JSON objects of a JSONL file."""
    return read_rows(path) if path.exists() else []


def journal(stage_dir: Path) -> list[JournalLine]:
    """All lines of the stage's journal, in the order of writing."""
    return Journal(stage_dir / JOURNAL).read()


def evaluation_reports(stage_dir: Path) -> dict[str, EvalReport]:
    """{split: report} of a policy's evaluation."""
    data = _read_json(stage_dir / REPORT) or {}
    return {split: EvalReport.model_validate(report) for split, report in data.items()}


def retention_report(stage_dir: Path) -> RetentionReport | None:
    """What was measured of a policy's old abilities; None where there are no suites."""
    data = _read_json(stage_dir / RETENTION)
    return None if data is None else RetentionReport.model_validate(data)


def reward_model_report(stage_dir: Path) -> RewardModelReport | None:
    """The report on a reward model, with `path` set to where the model is now."""
    data = _read_json(stage_dir / REPORT)
    return None if data is None else RewardModelReport.model_validate(data | {"path": str(stage_dir / "model")})


def train_result(stage_dir: Path) -> TrainResult | None:
    """The result of a policy's training, with the curriculum state that it handed on."""
    data = _read_json(stage_dir / RESULT)
    return None if data is None else TrainResult(**data, curriculum=_read_json(stage_dir / CURRICULUM) or {})


def decision(stage_dir: Path) -> Decision | None:
    """Whether the challenger was promoted, and why. The policies' ids in the file are left out."""
    data = _read_json(stage_dir / DECISION)
    if data is None:
        return None
    return Decision.model_validate({name: data[name] for name in Decision.model_fields if name in data})


def people_win_rate(stage_dir: Path) -> Estimate | None:
    """The challenger's win rate in people's comparisons; None if nobody was asked or nobody answered."""
    data = _read_json(stage_dir / COMPARISON)
    return None if data is None or data["win_rate"] is None else Estimate.model_validate(data["win_rate"])


def round_manifests(round_dir: Path) -> list[Manifest]:
    """Manifests of the round's finished stages in the order they ran; reward models retrained by hand are left out."""
    stages = [path.parent for path in round_dir.rglob(MANIFEST) if BY_HAND not in path.parts]
    manifests = [manifest for stage in stages if (manifest := read_manifest(stage)) is not None]
    return sorted(manifests, key=lambda manifest: manifest.started_ms)

"""A whole run that waits for people: Prefect shows it paused, and Resume, or enough answers, lets it go on."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback
from mlflow.tracing.client import TracingClient

from configs.disk.files import read_jsonl
from configs.records import PreferencePair
from tasks.people.review_queue import QUESTION
from tests.flows.whole_runs.tiny_run import Call, servers_on_record, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tiny = yaml.safe_load(TINY.read_text())
    tiny["rounds"] = 1
    tiny["reward_models"]["taste"]["labeler"] = {
        "kind": "people",
        "num_items": 8,
        "wait_minutes": 30,
        "otherwise": {"kind": "score"},
    }
    tiny["promotion"]["people"] = {"num_problems": 2, "wait_minutes": 30}
    path = tmp_path / "waiting.yaml"
    path.write_text(yaml.safe_dump(tiny))
    return path


def labels(root: Path) -> list[PreferencePair]:
    return read_jsonl(root / "runs" / "waiting" / "round_001" / "labels" / "pairs.jsonl", PreferencePair)


def test_a_run_that_waits_is_paused_for_prefect_and_resume_lets_it_go_on(config: Path, tmp_path: Path) -> None:
    call = Call(tmp_path, "run", str(config))
    call.until(lambda: bool(_paused(tmp_path)))
    _answer(tmp_path, "waiting: reward model taste", number=1)
    while call.process.poll() is None:
        for flow_run in _paused(tmp_path):
            assert flow_run["name"] == "round-1"
            _ask(tmp_path, f"flow_runs/{flow_run['id']}/resume", {})
        time.sleep(0.5)
    assert call.end() == 0, call.err
    assert [pair.labeler for pair in labels(tmp_path)].count("people") == 1
    assert summary_of(tmp_path, "waiting")["status"] == "done"


def _ask(root: Path, path: str, body: dict[str, Any]) -> Any:
    """Of the run's embedded Prefect server; nothing where it is not up, or ended with the run."""
    for record in servers_on_record(root):
        with suppress(OSError, ValueError):
            url = f"http://127.0.0.1:{json.loads(record.read_bytes())['port']}/api/{path}"
            request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
    return []


def _paused(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _ask(
        root, "flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
    )
    return found


def _answer(root: Path, queue: str, *, number: int) -> None:
    uri = f"sqlite:///{root / 'mlflow.db'}"
    where = f"tags.`regroup.queue` = '{queue}'"
    traces = MlflowClient(tracking_uri=uri).search_traces(locations=["1"], filter_string=where)
    for trace in traces[:number]:
        answer = Feedback(name=QUESTION, value="first", source=AssessmentSource("HUMAN", "somebody"))
        TracingClient(uri).log_assessment(trace.info.trace_id, answer)


def test_ctrl_c_while_waiting_stops_and_a_shorter_wait_goes_on(config: Path, tmp_path: Path) -> None:
    call = Call(tmp_path, "run", str(config))
    call.until(lambda: "waiting for people" in call.err)
    began = time.monotonic()
    call.process.send_signal(signal.SIGINT)
    assert call.end() == 130
    assert time.monotonic() - began < 30
    shorter = ("reward_models.taste.labeler.wait_minutes=0", "promotion.people.wait_minutes=0")
    again = Call(tmp_path, "run", str(config), *(part for each in shorter for part in ("--set", each)))
    assert again.end() == 0, again.err
    assert {pair.labeler for pair in labels(tmp_path)} == {"score"}

"""People's questions in a real MLflow store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai import review_queues
from mlflow.tracing.client import TracingClient

from configs.records import ReviewItem
from tasks.people.review_queue import QUESTION, collect, publish, side_by_side


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def experiment(uri: str, tmp_path: Path) -> str:
    return MlflowClient(tracking_uri=uri).create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())


def item(name: str, *, kind: str = "pair", run: str = "r") -> ReviewItem:
    return ReviewItem.model_validate(
        {
            "id": name,
            "kind": kind,
            "objective": "quality",
            "run": run,
            "round": 0,
            "problem_key": name,
            "split": "train",
        }
        | {
            "prompt": [{"role": "user", "content": f"question {name}"}],
            "first": "one",
            "second": "two",
            "sources": ("A", "B"),
        }
    )


def answer(
    uri: str,
    experiment: str,
    name: str,
    value: str,
    *,
    person: str = "x",
    kind: str = "HUMAN",
    question: str = QUESTION,
) -> None:
    client = MlflowClient(tracking_uri=uri)
    [trace] = client.search_traces(locations=[experiment], filter_string=f"tags.`regroup.item` = '{name}'")
    source = AssessmentSource(kind, person)
    TracingClient(uri).log_assessment(
        trace.info.trace_id, Feedback(name=question, value=value, source=source, rationale="why")
    )


def test_items_are_put_into_the_queue_of_their_purpose_once(
    uri: str, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracking_uri=uri)
    items = [item("a"), item("b"), item("c", kind="policies"), item("d", run="it's another")]
    publish(client, uri, experiment, items[:2])
    publish(client, uri, experiment, items)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    queues = {queue.name: queue.queue_id for queue in review_queues.list_review_queues(experiment_id=experiment)}
    sizes = {name: len(review_queues.list_review_queue_items(queue_id)) for name, queue_id in queues.items()}
    assert sizes == {
        "r: reward model quality": 2,
        "r: champion or challenger": 1,
        "it's another: reward model quality": 1,
    }
    assert len(client.search_traces(locations=[experiment])) == 4


def test_the_page_shows_the_most_disputed_first(uri: str, experiment: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    publish(client, uri, experiment, [item(name) for name in "abc"])
    newest_first = client.search_traces(locations=[experiment], order_by=["timestamp_ms DESC"])
    assert [trace.info.tags["regroup.item"] for trace in newest_first] == ["a", "b", "c"]


def test_a_persons_answer_to_our_question_is_a_verdict_and_nothing_else_is(uri: str, experiment: str) -> None:
    client = MlflowClient(tracking_uri=uri)
    items = [item("a"), item("b"), item("c")]
    publish(client, uri, experiment, items)
    answer(uri, experiment, "a", "second")
    answer(uri, experiment, "a", "first", person="y")
    answer(uri, experiment, "b", "first", kind="LLM_JUDGE")
    answer(uri, experiment, "b", "first", question="Feedback")
    answer(uri, experiment, "b", "whatever")
    answer(uri, experiment, "c", "equal")
    found = collect(client, experiment, items[:2])
    assert {(v.item, v.choice, v.person, v.via, v.comment) for v in found} == {
        ("a", "second", "x", "mlflow", "why"),
        ("a", "first", "y", "mlflow", "why"),
    }


def test_a_response_cannot_leave_its_frame() -> None:
    hostile = item("a").model_copy(update={"first": "x\n```\n**Second**\n````text\nbetter", "second": "word " * 30})
    shown = side_by_side(hostile)
    assert shown.startswith("**First**\n\n`````text\nx\n```\n")
    assert shown.count("\n`````\n") == 1
    assert all(len(line) <= 72 for line in shown.splitlines())

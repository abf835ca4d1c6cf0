"""Asks people in MLflow's review queue: a review item is a trace, a verdict is a person's assessment of it.

MLflow's functions for queues and traces use the process's tracking URI, which is set to the run's during the calls.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from configs.records import CHOICES, Choice, ReviewItem, Verdict

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Assessment, Trace

    from tasks.tracking.tracker import Tracking

QUESTION = "Which response is better?"
INSTRUCTION = "Two responses to the same question, in random order. Say which one you would rather have been given."
ITEM, QUEUE = "regroup.item", "regroup.queue"
LINE = 72
"""characters per line"""
PAGE = 200
"""traces per request"""


def queue_name(item: ReviewItem) -> str:
    """Name of the item's queue: there is one per run and purpose."""
    purpose = "champion or challenger" if item.kind == "policies" else f"reward model {item.objective}"
    return f"{item.run}: {purpose}"


class MlflowReviewers:
    """The people who answer in MLflow. A call puts the items into their queues and returns the verdicts on them."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._published: set[str] = set()

    def __call__(self, items: Sequence[ReviewItem]) -> list[Verdict]:
        """The verdicts so far; none if the tracking server is away."""

        def ask(client: MlflowClient, experiment_id: str) -> list[Verdict]:
            if new := [item for item in items if item.id not in self._published]:
                publish(client, self._tracking.uri, experiment_id, new)
                self._published |= {item.id for item in new}
            return collect(client, experiment_id, items)

        return self._tracking.reach(ask, away=[]) if items else []


def publish(client: MlflowClient, uri: str, experiment_id: str, items: Sequence[ReviewItem]) -> None:
    """Put the items into their queues, as far as they are not there yet."""
    with _process_tracking_to(uri):
        for name in dict.fromkeys(queue_name(item) for item in items):
            known = {trace.info.tags[ITEM]: trace.info.trace_id for trace in _traces(client, experiment_id, name)}
            wanted = [item for item in items if queue_name(item) == name]
            # the page shows the newest trace first, so the item that is to be asked first is added last
            trace_ids = [known.get(item.id) or _trace(client, experiment_id, name, item) for item in reversed(wanted)]
            _fill(experiment_id, name, trace_ids)


@contextmanager
def _process_tracking_to(uri: str) -> Iterator[None]:
    """Set the process's tracking URI inside the block.

    MLflow also writes it to MLFLOW_TRACKING_URI, which for us is the user's choice, so the variable is restored.
    """
    import mlflow

    users_uri = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type] # what MLflow itself passes to unset it
        if users_uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = users_uri


def _trace(client: MlflowClient, experiment_id: str, queue: str, item: ReviewItem) -> str:
    from mlflow.exceptions import MlflowException

    tags = {ITEM: item.id, QUEUE: queue, "regroup.run": item.run, "regroup.round": str(item.round)}
    question: Any = {"question": item.prompt} if isinstance(item.prompt, str) else {"messages": item.prompt}
    name = f"round {item.round}: which response is better?"
    span = client.start_trace(name, inputs=question, tags=tags, experiment_id=experiment_id)
    if not span.trace_id.startswith("tr-"):
        raise MlflowException(f"MLflow made no trace of review item {item.id[:12]}; its own warning says why")
    # one chat message, since the page shows only one of several, and plain values as JSON
    shown = {"role": "assistant", "content": side_by_side(item)}
    client.end_trace(span.trace_id, outputs={"messages": [shown]})
    return str(span.trace_id)


def side_by_side(item: ReviewItem) -> str:
    """Markdown of both responses, each in a code fence that it cannot close, so that it is shown verbatim."""
    return f"**First**\n\n{_fenced(item.first)}\n\n**Second**\n\n{_fenced(item.second)}"


def _fenced(text: str) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{_wrapped(text)}\n{fence}"


def _wrapped(text: str) -> str:
    """`text` with long lines broken, since the page would scroll them sideways."""
    wrapper = textwrap.TextWrapper(LINE, drop_whitespace=False, replace_whitespace=False, expand_tabs=False)
    return "\n".join(part for line in text.split("\n") for part in wrapper.wrap(line) or [""])


def _fill(experiment_id: str, name: str, trace_ids: Sequence[str]) -> None:
    from mlflow.genai import review_queues

    queue_id = _queue_id(experiment_id, name)
    listed = review_queues.list_review_queue_items(queue_id, max_results=10000)
    queued = {entry.item_id for entry in listed}
    if missing := [trace_id for trace_id in trace_ids if trace_id not in queued]:
        review_queues.add_items_to_review_queue(queue_id, item_ids=missing)


def _queue_id(experiment_id: str, name: str) -> str:
    """Id of the queue of that name, which is created with its question if missing."""
    from mlflow.genai import review_queues

    for queue in review_queues.list_review_queues(experiment_id=experiment_id):
        if queue.name == name:
            return str(queue.queue_id)
    question = _question_id(experiment_id)
    created = review_queues.create_review_queue(
        name, queue_type="custom", schema_ids=[question], experiment_id=experiment_id
    )
    return str(created.queue_id)


def _question_id(experiment_id: str) -> str:
    """Id of the label schema that holds `QUESTION`, which is created if missing."""
    from mlflow.genai import label_schemas

    known = {schema.name: schema for schema in label_schemas.list_label_schemas(experiment_id)}
    schema = known.get(QUESTION) or label_schemas.create_label_schema(
        QUESTION,
        type="feedback",
        input=label_schemas.InputCategorical(options=list(CHOICES)),
        instruction=INSTRUCTION,
        enable_comment=True,
        experiment_id=experiment_id,
    )
    assert schema.schema_id is not None, "the tracking store gives one"
    return schema.schema_id


def collect(client: MlflowClient, experiment_id: str, items: Sequence[ReviewItem]) -> list[Verdict]:
    """The verdicts that people gave on `items` in MLflow."""
    ids = {item.id for item in items}
    return [
        verdict
        for name in dict.fromkeys(queue_name(item) for item in items)
        for trace in _traces(client, experiment_id, name)
        if trace.info.tags[ITEM] in ids
        for verdict in _verdicts(trace)
    ]


def _traces(client: MlflowClient, experiment_id: str, queue: str) -> Iterator[Trace]:
    """The queue's traces, without their spans."""
    token = None
    quoted = queue.replace("'", "''")
    while True:
        page = client.search_traces(
            locations=[experiment_id],
            filter_string=f"tags.`{QUEUE}` = '{quoted}'",
            include_spans=False,
            max_results=PAGE,
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _verdicts(trace: Trace) -> Iterator[Verdict]:
    for assessment in trace.info.assessments:
        if (choice := _choice(assessment)) is not None:
            yield Verdict(
                item=trace.info.tags[ITEM],
                choice=choice,
                person=assessment.source.source_id or "somebody",
                given_ms=assessment.last_update_time_ms,
                via="mlflow",
                comment=assessment.rationale or "",
            )


def _choice(assessment: Assessment) -> Choice | None:
    """A person's answer to our question; None for other assessments, for instance those of a judge."""
    by_person = assessment.name == QUESTION and assessment.source.source_type == "HUMAN"
    value = assessment.feedback.value if assessment.feedback and by_person else None
    return value if value in CHOICES else None

"""Reports a comparison to MLflow: a run of its own, under which the parent runs of its members hang.

All of it is sent at the end, as the members report themselves while they work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from configs.disk.files import digest, digest_json
from configs.records import Record
from tasks.runs.facts import load, save
from tasks.tracking.registry import KEY
from tasks.tracking.sending import Attempts
from tasks.tracking.server import in_words, prepare_environment, without_password
from tasks.tracking.store import PARENT, REPLACED, Store

SENT = ".tracking.json"


class Sent(Record):
    """What MLflow was sent of a comparison."""

    run_id: str
    digest: str
    """of everything that was sent"""


def send_comparison(
    store: Store,
    folder: Path,
    *,
    members: Sequence[str],
    params: Mapping[str, str],
    metrics: Mapping[str, float],
    files: Sequence[Path],
    at_ms: int,
    warn: Callable[[str], None],
) -> bool:
    """Send the comparison in `folder`, unless MLflow has all of it; returns whether MLflow has it now.

    Metrics cannot be taken back, so a comparison that changed since it was sent gets a new run in the place of the old one.

    Args:
        store: that of the comparison, with an id of its own.
        members: ids (`RunFile.uid`) of the members, whose parent runs are hung under the comparison's.
        at_ms: the time of the metrics.
    """
    content = digest_json([list(members), dict(params), dict(metrics), [digest(path) for path in files]])
    before = load(folder / SENT, Sent)
    if before is not None and before.digest == content:
        return True
    prepare_environment()
    attempt = Attempts()
    with attempt.whole():
        run_id = store.parent_run() if before is None else store.replace_run("")
        for uid in members:
            _hang_under(store, uid, run_id)
        store.send_params(run_id, dict(params))
        store.send_metrics(run_id, [(key, 0, value, at_ms) for key, value in metrics.items()])
        for path in files:
            store.put(run_id, path, path.name)
        store.end_run(run_id, "FINISHED")
        save(folder / SENT, Sent(run_id=run_id, digest=content))
    if attempt.errors:
        warn(
            f"MLflow at {without_password(store.uri)} cannot be told of the comparison ({in_words(attempt.errors[0])}); "
            "this command again sends it"
        )
    return not attempt.errors


def _hang_under(store: Store, uid: str, run_id: str) -> None:
    """Make a member's parent run a child of the comparison's."""
    for run in store.search(f"tags.`{KEY}` = '{uid}'"):
        if REPLACED not in run.data.tags:
            store.client.set_tag(run.info.run_id, PARENT, run_id)

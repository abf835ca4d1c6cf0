"""Brings to its end in Prefect what earlier processes of the workspace left there."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Timer
from typing import Any

from flows.telling.leftovers import Leftover, age_s, forget, keep, of_ended_processes
from flows.telling.messages import FINAL, Away, Refused
from flows.telling.messenger import Messenger

NOT_FOUND = 404
FORGOTTEN_AFTER_S = 90 * 24 * 3600
"""a server that does not know the flow run by then is another one, or the flow run was deleted"""
PAUSE_S = 2.0
"""between two tries while the server is away"""
HANDED_OUT_S = 600
"""a scheduled flow run has begun, or found its workspace held, long before that"""
UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
ENDED = (
    "its process ended without a word, as after SIGKILL or a loss of power; the next run in its workspace found it so"
)

logger = logging.getLogger("regroup")


def settle(root: Path, ended: Event, flow_run: str | None = None) -> None:
    """Bring what is left of the workspace to its end, once the server answers; gives up when `ended` is set. The caller holds
    the workspace lock.

    `flow_run` is the caller's own. If it is a scheduled one, others of its schedule are ended too that a killed `regroup serve`
    had just handed out.
    """
    with Messenger() as messenger:
        while not _is_settled(messenger, root, flow_run) and not ended.wait(PAUSE_S):
            pass


def settle_within(root: Path, patience_s: float) -> None:
    """Settle in this thread; give up after `patience_s` of a server that answers and cannot take it, as one that has just started."""
    ended = Event()
    timer = Timer(patience_s, ended.set)
    timer.daemon = True
    timer.start()
    settle(root, ended)
    timer.cancel()


def _is_settled(messenger: Messenger, root: Path, flow_run: str | None) -> bool:
    """Whether nothing is left to do; if not, the server is away."""
    try:
        for leftover in of_ended_processes(root):
            _settle(messenger, root, leftover)
        for found in _never_begun(messenger, flow_run):
            crash(messenger, found)
    except Away as error:
        logger.debug("Prefect's server is away, and what is left of earlier runs stays as it is: %s", error)
        return False
    except Refused as error:
        logger.debug("Prefect refused what would end earlier runs: %s", error)
    return True


def _settle(messenger: Messenger, root: Path, leftover: Leftover) -> None:
    try:
        messenger.ask("GET", f"/flow_runs/{leftover.flow_run}")
    except Refused as error:
        if error.status == NOT_FOUND and age_s(root, leftover) > FORGOTTEN_AFTER_S:
            forget(root, leftover)
        return
    for i, message in enumerate(leftover.messages):
        try:
            messenger.deliver(message)
        except Refused as error:
            logger.debug("Prefect refused a message: %s", error)
        except Away:
            keep(
                root,
                leftover.model_copy(
                    update={"messages": [left.with_ids(messenger.real_ids) for left in leftover.messages[i:]]}
                ),
            )
            raise
    crash(messenger, leftover.flow_run)
    forget(root, leftover)


def _never_begun(messenger: Messenger, flow_run: str | None) -> list[str]:
    """Flow runs of the same schedule, due long ago, that wait or work: since their workspace is ours, none of them does."""
    deployment = messenger.ask("GET", f"/flow_runs/{flow_run}")["deployment_id"] if flow_run else None
    if deployment is None:
        return []
    wanted = {
        "deployment_id": {"any_": [deployment]},
        "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
        "expected_start_time": {"before_": (datetime.now(UTC) - timedelta(seconds=HANDED_OUT_S)).isoformat()},
    }
    found = _ask(messenger, "/flow_runs/filter", {"flow_runs": wanted})
    return [run["id"] for run in found if run["id"] != flow_run]


def crash(messenger: Messenger, flow_run: str) -> None:
    """Mark a flow run, its subflows and their tasks as crashed where they have not ended."""
    family = {"operator": "or_", "id": {"any_": [flow_run]}, "parent_flow_run_id": {"any_": [flow_run]}}
    flow_runs = _ask(messenger, "/flow_runs/filter", {"flow_runs": family, "sort": "START_TIME_DESC"})
    of_these = {"id": {"any_": [found["id"] for found in flow_runs]}}
    unfinished = {"state": {"type": {"any_": UNFINISHED}}}
    tasks = _ask(messenger, "/task_runs/filter", {"flow_runs": of_these, "task_runs": unfinished})
    subflows_first = sorted(flow_runs, key=lambda found: found["id"] == flow_run)
    paths = [f"/task_runs/{found['id']}" for found in tasks]
    paths += [f"/flow_runs/{found['id']}" for found in subflows_first if found["state_type"] not in FINAL]
    state = {"type": "CRASHED", "name": "Crashed", "message": ENDED}
    for path in paths:
        try:
            _ask(messenger, f"{path}/set_state", {"state": state, "force": True})
        except Refused as error:
            logger.debug("Prefect refused a state: %s", error)


def _ask(messenger: Messenger, path: str, body: Any) -> Any:
    return messenger.ask("POST", path, json.dumps(body))

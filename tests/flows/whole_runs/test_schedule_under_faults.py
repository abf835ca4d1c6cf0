"""A schedule that is left alone while everything around it fails in turn: nothing is lost, and nothing happens twice.

`tiny.yaml` is served each minute for ten minutes, on a Prefect server, an MLflow server, an S3 store, a receiver of alerts and a
small disk of its own. An undisturbed chain of the same configuration runs beside it and says what should come out.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tasks.tracking.outbox import lacking
from tests.flows.whole_runs.services import (
    S3_KEYS,
    Service,
    Store,
    filled,
    mlflow_service,
    prefect_service,
    receiver,
    small_disk,
    wait_until,
)
from tests.flows.whole_runs.tiny_run import Call, environment, summary_of
from tests.paths import TINY

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

MINUTE_S = 60
AWAY_S = 30
RUNS = 8
"""of the undisturbed chain; the disturbed one comes to about as many in ten minutes"""
CRON = "* * * * *"
ALERTS = ["challenger.promoted", "run.finished"]
CHAIN = """
import sys
from pathlib import Path
from configs.reader import load_config
from flows.prefect_server import connected
with connected(Path.cwd()):
    from flows.schedule import align_next
    for _ in range(int(sys.argv[2])):
        align_next(load_config(Path(sys.argv[1]), []))
"""
"""works through so many runs of the schedule, one after the other"""


def chain_runs(workspace: Path) -> list[str]:
    """The names of the workspace's runs, oldest first."""
    return sorted(path.parent.name for path in (workspace / "runs").glob("*/run.json"))


def finished(workspace: Path) -> list[str]:
    return [name for name in chain_runs(workspace) if (workspace / "runs" / name / "summary.json").exists()]


class World:
    """A served workspace and what stands around it."""

    def __init__(self, folder: Path, workspace: Path, store: Store, hook: str) -> None:
        self.workspace, self.store = workspace, store
        self.tracking, self.prefect_db = folder / "tracking.db", folder / "prefect" / "prefect.db"
        self.prefect, self.mlflow = prefect_service(folder), mlflow_service(folder, store.url)
        self.config = folder / "tiny.yaml"
        alerts = {"alerts": [{"on": ALERTS, "webhook_env": "HOOK"}]}
        self.config.write_text(yaml.safe_dump(yaml.safe_load(TINY.read_text()) | alerts))
        self.env = S3_KEYS | {
            "MLFLOW_S3_ENDPOINT_URL": store.url,
            "MLFLOW_TRACKING_URI": self.mlflow.address,
            "PREFECT_API_URL": self.prefect.address,
            "PREFECT_HOME": str(folder / "client"),
            "HOOK": hook,
        }
        self.serving: Call | None = None

    def start(self) -> None:
        self.prefect.start()
        self.mlflow.start()
        self.serve()

    def end(self) -> None:
        for service in (self.prefect, self.mlflow):
            service.kill()
        self.store.take_away()

    def serve(self) -> None:
        self.serving = Call(self.workspace, "serve", str(self.config), "--cron", CRON, **self.env)

    def kill_serve(self) -> None:
        assert self.serving is not None
        self.serving.kill()

    def kill_run(self) -> None:
        """SIGKILL to the scheduled run and what it started, as soon as it trains a policy."""
        assert self.serving is not None
        wait_until(self._trains, 120, "a policy's training")
        for child in psutil.Process(self.serving.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()

    def _trains(self) -> bool:
        stages = self.workspace.glob("runs/*/round_*/policy")
        return any(not (folder / "manifest.json").exists() for folder in stages)

    def away(self, service: Service) -> None:
        service.kill()
        time.sleep(AWAY_S)
        service.start()

    def store_away(self) -> None:
        self.store.take_away()
        time.sleep(AWAY_S)
        self.store.give_back()

    def disk_full(self) -> None:
        with filled(self.workspace):
            time.sleep(AWAY_S / 2)

    def all_at_once(self) -> None:
        self.kill_run()
        self.kill_serve()
        self.mlflow.kill()
        self.away(self.prefect)
        self.mlflow.start()
        self.serve()

    def serve_anew(self) -> None:
        self.kill_serve()
        time.sleep(5)
        self.serve()

    def work_through(self, faults: list[Callable[[], None]]) -> None:
        """A fault at the beginning of each minute, then a minute without any."""
        began = time.monotonic()
        for minute, fault in enumerate(faults, 1):
            time.sleep(max(0.0, began + minute * MINUTE_S - time.monotonic()))
            fault()
        wait_until(lambda: time.monotonic() > began + 10 * MINUTE_S, 11 * MINUTE_S, "the end of ten minutes")

    def stop(self) -> None:
        """End the schedule; what it was working on is then worked to its end by the same flow, and a last run follows."""
        assert self.serving is not None
        self.serving.process.terminate()
        self.serving.end(300)
        log = self.workspace / "chain.log"
        assert start_chain(self.workspace, self.config, 2, self.env).wait(600) == 0, log.read_text()


def start_chain(workspace: Path, config: Path, runs: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that works through so many runs of the chain, as the schedule does."""
    with (workspace / "chain.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", CHAIN, str(config), str(runs)],
            cwd=workspace, env=environment() | env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


def sent_metrics(tracking: Path) -> dict[str, Counter[tuple[str, int, float]]]:
    """(key, step, value) of each MLflow run that is not deleted, by our key of it."""
    query = """select tags.value, metrics.key, step, metrics.value from metrics join tags using (run_uuid) join runs using (run_uuid)
               where tags.key = 'regroup.key' and lifecycle_stage = 'active' and is_nan = 0"""
    found: dict[str, Counter[tuple[str, int, float]]] = {}
    for key, name, step, value in rows(tracking, query):
        found.setdefault(key, Counter())[(name, step, value)] += 1
    return found


def written_metrics(run_dir: Path) -> dict[str, Counter[tuple[str, int, float]]]:
    """The same of the journals of a run."""
    uid = json.loads((run_dir / "run.json").read_bytes())["uid"]
    found = {}
    for journal in run_dir.glob("round_*/**/journal.jsonl"):
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        key = f"{uid}/{journal.parent.relative_to(run_dir)}"
        found[key] = Counter((line["key"], line["step"], line["value"]) for line in lines)
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in which a chain works beside the test, without faults."""
    workspace = tmp_path_factory.mktemp("undisturbed")
    process = start_chain(workspace, TINY, RUNS, {})
    try:
        yield workspace
    finally:
        process.terminate()  # so that it ends the Prefect server that it started
        process.wait(60)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, undisturbed: Path) -> Iterator[tuple[World, list[dict[str, Any]]]]:
    """What is left after ten minutes of faults, and what the receiver of alerts got."""
    folder = tmp_path_factory.mktemp("served")
    with small_disk(folder / "workspace", "2g") as is_small, receiver() as (hook, posted):
        world = World(folder, folder / "workspace", Store(), hook)
        try:
            world.start()
            faults = [
                world.kill_run,
                partial(world.away, world.mlflow),
                partial(world.away, world.prefect),
                world.serve_anew,
                world.store_away,
                world.disk_full if is_small else world.kill_run,
                world.all_at_once,
            ]
            world.work_through(faults)
            world.stop()
            yield world, posted
        finally:
            world.end()


def test_every_run_is_done_and_has_the_weights_of_an_undisturbed_chain(
    world: tuple[World, list[dict[str, Any]]], undisturbed: Path
) -> None:
    workspace = world[0].workspace
    names = chain_runs(workspace)
    assert len(names) >= 3
    assert [summary_of(workspace, name)["status"] for name in names] == ["done"] * len(names)
    wait_until(lambda: len(finished(undisturbed)) == RUNS, 300, "the undisturbed chain")
    assert names[:RUNS] == finished(undisturbed)[: len(names)]
    for name in names[:RUNS]:
        here, there = (summary_of(place, name)["rounds"] for place in (workspace, undisturbed))
        for key in ("policy_id", "reward_models", "promoted", "evaluation"):
            assert [row[key] for row in here] == [row[key] for row in there], (name, key)


def test_mlflow_has_every_metric_once_and_every_file(world: tuple[World, list[dict[str, Any]]]) -> None:
    served = world[0]
    sent, files = sent_metrics(served.tracking), served.store.files()
    for name in chain_runs(served.workspace):
        run_dir = served.workspace / "runs" / name
        assert not lacking(run_dir)
        for key, metrics in written_metrics(run_dir).items():
            assert sent[key] == metrics, (name, key)
        uid = json.loads((run_dir / "run.json").read_bytes())["uid"]
        [(run_id,)] = rows(served.tracking, f"select run_uuid from tags where key = 'regroup.key' and value = '{uid}'")
        assert [file for file in files if file.endswith(f"{run_id}/artifacts/report.html")], name
    assert len([file for file in files if file.endswith("model.safetensors")]) >= 2 * len(chain_runs(served.workspace))


def test_nothing_is_running_any_more(world: tuple[World, list[dict[str, Any]]]) -> None:
    active = "lifecycle_stage = 'active' and status = 'RUNNING'"
    assert rows(world[0].tracking, f"select name from runs where {active}") == []
    for table in ("flow_run", "task_run"):
        unfinished = f"select name, state_name from {table} where state_type = 'RUNNING'"
        assert rows(world[0].prefect_db, unfinished) == []


def test_each_alert_was_sent_once(world: tuple[World, list[dict[str, Any]]]) -> None:
    served, posted = world
    told = Counter((alert["event"], alert["run"], alert["round"]) for alert in posted)
    names = chain_runs(served.workspace)
    finishes = {("regroup.run.finished", name, None) for name in names}
    promotions = {("regroup.challenger.promoted", name, round_index) for name in names for round_index in (1, 2)}
    assert told == dict.fromkeys(finishes | promotions, 1)

"""Whatever the store of files does, training goes on, metrics arrive, and files are sent when it works again."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import s3_artifact_repo
from moto.server import ThreadedMotoServer

from tasks.running.run import Run
from tasks.tracking import server
from tasks.tracking.sending import Attempts
from tasks.tracking.store import Store
from tests.tasks.stage_kit import open_in
from tests.tasks.tracking.kit import THREE_STEPS, by_key, client, close_round, policy_stage, rows, whole_run

SPECIAL = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 store on the loopback address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield f"http://127.0.0.1:{server._server.server_port}"
    server.stop()


@pytest.fixture
def in_s3(root: Path, s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An experiment whose artifacts are in a bucket of the test's own, which is returned."""
    bucket = f"b{abs(hash(request.node.name))}"
    forget_credentials()
    for name, value in SPECIAL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3)
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket=bucket)
    client(root).create_experiment("regroup", artifact_location=f"s3://{bucket}/runs")
    return bucket


def forget_credentials() -> None:
    """As in a new process."""
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    boto3.DEFAULT_SESSION = None


def names_in(bucket: str, s3: str) -> set[str]:
    found = boto3.client("s3", endpoint_url=s3).list_objects_v2(Bucket=bucket).get("Contents", [])
    return {item["Key"].split("/artifacts/", 1)[1] for item in found}


STAGE_FILES = {"journal.jsonl", "rollouts.jsonl", "result.json", "model/weights.safetensors", "manifest.json"}
TABLES = {f"completions/{step:06d}.json" for step in (1, 2, 3)}


def work(root: Path, warnings: list[str]) -> Run:
    run = open_in(root, warnings=warnings)
    run.tracking._clock = time.monotonic
    whole_run(run)
    return run


def assert_told_without_files(root: Path) -> None:
    tree = by_key(root)
    assert rows(root, tree["round_001/policy"]) == THREE_STEPS
    assert {run.info.status for run in tree.values()} == {"FINISHED"}


def assert_sent_later(root: Path, bucket: str, s3: str) -> None:
    forget_credentials()
    run = open_in(root, warnings=[])
    run.tracking.start()
    run.tracking.finish("FINISHED")
    assert run.tracking.lack is None
    assert names_in(bucket, s3) == STAGE_FILES | TABLES | {"run.json"}
    assert client(root).get_registered_model("tiny-policy").aliases == {"champion": 1}


def test_files_go_to_s3(root: Path, in_s3: str, s3: str) -> None:
    warnings: list[str] = []
    assert work(root, warnings).tracking.lack is None
    assert warnings == []
    assert names_in(in_s3, s3) == STAGE_FILES | TABLES | {"run.json"}


def test_without_boto3_the_extra_is_named(root: Path, in_s3: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "boto3", None)
        run = work(root, warnings)
    assert len(warnings) == 1
    assert "pip install 'regroup[s3]'" in warnings[0]
    assert str(run.tracking.lack) == "8 files and 1 registered model of run tiny"
    assert_told_without_files(root)
    assert_sent_later(root, in_s3, s3)


def test_without_credentials(root: Path, in_s3: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        forget_credentials()
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(root / "none"))
        work(root, warnings)
    assert len(warnings) == 1
    assert "credentials" in warnings[0]
    assert_told_without_files(root)
    assert_sent_later(root, in_s3, s3)


def test_a_store_that_nobody_answers_at(root: Path, in_s3: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
        work(root, warnings)
    assert len(warnings) == 1
    assert_told_without_files(root)
    assert_sent_later(root, in_s3, s3)


def test_a_store_that_goes_away_in_the_middle(root: Path, in_s3: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    run = open_in(root, warnings=warnings)
    run.tracking.start()
    with monkeypatch.context() as patch:
        policy_stage(run, then=lambda: patch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9"))
        close_round(run, champion=1)
        run.tracking.finish("FINISHED")
    assert names_in(in_s3, s3) <= TABLES
    assert_told_without_files(root)
    assert_sent_later(root, in_s3, s3)


class _StrangeError(BaseException):
    """As a library might raise that knows nothing of ours."""


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        ClientError({"Error": {"Code": "NoSuchBucket", "Message": "gone"}}, "PutObject"),
        ImportError("google-cloud-storage"),
        MlflowException("proxy"),
        RuntimeError("a library's own"),
        TypeError("a library's bug"),
        TimeoutError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_one_file_that_fails_stops_no_other(root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real, failing = Store.put, [True]

    def put(store: Store, run_id: str, source: Path, name: str, *, copy: bool = False) -> None:
        if failing[0] and name == "journal.jsonl":
            raise error
        real(store, run_id, source, name, copy=copy)

    monkeypatch.setattr(Store, "put", put)
    warnings: list[str] = []
    run = work(root, warnings)
    assert str(run.tracking.lack) == "1 file and 1 registered model of run tiny"
    assert_told_without_files(root)
    assert not client(root).search_registered_models(), "a model is registered when its files are there"

    failing[0] = False
    again = work(root, [])
    assert again.tracking.lack is None
    assert client(root).get_registered_model("tiny-policy").aliases == {"champion": 1}


def test_the_large_files_come_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Store.put

    def put(store: Store, run_id: str, source: Path, name: str, *, copy: bool = False) -> None:
        if not copy:
            sizes.append(source.stat().st_size)
        real(store, run_id, source, name, copy=copy)

    monkeypatch.setattr(Store, "put", put)
    work(root, [])
    assert len(sizes) == len(STAGE_FILES)
    assert sizes == sorted(sizes)


class SlowStore:
    """A clock, and a store that takes `seconds` by it for each file."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds

    def clock(self) -> float:
        return self.now

    def put(self, *_: object, **__: object) -> None:
        self.now += self.seconds


def test_training_waits_a_minute_for_a_slow_store_and_the_end_waits_for_all(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowStore(25.0)
    monkeypatch.setattr(Store, "put", slow.put)
    run = open_in(root)
    run.tracking._clock = slow.clock
    run.tracking.start()
    policy_stage(run)
    assert slow.now == 25.0 + 75.0, "a table while the stage works, then a pause; three at its end, no other after 60 s"
    assert_metrics_and_states(root)
    run.tracking.send_missing()
    assert slow.now == 100.0, "the next pass is after a pause of 20 times 75 s"
    slow.now += 1500.0
    run.tracking.send_missing()
    assert slow.now == 1600.0 + 75.0
    run.tracking.finish("FINISHED")
    assert run.tracking.lack is None
    assert slow.now == 1675.0 + 50.0, "of three tables, five files of the stage and run.json"


def assert_metrics_and_states(root: Path) -> None:
    policy = by_key(root)["round_001/policy"]
    assert rows(root, policy) == THREE_STEPS
    assert policy.info.status == "FINISHED"


def test_three_failures_in_a_row_or_a_minute_of_failing_leave_the_rest_for_later() -> None:
    slow, calls = SlowStore(0.0), []

    def fail(seconds: float) -> None:
        calls.append(seconds)
        slow.now += seconds
        raise OSError

    attempt = Attempts(slow.clock)
    for seconds in (1.0, 1.0):
        attempt(fail, seconds)
    attempt(slow.put)
    for seconds in (1.0, 1.0, 1.0, 1.0):
        attempt(fail, seconds)
    assert calls == [1.0] * 5, "two failures, then one that worked, then three"
    calls.clear()
    attempt = Attempts(slow.clock)
    for _ in range(3):
        attempt(fail, 61.0)
    assert calls == [61.0]


def test_what_is_no_exception_of_the_store_goes_through() -> None:
    with pytest.raises(_StrangeError):
        Attempts()(_raise_strange)


def _raise_strange() -> None:
    raise _StrangeError


class SlowUploads(BaseHTTPRequestHandler):
    """A store of artifacts that takes three seconds for each."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(3)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to show."""


@pytest.fixture
def slow_uploads() -> Iterator[str]:
    web = ThreadingHTTPServer(("127.0.0.1", 0), SlowUploads)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()


@pytest.mark.parametrize(("users_limit", "arrives"), [(None, True), ("1", False)])
def test_a_file_may_take_longer_than_a_request_unless_the_user_has_set_a_limit(
    root: Path, slow_uploads: str, monkeypatch: pytest.MonkeyPatch, users_limit: str | None, arrives: bool
) -> None:
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    monkeypatch.setattr(server, "_ours", set())
    monkeypatch.setitem(server.ENVIRONMENT, name, "1")
    monkeypatch.delenv(name, raising=False)
    if users_limit is not None:
        monkeypatch.setenv(name, users_limit)
    client(root).create_experiment("regroup", artifact_location=f"{slow_uploads}/runs")
    run = open_in(root)
    run.tracking.start()
    errors = Attempts()
    errors(run.tracking.store.put, run.tracking.run_id, run.folder / "run.json", "run.json")
    assert (errors.errors == []) is arrives


def test_an_upload_may_take_longer_than_a_request(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither limit is ours where the user has set one."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(server, "_ours", set())
    server.prepare_environment()
    assert os.environ[name] == "10"
    with server.uploading():
        assert os.environ[name] == "600"
    assert os.environ[name] == "10"
    monkeypatch.setenv(name, "33")
    server.prepare_environment()
    with server.uploading():
        assert os.environ[name] == "33"


def test_more_runs_than_a_page_are_all_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tracking.store.RUNS_PER_PAGE", 2)
    run = open_in(root)
    whole_run(run)
    known = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    for _ in range(5):
        known.create_run(run.tracking.experiment_id or "", tags={"regroup.uid": run.file.uid})
    run.tracking.finish("KILLED")
    assert not run.tracking.store.search("attributes.status = 'RUNNING'")
    assert len(run.tracking.store.search("attributes.status = 'KILLED'")) == 6

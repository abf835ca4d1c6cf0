"""What stands around a schedule, on loopback: servers that can be killed and come back, a store, a receiver of alerts, a small disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import psutil
from moto.server import ThreadedMotoServer

from flows.prefect_server import HOST, answers, free_port

BUCKET = "artifacts"
S3_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain for {what}"
        time.sleep(0.2)


class Service:
    """A server that can be killed and started again at the same address with the same data."""

    def __init__(
        self, log: Path, command: list[str], env: dict[str, str], address: str, is_up: Callable[[], bool]
    ) -> None:
        self.address = address
        self._log, self._command, self._env, self._is_up = log, command, env, is_up
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._command], env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self._is_up, 120, f"{self.address}; see {self._log}")

    def kill(self) -> None:
        """SIGKILL to the server and its workers."""
        if self._process is None or self._process.poll() is not None:
            return
        for process in [*psutil.Process(self._process.pid).children(recursive=True), self._process]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(10)


def prefect_service(folder: Path) -> Service:
    port = free_port(4300)
    api_url = f"http://{HOST}:{port}/api"
    env = os.environ | {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env.pop("PREFECT_API_URL", None)
    command = ["-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    return Service(folder / "prefect.log", command, env, api_url, lambda: answers(api_url))


def mlflow_service(folder: Path, s3_url: str) -> Service:
    port = free_port(5300)
    uri = f"http://{HOST}:{port}"
    stores = ["--backend-store-uri", f"sqlite:///{folder}/tracking.db", "--default-artifact-root", f"s3://{BUCKET}"]
    command = ["-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1", "--no-serve-artifacts"]
    env = os.environ | S3_KEYS | {"MLFLOW_S3_ENDPOINT_URL": s3_url, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return Service(folder / "mlflow.log", [*command, *stores], env, uri, lambda: answers(uri))


class Store:
    """An S3 store that can be taken away; what it holds stays."""

    def __init__(self) -> None:
        self.port = free_port(5400)
        self.url = f"http://{HOST}:{self.port}"
        self.give_back()
        boto3.client("s3", endpoint_url=self.url, **self._keys()).create_bucket(Bucket=BUCKET)

    def take_away(self) -> None:
        self._server.stop()

    def give_back(self) -> None:
        self._server = ThreadedMotoServer(HOST, self.port, verbose=False)
        self._server.start()

    def files(self) -> set[str]:
        pages = boto3.client("s3", endpoint_url=self.url, **self._keys()).get_paginator("list_objects_v2")
        return {item["Key"] for page in pages.paginate(Bucket=BUCKET) for item in page.get("Contents", [])}

    @staticmethod
    def _keys() -> dict[str, str]:
        return {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a webhook, and what was posted to it so far."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A disk of that size at `folder`; False, and no disk, if this process may not mount one."""
    folder.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode
        == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not one byte is left on the disk of `folder` while the block runs."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    try:
        yield
    finally:
        filler.unlink()

"""`regroup run configs/tiny.yaml` as a person calls it: a process of its own, output to files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from configs.disk.files import OF_PROCESS
from tests.empty_databases import lay_out
from tests.paths import ROOT

RUNS = ("run", "compare", "serve")
"""commands that would make the databases of a new workspace"""


def environment() -> dict[str, str]:
    """The suite's, but for Prefect's folder, which is the workspace's own."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PREFECT_HOME", "PREFECT_API_URL")}
    return kept | {"PYTHONPATH": str(ROOT)}


class Call:
    """One call of `regroup` in a workspace. Its output goes to files: a server that outlived it would hold a pipe open."""

    started: ClassVar[list[Call]] = []

    def __init__(self, workspace: Path, *arguments: str, **variables: str) -> None:
        number = len(list(workspace.glob("call-*.out")))
        self.workspace = workspace
        if arguments[0] in RUNS and "PREFECT_API_URL" not in variables:
            lay_out(workspace)
        self.out_file, self.err_file = (workspace / f"call-{number}.{kind}" for kind in ("out", "err"))
        with self.out_file.open("wb") as out, self.err_file.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", *arguments],
                cwd=workspace,
                env=environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

        Call.started.append(self)

    @property
    def out(self) -> str:
        return self.out_file.read_text()

    @property
    def err(self) -> str:
        return self.err_file.read_text()

    def end(self, timeout_s: float = 600) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def until(self, condition: Callable[[], bool], timeout_s: float = 300) -> None:
        """Wait for something that the call does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.err}"
            assert time.monotonic() < deadline, f"waited in vain: {self.err}"
            time.sleep(0.01)

    def server_pid(self) -> int:
        """The process of the Prefect server that the call started."""
        (record,) = servers_on_record(self.workspace)
        return int(json.loads(record.read_text())["server"]["pid"])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


def end_calls() -> None:
    """Ask what still runs to stop; a test that failed leaves calls behind."""
    while Call.started:
        call = Call.started.pop()
        if call.process.poll() is None:
            call.process.terminate()
            try:
                call.end(60)
            except subprocess.TimeoutExpired:
                call.kill()


def regroup(workspace: Path, *arguments: str, **variables: str) -> Call:
    """A call that has ended; `variables` are added to its environment."""
    call = Call(workspace, *arguments, **variables)
    call.end()
    return call


def summary_of(workspace: Path, run: str = "tiny") -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((workspace / "runs" / run / "summary.json").read_bytes())
    return summary


def journal_values(stage: Path) -> list[tuple[str, int, float]]:
    """(key, step, value) of a stage's journal, without the keys that tell of the process."""
    lines = [json.loads(line) for line in (stage / "journal.jsonl").read_text().splitlines()]
    return [(line["key"], line["step"], line["value"]) for line in lines if not line["key"].startswith(OF_PROCESS)]


def servers_on_record(workspace: Path) -> list[Path]:
    return list((workspace / ".prefect").glob("server-*.json"))

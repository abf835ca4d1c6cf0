"""libgomp says itself how long it waits, so these ask it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401 - loads its OpenMP library

from tasks.running.spinning import SPINS

STARTED = "import contextlib, sys; from flows.cli import main; main(['--help']); import torch"


def waits_by(**given: str) -> dict[str, str]:
    """{variable: value} of libgomp where `regroup` was started before torch was imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STARTED],
        env=environment | given | {"OMP_DISPLAY_ENV": "verbose"},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(re.findall(r"(\w+) = '(.*)'", ended.stderr))


needs_libgomp = pytest.mark.skipif(
    not any("libgomp" in path for path in Path("/proc/self/maps").read_text().split())
    if sys.platform == "linux"
    else True,
    reason="torch has another OpenMP library than GNU's here",
)


@needs_libgomp
def test_threads_spin_briefly() -> None:
    assert waits_by()["GOMP_SPINCOUNT"] == SPINS


@needs_libgomp
@pytest.mark.parametrize(
    ("given", "waits"),
    [({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_what_the_environment_says_stays(given: dict[str, str], waits: str) -> None:
    assert waits_by(**given)["GOMP_SPINCOUNT"] == waits

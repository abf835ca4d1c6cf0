"""Empty databases of Prefect and MLflow, made once for the whole suite.

Each makes its tables by a hundred migrations, which in a new workspace take longer than the run that a test is about.
`test_prefect_server.py` and `test_database.py` make them as the product does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.paths import ROOT

MLFLOW, PREFECT = Path("mlflow.db"), Path(".prefect") / "prefect.db"
MAKE = """
import sys
from pathlib import Path
from flows.prefect_server import making_database
from tasks.tracking.database import make_ready
with making_database(Path.cwd()):
    make_ready(f"sqlite:///{Path.cwd() / 'mlflow.db'}", sys.exit)
"""


def lay_out(workspace: Path) -> None:
    """Give a workspace its empty databases, those that it does not have yet."""
    for name in (MLFLOW, PREFECT):
        place(name, workspace / name)


def place(name: Path, target: Path) -> None:
    """Copy one of the empty databases to where it is looked for, unless there is one."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_made() / name, target)


def _made() -> Path:
    """The folder of the two; all workers of a suite have the same, and the first one that needs it fills it."""
    folder = Path(os.environ["REGROUP_TESTS_SHARED"]) / "databases"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / MLFLOW).exists():
            _make(folder)
    return folder


def _make(folder: Path) -> None:
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a worker that ended in it
    unfinished.mkdir()
    unset = ("PREFECT_HOME", "PREFECT_API_URL")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, "-c", MAKE]
    subprocess.run(command, cwd=unfinished, env=environment | {"PYTHONPATH": str(ROOT)}, check=True, timeout=300)
    for name in (PREFECT, MLFLOW):
        (folder / name).parent.mkdir(exist_ok=True)
        whole = unfinished / f"{name.name}.whole"
        with closing(sqlite3.connect(unfinished / name)) as source, closing(sqlite3.connect(whole)) as target:
            source.backup(target)  # with what the server left in the file beside it
        whole.rename(folder / name)

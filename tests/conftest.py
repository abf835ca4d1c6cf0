"""The suite's surroundings: no network, no telemetry, nothing written to the home folder, one thread a process."""

import atexit
import os
import random
import shutil
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_HOME = Path(tempfile.mkdtemp(prefix="regroup-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# Before any library is imported: most of them read these once.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HOME=str(_HOME / "huggingface"),
    PREFECT_HOME=str(_HOME / "prefect"),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
    MPLCONFIGDIR=str(_HOME / "matplotlib"),
    # Small models are fastest on one thread, and two busy pools on two cores ruin each other by spinning.
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="PASSIVE",
)
os.environ.setdefault("REGROUP_TESTS_SHARED", str(_HOME))  # that of the process which starts the workers
for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
    os.environ.pop(name, None)


ONE_AT_A_TIME = {
    "Prefect's usual port": {"test_serve.py", "test_readme.py", "test_operations.py", "test_operations_server.py"},
    "vLLM": {"test_weights_on_a_server.py", "test_run_on_a_server.py"},
}
"""files whose tests would be in each other's way, or would start the same servers twice"""


def group_of(nodeid: str) -> str:
    """The tests that one worker gets: those of a file, or of files that go together."""
    file = nodeid.partition("::")[0]
    groups = (group for group, files in ONE_AT_A_TIME.items() if file.rpartition("/")[2] in files)
    return next(groups, file)


class ByGroup(LoadScopeScheduling):
    """Of several workers (`-n 2`) one gets all tests of a group; pytest 9.2 hides `xdist_group` from xdist 3.8."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    config.option.loadscopereorder = False
    return ByGroup(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "run the K-th of N parts of the tests, K from 0, each with its share of the long ones, as in 1/2"
    parser.addoption("--part", default="0/1", metavar="K/N", help=told)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The groups that may take longest come first, so that no worker is left with one when the others are done."""
    limits: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("timeout")
        limits[group_of(item.nodeid)] += int(mark.args[0] if mark else config.getini("timeout"))
    items.sort(key=lambda item: -limits[group_of(item.nodeid)])
    part, num_parts = map(int, config.getoption("part").split("/"))
    if not 0 <= part < num_parts:
        raise pytest.UsageError(f"--part {part}/{num_parts}: the first part is 0/{num_parts}")
    groups = sorted(limits, key=lambda group: (-limits[group], group))
    others = [item for item in items if groups.index(group_of(item.nodeid)) % num_parts != part]
    items[:] = [item for item in items if item not in set(others)]
    config.hook.pytest_deselected(items=others)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draws without a generator of their own are a test's own too, whichever tests its worker ran before."""
    seed = zlib.crc32(item.nodeid.encode())
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def untied_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real vLLM server (`vllm_servers.Started`) of a tiny model in float32; skipped without the environment of `make vllm`."""
    from tests.vllm_servers import save, started, tiny

    workspace = tmp_path_factory.mktemp("untied-server")
    with started(workspace, save(tiny(), workspace / "model")) as server:
        yield server


@pytest.fixture(scope="session")
def tied_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same with a tied head, and taking adapters."""
    from tests.vllm_servers import save, started, tiny

    workspace = tmp_path_factory.mktemp("tied-server")
    adapters = ("grpo_config.vllm.weights=lora", "grpo_config.lora={rank: 4}")
    with started(workspace, save(tiny(tied=True), workspace / "model"), *adapters) as server:
        yield server

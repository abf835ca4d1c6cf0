"""docs/operations.md followed on this machine: PostgreSQL, an S3 store, both servers with passwords, and the commands."""

from __future__ import annotations

import base64
import configparser
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import boto3
import pytest
from mlflow import MlflowClient
from moto.server import ThreadedMotoServer

from configs.disk.files import digest
from flows.prefect_server import free_port
from tasks.runs.workspace import read_champion
from tests.docs.operations import FILES, blocks, installed_at
from tests.flows.whole_runs.tiny_run import Call, end_calls
from tests.paths import ROOT, TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

POSTGRES = [shutil.which(name) for name in ("initdb", "postgres", "psql", "pg_dump", "pg_restore")]
HAS_LOGIN = importlib.util.find_spec("flask_wtf") is not None


class Site:
    """A folder in which what the document says is done, on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres, self.prefect, self.mlflow = free_port(), free_port(), free_port()
        self.s3 = ""
        self.work = folder / "work"
        self.work.mkdir()

    def here(self, text: str) -> str:
        text = installed_at(self.folder, text).replace("https://s3.example.com", self.s3)
        for usual, ours in ((5432, self.postgres), (4200, self.prefect), (5000, self.mlflow)):
            text = re.sub(rf"(:|--port ){usual}\b", rf"\g<1>{ours}", text)
        return text

    def environment(self, name: str) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.here(FILES[f"/etc/regroup/{name}.env"]).split())

    def unit(self, name: str) -> list[str]:
        """The command of a service."""
        unit = configparser.ConfigParser(interpolation=None, strict=False)
        unit.read_string(FILES[f"/etc/systemd/system/{name}.service"])
        return shlex.split(self.here(unit["Service"]["ExecStart"]))

    def shell(self, text: str, timeout_s: float = 200, **variables: str) -> str:
        """What the commands print; `mlflow` and the like are the environment's."""
        bin_folder = installed_at(self.folder, "/srv/regroup/venv/bin/")
        result = subprocess.run(
            ["bash", "-euc", self.here(text)],
            env=os.environ | variables | {"PATH": f"{bin_folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    def regroup(self, *arguments: str) -> Call:
        call = Call(self.work, *arguments, **self.environment("regroup"))
        assert call.end(600) == 0, call.err
        return call


@contextmanager
def process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=output, stderr=output)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def postgres(site: Site) -> Iterator[None]:
    """A cluster on the loopback address. As root it belongs to another user, since the server refuses root.

    So it is not below pytest's folder, which nobody else may enter.
    """
    with TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder, cluster(site, Path(folder)):
        yield


@contextmanager
def cluster(site: Site, data: Path) -> Iterator[None]:
    other = []
    if os.geteuid() == 0:
        shutil.chown(data, "postgres")
        other = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
    subprocess.run([*other, "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"], check=True, cwd=data)
    settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "fsync=off"]
    options = [word for setting in settings for word in ("-c", setting)]
    command = [*other, "postgres", "-D", str(data), "-p", str(site.postgres), *options]
    with process(command, data / "postgres.log", dict(os.environ)):
        address = f"postgresql://postgres@127.0.0.1:{site.postgres}/postgres"
        wait_for(lambda: subprocess.run(["psql", address, "-c", "SELECT 1"], capture_output=True).returncode == 0)
        [statements] = blocks("sql")
        subprocess.run(["psql", "-v", "ON_ERROR_STOP=1", address], input=statements.encode(), check=True)
        yield


def wait_for(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if None in POSTGRES:
        pytest.skip("PostgreSQL is not here")
    site = Site(tmp_path_factory.mktemp("site"))
    with ExitStack() as running:
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        s3.start()
        running.callback(s3.stop)
        site.s3 = f"http://127.0.0.1:{s3._server.server_port}"
        running.enter_context(postgres(site))
        bucket(site).create_bucket(Bucket="regroup-artifacts")
        for name, text in FILES.items():
            if name.endswith(".ini"):
                (site.folder / Path(name).name).write_text(site.here(text))
        for name in ("prefect", "mlflow"):
            command = site.unit(name)
            if not HAS_LOGIN:
                command = [word for word in command if word not in ("--app-name", "basic-auth")]
            running.enter_context(process(command, site.folder / f"{name}.log", os.environ | site.environment(name)))
        running.callback(end_calls)
        wait_for(lambda: status_of(f"http://127.0.0.1:{site.prefect}/api/health") == 200, 400)
        wait_for(lambda: status_of(f"http://127.0.0.1:{site.mlflow}/health") == 200, 400)
        (site.folder / "work" / "nightly.yaml").write_text(f"run: {{name: nightly}}\n{TINY.read_text()}")
        yield site


def bucket(site: Site) -> Any:
    known = site.environment("mlflow")
    return boto3.client(
        "s3",
        endpoint_url=site.s3,
        region_name=known["AWS_DEFAULT_REGION"],
        aws_access_key_id=known["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=known["AWS_SECRET_ACCESS_KEY"],
    )


def test_a_run_reaches_both_servers_and_the_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    call = site.regroup("run", "nightly.yaml", "--set", "rounds=1")
    assert "lacks" not in call.out + call.err
    assert not list((site.folder / "work").glob("mlflow.db")), "it is in PostgreSQL"
    for name, value in site.environment("regroup").items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(site.environment("regroup")["MLFLOW_TRACKING_URI"])
    assert set(client.get_registered_model("nightly-policy").aliases) >= {"champion"}
    stored = bucket(site).list_objects_v2(Bucket="regroup-artifacts")["Contents"]
    assert sum(item["Key"].endswith("model.safetensors") for item in stored) >= 2


def test_passwords_are_asked_for(site: Site) -> None:
    assert status_of(f"http://127.0.0.1:{site.prefect}/api/admin/version") == 401
    if HAS_LOGIN:
        assert status_of(f"http://127.0.0.1:{site.mlflow}/api/2.0/mlflow/registered-models/search") == 401
        [make_a_user] = blocks("sh", "make a user")
        assert '"is_admin":false' in site.shell(make_a_user).replace(" ", "")


def test_a_stopped_service_stops_its_run_at_a_step_boundary(site: Site) -> None:
    command = site.unit("regroup")[1:]
    call = Call(site.folder / "work", *command, "--set", "grpo_config.save_steps=1", **site.environment("regroup"))
    call.until(lambda: "Ctrl-C ends the schedule" in call.err)
    [run_now] = re.findall(r"run now +(.+)", call.err)
    site.shell(run_now, **site.environment("regroup"))
    policies = site.folder / "work" / "runs" / "nightly-0002" / "round_001" / "policy"
    call.until(lambda: "nightly-0002: failed" in call.err or (policies / "checkpoints").is_dir())
    call.process.send_signal(signal.SIGTERM)  # as KillMode=mixed does
    assert call.end(120) == 0
    assert "nightly-0002" in call.err
    assert re.search(r"nightly-0002 +interrupted", site.regroup("status").out)


def test_databases_are_upgraded_backed_up_and_restored(site: Site) -> None:
    variables = site.environment("prefect")
    [upgrade], [back_up], [restore], [move] = (
        blocks("sh", title) for title in ("upgrade databases", "back up", "restore", "move")
    )
    site.shell(upgrade, **variables)
    work = site.folder / "work"
    before = {path.relative_to(work): path.read_bytes() for path in work.glob("runs/**/manifest.json")}
    site.shell(back_up)
    shutil.rmtree(work)
    site.shell(restore)
    assert {path.relative_to(work): path.read_bytes() for path in work.glob("runs/**/manifest.json")} == before
    finished = site.regroup("run", "nightly.yaml", "--set", "rounds=1")
    assert "run nightly is finished already" in finished.err
    site.shell(move)
    assert not work.exists()
    site.work = site.folder / "moved"
    assert "frees" not in site.regroup("clean", "--dry-run").out, "it only says what would go"
    back = site.regroup("rollback", "nightly", "--reason", "a test")
    assert "undo it by regroup rollback nightly --to 1" in back.out
    champion = read_champion(site.work)
    assert champion is not None
    assert (champion.run, champion.round) == ("nightly", 0)


def test_another_machine_goes_on_with_a_run_that_was_killed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the folder and the two addresses: another home, another name, and nothing of the first folder."""
    work = site.work.rename(site.folder / "work")
    settings = ["--run", "second", "--set", "rounds=1", "--set", "grpo_config.save_steps=1"]
    call = Call(work, "run", "nightly.yaml", *settings, **site.environment("regroup"))
    call.until((work / "runs/second/round_001/policy/checkpoints/step_000002").exists, timeout_s=600)
    call.kill()

    [commands] = blocks("sh", "go on elsewhere")
    into, copy, *rest = commands.replace("rsync -aH ", "cp -a ").splitlines()
    site.shell(f"{into}\n{copy}")
    shutil.rmtree(work)
    home = site.folder / "another home"
    home.mkdir()
    elsewhere = site.environment("regroup") | {"HOME": str(home), "PYTHONPATH": str(ROOT), "HOSTNAME": "elsewhere"}
    said = site.shell("\n".join([*rest[:-1], shlex.join([*shlex.split(rest[-1]), *settings])]), 600, **elsewhere)
    assert "round 1 · policy: goes on after step" in said
    assert "runs again" not in said
    assert "lacks" not in said
    assert not work.exists()

    other = site.folder / "other" / "runs"
    trained = "round_001/policy/model/model.safetensors"
    assert digest(other / "second" / trained) == digest(other / "nightly" / trained), "which nobody killed"
    for name, value in site.environment("regroup").items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(site.environment("regroup")["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("regroup")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`regroup.run` = 'second'")
    assert {run.info.status for run in runs} == {"FINISHED"}
    keys = [run.data.tags["regroup.key"] for run in runs]
    assert len(keys) == len(set(keys)) == len(list((other / "second").rglob("manifest.json"))) + 3, "with two rounds"
    [policy] = [run.info.run_id for run in runs if run.data.tags["regroup.key"].endswith("round_001/policy")]
    steps = [metric.step for metric in client.get_metric_history(policy, "reward/mean")]
    assert sorted(steps) == [1, 2, 3, 4, 5, 6]
    got = client.download_artifacts(policy, "model/model.safetensors", str(home))
    assert digest(Path(got)) == digest(other / "second" / trained)


ASK = """
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
try:
    MlflowClient().get_experiment_by_name("any")
except Exception:
    pass
try:
    get_client(sync_client=True).read_flows()
except Exception:
    pass
"""


class Proxy(BaseHTTPRequestHandler):
    """Remembers which password is sent to which address, and answers with 404."""

    seen: ClassVar[dict[str, str | None]] = {}

    def do_GET(self) -> None:
        self.seen[self.path.partition("?")[0]] = self.headers["Authorization"]
        self.send_error(404)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing to show."""


def test_a_proxy_in_front_is_sent_the_passwords() -> None:
    web = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    text = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{web.server_port}", FILES["/etc/regroup/regroup.env"])
    known = dict(line.split("=", 1) for line in text.split())
    subprocess.run([sys.executable, "-c", ASK], env=os.environ | known, check=True, capture_output=True, timeout=120)
    web.shutdown()
    web.server_close()
    user, password = known["MLFLOW_TRACKING_USERNAME"], known["MLFLOW_TRACKING_PASSWORD"]
    assert Proxy.seen["/api/2.0/mlflow/experiments/get-by-name"] == basic(f"{user}:{password}")
    assert Proxy.seen["/api/flows/filter"] == basic(known["PREFECT_API_AUTH_STRING"])


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"

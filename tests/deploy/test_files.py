"""The files of deploy/: whether Prefect takes the template, and SLURM's script calls commands that there are. No engine runs here."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values

from configs.reader import load_config
from flows.cli import app
from flows.serving.pools import job_variables
from tests.paths import ROOT, TINY

DEPLOY = ROOT / "deploy"
TEMPLATE: dict[str, Any] = json.loads((DEPLOY / "kubernetes/job-template.json").read_bytes())
COMMAND = """#!/bin/bash
printf '%s %s\\n' "$(basename "$0")" "$*" >> calls
"""


def prefects_own(kind: str) -> dict[str, Any]:
    """The base job template that Prefect's server has for a worker of that type."""
    known = json.loads(files("prefect").joinpath(KNOWN).read_bytes())
    own: dict[str, Any] = known[f"prefect-{kind}"][kind]["default_base_job_configuration"]
    return own


KNOWN = "server/api/collections_data/views/aggregate-worker-metadata.json"


def test_prefect_takes_the_template_of_kubernetes_jobs_and_it_fills_in() -> None:
    pool = WorkPoolCreate(name="cluster", type="kubernetes", base_job_template=TEMPLATE)
    properties, own = TEMPLATE["variables"]["properties"], prefects_own("kubernetes")
    assert set(properties) == {*own["variables"]["properties"], "workspace_claim", "workspace_path", "gpus"}
    assert set(TEMPLATE["job_configuration"]) == set(own["job_configuration"])
    placeholders = set(re.findall(r"{{ (\w+) }}", json.dumps(TEMPLATE["job_configuration"])))
    assert placeholders == set(properties)

    defaults = {name: field["default"] for name, field in properties.items() if field.get("default") is not None}
    given = {"name": "tiny", "command": ["prefect", "flow-run", "execute"], "labels": {}}
    values = defaults | given | job_variables(pool, Path("/srv/work"), {})
    job: Any = apply_values(TEMPLATE["job_configuration"], values)
    pod = job["job_manifest"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "regroup-workspace"
    container = pod["containers"][0]
    assert container["workingDir"] == container["volumeMounts"][0]["mountPath"] == "/workspace"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 0
    assert container["env"]["PYTHONSAFEPATH"]


def test_the_claim_of_the_workspace_has_the_name_that_the_template_mounts() -> None:
    claim = yaml.safe_load((DEPLOY / "kubernetes/workspace.yaml").read_text())
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["metadata"]["name"] == TEMPLATE["variables"]["properties"]["workspace_claim"]["default"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_image_is_made_of_what_there_is() -> None:
    text = (DEPLOY / "docker/Dockerfile").read_text()
    steps = [line.split()[0] for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert steps == ["FROM", "RUN", "COPY", "RUN", "ENV", "WORKDIR", "CMD"]
    kept = (DEPLOY / "docker/Dockerfile.dockerignore").read_text().splitlines()
    assert kept[0] == "*"
    assert all((ROOT / name.removeprefix("!")).exists() for name in kept[1:])


# ---- SLURM ----------------------------------------------------------------------------------------------------------


def called(folder: Path, nodes: int, *, regroup: str = COMMAND) -> subprocess.Popen[str]:
    """The script, with SLURM's commands and ours in the place of which stand others that write down how they are called."""
    texts = {
        "scontrol": "#!/bin/bash\necho node1\necho node2\n",
        "srun": COMMAND + 'trap "exit 0" TERM\nwhile :; do sleep 0.1; done\n',
        "regroup": regroup,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    variables = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": str(nodes)}
    environment = os.environ | variables | {"PATH": f"{folder}:{os.environ['PATH']}", "RANKS_PER_NODE": "4"}
    script = [str(DEPLOY / "slurm/regroup.sbatch"), str(TINY), "sums"]
    return subprocess.Popen(["bash", *script], env=environment, stderr=subprocess.PIPE, text=True)


def calls(folder: Path, program: str) -> list[list[str]]:
    lines = [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]
    return [words[1:] for words in lines if words[0] == program]


def test_the_script_starts_the_run_on_the_first_node_and_joins_it_on_the_others(tmp_path: Path) -> None:
    process = called(tmp_path, 2, regroup=COMMAND + "sleep 1\n")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    [on_others] = calls(tmp_path, "srun")
    assert on_others[:4] == ["--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--exclude=node1"]
    for words in (on_others[5:], calls(tmp_path, "regroup")[0]):
        app.parse_args(words, exit_on_error=False, print_error=False)
    [words] = calls(tmp_path, "regroup")
    given = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    launcher = load_config(TINY, [*given, "grpo_config.batch_size=256"]).launcher
    assert (launcher.num_machines, launcher.ranks_per_machine, launcher.rendezvous) == (2, 4, "node1:29400")


def test_the_script_of_one_node_joins_nothing_and_ends_as_the_run_does(tmp_path: Path) -> None:
    process = called(tmp_path, 1, regroup=COMMAND + "exit 3\n")
    process.communicate(timeout=60)
    assert process.returncode == 3
    assert not calls(tmp_path, "srun")


def test_a_signal_before_the_time_limit_reaches_the_run_which_may_take_its_time(tmp_path: Path) -> None:
    slow = COMMAND + 'trap "sleep 1; echo stopped >> calls; exit 130" TERM\nwhile :; do sleep 0.1; done\n'
    process = called(tmp_path, 2, regroup=slow)
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls").exists() or not calls(tmp_path, "regroup"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "stopped"

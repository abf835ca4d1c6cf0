"""A workspace's deployment at a work pool: a worker that was started elsewhere picks its run up and works in the workspace."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import ConfigError
from flows.serving.pools import job_variables
from flows.serving.workspaces import found, workspace_at
from tests.flows.whole_runs.services import prefect_service
from tests.flows.whole_runs.tiny_run import environment, regroup, summary_of
from tests.paths import TINY


def pool_of(kind: str, **properties: Any) -> Any:
    return SimpleNamespace(name="pool", type=kind, base_job_template={"variables": {"properties": properties}})


def test_a_job_is_given_the_way_to_the_workspace_of_what_its_pool_takes() -> None:
    root = Path("/srv/work")
    docker = job_variables(pool_of("docker", env={}, volumes={"default": ["/data:/data"]}), root, {})
    assert docker["volumes"] == ["/data:/data", "/srv/work:/srv/work"]
    for kind in ("process", "kubernetes"):
        assert set(job_variables(pool_of(kind, env={}, working_dir={}), root, {})) == {"env"}
    with pytest.raises(ConfigError, match=r"'pool': its base job template has no variables \['volumes'\]"):
        job_variables(pool_of("docker", env={}), root, {})


def test_a_job_finds_the_workspace_where_it_is_mounted(tmp_path: Path) -> None:
    root, mounted, other = tmp_path / "work", tmp_path / "mounted", tmp_path / "other"
    for folder in (root, mounted, other):
        folder.mkdir()
    workspace = workspace_at(root)
    assert found(workspace, other) == root
    (mounted / ".prefect").mkdir()
    (mounted / ".prefect/workspace.json").write_bytes((root / ".prefect/workspace.json").read_bytes())
    assert found(workspace, mounted) == mounted
    workspace_at(other)
    away = workspace.model_copy(update={"path": str(tmp_path / "away")})
    with pytest.raises(ConfigError, match=f"the workspace {workspace.id} of .*/away on .* is neither there"):
        found(away, other)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_process_worker_picks_the_run_up_and_works_in_the_workspace(tmp_path: Path) -> None:
    workspace, elsewhere = tmp_path / "workspace", tmp_path / "elsewhere"
    workspace.mkdir()
    elsewhere.mkdir()
    (workspace / "random.py").write_text("raise RuntimeError('taken for another')")
    service = prefect_service(tmp_path)
    service.start()
    try:
        at = {"PREFECT_API_URL": service.address}

        def prefect(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=elsewhere,
                env=environment() | at | {"PREFECT_HOME": str(tmp_path / "worker"), "PREFECT_CLI_PROMPT": "false"},
                capture_output=True,
                text=True,
                timeout=1200,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        serve = ("serve", str(TINY), "--set", "rounds=1", "--pool", "here")
        missing = regroup(workspace, *serve, **at)
        assert missing.process.returncode == 2
        assert "--pool 'here' is no work pool of this server; pools there: none; make one by" in missing.err
        prefect("work-pool", "create", "here", "--type", "process")
        deployed = regroup(workspace, *serve, **at)
        assert deployed.process.returncode == 0, deployed.err
        named = re.search(r"prefect deployment run (\S+)", deployed.err)
        assert named is not None
        assert "prefect worker start --pool here" in deployed.err
        prefect("deployment", "run", named[1])
        said = prefect("worker", "start", "--pool", "here", "--type", "process", "--run-once")
    finally:
        service.kill()
    assert summary_of(workspace)["status"] == "done", said
    assert not list(elsewhere.iterdir())
    assert not (workspace / ".prefect/scheduled").exists()
    assert os.fspath(workspace) == json.loads((workspace / ".prefect/workspace.json").read_bytes())["path"]

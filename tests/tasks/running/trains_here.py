"""Trains the policy of `spec.json` in the run `tiny` of the current folder, as a flow would: a process of its own, for tests."""

import json
import sys
from pathlib import Path

from configs.errors import RegroupError
from configs.schema.run import LauncherConfig
from tasks.running.launcher import launched
from tasks.running.stage import run_stage
from tasks.stages import policy
from tests.tasks.stage_kit import open_untold


def main(root: Path) -> None:
    asked = json.loads((root / "spec.json").read_bytes())
    run = open_untold(root)
    body = launched(LauncherConfig(**asked["launcher"]), "policy", policy.body, run.folder)
    run_stage(run, policy.PolicySpec.model_validate(asked["spec"]), run.folder / "round_001/policy", body)


if __name__ == "__main__":
    try:
        main(Path.cwd())
    except RegroupError as error:
        sys.exit(f"{type(error).__name__}: {error}")

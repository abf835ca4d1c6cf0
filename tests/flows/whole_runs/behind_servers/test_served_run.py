"""A whole run whose reward model is behind a server: the local model's scores, a server that goes away, and other weights."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from configs.disk.files import read_rows
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from reward_training.transformer.precision import is_fast_in_bfloat16
from tests.flows.whole_runs.tiny_run import regroup, summary_of
from tests.paths import TINY
from tests.reward_training.reward_models.scoring_server import ScoringServer, scoring_server
from tests.reward_training.reward_models.test_served import save_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def write_config(folder: Path, name: str, model: dict[str, Any]) -> Path:
    """tiny.yaml, one round, whose reward model is not trained."""
    settings: dict[str, Any] = yaml.safe_load(TINY.read_text())
    settings |= {"rounds": 1, "reward_models": {"taste": model}}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def served(server: ScoringServer, **fields: Any) -> dict[str, Any]:
    block = {"kind": "served", "url": server.url, "model": "taste", "path": "model", "max_length": 128}
    return {**block, **fields}


def scores_of(workspace: Path, run: str) -> list[float | None]:
    return [row["parts"]["taste"] for row in read_rows(workspace / f"runs/{run}/round_001/policy/rollouts.jsonl")]


def manifest_of(workspace: Path, run: str, stage: str) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((workspace / f"runs/{run}/round_001/{stage}/manifest.json").read_bytes())
    return manifest


def away_for_a_while(server: ScoringServer, after: int, seconds: float) -> threading.Thread:
    """A thread that takes the server away once it has scored so many sequences, and brings it back."""
    server.failing_after, server.failing = after, 503

    def bring_back() -> None:
        while len(server.asked) < after:
            time.sleep(0.05)
        time.sleep(seconds)
        server.failing = None

    thread = threading.Thread(target=bring_back, daemon=True)
    thread.start()
    return thread


def test_a_server_gives_the_run_of_the_local_model_though_it_goes_away(tmp_path: Path) -> None:
    save_model(tmp_path / "model", build_tiny_tokenizer())
    local = regroup(
        tmp_path, "run", str(write_config(tmp_path, "local", {"kind": "frozen", "path": "model", "max_length": 128}))
    )
    assert local.process.returncode == 0, local.err
    with scoring_server(tmp_path / "model") as server:
        config = write_config(tmp_path, "far", served(server))
        thread = away_for_a_while(server, after=300, seconds=3.0)
        far = regroup(tmp_path, "run", str(config))
        assert far.process.returncode == 0, far.err
        thread.join(1)
        assert not thread.is_alive(), "the server never went away"
    assert summary_of(tmp_path, "far")["status"] == "done"
    expected, found = scores_of(tmp_path, "local"), scores_of(tmp_path, "far")
    assert None not in found
    # the same responses: at the first step nothing but rounding tells the two rewards apart, and the local model's products are
    # bfloat16 if the hardware has it
    within = 0.02 if is_fast_in_bfloat16(torch.device("cpu")) else 1e-5
    assert found[:16] == pytest.approx(expected[:16], abs=within)
    assert len(found) == len(expected)


def test_other_weights_end_2_and_their_version_measures_anew(tmp_path: Path) -> None:
    save_model(tmp_path / "model", build_tiny_tokenizer())
    save_model(tmp_path / "second", build_tiny_tokenizer(), seed=1)
    with scoring_server(tmp_path / "model") as server:
        config = write_config(tmp_path, "far", served(server))
        assert regroup(tmp_path, "run", str(config)).process.returncode == 0
        before = {stage: manifest_of(tmp_path, "far", stage) for stage in ("policy", "evaluate")}
        server.load(tmp_path / "second")
        call = regroup(tmp_path, "run", str(config), "--set", "rounds=2")
        assert call.process.returncode == 2
        assert "holds other weights" in call.err
        assert manifest_of(tmp_path, "far", "evaluate") == before["evaluate"]
        versioned = ("--set", "rounds=2", "--set", "reward_models.taste.version=second")
        call = regroup(tmp_path, "run", str(config), *versioned)
        assert call.process.returncode == 0, call.err
    assert manifest_of(tmp_path, "far", "policy") == before["policy"]
    assert manifest_of(tmp_path, "far", "evaluate")["outputs"] != before["evaluate"]["outputs"]
    assert summary_of(tmp_path, "far")["status"] == "done"

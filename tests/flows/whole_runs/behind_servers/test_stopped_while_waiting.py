"""A run that waits for a server that went away says so, once, and ends within seconds when it is asked to."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tests.flows.whole_runs.tiny_run import Call, summary_of
from tests.grpo_train.sampling.vllm.serving import Served, serve
from tests.paths import TINY
from tests.reward_training.reward_models.scoring_server import scoring_server
from tests.reward_training.reward_models.test_served import save_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOON_S = 30.0
"""for QUIET_S, what a run does at its end, and a machine that is busy"""


def write_config(folder: Path, **blocks: Any) -> Path:
    """tiny.yaml, one round, without a reward model but those in `blocks`."""
    settings: dict[str, Any] = yaml.safe_load(TINY.read_text()) | {"rounds": 1}
    settings["reward_models"] = blocks.pop("reward_models", {})
    if not settings["reward_models"]:
        settings["rewards"] = [each for each in settings["rewards"] if each["kind"] != "reward_model"]
    settings["grpo_config"] |= blocks.pop("grpo_config", {})
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings | blocks))
    return path


def stopped(call: Call, number: signal.Signals, waits: str) -> None:
    """Wait until the terminal has told that the run waits, and ask it to stop."""
    call.until(lambda: f"warning: {waits}" in call.err)
    time.sleep(3)
    begun = time.monotonic()
    call.process.send_signal(number)
    assert call.end() == 130, call.err
    assert time.monotonic() - begun < SOON_S
    told = [line for line in call.err.splitlines() if line.startswith(f"warning: {waits}")]
    assert len(told) == 1, call.err
    assert "does not answer" in told[0]
    assert "waiting up to 500 s" in told[0]
    assert "Traceback" not in call.err
    assert summary_of(call.workspace, "config")["status"] == "stopped"


@pytest.mark.parametrize(
    ("launcher", "weights", "fault"),
    [("inline", "files", "away"), ("torchrun", "broadcast", "away"), ("torchrun", "files", "hanging")],
)
def test_a_run_that_waits_for_a_vllm_server_can_be_stopped(
    tmp_path: Path, launcher: str, weights: str, fault: str
) -> None:
    """In evaluation where it is inline, otherwise in the training of two ranks, of which each waits."""
    tokenizer = build_tiny_tokenizer()
    with serve(build_tiny_model(tokenizer), tokenizer) as server:
        vllm = {
            "urls": [server.url],
            "weights": weights,
            "patience_s": 500,
            "request_timeout_s": 20 if fault == "hanging" else 120,
        }
        ranks = {} if launcher == "inline" else {"launcher": {"kind": launcher, "num_processes": 2}}
        call = Call(tmp_path, "run", str(write_config(tmp_path, grpo_config={"vllm": vllm}, **ranks)))
        journal = tmp_path / "runs/config/round_001/policy/journal.jsonl"
        call.until(lambda: server.at_once > 0 and (journal.exists() if ranks else "problems: done" in call.err))
        fail(server, fault)
        stopped(call, signal.SIGINT, f"the vLLM server {server.url}")


def fail(server: Served, fault: str) -> None:
    if fault == "away":
        server.is_dead = True
    else:
        server.hangs_s = 600.0


def test_a_run_that_waits_for_a_served_reward_model_can_be_stopped(tmp_path: Path) -> None:
    save_model(tmp_path / "model", build_tiny_tokenizer())
    with scoring_server(tmp_path / "model") as server:
        taste = {"kind": "served", "url": server.url, "model": "taste", "path": "model", "max_length": 128}
        models = {"taste": {**taste, "patience_s": 500}}
        server.failing_after, server.failing = 20, 503
        call = Call(tmp_path, "run", str(write_config(tmp_path, reward_models=models)))
        stopped(call, signal.SIGTERM, f"reward_models.taste at {server.url}")

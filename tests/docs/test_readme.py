"""The README's five minutes, run as they are written but with the small built-in model and few updates."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_train.policies.tiny_model import save_tiny_model
from tests.docs.markdown import blocks, commands
from tests.docs.test_documents import REGROUP
from tests.paths import ROOT

README = ROOT / "README.md"
GIVEN = "given-model"
SMALL = [
    f"policy.path={GIVEN}",
    "problems.dev=8",
    "problems.test=8",
    "regeneration.num_problems=8",
    "grpo_config.batch_size=16",
    "grpo_config.max_updates=2",
    "grpo_config.max_response_length=8",
    "evaluation.bootstrap_draws=50",
]


def _environment() -> dict[str, str]:
    """As a user has it: Prefect and MLflow in the current folder."""
    hidden = {"PREFECT_HOME", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"PYTHONPATH": str(ROOT)}


def _command(words: list[str]) -> list[str]:
    small = [word for override in SMALL for word in ("--set", override)]
    takes_overrides = words[0] in ("run", "doctor", "serve") and "--data" not in words
    return [sys.executable, "-m", "flows.cli", *words, *(small if takes_overrides else [])]


def _call(command: list[str], folder: Path) -> str:
    """Standard output of a command that ends 0. Output goes to a file, which nothing that lives on can hold open."""
    log = folder / "output.txt"
    with log.open("w") as output:
        done = subprocess.run(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=_environment(), timeout=400, check=False
        )
    text = log.read_text()
    assert done.returncode == 0, f"{shlex.join(command)}\n{text}"
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the README's files and its data."""
    folder = tmp_path_factory.mktemp("readme")
    for block in blocks(README):
        if block.title:
            (folder / block.title).write_text(block.text)
    _call([sys.executable, "make_data.py"], folder)
    save_tiny_model(folder / GIVEN)
    brought = {
        "repetition_penalty": 1.3,
        "min_p": 0.05,
        "num_beams": 2,
        "max_length": 5,
    }  # as some instruct models have
    file = folder / GIVEN / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | brought))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_my_data_and_my_reward_and_the_result(folder: Path) -> None:
    called = [words for words in commands(README, REGROUP) if words[0] != "serve"]
    assert [words[0] for words in called] == ["doctor", "doctor", "run", "status", "sample", "export"]
    for words in called:
        _call(_command(words), folder)
    assert (folder / "runs/mine/report.html").exists()
    rollouts = (folder / "runs/mine/round_001/policy/rollouts.jsonl").read_text()
    assert '"once":' in rollouts
    by_transformers = _call([sys.executable, "use_it.py"], folder)
    as_measured = _call([*_command(_sampled(called)), "--max-tokens", "48"], folder)
    assert as_measured.strip()
    assert by_transformers.endswith(as_measured)


def _sampled(called: list[list[str]]) -> list[str]:
    [words] = [words for words in called if words[0] == "sample"]
    return words


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schedule_is_served_until_ctrl_c(folder: Path) -> None:
    [words] = [words for words in commands(README, REGROUP) if words[0] == "serve"]
    log = folder / "serve.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            _command(words), cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=_environment()
        )
        try:
            assert any("Ctrl-C ends the schedule" in log.read_text() for _ in _until_ended(process)), log.read_text()
            assert re.search(
                r"^serving align-next/mine-\w{6}, schedule '0 2 \* \* \*' in .+ time$", log.read_text(), re.M
            )
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=90)


def _until_ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Twice a second, for at most four minutes."""
    for _ in range(480):
        if process.poll() is not None:
            return
        yield
        time.sleep(0.5)

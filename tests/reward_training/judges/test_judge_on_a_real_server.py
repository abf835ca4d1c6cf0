"""The judge against `transformers serve` with the quickstart's model: a real server, a real reply, and no verdict worth much."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from configs.reader import load_config
from configs.records import Completion, Problem
from configs.schema.rewards import JudgeRewardConfig as JudgeConfig
from grpo_train.policies.model_source import prepare_policy
from reward_training.judges.judge import JudgeReward
from reward_training.reward import Unscored
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model() -> str:
    config = load_config(ROOT / "configs" / "quickstart.yaml", [])
    return str(Path(prepare_policy(config.policy, ROOT / "models").path).absolute())


@pytest.fixture(scope="module")
def url(model: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = [str(Path(sys.executable).with_name("transformers")), "serve", model, "--device", "cpu"]
    server = subprocess.Popen(
        [*serve, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def _wait_until_up(health: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(health, timeout=5).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"{health} does not answer")


def test_real_replies_are_grades_or_missing_and_are_paid_for_once(
    url: str,
    model: str,
    tmp_path: Path,
    make_problem: Callable[..., Problem],
    make_completion: Callable[..., Completion],
) -> None:
    rubric = tmp_path / "rubric.md"
    rubric.write_text("A good response gives the right sum and nothing else.")
    config = JudgeConfig(
        name="kind", base_url=url, model=model, rubric=str(rubric), canaries="off", max_verdict_length=48, timeout_s=120,
        cache=str(tmp_path / "cache.sqlite"),
    )  # fmt: skip
    completions = [make_completion(text) for text in ("4", "5", "four, I think", "4")]
    found = []
    for _ in range(2):
        with closing(JudgeReward(config)) as reward:
            found.append((reward([make_problem()] * 4, completions), reward.take_metrics()))
    (first, paid), (second, free) = found
    assert first == second
    assert first[0] == first[3]
    for value in first:
        assert value.reason == "no verdict" if isinstance(value, Unscored) else 0 <= value <= 1
    assert paid["usage/kind/calls"] == 3  # equal texts are asked about once
    assert paid["usage/kind/input_tokens"] > 3 * 40
    assert 0 < paid["usage/kind/output_tokens"] <= 3 * 48
    num_graded = len(
        {text.text for text, value in zip(completions, first, strict=True) if not isinstance(value, Unscored)}
    )
    assert free.get("usage/kind/calls", 0) == 3 - num_graded  # what has no verdict is asked about again
    assert free.get("usage/kind/cached", 0) == num_graded


def test_a_model_that_the_server_does_not_have_is_a_failure_with_its_status(
    url: str, tmp_path: Path, make_problem: Callable[..., Problem], make_completion: Callable[..., Completion]
) -> None:
    (tmp_path / "rubric.md").write_text("Be kind.")
    config = JudgeConfig(
        name="kind", base_url=url, model="another", rubric=str(tmp_path / "rubric.md"), canaries="off", max_retries=0,
        cache=str(tmp_path / "cache.sqlite"),
    )  # fmt: skip
    with closing(JudgeReward(config)) as reward:
        assert reward([make_problem()], [make_completion("4")]) == [Unscored("status 400")]

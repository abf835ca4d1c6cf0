"""Training on what vLLM servers write, which are given the weights before each step."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.disk.checkpoints import Checkpoints
from configs.errors import ServerDiffers
from configs.reader import load_config
from configs.records import Policy
from configs.schema.config import Config
from grpo_train.following import Serving
from grpo_train.policies.adapter import Adapter
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.vllm import post
from grpo_train.sampling.vllm.known import KnownToken, known_tokens, rescored
from grpo_train.step import StepResult
from grpo_train.train_result import TrainResult
from grpo_train.trainer import train
from tests.grpo_train.conftest import make_problem
from tests.grpo_train.sampling.vllm.serving import Served, serve
from tests.grpo_train.test_trainer import Given, fives
from tests.paths import TINY

PROBLEMS = [make_problem(f"{i} + {i}", str(2 * i)) for i in range(12)]
TOGETHER = ["grpo_config.max_updates=3", "grpo_config.precision=float32", "evaluation.checker=correct"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(post, "SURE_FOR_S", 0.2)


@pytest.fixture
def policy(tiny, tmp_path: Path) -> Policy:
    return save_policy(*tiny, tmp_path / "policy", round_index=0)


@pytest.fixture
def servers() -> Iterator[list[Served]]:
    tokenizer = build_tiny_tokenizer()
    with ExitStack() as stack:
        yield [stack.enter_context(serve(build_tiny_model(tokenizer, seed=5), tokenizer)) for _ in range(2)]


def configured(servers: list[Served], *overrides: str) -> Config:
    urls = [served.url for served in servers]
    with_servers = [f"grpo_config.vllm={{urls: {urls}, max_importance_weight: 1000}}"] if servers else []
    return load_config(TINY, [*TOGETHER, *with_servers, *overrides])


def run(
    policy: Policy, config: Config, folder: Path, **settings: Any
) -> tuple[dict[str, torch.Tensor], list[StepResult], TrainResult]:
    """(weights at the end, steps, result)."""
    model, tokenizer = load_policy(policy.path, device="cpu")
    adapter = Adapter(model, config.grpo_config.lora, seed=0) if config.grpo_config.lora else None
    steps: list[StepResult] = []
    result = train(
        model,
        tokenizer,
        PROBLEMS,
        policy=policy,
        initial_policy=policy,
        rewards=[Given("correct", 1.0, fives)],
        config=config,
        round_index=1,
        on_step=steps.append,
        serving=Serving(folder, policy, warn=[].append),
        **settings,
    )
    trained = adapter.merge() if adapter else model
    return {name: weight.clone() for name, weight in trained.state_dict().items()}, steps, result


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["grpo_config.updates_per_batch=2", "grpo_config.max_updates=6"],
        ["grpo_config.top_p=0.7"],
        ["grpo_config.temperature=0.7", "grpo_config.response_cache.share=0.5", "grpo_config.epochs=3"],
        ["grpo_config.lora={rank: 4}"],
        ["grpo_config.vllm.importance=sequence", "grpo_config.refill=1"],
    ],
    ids=lambda settings: "+".join(name.split("=")[0].rpartition(".")[2] for name in settings) or "plain",
)
def test_training_through_servers_ends_with_the_weights_of_training_without(policy, servers, tmp_path, settings):
    """The servers draw as the policy does; a step that sampled with other weights would part from it."""
    without = [one for one in settings if "vllm" not in one]
    here, steps_here, _ = run(policy, configured([], *without), tmp_path / "a")
    there, steps_there, result = run(policy, configured(servers, *settings), tmp_path / "b")
    assert [row["text"] for step in steps_there for row in step.rollouts] == [
        row["text"] for step in steps_here for row in step.rollouts
    ]
    start, _ = load_policy(policy.path, device="cpu")
    assert distance(here, start.state_dict()) > 1e-3  # it learned something
    assert distance(here, there) < 1e-4
    assert all(len(served.given) == 3 for served in servers)
    for step in steps_there:
        assert step.metrics["vllm/mismatch"] < 1e-4
        assert step.metrics["policy/importance_weight"] == pytest.approx(1, abs=1e-3)
    assert len(result.known) == 12


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("settings", [[], ["grpo_config.lora={rank: 4}"]], ids=["all weights", "adapter merged"])
def test_broadcast_weights_train_as_those_in_files_do(policy, servers, tmp_path, settings, number):
    in_files, _, _ = run(policy, configured(servers[:number], *settings), tmp_path / "a")
    by_broadcast = [*settings, "grpo_config.vllm.weights=broadcast"]
    sent, steps, _ = run(policy, configured(servers[:number], *by_broadcast), tmp_path / "b")
    assert distance(in_files, sent) < 1e-6
    assert not (tmp_path / "b").exists()
    for served in servers[:number]:
        assert len(served.given) == 6
        assert served.received == 3 * len(served.start)
    assert steps[-1].metrics["vllm/mismatch"] < 1e-4


@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_adapters_on_their_base_train_as_merged_weights_do(policy, servers, tmp_path, number):
    """Of all weights only the base travels, once; then an adapter each step, of which two stay on the server."""
    lora = "grpo_config.lora={rank: 4}"
    merged, _, _ = run(policy, configured(servers[:number], lora), tmp_path / "a")
    for served in servers[:number]:
        served.restart()
        served.takes_adapters = True
        served.given.clear()
    adapted, steps, _ = run(policy, configured(servers[:number], lora, "grpo_config.vllm.weights=lora"), tmp_path / "b")
    assert distance(merged, adapted) < 1e-4
    for served in servers[:number]:
        assert served.given == [policy.id]
        assert len(served.adapters) == 2
        assert len({body["model"] for body in served.asked if body["model"].startswith("regroup-")}) == 3
    assert all(step.metrics["vllm/mismatch"] < 1e-4 for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["broadcast", "lora"])
def test_what_is_written_ahead_is_the_same_by_each_transport(policy, servers, tmp_path, weights):
    settings = ["grpo_config.lora={rank: 4}", "grpo_config.vllm.max_staleness=1"]
    in_files, _, _ = run(policy, configured(servers, *settings), tmp_path / "a")
    for served in servers:
        served.restart()
        served.takes_adapters = True
    sent, steps, _ = run(policy, configured(servers, *settings, f"grpo_config.vllm.weights={weights}"), tmp_path / "b")
    assert distance(in_files, sent) < 1e-4
    assert [step.metrics["policy/staleness"] for step in steps] == [0, 1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["broadcast", "lora"])
def test_a_restarted_server_gets_its_weights_again_by_each_transport(policy, servers, tmp_path, weights):
    settings = ["grpo_config.lora={rank: 4}", f"grpo_config.vllm.weights={weights}"]
    for served in servers:
        served.takes_adapters = True
    quiet, _, _ = run(policy, configured(servers, *settings), tmp_path / "a")
    servers[0].dies_after, servers[1].dies_after = 5, 10
    threads = [threading.Thread(target=revive, args=(served,)) for served in servers]
    for thread in threads:
        thread.start()
    shaken, _, _ = run(policy, configured(servers, *settings), tmp_path / "b")
    for thread in threads:
        thread.join()
    assert distance(quiet, shaken) < 1e-4


def revive(served: Served) -> None:
    """Start it again some time after its death."""
    while not served.is_dead:
        time.sleep(0.05)
    time.sleep(1)
    served.restart()


def test_a_server_that_dies_and_one_that_is_restarted_change_nothing(policy, servers, tmp_path):
    quiet, _, _ = run(policy, configured(servers), tmp_path / "a")
    servers[0].dies_after, servers[1].dies_after = 5, 10
    threads = [threading.Thread(target=revive, args=(served,)) for served in servers]
    for thread in threads:
        thread.start()
    shaken, steps, _ = run(policy, configured(servers), tmp_path / "b")
    for thread in threads:
        thread.join()
    assert distance(quiet, shaken) < 1e-4
    assert steps[-1].metrics["vllm/waits"] >= 1


def test_a_resumed_training_ends_with_the_same_weights(policy, servers, tmp_path):
    """The server still has the weights of a later step, under that step's name."""
    whole, _, _ = run(policy, configured(servers), tmp_path / "a")

    def checkpoints() -> Checkpoints:
        return Checkpoints(tmp_path / "stage", fingerprint="x", every=1, keep=2, warn=pytest.fail)

    calls = iter([False, False, True])
    with pytest.raises(Exception, match="stopped before step 3"):
        run(policy, configured(servers), tmp_path / "b", checkpoints=checkpoints(), should_stop=lambda: next(calls))
    for served in servers:
        served.model.load_state_dict(build_tiny_model(served.tokenizer, seed=9).state_dict())
    resumed, steps, _ = run(policy, configured(servers), tmp_path / "b", checkpoints=checkpoints())
    assert [step.step for step in steps] == [3]
    assert distance(whole, resumed) < 1e-4


def test_a_server_whose_head_stays_behind_ends_the_training(policy, servers, tmp_path):
    servers[0].stale_head = True
    with pytest.raises(ServerDiffers, match=servers[0].url):
        run(policy, configured(servers), tmp_path)


def test_known_tokens_tell_and_follow_the_weights():
    def logprobs_of(rows):
        return [[-0.001 * token for token in row[1:]] for row in rows]

    known = known_tokens([[1, 2, 3000], [1, 2, 3000], [1, 5, 6]], logprobs_of)
    # -3 tells; the others of -0.002, -0.005 and -0.006 fill up. What follows [1] is there once
    assert [(one.before, one.token, one.logprob) for one in known] == [
        ([1, 2], 3000, -3.0), ([1], 5, -0.005), ([1, 5], 6, -0.006),
    ]  # fmt: skip
    assert [one.logprob for one in rescored(known, lambda rows: [[float(len(row))] for row in rows])] == [3, 2, 3]
    many = known_tokens([list(range(1000, 1100))], logprobs_of)
    assert [one.token for one in many] == [1001 + i * 99 // 12 for i in range(12)]
    assert KnownToken.model_validate_json(many[0].model_dump_json()) == many[0]

"""Several ranks train on what servers write, by each transport, whole and sharded, as one process does without servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import load_file

from configs.records import Policy
from grpo_train.policies.model import save_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tests.grpo_train.following_program import CASES
from tests.grpo_train.sampling.vllm.serving import Served, serve
from tests.grpo_train.test_following import TOGETHER, distance, revive
from tests.grpo_train.updating.ranks_kit import finish, start_ranks
from tests.reward_training.reward_models.test_sharded_scores import save_frozen, save_with_our_head
from tests.tiny_architectures import TOKENIZER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PART = ["grpo_config.top_p=0.7", "grpo_config.updates_per_batch=2", "grpo_config.max_updates=6"]
"""the trainer scores what servers write; and a second update has the ratio to that"""
LORA = ["grpo_config.lora={rank: 4}"]
REWARDED = ["combination.order=normalize_then_sum"]
"""two reward models score too"""
AHEAD = ["grpo_config.vllm.max_staleness=1", "grpo_config.max_updates=4", "grpo_config.epochs=4"]


class Case(NamedTuple):
    weights: str
    num_servers: int
    shard: bool
    settings: list[str]


CASE_BY_NAME = {
    "files to two": Case("files", 2, False, []),
    "broadcast to one": Case("broadcast", 1, False, []),
    "adapters to two": Case("lora", 2, False, LORA),
    "sharded, files to one, drawn from a part": Case("files", 1, True, PART),
    "sharded, broadcast to two, drawn from a part": Case("broadcast", 2, True, PART),
    "sharded, adapters to one": Case("lora", 1, True, LORA),
    "sharded, with reward models": Case("files", 1, True, REWARDED),
}


def _name(settings: list[str]) -> str:
    return f"alone {len(settings)} {settings[:1]}".replace("/", " ")


class Trained(NamedTuple):
    weights: dict[str, Any]
    ranks: list[dict[str, Any]]


@contextmanager
def servers(number: int) -> Iterator[list[Served]]:
    tokenizer = build_tiny_tokenizer()
    with ExitStack() as stack:
        yield [stack.enter_context(serve(build_tiny_model(tokenizer, seed=5), tokenizer)) for _ in range(number)]


def train(folder: Path, policy: Policy, cases: dict[str, dict[str, Any]], num_ranks: int) -> dict[str, Trained]:
    every = {"policy": policy.model_dump(mode="json"), "reward_models": {}}
    given = [every | {"folder": str(folder / name)} | case for name, case in cases.items()]
    for case in given:
        Path(case["folder"]).mkdir(parents=True)
    (folder / CASES).write_text(json.dumps(given), encoding="utf-8")
    finish(start_ranks("tests.grpo_train.following_program", folder, num_ranks), timeout_s=900)
    return {name: _read(folder / name, num_ranks) for name in cases}


def _read(folder: Path, num_ranks: int) -> Trained:
    told = [json.loads((folder / f"rank_{i}.json").read_bytes()) for i in range(num_ranks)]
    return Trained(load_file(folder / "model/model.safetensors"), told)


def case_of(case: Case, served: list[Served]) -> dict[str, Any]:
    urls = [each.url for each in served]
    for each in served:
        each.takes_adapters = True
    vllm = f"grpo_config.vllm={{urls: {urls}, weights: {case.weights}, max_importance_weight: 1000}}"
    return {"overrides": [*TOGETHER, vllm, *case.settings], "shard": case.shard}


@pytest.fixture(scope="module")
def reward_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("reward_models")
    save_frozen("llama", root / "ready", TOKENIZER)
    save_with_our_head("granite", root / "taste", TOKENIZER)
    return {name: str(root / name) for name in ("ready", "taste")}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    tokenizer = build_tiny_tokenizer()
    return save_policy(build_tiny_model(tokenizer), tokenizer, tmp_path_factory.mktemp("policy"), round_index=0)


@pytest.fixture(scope="module")
def alone(
    policy: Policy, reward_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Trained]:
    """One process that writes its responses itself."""
    cases: dict[str, dict[str, Any]] = {
        _name(settings): {"overrides": [*TOGETHER, *settings], "shard": False}
        for settings in ([], PART, LORA, REWARDED)
    }
    cases[_name(REWARDED)]["reward_models"] = reward_models
    return train(tmp_path_factory.mktemp("alone"), policy, cases, num_ranks=1)


@pytest.fixture(scope="module")
def two(
    policy: Policy, reward_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Trained, list[Served]]]:
    """Two ranks, and the servers of each case."""
    with ExitStack() as stack:
        by_case = {name: stack.enter_context(servers(case.num_servers)) for name, case in CASE_BY_NAME.items()}
        cases = {name: case_of(CASE_BY_NAME[name], served) for name, served in by_case.items()}
        cases["sharded, with reward models"]["reward_models"] = reward_models
        trained = train(tmp_path_factory.mktemp("two"), policy, cases, num_ranks=2)
    return {name: (trained[name], served) for name, served in by_case.items()}


@pytest.mark.parametrize("name", CASE_BY_NAME)
def test_two_ranks_with_servers_train_as_one_process_without(
    alone: dict[str, Trained], two: dict[str, tuple[Trained, list[Served]]], policy: Policy, name: str
) -> None:
    case, (found, served) = CASE_BY_NAME[name], two[name]
    expected = alone[_name(case.settings)]
    assert found.ranks[0]["texts"] == found.ranks[1]["texts"] == expected.ranks[0]["texts"]
    for parts, other in zip(found.ranks[0]["parts"], expected.ranks[0]["parts"], strict=True):
        assert parts == pytest.approx(other, abs=1e-5)
    start = load_file(Path(policy.path) / "model.safetensors")
    assert distance(start, expected.weights) > 1e-3  # it learned something
    assert distance(expected.weights, found.weights) < 2e-5
    steps = zip(found.ranks[0]["steps"], expected.ranks[0]["steps"], strict=True)
    for step, other in steps:
        assert step["vllm/mismatch"] < 1e-4
        for key in ("policy/loss", "policy/grad_norm", "policy/clip_fraction"):
            assert step[key] == pytest.approx(other[key], rel=1e-3, abs=1e-4), key
    for each in served:
        assert len(each.given) == (1 if case.weights == "lora" else 3)  # an adapter needs its base once
        assert (each.received > 0) == (case.weights == "broadcast")
        assert len([body for body in each.asked if "seed" in body]) > 0  # it wrote
    assert len(found.ranks[0]["known"]) == 12


@pytest.mark.parametrize("weights", ["files", "broadcast"])
def test_the_main_rank_gives_weights_again_while_another_rank_waits_for_a_restarted_server(
    alone: dict[str, Trained], policy: Policy, tmp_path: Path, weights: str
) -> None:
    """The server dies in the middle of the second rank's share; the main rank, which may be done, keeps looking."""
    with servers(1) as [served]:
        served.dies_after = 20
        revival = threading.Thread(target=revive, args=(served,))
        revival.start()
        case = case_of(Case(weights, 1, True, []), [served])
        found = train(tmp_path, policy, {"kept": case}, num_ranks=2)["kept"]
        revival.join()
    assert len(served.given) == 4  # three steps, and once after the restart
    assert distance(alone[_name([])].weights, found.weights) < 1e-4


@pytest.mark.parametrize("shard", [False, True], ids=["whole", "sharded"])
def test_ranks_for_which_servers_write_ahead_train_as_one_process_and_go_on_from_each_others_checkpoints(
    policy: Policy, reward_models: dict[str, str], tmp_path: Path, shard: bool
) -> None:
    """A checkpoint has the batch of all ranks, of which others take other shares. Ranks with parts of the policy score together."""
    stage = tmp_path / "stage"
    stage.mkdir()
    with servers(1) as served:
        case = case_of(Case("files", 1, shard, [*AHEAD, *(REWARDED if shard else [])]), served)
        case["reward_models"] = reward_models if shard else {}
        whole = train(tmp_path / "whole", policy, {"whole": case}, num_ranks=1)["whole"]
        parts = [
            train(tmp_path / f"{i}", policy, {"part": case | {"stage": str(stage), "stop_after": i}}, num_ranks=ranks)
            for i, ranks in ((1, 2), (2, 1), (4, 2))
        ]
    ranks = [rank for part in parts for rank in part["part"].ranks[:1]]
    assert [len(rank["steps"]) for rank in ranks] == [1, 1, 2]
    assert [text for rank in ranks for text in rank["texts"]] == whole.ranks[0]["texts"]
    steps = [step for rank in ranks for step in rank["steps"]]
    assert [step["policy/staleness"] for step in steps] == [0, 1, 1, 1]
    for step, other in zip(steps, whole.ranks[0]["steps"], strict=True):
        assert step["policy/importance_weight"] == pytest.approx(other["policy/importance_weight"], abs=1e-4)
    assert distance(load_file(Path(policy.path) / "model.safetensors"), whole.weights) > 1e-3  # it learned something
    assert distance(whole.weights, parts[-1]["part"].weights) < 1e-4

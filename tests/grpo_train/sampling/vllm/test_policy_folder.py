"""A policy on disk reaches servers for evaluation and regeneration: by a folder that they see, or over the network."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from configs.errors import ServerRefused
from configs.schema.grpo import VllmConfig
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.vllm.policy_folder import giving, tensors_in, weights_in
from grpo_train.sampling.vllm.post import connect
from tests.grpo_train.sampling.vllm.serving import Served, serve

CPU = torch.device("cpu")


@pytest.fixture
def servers():
    tokenizer = build_tiny_tokenizer()
    with ExitStack() as stack:
        yield [stack.enter_context(serve(build_tiny_model(tokenizer, seed=5), tokenizer)) for _ in range(2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy in several files, of other weights than the servers'."""
    build_tiny_model(build_tiny_tokenizer(), seed=3).save_pretrained(str(tmp_path / "policy"), max_shard_size="100KB")
    assert len(list((tmp_path / "policy").glob("*.safetensors"))) > 1
    return tmp_path / "policy"


@pytest.fixture
def clients(servers):
    """What speaks with each of them."""
    opened = [connect(served.url) for served in servers]
    yield opened
    for client in opened:
        client.close()


def config_of(servers: list[Served], **settings: str) -> VllmConfig:
    return VllmConfig.model_validate({"urls": [each.url for each in servers], **settings})


def holds(served: Served, seed: int) -> bool:
    wanted = build_tiny_model(served.tokenizer, seed=seed).state_dict()
    return all(torch.equal(weight, wanted[name]) for name, weight in served.model.state_dict().items())


def test_broadcast_sends_what_the_files_hold_and_asks_servers_to_read_none(servers, clients, folder):
    """Evaluation and regeneration named the policy's folder, which a server on another machine does not see."""
    with giving(config_of(servers, weights="broadcast"), folder, "p", CPU) as give:
        for served, client in zip(servers, clients, strict=True):
            give(client)
            assert holds(served, 3)
            assert (served.given, served.received) == (["p"], len(weights_in(folder)))
            give(client)  # it holds them
            assert served.given == ["p"]
        servers[0].restart()
        assert holds(servers[0], 5)
        give(clients[0])
        assert holds(servers[0], 3)
    assert not any("folder" in info for served in servers for info in served.updates)


def test_weights_of_another_model_are_refused_before_any_is_sent(servers, clients, folder):
    [served, _] = servers
    wide = folder.parent / "wide"
    build_tiny_model(served.tokenizer, seed=3, head_dim=32).save_pretrained(str(wide))
    with (
        giving(config_of(servers, weights="broadcast"), wide, "p", CPU) as give,
        pytest.raises(ServerRefused, match="not the weights of this server's model"),
    ):
        give(clients[0])
    assert (served.received, holds(served, 5)) == (0, True)


@pytest.mark.parametrize("weights", ["files", "lora"])
def test_files_are_read_where_they_lie_or_in_the_folder_that_servers_see(servers, clients, folder, tmp_path, weights):
    seen = tmp_path / "seen"
    for settings, given in (({}, folder), ({"folder": str(seen)}, seen)):
        with giving(config_of(servers, weights=weights, **settings), folder, str(given), CPU) as give:
            give(clients[0])
        assert Path(servers[0].updates[-1]["folder"]).is_relative_to(given)
        assert holds(servers[0], 3)
    assert list(seen.iterdir()) == []


def test_tensors_come_in_the_order_of_the_offer(folder):
    offer, tensors = weights_in(folder), list(tensors_in(folder))
    assert [shape for _, _, shape in offer] == [list(tensor.shape) for tensor in tensors]
    assert {dtype for _, dtype, _ in offer} == {"F32"}
    shutil.rmtree(folder)
    assert weights_in(folder) == []

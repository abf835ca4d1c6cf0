"""New weights in real vLLM servers: each transport, tied and untied, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from configs.errors import ConfigError, ServerAway, ServerRefused
from configs.records import Policy
from configs.schema.grpo import VllmConfig
from grpo_train.sampling.vllm.plugin import check_plugin, held, load_folder
from grpo_train.sampling.vllm.policy_folder import giving
from grpo_train.sampling.vllm.trainer_group import TrainerGroup
from grpo_train.sampling.vllm.weights import Broadcast, Files, Lora, Transport
from tests.vllm_servers import Started, distance, save, tiny

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLOSE = 0.03
FAR = 0.1


@pytest.fixture(params=["untied", "tied"])
def running(request: pytest.FixtureRequest) -> tuple[Started, bool]:
    """(a server, whether its model is tied)"""
    name = str(request.param)
    return request.getfixturevalue(f"{name}_server"), name == "tied"


def transport_of(kind: str, folder: Path) -> Transport:
    return Files(folder, is_main=True) if kind == "files" else Broadcast(is_main=True)


def test_plugin_is_there(untied_server: Started) -> None:
    check_plugin(untied_server.server)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["files", "broadcast"])
def test_server_has_the_new_weights(
    running: tuple[Started, bool], tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    """Twice, since vLLM by itself leaves the head of a tied model at the weights of before."""
    (started, tied), giver = running, transport_of(kind, tmp_path)
    server = started.server
    for seed in (11, 12):
        old, model = distance(server, tiny(seed=seed, tied=tied)), tiny(seed=seed, tied=tied).to(dtype)
        giver.prepare(model, f"{kind} {dtype} {seed}")
        giver.give(server)
        assert old > FAR
        assert distance(server, model.float()) < CLOSE
        assert held(server) == f"{kind} {dtype} {seed}"


def test_sharded_folder_is_loaded(running: tuple[Started, bool], tmp_path: Path) -> None:
    started, tied = running
    server = started.server
    model = tiny(seed=21, tied=tied)
    load_folder(server, save(model, tmp_path, max_shard_size="100KB"), "sharded")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert distance(server, model) < CLOSE


def test_policy_in_a_folder_is_broadcast_that_the_server_does_not_see(
    running: tuple[Started, bool], tmp_path: Path
) -> None:
    """As evaluation and regeneration give it: a new trainer's end for each, in the group of the same server."""
    started, tied = running
    server = started.server
    config = VllmConfig.model_validate({"urls": [started.url], "weights": "broadcast"})
    for seed, size in ((23, "100KB"), (24, "5GB")):
        model, folder = tiny(seed=seed, tied=tied), tmp_path / str(seed)
        save(model, folder, max_shard_size=size)
        with giving(config, folder, f"broadcast {seed}", torch.device("cpu")) as give:
            give(server)
        assert distance(server, model) < CLOSE
        assert held(server) == f"broadcast {seed}"


def test_adapters_follow_one_another_and_their_base(tied_server: Started, tmp_path: Path) -> None:
    server = tied_server.server
    for seed in (31, 32):
        base = tiny(seed=seed, tied=True)
        path = save(base, tmp_path / f"base-{seed}")
        trained = tiny(seed=seed, tied=True)
        settings = LoraConfig(
            r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )
        get_peft_model(trained, settings)
        giver = Lora(tmp_path / "adapters", Policy(path=str(path), id=f"base-{seed}", round=0), is_main=True)
        for step in range(3):
            _nudge(trained)
            giver.prepare(trained, f"{seed}+{step}")
            giver.give(server)
            assert distance(server, trained, giver.model_name) < CLOSE
            assert distance(server, base, giver.model_name) > FAR
            assert distance(server, base) < CLOSE
    ours = [name for name in server.models() if name.startswith("regroup-")]
    assert len(ours) <= 2


def _nudge(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))


def test_unfit_weights_are_refused_and_the_server_stays_as_it_was(
    running: tuple[Started, bool], tmp_path: Path
) -> None:
    started, tied = running
    server = started.server
    model = tiny(seed=41, tied=tied)
    load_folder(server, save(model, tmp_path / "good"), "good")
    other_head = tiny(seed=42, tied=not tied)
    deeper = tiny(seed=43, tied=tied)
    deeper.model.layers.append(tiny(seed=44).model.layers[0])
    cut = save(tiny(seed=45, tied=tied), tmp_path / "cut")
    (file,) = cut.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    refused = {
        tmp_path / "nowhere": "is no folder",
        tmp_path / "empty": "holds no",
        cut: "cannot be read",
        save(other_head, tmp_path / "other_head"): "differs from the embedding" if tied else "lacks lm_head.weight",
        save(deeper, tmp_path / "deeper"): "which the model has not",
        save(_narrow(tied), tmp_path / "narrow"): "the model's",
    }
    for folder, told in refused.items():
        with pytest.raises(ServerRefused, match=told):
            load_folder(server, folder, "bad")
        assert held(server) is None
        assert distance(server, model) < CLOSE, folder
    load_folder(server, tmp_path / "good", "good")


def _narrow(tied: bool) -> PreTrainedModel:
    model = tiny(seed=46, tied=tied)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight = torch.nn.Parameter(layer.mlp.down_proj.weight[:, :64].clone())
    return model


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"junk": 1},
        {"folder": 7},
        {"offer": [1]},
        {"offer": [["model.norm.weight", "F64", [64]]]},
        {"offer": [["model.norm.weight", "F32", [64]]]},
        {"receive": True},
    ],
    ids=str,
)
def test_faulty_requests_are_refused(untied_server: Started, body: dict[str, Any]) -> None:
    server = untied_server.server
    server.post("/start_weight_update", {}, 60)
    with pytest.raises(ServerRefused):
        server.post("/update_weights", {"update_info": body}, 60)
    assert server.get("/health") is None


def test_update_that_a_killed_trainer_left_open_does_not_stand_in_the_way(
    untied_server: Started, tmp_path: Path
) -> None:
    server, model = untied_server.server, tiny(seed=51)
    server.post("/start_weight_update", {}, 60)
    load_folder(server, save(model, tmp_path), "after a kill")
    assert distance(server, model) < CLOSE


def test_trainer_that_leaves_in_the_middle_of_a_broadcast_changes_nothing(
    untied_server: Started, tmp_path: Path
) -> None:
    server, before = untied_server.server, tiny(seed=61)
    load_folder(server, save(before, tmp_path), "before")
    group = TrainerGroup(server, "gloo", torch.device("cpu"))
    offer = [(name, "F32", list(tensor.shape)) for name, tensor in before.state_dict().items()]
    server.post("/start_weight_update", {}, 60)
    server.post("/update_weights", {"update_info": {"offer": offer}}, 60)
    said: list[str] = []

    def receive() -> None:
        try:
            server.post("/update_weights", {"update_info": {"receive": True}}, 200)
        except (ServerRefused, ServerAway) as error:
            said.append(f"{type(error).__name__} {error}")

    receiving = threading.Thread(target=receive)
    receiving.start()
    group.send(next(iter(before.state_dict().values())))
    del group  # as a process that ends
    receiving.join(200)
    assert said
    assert said[0].startswith("ServerRefused")
    assert distance(server, before) < CLOSE
    giver = Broadcast(is_main=True)
    giver.prepare(tiny(seed=62), "after")
    giver.give(server)
    assert distance(server, tiny(seed=62)) < CLOSE


def test_other_protocol_is_refused(untied_server: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpo_train.sampling.vllm.plugin.PROTOCOL", 99)
    with pytest.raises(ConfigError, match="speaks protocol 1, the trainer 99"):
        check_plugin(untied_server.server)

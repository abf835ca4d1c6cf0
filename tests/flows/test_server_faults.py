"""Servers and launchers at fault: each ends 2 before any work, with a message that names field, value and remedy.

A row for each; what is wrong with configurations and data alone is in test_faulty_input.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli import main
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tests.flows.test_faulty_input import BASE, DATA
from tests.grpo_train.sampling.vllm.serving import serve
from tests.reward_training.reward_models.scoring_server import ScoringServer, scoring_server
from tests.reward_training.reward_models.test_served import free_port, save_model
from tests.reward_training.transformer.templates import CHATML, tokenizer_with

REWARDS = [*BASE["rewards"], {"name": "taste", "kind": "reward_model", "model": "taste"}]


@dataclass(frozen=True)
class Fault:
    """What is wrong, and words of the message that it must give; URL, NOBODY and FREE stand for addresses."""

    name: str
    words: tuple[str, ...]
    config: dict[str, Any]
    """blocks that are added to BASE"""
    serves: dict[str, Any] = field(default_factory=dict)
    """fields of the ScoringServer"""
    folder: str = "model"
    """the model that it serves: model, or other, which has another vocabulary"""


def served(**fields: Any) -> dict[str, Any]:
    """A configuration whose reward model is served, with some fields of its block."""
    block = {"kind": "served", "url": "URL", "model": "taste", "path": "settings", "max_length": 128}
    return {"rewards": REWARDS, "reward_models": {"taste": {**block, **fields}}}


FAULTS = [
    Fault(
        "reward model: no server",
        ("reward_models.taste.url=NOBODY", "does not answer (no connection: ", "start it, or mend"),
        served(url="NOBODY"),
    ),
    Fault(
        "reward model: engine is dead",
        ("reward_models.taste.url=URL", "does not answer (status 503: as told)", "start it, or mend"),
        served(),
        {"failing": 503},
    ),
    Fault(
        "reward model: address of an endpoint",
        ("URL/v1 ends with the path of an endpoint; write URL",),
        served(url="URL/v1"),
    ),
    Fault(
        "reward model: another model",
        ("reward_models.taste.model='style'", "serves ['taste']", "--served-model-name style"),
        served(model="style"),
    ),
    Fault(
        "reward model: another vocabulary",
        ("reward_models.taste.path=settings", "another vocabulary", "the folder that the server was started with"),
        served(),
        folder="other",
    ),
    Fault(
        "reward model: too short a context",
        ("reward_models.taste.max_length=128", "takes up to 100 tokens", "--max-model-len 128"),
        served(),
        {"max_model_len": 100},
    ),
    Fault(
        "reward model: longer than its positions",
        ("reward_models.taste.max_length=300", "max_position_embeddings=256", "lower reward_models.taste.max_length to 256"),
        served(max_length=300),
        {"max_model_len": None},
    ),
    Fault(
        "reward model: tokens are added",
        ("reward_models.taste.url=URL", "tokens read of", "docs/choosing.md"),
        served(),
        {"appended": 1},
    ),
    Fault(
        "reward model: no key",
        ("reward_models.taste.api_key_env=None", "refuses (status 401)", "export its key"),
        served(),
        {"key": "s3cret"},
    ),
    Fault(
        "reward model: key that is not set",
        ("reward_models.taste.api_key_env=NO_SUCH_KEY is not set", "export the server's key"),
        served(api_key_env="NO_SUCH_KEY"),
    ),
    Fault(
        "reward model: no settings",
        ("reward_models.taste.path", "nowhere"),
        served(path="nowhere"),
    ),
]  # fmt: skip


VLLM = {"grpo_config": BASE["grpo_config"] | {"vllm": {"urls": ["URL"]}}}
RANKS = {"kind": "accelerate", "num_processes": 2}
VLLM_FAULTS = [
    Fault(
        "vLLM: no server",
        ("grpo_config.vllm.urls: NOBODY does not answer", "start one by `regroup vllm CONFIG`"),
        {"grpo_config": BASE["grpo_config"] | {"vllm": {"urls": ["NOBODY"]}}},
    ),
    Fault(
        "vLLM: without the plugin",
        ("the server at URL cannot be given weights", "VLLM_SERVER_DEV_MODE=1", "start it by `regroup vllm CONFIG`"),
        VLLM,
        {"has_plugin": False},
    ),
    Fault(
        "vLLM: another model",
        ("grpo_config.vllm.urls: URL serves another model than the policy", "start it from the policy's folder"),
        VLLM,
        folder="wide",
    ),
    Fault(
        "vLLM: another vocabulary",
        ("grpo_config.vllm.urls: URL has another vocabulary than the policy", "start it from the policy's folder"),
        VLLM,
        folder="other",
    ),
    Fault(
        "vLLM: too short a context",
        ("URL has room for 20 tokens", "grpo_config.max_response_length=8", "--max-model-len"),
        VLLM,
        {"max_model_len": 20},
    ),
    Fault(
        "vLLM: log-probabilities before temperature",
        ("URL gives log-probabilities of the mode 'raw_logprobs'", "--logprobs-mode processed_logprobs"),
        VLLM,
        {"logprobs_mode": "raw_logprobs"},
    ),
    Fault(
        "vLLM: other weights",
        ("URL gives known tokens log-probabilities", "grpo_config.vllm.max_mismatch=0.01", "Restart it by `regroup vllm`"),
        {"grpo_config": BASE["grpo_config"] | {"vllm": {"urls": ["URL"], "max_mismatch": 0.01}}},
        folder="drawn anew",
    ),
    Fault(
        "vLLM: takes no adapters",
        ("URL takes no adapters", "--enable-lora"),
        {"grpo_config": BASE["grpo_config"] | {"lora": {"rank": 2}, "vllm": {"urls": ["URL"], "weights": "lora"}}},
    ),
    Fault(
        "launcher: parts of a policy, and no server to write",
        ("launcher.shard=true", "let a server write the responses (grpo_config.vllm), or use shard=false"),
        {"launcher": RANKS | {"shard": True}},
    ),
    Fault(
        "launcher: one rank more than prompts",
        ("launcher.num_processes=5 ranks share the 4 prompts of a step", "so 1 would have none", "use at most 4"),
        {"launcher": RANKS | {"num_processes": 5}},
    ),
    Fault(
        "launcher: a file that asks for FSDP",
        ("launcher.config_file=fsdp.yaml asks for distributed_type: FSDP", "launcher.shard splits the policy"),
        {"launcher": RANKS | {"config_file": "fsdp.yaml"}},
    ),
]  # fmt: skip


def said_of(fault: Fault, command: str, url: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says of a fault when it ends 2. URL stands for the server's address, NOBODY for one where no server is."""
    addresses = {"NOBODY": f"http://127.0.0.1:{free_port()}", "URL": url}
    text = json.dumps(BASE | fault.config)
    for name, address in addresses.items():
        text = text.replace(name, address)
    Path("config.yaml").write_text(yaml.safe_dump(json.loads(text)))
    options = ["--no-sample"] if command == "doctor" else []
    assert main([command, "config.yaml", *options]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    for name, address in addresses.items():
        err = err.replace(address, name)
    return " ".join(err.split())


@pytest.fixture
def refused(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Fault, str], str]:
    """What a command says of a fault when it ends 2; the policy is `builtin:tiny`, and so is the server's model but for what is wrong."""
    (workspace / "data.jsonl").write_text(DATA)
    (workspace / "fsdp.yaml").write_text("distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n")
    tokenizer = build_tiny_tokenizer()
    other = tokenizer_with(CHATML)
    models = {"model": {}, "wide": {"head_dim": 32}, "other": {}, "drawn anew": {"seed": 7}}

    def run(fault: Fault, command: str) -> str:
        model = build_tiny_model(tokenizer, **models[fault.folder])
        with serve(model, other if fault.folder == "other" else tokenizer) as server:
            for name, value in fault.serves.items():
                setattr(server, name, value)
            return said_of(fault, command, server.url, capsys)

    return run


@pytest.mark.parametrize("fault", VLLM_FAULTS, ids=lambda fault: fault.name)
def test_a_vllm_server_or_launcher_at_fault_ends_with_the_remedy(
    fault: Fault, refused: Callable[[Fault, str], str]
) -> None:
    said = refused(fault, "doctor")
    for words in fault.words:
        assert words in said


@pytest.mark.parametrize("fault", [VLLM_FAULTS[0], VLLM_FAULTS[-1]], ids=lambda fault: fault.name)
def test_a_run_with_them_ends_before_any_work(fault: Fault, refused: Callable[[Fault, str], str]) -> None:
    said = refused(fault, "run")
    assert all(words in said for words in fault.words)
    assert not Path("runs/config/round_000").exists()


@pytest.fixture
def at_fault(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Fault], str]:
    tokenizer = build_tiny_tokenizer()
    save_model(workspace / "model", tokenizer)
    save_model(workspace / "other", tokenizer_with(CHATML))
    shutil.copytree("model", "settings", ignore=shutil.ignore_patterns("*.safetensors"))
    (workspace / "data.jsonl").write_text(DATA)

    def run(fault: Fault) -> str:
        with scoring_server(workspace / fault.folder, **fault.serves) as server:
            return said_of(fault, "doctor", server.url, capsys)

    return run


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_server_at_fault_ends_with_the_remedy(fault: Fault, at_fault: Callable[[Fault], str]) -> None:
    said = at_fault(fault)
    for words in fault.words:
        assert words in said


def test_a_sound_server_is_no_fault(
    workspace: Path, at_fault: Callable[[Fault], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with scoring_server(workspace / "model") as server:
        config = BASE | served(url=server.url)
        Path("config.yaml").write_text(yaml.safe_dump(config))
        assert main(["doctor", "config.yaml", "--no-sample"]) == 0
    assert f"taste at {server.url} answers, up to 256 tokens" in " ".join(capsys.readouterr().out.split())
    assert not Path("runs").exists()


def test_a_server_without_tokenizer_is_told(
    workspace: Path, at_fault: Callable[[Fault], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with scoring_server(workspace / "model", has_tokenizer=False) as server:
        Path("config.yaml").write_text(yaml.safe_dump(BASE | served(url=server.url)))
        assert main(["doctor", "config.yaml", "--no-sample"]) == 0
    assert "its vocabulary was not compared" in " ".join(capsys.readouterr().out.split())


def test_the_run_itself_ends_2_before_any_work(
    workspace: Path, at_fault: Callable[[Fault], str], capsys: pytest.CaptureFixture[str]
) -> None:
    server = ScoringServer(Path("model"), url=f"http://127.0.0.1:{free_port()}")
    Path("config.yaml").write_text(yaml.safe_dump(BASE | served(url=server.url)))
    assert main(["run", "config.yaml"]) == 2
    assert f"reward_models.taste.url={server.url}" in " ".join(capsys.readouterr().err.split())
    assert not Path("runs/config/round_000").exists()

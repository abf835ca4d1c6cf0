"""What the doctor says of vLLM servers before a run, and that a run ends there with exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.cli import main
from flows.doctor.report import check
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tests.flows.doctor.conftest import Configure
from tests.grpo_train.sampling.vllm.serving import Served, serve


@pytest.fixture
def served() -> Iterator[Served]:
    tokenizer = build_tiny_tokenizer()
    with serve(build_tiny_model(tokenizer), tokenizer) as server:
        yield server


def findings(configure: Configure, workspace: Path, url: str, **vllm: object) -> list[tuple[str, str, str]]:
    config = configure(grpo_config={"vllm": {"urls": [url], **vllm}, "precision": "float32"})  # as the server's
    return [(f.status, f.detail, f.remedy) for f in check(config, workspace, quick=True).findings if f.name == "vllm"]


def test_a_server_of_the_policy_passes_and_is_left_as_it_was(configure, workspace, served):
    [(status, detail, _)] = findings(configure, workspace, served.url)
    assert (status, detail) == ("ok", f"{served.url} fits the policy; 0.000 nats from it")
    assert (served.given, served.version) == ([], "default")


def test_what_a_server_holds_that_was_given_weights_is_not_compared(configure, workspace, served):
    served.model.load_state_dict(build_tiny_model(served.tokenizer, seed=4).state_dict())
    served.version = "round 1"
    [(status, detail, _)] = findings(configure, workspace, served.url)
    assert (status, detail.partition("; ")[2]) == ("ok", "it was given weights before")


def other_vocabulary(served: Served) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>"]})
    served.tokenizer = tokenizer


def other_model(served: Served) -> None:
    served.start["lm_head.weight"] = served.start["lm_head.weight"][:-1]


def other_weights(served: Served) -> None:
    served.model.load_state_dict(build_tiny_model(served.tokenizer, seed=4).state_dict())


FAULTS: dict[str, tuple[Callable[[Served], None], str]] = {
    "away": (lambda served: setattr(served, "is_dead", True), "does not answer"),
    "no plugin": (lambda served: setattr(served, "has_plugin", False), "without VLLM_SERVER_DEV_MODE=1"),
    "short context": (lambda served: setattr(served, "max_model_len", 64), "has room for 64 tokens"),
    "raw log-probabilities": (lambda served: setattr(served, "logprobs_mode", "raw_logprobs"), "'raw_logprobs'"),
    "other vocabulary": (other_vocabulary, "has another vocabulary"),
    "other model": (
        other_model,
        "serves another model than the policy (POST {url}/init_weight_transfer_engine: status 500: not the ",
    ),
    "other weights": (other_weights, "nats from those of the policy; grpo_config.vllm.max_mismatch=0.15"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_does_not_fit_is_refused_by_name_with_a_remedy(configure, workspace, served, fault):
    spoil, said = FAULTS[fault]
    spoil(served)
    [(status, detail, remedy)] = findings(configure, workspace, served.url)
    assert status == "fail"
    assert said.format(url=served.url) in f"{detail}; {remedy}"
    assert "start" in f"{detail}; {remedy}"
    assert served.url in detail


def test_adapters_need_a_server_that_takes_them(configure, workspace, served):
    config = configure(grpo_config={"vllm": {"urls": [served.url], "weights": "lora"}, "lora": {}})
    [found] = [f for f in check(config, workspace, quick=True).findings if f.name == "vllm"]
    assert "--enable-lora" in f"{found.detail}; {found.remedy}"


def test_a_run_without_its_server_ends_with_exit_code_2(configure, workspace, capsys):
    configure(grpo_config={"vllm": {"urls": ["http://127.0.0.1:9"]}})
    assert main(["doctor", "config.yaml"]) == 2
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err.replace("\n", " ")

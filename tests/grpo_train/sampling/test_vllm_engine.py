"""Training on what a vLLM server wrote: TRL's real client against a server on loopback that speaks vLLM's protocol.

The server is a stand-in that writes with a model of its own; NCCL, by which weights travel, needs GPUs, so that call alone is replaced.
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from trl.generation import vllm_client

from configs.errors import ConfigError
from configs.schema.grpo import GrpoConfig, VllmConfig
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from grpo_train.sampling.generation import Sampling
from grpo_train.sampling.vllm_engine import VllmEngine
from grpo_train.updating.loss import BatchSize, policy_loss, truncated_weights
from tests.grpo_train.conftest import make_problem
from tests.grpo_train.updating.test_learner import advantages, learner, logprobs_of, written_by

PROBLEMS = [make_problem("1+1", "2"), make_problem("What is two plus three?")]


@dataclass
class Server:
    """Writes greedily with `model`; logs each request's body."""

    model: PreTrainedModel
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    leaves_out: int = 0
    """responses of each answer that it drops"""
    says: list[int] | None = None
    """token ids that it writes instead of the model's"""

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        choices = []
        for prompt in body["prompt"]:
            ids = torch.tensor([prompt])
            written = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=body["max_tokens"], do_sample=False
            )
            token_ids = written[0, len(prompt) :].tolist()
            with torch.no_grad():
                logprobs = logprobs_of(self.model, prompt, token_ids).tolist()
            if self.says is not None:
                token_ids, logprobs = self.says, [-1.0] * len(self.says)
            names = [f"token_id:{token}" for token in token_ids]
            shown = {
                "tokens": names,
                "token_logprobs": logprobs,
                "top_logprobs": [{name: value} for name, value in zip(names, logprobs, strict=True)],
            }
            choices += [{"prompt_token_ids": prompt, "token_ids": token_ids, "logprobs": shown}] * body["n"]
        return {"choices": choices[self.leaves_out :]}


@pytest.fixture
def server(tiny: tuple[PreTrainedModel, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *args, **kwargs: True)
    serving = Server(tiny[0])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"/health": {}, "/v1/models": {"data": [{"id": "tiny"}]}}[self.path])

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            self._send(serving.answer(body) if self.path == "/v1/completions" else {})

        def _send(self, body: dict[str, Any]) -> None:
            payload = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    serving.url = f"http://127.0.0.1:{http.server_address[1]}"
    yield serving
    http.shutdown()
    http.server_close()
    thread.join()


def open_engine(server: Server, tokenizer: Any) -> VllmEngine:
    return VllmEngine(VllmConfig(base_url=server.url), {tokenizer.eos_token_id})


def write(engine: VllmEngine, tokenizer: Any, group_sizes: list[int]) -> list[Any]:
    sampling = Sampling(2, 1.0, 6)
    return engine.sample(tokenizer, PROBLEMS, group_sizes, sampling, seed=7, policy_id="p+0", step=1)


def test_responses_are_those_of_the_server_in_the_order_of_the_problems(server, tiny):
    model, tokenizer = tiny
    completions = write(open_engine(server, tokenizer), tokenizer, [1, 3])
    assert [c.problem_key for c in completions] == [PROBLEMS[0].key, *[PROBLEMS[1].key] * 3]
    assert [c.index for c in completions] == [0, 0, 1, 2]
    assert [(body["n"], body["max_tokens"], body["temperature"]) for body in server.asked] == [(1, 6, 1.0), (3, 6, 1.0)]
    for c in completions:
        expected = logprobs_of(model, c.prompt_ids, c.token_ids).tolist()
        assert c.logprobs == pytest.approx(expected, abs=1e-6)
        assert c.finish_reason == ("stop" if c.token_ids[-1] == tokenizer.eos_token_id else "length")


def test_a_problem_whose_group_comes_from_the_cache_is_not_asked(server, tiny):
    completions = write(open_engine(server, tiny[1]), tiny[1], [0, 2])
    assert [c.problem_key for c in completions] == [PROBLEMS[1].key] * 2
    assert len(server.asked) == 1


def test_texts_keep_the_marks_of_thoughts_and_what_the_prompt_began(server):
    tokenizer = build_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    tokenizer.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    mark = tokenizer.convert_tokens_to_ids("</think>")
    eight = tokenizer.convert_tokens_to_ids("8")
    server.says = [eight, mark, eight, tokenizer.eos_token_id]
    [completion] = write(open_engine(server, tokenizer), tokenizer, [1, 0])
    assert (completion.begun, completion.text, completion.finish_reason) == ("<think>\n", "8</think>8", "stop")


def test_an_answer_with_responses_missing_ends_the_stage(server, tiny):
    server.leaves_out = 1
    with pytest.raises(RuntimeError, match="gave 3 responses for 4"):
        write(open_engine(server, tiny[1]), tiny[1], [2, 2])


def test_weights_are_sent_once_for_each_policy(server, tiny, monkeypatch):
    calls = []
    for name in ("init_communicator", "update_model_params", "reset_prefix_cache"):
        monkeypatch.setattr(vllm_client.VLLMClient, name, lambda self, *args, name=name: calls.append((name, *args)))
    model, tokenizer = tiny
    engine = open_engine(server, tokenizer)
    for policy_id in ("p+0", "p+0", "p+1"):
        engine.follow(model, policy_id)
    sent = [("update_model_params", model), ("reset_prefix_cache",)]
    assert calls == [("init_communicator", model.device), *sent, *sent]


def test_without_vllm_or_without_a_server_the_message_names_the_remedy(monkeypatch):
    with pytest.raises(ConfigError, match=r"pip install 'regroup\[gpu\]'"):
        VllmEngine(VllmConfig(), set())
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda *args, **kwargs: True)
    with pytest.raises(ConfigError, match=r"base_url=http://127\.0\.0\.1:9"):
        VllmEngine(VllmConfig(base_url="http://127.0.0.1:9", connection_timeout_s=0.01), set())


def test_truncated_weights_are_the_bounded_ratio_and_one_on_padding():
    trainer = torch.log(torch.tensor([[0.5, 0.6, 0.1]]))
    engine = torch.log(torch.tensor([[0.25, 0.1, 0.4]]))
    weights = truncated_weights(trainer, engine, torch.tensor([[1.0, 1.0, 0.0]]), most=3.0)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 3.0, 1.0]]))  # 0.5 / 0.25; 6 bounded; padding


def test_a_weight_scales_the_surrogate_of_its_token_and_not_the_kl_term():
    grpo = GrpoConfig(group_size=2, batch_size=2, kl_coefficient=0.5, kl_estimator="k2")
    logprobs, mask = torch.tensor([[-1.0, -2.0]]), torch.ones(1, 2)
    loss = policy_loss(
        logprobs, torch.tensor([3.0]), mask, grpo=grpo, size=BatchSize(1, 2),
        reference_logprobs=torch.tensor([[-2.0, -2.0]]), importance_weights=torch.tensor([[2.0, 0.5]]),
    )  # fmt: skip
    # -(2 x 3 + 0.5 x 3) / 2 + 0.5 x (1/2 + 0) / 2
    assert loss.value.item() == pytest.approx(-3.75 + 0.125)


@pytest.mark.parametrize(("shift", "factor"), [(0.1, np.exp(-0.1)), (-0.1, np.exp(0.1)), (-5.0, 2.0)])
def test_an_engine_that_is_off_by_a_factor_is_made_up_for_up_to_the_bound(tiny, shift, factor):
    model, _ = tiny
    completions = written_by(model)
    exact = learner(model).update(completions, advantages())
    off = [c.model_copy(update={"logprobs": [value + shift for value in c.logprobs]}) for c in completions]
    weighted = learner(model, vllm={"max_importance_weight": 2.0}).update(off, advantages())
    assert weighted["policy/grad_norm"] == pytest.approx(exact["policy/grad_norm"] * factor, rel=1e-3)
    assert weighted["policy/sampler_mismatch"] == pytest.approx(abs(shift), rel=1e-3)


@pytest.mark.parametrize(
    "setting", [{"updates_per_batch": 2}, {"top_p": 0.9}, {"lora": {}}, {"early_stop": {"loop": {"min_tokens": 8}}}]
)
def test_what_a_server_cannot_do_is_refused_by_name(setting):
    [name] = setting
    with pytest.raises(ValueError, match=f"vllm does not go with {name}"):
        GrpoConfig.model_validate({"vllm": {}} | setting)

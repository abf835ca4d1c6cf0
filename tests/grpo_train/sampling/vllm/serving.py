"""A server on loopback that speaks vLLM's protocol and samples from a model of its own, for tests of what speaks to it.

It draws by our own inverse CDF, from the seed of each request, so that its responses are those that the model would
write in the trainer's process. The real server is another test's (`tests/.../test_real_server.py`).
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from regroup_vllm.checkpoint import Entry
from regroup_vllm.group import Group, Join
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grpo_train.sampling.drawing import filter_logits, inverse_cdf

START = "default"


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass
class Served:
    """The state of the server, and what tests may turn."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    url: str = ""
    version: str = START
    max_model_len: int = 2048
    has_plugin: bool = True
    takes_adapters: bool = False
    logprobs_mode: str = "processed_logprobs"
    stale_head: bool = False
    """keeps its head when it is given weights, as vLLM does for tied models on a CPU"""
    is_dead: bool = False
    """closes each connection without an answer"""
    hangs_s: float = 0.0
    """before each response"""
    dies_after: int | None = None
    """responses, after which it is dead"""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """bodies of the requests for responses"""
    given: list[str] = field(default_factory=list)
    """versions of the weights that it was given"""
    at_once: int = 0
    most_at_once: int = 0
    num_restarts: int = 0
    start: dict[str, torch.Tensor] = field(default_factory=dict)
    updates: list[dict[str, Any]] = field(default_factory=list)
    """what each request for new weights said"""
    adapters: dict[str, Path] = field(default_factory=dict)
    received: int = 0
    """tensors that came by broadcast"""
    group: Group | None = None
    offered: dict[str, Entry] = field(default_factory=dict)
    merged: dict[tuple[str, int], PreTrainedModel] = field(default_factory=dict)
    """{(adapter, number of times that weights were given): the model with it}"""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def restart(self) -> None:
        """It is there again, with the weights that it was started with."""
        with self.lock:
            self.model.load_state_dict(self.start)
            self.group, self.adapters, self.merged = None, {}, {}
            self.num_restarts += 1
            self.version, self.is_dead, self.dies_after, self.hangs_s = START, False, None, 0.0

    # ---- requests ----

    def get(self, path: str) -> Any:
        match path:
            case "/health":
                return None
            case "/v1/models":
                names = ["policy", *self.adapters]
                return {"data": [{"id": name, "max_model_len": self.max_model_len} for name in names]}
            case "/get_world_size":
                return {"world_size": 1}
            case "/weight_info":
                return {"weight_version": self.version}
            case "/is_paused":
                return {"is_paused": False}
            case "/server_info?config_format=json":
                lora = {"max_loras": 2} if self.takes_adapters else None
                return {"vllm_config": {"model_config": {"logprobs_mode": self.logprobs_mode}, "lora_config": lora}}
        raise Refusal(404, f"no {path}")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        path = path.partition("?")[0]
        match path:
            case "/v1/completions":
                return self._complete(body)
            case "/tokenize":
                tokens = self.tokenizer.encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
                return {"tokens": tokens, "count": len(tokens), "max_model_len": self.max_model_len}
            case "/reset_prefix_cache":
                return None
            case "/v1/load_lora_adapter" if self.takes_adapters:
                self.adapters[body["lora_name"]] = Path(body["lora_path"])
            case "/v1/unload_lora_adapter" if self.takes_adapters:
                del self.adapters[body["lora_name"]]
            case _ if self.has_plugin:
                self._take(path, body)
            case _:
                raise Refusal(404, "Not Found")
        return {}

    def _take(self, path: str, body: dict[str, Any]) -> None:
        """What a trainer says of new weights."""
        match path:
            case "/init_weight_transfer_engine":
                self._look_at(body["init_info"].get("offer"))
                if (join := body["init_info"].get("join")) is not None:
                    self.group = Group(Join(**join), 1, torch.device("cpu"))
            case "/start_weight_update":
                pass
            case "/update_weight_version":
                self.version = body["new_version"]
            case "/update_weights":
                self.updates.append(body["update_info"])
                self._read(body["update_info"])
            case "/finish_weight_update":
                if (version := body.get("weight_version")) is not None:
                    self.version = version
                    self.given.append(version)
            case _:
                raise Refusal(404, f"no {path}")

    def _look_at(self, offer: list[Any] | None) -> None:
        wanted = {name: list(weight.shape) for name, weight in self.start.items()}
        if offer is not None and (strange := [name for name, _, shape in offer if wanted.get(name) != shape]):
            raise Refusal(500, f"not the weights of this server's model: {strange[:3]}")

    def _read(self, info: dict[str, Any]) -> None:
        if (offer := info.get("offer")) is not None:
            self._look_at(offer)
            self.offered = {name: Entry(dtype, tuple(shape)) for name, dtype, shape in offer}
            return
        if info.get("receive"):
            assert self.group is not None, "no group was joined"
            state = {name: self.group.receive(entry) for name, entry in self.offered.items()}
            self.received += len(state)
        else:
            files = sorted(Path(info["folder"]).glob("*.safetensors"))
            state = {name: weight for file in files for name, weight in load_file(file).items()}
        if not state or set(state) - set(self.start):
            raise Refusal(500, f"not the weights of this server's model: {sorted(set(state) ^ set(self.start))[:3]}")
        if self.stale_head:
            state.pop("lm_head.weight", None)
        with self.lock:
            self.model.load_state_dict(state, strict=False)

    def _complete(self, body: dict[str, Any]) -> Any:
        with self.lock:
            self.asked.append(body)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            time.sleep(self.hangs_s)
            with self.lock:
                if body["model"] not in ("policy", *self.adapters):
                    raise Refusal(404, f"The model `{body['model']}` does not exist.")
                if len(body["prompt"]) + body["max_tokens"] > self.max_model_len:
                    raise Refusal(400, "maximum context length")
                if (wanted := body.get("logprob_token_ids")) is not None:
                    return self._score(body, wanted[0])
                if self.dies_after is not None:
                    self.is_dead = self.dies_after <= 0
                    self.dies_after -= 1
                return self._write(body)
        finally:
            with self.lock:
                self.at_once -= 1

    def _score(self, body: dict[str, Any], token: int) -> Any:
        value = float(self._logits(body["model"], body["prompt"]).log_softmax(-1)[token])
        return {"choices": [{"logprobs": {"top_logprobs": [{f"token_id:{token}": value}]}}]}

    def _write(self, body: dict[str, Any]) -> Any:
        uniforms = np.random.default_rng(body.get("seed", 0)).random(body["max_tokens"])
        temperature = body["temperature"] or 1.0
        token_ids: list[int] = []
        logprobs: list[float] = []
        for uniform in uniforms:
            logits = self._logits(body["model"], [*body["prompt"], *token_ids]) / temperature
            logits = filter_logits(logits[None], body["top_p"], body["top_k"])[0]
            draw = torch.tensor([[uniform]], dtype=torch.float32)
            weights = (logits - logits.max()).exp()[None]
            token = int(inverse_cdf(weights, draw)) if body["temperature"] else int(logits.argmax())
            token_ids.append(token)
            logprobs.append(float(logits.log_softmax(-1)[token]))  # within what top_p and top_k left, as vLLM
            if token in body["stop_token_ids"]:
                break
        reason = "stop" if token_ids[-1] in body["stop_token_ids"] else "length"
        return {
            "choices": [{"token_ids": token_ids, "logprobs": {"token_logprobs": logprobs}, "finish_reason": reason}]
        }

    def _model(self, name: str) -> PreTrainedModel:
        """The model with the adapter of that name, if it is one."""
        if name == "policy":
            return self.model
        key = (name, len(self.given))
        if key not in self.merged:
            adapted = PeftModel.from_pretrained(copy.deepcopy(self.model), str(self.adapters[name]))
            self.merged[key] = adapted.merge_and_unload()
        return self.merged[key]

    @torch.inference_mode()
    def _logits(self, name: str, token_ids: list[int]) -> torch.Tensor:
        logits: torch.Tensor = self._model(name)(torch.tensor([token_ids])).logits[0, -1].float()
        return logits


@contextmanager
def serve(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, port: int = 0) -> Iterator[Served]:
    """A server of the model, which becomes its own."""
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    served = Served(model, tokenizer, start=state)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(lambda: served.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            self._answer(lambda: served.post(self.path, body))

        def _answer(self, work: Any) -> None:
            num_restarts = served.num_restarts
            if served.is_dead:
                self.close_connection = True
                return
            try:
                status, answer = 200, work()
            except Refusal as refusal:
                status, answer = refusal.status, {"error": {"message": str(refusal)}}
            if served.is_dead or served.num_restarts != num_restarts:  # it died meanwhile
                self.close_connection = True
                return
            payload = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            with suppress(ConnectionError):  # whoever asked may be gone
                self.wfile.write(payload)

        def log_message(self, *args: Any) -> None:
            pass

    class Listening(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # by default a client that opens many connections is refused some

    http = Listening(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield served
    finally:
        http.shutdown()
        http.server_close()
        thread.join()

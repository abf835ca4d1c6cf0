"""Real vLLM servers for slow tests, each started once a session by `regroup vllm`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel

from configs.errors import ConfigError
from flows.engines.settings import find_environment
from flows.engines.watching import answers, tail
from flows.prefect_server import HOST, free_port
from grpo_train.policies.tiny_model import VLLM_HEAD_DIM, build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.vllm.post import connect
from reward_training.endpoint import Endpoint
from tests.paths import ROOT

CONFIG = ROOT / "configs" / "tiny_vllm.yaml"
START_S = 600
PROMPT = [3, 20, 31, 12, 55, 4, 7, 8, 9, 10, 60, 61, 62, 63]


class Started:
    """A server that `regroup vllm` watches, and the folder of the model that it was started from."""

    def __init__(self, workspace: Path, model: Path, *options: str) -> None:
        try:
            environment = find_environment(None, ROOT)
        except ConfigError as error:
            pytest.skip(str(error))
        self.workspace, self.model = workspace, model
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.server = connect(self.url)
        self.out = workspace / "regroup-vllm.out"
        settings = [f"policy.path={model}", f"grpo_config.vllm.urls=[{self.url!r}]", *options]
        chosen = [text for setting in settings for text in ("--set", setting)]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.cli", "vllm", str(CONFIG), "--venv", str(environment), *chosen],
                cwd=workspace,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def wait_until_ready(self) -> None:
        """Raises AssertionError if the command ends or takes too long."""
        deadline = time.monotonic() + START_S
        while not answers(self.url):
            assert self.process.poll() is None, f"{self.out.read_text()}"
            assert time.monotonic() < deadline, f"{self.out.read_text()}\n{tail(self.log)}"
            time.sleep(0.5)

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.workspace / ".vllm" / f"server-{self.port}.log"

    def family(self) -> list[psutil.Process]:
        """All processes below the command."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.process.wait(60)


@contextmanager
def started(workspace: Path, model: Path, *options: str) -> Iterator[Started]:
    """A server that is ready, for as long as the context is open."""
    server = Started(workspace, model, *options)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.server.close()
        if server.process.poll() is None:
            server.end()


def tiny(*, seed: int = 0, tied: bool = False) -> LlamaForCausalLM:
    """A small random model that vLLM serves on a CPU. Those of two seeds are far apart, where built-in ones all write digits."""
    model = build_tiny_model(build_tiny_tokenizer(), seed=seed, head_dim=VLLM_HEAD_DIM)
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            weight.normal_(0, 0.2, generator=drawn)
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    return model


def save(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    """Write the model and its tokenizer."""
    model.save_pretrained(str(folder), **settings)
    build_tiny_tokenizer().save_pretrained(str(folder))
    return folder


def distance(server: Endpoint, model: PreTrainedModel, name: str | None = None) -> float:
    """Mean distance between the log-probabilities that server and model give to what the server writes after PROMPT, in nats."""
    body = {
        "model": name or next(iter(server.models())),
        "prompt": PROMPT,
        "max_tokens": 12,
        "logprobs": 0,
        "temperature": 1.0,
        "seed": 3,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    [choice] = server.post("/v1/completions", body, 120)["choices"]
    written = choice["token_ids"]
    with torch.no_grad():
        logprobs = model(torch.tensor([PROMPT + written])).logits[0].log_softmax(-1)
    known = logprobs[len(PROMPT) - 1 : -1].gather(1, torch.tensor(written).unsqueeze(1)).squeeze(1)
    return float((known - torch.tensor(choice["logprobs"]["token_logprobs"])).abs().mean())

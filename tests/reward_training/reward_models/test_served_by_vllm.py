"""A reward model behind a real vLLM server: the local model's scores, a server that is killed, and other weights."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig

from configs.errors import RewardError
from configs.schema.reward_models import ServedRewardModel
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from reward_training.endpoint import Endpoint
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.reward_models.served import ServedScorer
from reward_training.transformer.rendering import conversation_text
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

START_S = 600


def vllm_python() -> Path:
    """Python of the environment with vLLM, which `make vllm` builds."""
    python = Path(os.environ.get("REGROUP_VLLM_VENV", ROOT / ".venv-vllm")) / "bin" / "python"
    if not python.exists():
        pytest.skip(f"no {python}: `make vllm` builds it, or REGROUP_VLLM_VENV names it")
    return python


def save_model(folder: Path, seed: int) -> Path:
    """A small random Llama with one output and heads of 32 dimensions, which vLLM's kernels for CPUs take."""
    tokenizer = build_tiny_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


class VllmServer:
    """vLLM with a reward model on a port of its own; it can be killed, and started with another folder."""

    def __init__(self, workspace: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port: int = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = workspace / "vllm.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path) -> None:
        command = [
            str(vllm_python()), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "taste",
            "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32", "--enforce-eager", "--max-model-len", "256",
        ]  # fmt: skip
        variables = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=kept | variables, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.5)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return save_model(folder / "first", 0), save_model(folder / "second", 1)


@pytest.fixture(scope="module")
def server(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    vllm = VllmServer(tmp_path_factory.mktemp("vllm"))
    try:
        vllm.start(folders[0])
        vllm.wait()
        yield vllm
    finally:
        vllm.kill()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    tokenizer = build_tiny_tokenizer()
    return [conversation_text(tokenizer, f"{i} + {3 * i}?", "so " * (i % 5) + str(4 * i)) for i in range(24)]


def config_for(server: VllmServer, folder: Path) -> ServedRewardModel:
    return ServedRewardModel(url=server.url, model="taste", path=str(folder), max_length=200, patience_s=600.0)


@pytest.fixture(scope="module")
def local(folders: tuple[Path, Path], texts: list[str]) -> list[float]:
    with RewardModelScorer(folders[0], max_length=200, precision="float32", device=torch.device("cpu")) as scorer:
        return scorer.scores(texts)


def while_away(server: VllmServer, folder: Path, ask: Callable[[], None]) -> None:
    """Kill the server, begin to ask, and start it with the model in `folder`."""
    server.kill()
    starting = Thread(target=server.start, args=(folder,))
    starting.start()
    ask()
    starting.join()


def test_vllm_gives_the_scores_of_the_local_model(
    server: VllmServer, folders: tuple[Path, Path], texts: list[str], local: list[float]
) -> None:
    with ServedScorer("taste", config_for(server, folders[0])) as scorer:
        held = scorer.open()
        assert scorer.scores(texts) == pytest.approx(local, abs=1e-4)
    assert (held.max_length, held.has_vocabulary) == (256, True)
    assert max(local) - min(local) > 0.1


def test_unless_asked_otherwise_vllm_gives_the_sigmoid(server: VllmServer) -> None:
    body = {"model": "taste", "input": [[5, 6, 7]], "add_special_tokens": False}
    with closing(Endpoint(server.url, timeout_s=60)) as endpoint:
        raw, plain = (
            endpoint.post("/classify", body | extra)["data"][0]["probs"][0] for extra in ({"use_activation": False}, {})
        )
    assert plain == pytest.approx(float(torch.sigmoid(torch.tensor(raw))), abs=1e-5)


def test_a_server_that_is_killed_is_waited_for_and_other_weights_are_refused(
    server: VllmServer, folders: tuple[Path, Path], texts: list[str], local: list[float], tmp_path: Path
) -> None:
    with ServedScorer("taste", config_for(server, folders[0]), record=tmp_path / "taste.json") as scorer:
        scorer.open()

        def same() -> None:
            assert scorer.scores(texts) == pytest.approx(local, abs=1e-4)

        def other() -> None:
            with pytest.raises(RewardError, match="holds other weights"):
                scorer.scores(texts)

        while_away(server, folders[0], same)
        while_away(server, folders[1], other)

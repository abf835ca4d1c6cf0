"""Refuses a server that cannot write for a policy, before any work is done: away, without the plugin, of another model or
vocabulary, with too short a context, or with other log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from configs.errors import ConfigError, ServerAway, ServerDiffers, ServerRefused
from configs.schema.grpo import GrpoConfig, VllmConfig
from grpo_train.sampling.vllm.known import LogprobsOf, known_tokens, refuse_mismatch, server_mismatch
from grpo_train.sampling.vllm.plugin import LOAD_S, PROTOCOL, check_plugin, held, reason
from grpo_train.sampling.vllm.policy_folder import weights_in
from reward_training.endpoint import Endpoint

START = "start one by `regroup vllm CONFIG`, which also says the command for another machine, or drop grpo_config.vllm"
PROBE = "What is 12 + 7?\n\tÄußerst <think>naïve</think> {x: [1, 2]} 中文 "
"""text that vocabularies cut differently"""


def check_server(
    server: Endpoint, grpo: GrpoConfig, folder: Path, tokenizer: PreTrainedTokenizerBase, longest_prompt: int
) -> None:
    """Raise ConfigError, with what is wrong and the remedy, unless the server can write for the policy in `folder`."""
    assert grpo.vllm is not None
    where = f"grpo_config.vllm.urls: {server.url}"
    try:
        [(name, model), *_] = server.models().items()
        check_plugin(server)
        _check_settings(server, grpo.vllm, where)
        _check_context(where, int(model["max_model_len"]), longest_prompt, grpo.max_response_length)
        _check_vocabulary(server, where, name, tokenizer)
        _check_weights(server, where, folder)
    except ServerAway as error:
        raise ConfigError(f"{where} does not answer ({error}); {START}") from error
    except (ServerRefused, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} is no vLLM server that Regroup can use ({error}); {START}") from error


def _check_settings(server: Endpoint, vllm: VllmConfig, where: str) -> None:
    told = server.get("/server_info?config_format=json", LOAD_S)["vllm_config"]  # looks at the whole machine
    mode = told["model_config"].get("logprobs_mode")
    if mode != "processed_logprobs":
        raise ConfigError(
            f"{where} gives log-probabilities of the mode {mode!r}, which are not those that it draws by; start it with "
            "--logprobs-mode processed_logprobs, or by `regroup vllm CONFIG`"
        )
    if vllm.weights == "lora" and not told.get("lora_config"):
        raise ConfigError(
            f"{where} takes no adapters; start it with --enable-lora, or use grpo_config.vllm.weights=files"
        )


def _check_context(where: str, room: int, prompt: int, response: int) -> None:
    if prompt + response > room:
        raise ConfigError(
            f"{where} has room for {room} tokens, and the longest prompt ({prompt}) with "
            f"grpo_config.max_response_length={response} needs {prompt + response}; start it with --max-model-len "
            f"{prompt + response}, or lower problems.max_prompt_length or grpo_config.max_response_length"
        )


def _check_vocabulary(server: Endpoint, where: str, model: str, tokenizer: PreTrainedTokenizerBase) -> None:
    probe = PROBE + "".join(sorted(tokenizer.all_special_tokens))
    body = {"model": model, "prompt": probe, "add_special_tokens": False}
    theirs = server.post("/tokenize", body)["tokens"]
    ours = tokenizer(probe, add_special_tokens=False)["input_ids"]
    if theirs != ours:
        raise ConfigError(
            f"{where} has another vocabulary than the policy: it reads a text as {theirs[:8]}..., the policy as {ours[:8]}...; "
            "start it from the policy's folder, or by `regroup vllm CONFIG`"
        )


def _check_weights(server: Endpoint, where: str, folder: Path) -> None:
    """Offer the folder's weights by name, type and shape; the server's plugin says whether they are its model's."""
    body = {"init_info": {"protocol": PROTOCOL, "offer": weights_in(folder)}}
    try:
        server.post("/init_weight_transfer_engine", body, LOAD_S)
    except ServerRefused as error:
        raise ConfigError(
            f"{where} serves another model than the policy ({reason(str(error))}); start it from the policy's folder, or by "
            "`regroup vllm CONFIG`"
        ) from error


def check_start(
    server: Endpoint, vllm: VllmConfig, prompts: Sequence[Sequence[int]], logprobs_of: LogprobsOf
) -> float | None:
    """How far a server that was never given weights is from the policy; None if it was, since then it may hold others.

    Raises:
        ConfigError: too far.
    """
    try:
        if held(server) is not None:
            return None
        known = known_tokens(prompts, logprobs_of)
        [name, *_] = server.models()
        mismatch = server_mismatch(server, name, known, vllm.request_timeout_s)
        refuse_mismatch(server, mismatch, vllm.max_mismatch, "the policy")
    except (ServerAway, ServerRefused, ServerDiffers) as error:
        raise ConfigError(f"grpo_config.vllm.urls: {error}") from error
    return mismatch

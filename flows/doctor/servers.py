"""Checks of the vLLM servers that are to write responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.records import Problem
from configs.schema.config import Config
from flows.doctor.architecture import longest_prompt
from flows.doctor.checks import Finding
from grpo_train.policies.model import load_for_sampling
from grpo_train.sampling.vllm.checking import check_server, check_start
from grpo_train.sampling.vllm.known import NUM_PROMPTS
from grpo_train.sampling.vllm.post import connect
from grpo_train.updating.response_logprobs import sequence_logprobs
from reward_training.transformer.rendering import encode_prompt


def check_vllm(
    config: Config, folder: Path, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem]
) -> Iterator[Finding]:
    """Whether each server is there and fits the policy in `folder`; nothing without `grpo_config.vllm`.

    The policy is loaded to score some tokens only where a server was never given weights: another may hold a later policy. With
    `launcher.shard` it may not fit into one process, and training compares alone.
    """
    vllm = config.grpo_config.vllm
    if vllm is None:
        return
    longest = longest_prompt(tokenizer, problems)
    prompts = [encode_prompt(tokenizer, problem) for problem in problems[:NUM_PROMPTS]]

    @cache
    def model() -> PreTrainedModel:
        return load_for_sampling(folder, config.grpo_config.precision, config.template_settings)[0]

    def logprobs_of(rows: Sequence[Sequence[int]]) -> list[list[float]]:
        return sequence_logprobs(model(), rows, max_tokens=config.grpo_config.micro_batch_tokens)

    for url in vllm.urls:
        server = connect(url)
        try:
            check_server(server, config.grpo_config, folder, tokenizer, longest)
            if config.launcher.shard:
                rest = "training compares its log-probabilities (launcher.shard)"
            else:
                mismatch = check_start(server, vllm, prompts, logprobs_of)
                rest = "it was given weights before" if mismatch is None else f"{mismatch:.3f} nats from it"
        except ConfigError as error:
            yield Finding("vllm", "fail", *_parts(error))
        else:
            yield Finding("vllm", "ok", f"{url} fits the policy; {rest}")
        finally:
            server.close()


def _parts(error: ConfigError) -> tuple[str, str]:
    """(what is wrong, the remedy)."""
    what, _, remedy = str(error).rpartition("; ")
    return (what, remedy) if what else (remedy, "")

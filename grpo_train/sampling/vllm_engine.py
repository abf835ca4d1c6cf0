"""Responses of training by a vLLM server, through TRL's client.

The server is the user's own, started as TRL's guide says:

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --weight-transfer-config '{"backend": "nccl"}'

Before it writes for a step it is sent the policy's weights. Its arithmetic is not the trainer's, so what it writes is slightly off-policy: the
loss weighs each token by `grpo_train.objective.loss.truncated_weights`. Evaluation and regeneration use the sampler of `generation`. A run that is
resumed goes on with the right weights, but what a server draws is not repeated to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from requests import RequestException
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.generation.vllm_client import VLLMClient

from configs.errors import ConfigError
from configs.records import Completion, Problem
from configs.schema.grpo import VllmConfig
from grpo_train.sampling.generation import Sampling
from reward_training.transformer.rendering import encode_prompt


class VllmEngine:
    """A server that writes as the policy which it was last sent."""

    def __init__(self, config: VllmConfig, stop_ids: set[int]) -> None:
        """Connect.

        Raises:
            ConfigError: vLLM is not installed here, or no server answers at the address in time.
        """
        self._config, self._stop_ids = config, stop_ids
        self._holds: str | None = None
        self._is_joined = False
        try:
            self._client = VLLMClient(
                base_url=config.base_url, group_port=config.group_port, connection_timeout=config.connection_timeout_s
            )
        except ImportError as error:
            raise ConfigError(
                f"grpo_config.vllm needs vLLM beside the trainer ({error}); pip install 'regroup[gpu]', or drop the block"
            ) from error
        except (ConnectionError, RequestException) as error:
            raise ConfigError(
                f"grpo_config.vllm.base_url={config.base_url}: {error} Start one, or drop the block"
            ) from error

    def follow(self, model: PreTrainedModel, policy_id: str) -> None:
        """Send the model's weights, unless the server has those of `policy_id` already."""
        if self._holds == policy_id:
            return
        if not self._is_joined:
            self._client.init_communicator(model.device)
            self._is_joined = True
        self._client.update_model_params(model)
        self._client.reset_prefix_cache()  # type: ignore[no-untyped-call]
        self._holds = policy_id

    def sample(
        self,
        tokenizer: PreTrainedTokenizerBase,
        problems: Sequence[Problem],
        group_sizes: Sequence[int],
        sampling: Sampling,
        *,
        seed: int,
        policy_id: str,
        step: int,
    ) -> list[Completion]:
        """`group_sizes` completions of each problem, in the order of `problems`."""
        prompts = [encode_prompt(tokenizer, problem) for problem in problems]
        written: dict[int, list[Completion]] = {}
        for size in sorted(set(group_sizes) - {0}):
            asked = [number for number, wanted in enumerate(group_sizes) if wanted == size]
            answer = self._client.generate(
                [prompts[number] for number in asked],
                n=size,
                temperature=sampling.temperature,
                max_tokens=sampling.max_response_length,
                logprobs=0,
                generation_kwargs={"seed": (seed + size) % 2**31},
            )
            for place, (token_ids, logprobs) in enumerate(_rows(answer, len(asked) * size)):
                number, index = asked[place // size], place % size
                completion = Completion(
                    problem_key=problems[number].key,
                    index=index,
                    prompt_ids=prompts[number],
                    token_ids=token_ids,
                    text=tokenizer.decode(token_ids, skip_special_tokens=True),
                    finish_reason="stop" if token_ids[-1] in self._stop_ids else "length",
                    logprobs=logprobs,
                    policy_id=policy_id,
                    step=step,
                    seed=seed,
                )
                written.setdefault(number, []).append(completion)
        return [completion for number in range(len(problems)) for completion in written.get(number, [])]


def _rows(answer: dict[str, Any], number: int) -> Iterator[tuple[list[int], list[float]]]:
    """Token ids and log-probabilities of each response.

    Raises:
        RuntimeError: the server left a response or a number out.
    """
    if len(answer["completion_ids"]) != number or answer["logprobs"] is None:
        raise RuntimeError(
            f"the vLLM server gave {len(answer['completion_ids'])} responses for {number}, log-probabilities: "
            f"{answer['logprobs'] is not None}; run one of the versions that TRL supports"
        )
    for token_ids, logprobs in zip(answer["completion_ids"], answer["logprobs"], strict=True):
        values = [each[0] for each in logprobs]
        if not token_ids or len(values) != len(token_ids) or not torch.tensor(values).isfinite().all():
            raise RuntimeError(f"the vLLM server gave {len(token_ids)} tokens with log-probabilities {values[:8]}")
        yield list(token_ids), values

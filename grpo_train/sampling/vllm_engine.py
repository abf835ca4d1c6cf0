"""Samples training responses from a vLLM server, through TRL's client.

The user starts the server, as TRL's guide says:

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs --weight-transfer-config '{"backend": "nccl"}'

Before it samples for a step, the server is sent the policy's weights. Its arithmetic differs from the trainer's, so its
responses are slightly off-policy: the loss weights each token by `grpo_train.updating.loss.truncated_weights`.
Evaluation and regeneration use the sampler in `generation`. A resumed run goes on with the right weights, but the
server's draws are not reproduced bit for bit.
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
from grpo_train.sampling.decoding import Decoder, begun_response
from grpo_train.sampling.generation import Sampling
from reward_training.transformer.rendering import encode_prompt


class VllmEngine:
    """A vLLM server, which samples from the policy whose weights it was last sent."""

    def __init__(self, config: VllmConfig, stop_ids: set[int]) -> None:
        """Connect to the server.

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
        """Send the model's weights, unless the server already has those of `policy_id`."""
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
        """Sample `group_sizes[i]` completions of problem i; returned group by group in the order of `problems`."""
        prompts = [encode_prompt(tokenizer, problem) for problem in problems]
        begun = [begun_response(tokenizer, problem.prompt) for problem in problems]
        decode = Decoder(tokenizer)
        written: dict[int, list[Completion]] = {}
        for size in sorted(set(group_sizes) - {0}):
            indices = [i for i, wanted in enumerate(group_sizes) if wanted == size]
            answer = self._client.generate(
                [prompts[i] for i in indices],
                n=size,
                temperature=sampling.temperature,
                max_tokens=sampling.max_response_length,
                logprobs=0,
                generation_kwargs={"seed": (seed + size) % 2**31},
            )
            for row, (token_ids, logprobs) in enumerate(_rows(answer, len(indices) * size)):
                i, index = indices[row // size], row % size
                completion = Completion(
                    problem_key=problems[i].key,
                    index=index,
                    prompt_ids=prompts[i],
                    token_ids=token_ids,
                    text=decode(token_ids),
                    begun=begun[i],
                    finish_reason="stop" if token_ids[-1] in self._stop_ids else "length",
                    logprobs=logprobs,
                    policy_id=policy_id,
                    step=step,
                    seed=seed,
                )
                written.setdefault(i, []).append(completion)
        return [completion for i in range(len(problems)) for completion in written.get(i, [])]


def _rows(answer: dict[str, Any], num_responses: int) -> Iterator[tuple[list[int], list[float]]]:
    """(token ids, log-probabilities) of each response in the server's answer.

    Raises:
        RuntimeError: responses or log-probabilities are missing.
    """
    if len(answer["completion_ids"]) != num_responses or answer["logprobs"] is None:
        raise RuntimeError(
            f"the vLLM server gave {len(answer['completion_ids'])} responses for {num_responses}, log-probabilities: "
            f"{answer['logprobs'] is not None}; run one of the versions that TRL supports"
        )
    for token_ids, logprobs in zip(answer["completion_ids"], answer["logprobs"], strict=True):
        values = [each[0] for each in logprobs]
        if not token_ids or len(values) != len(token_ids) or not torch.tensor(values).isfinite().all():
            raise RuntimeError(f"the vLLM server gave {len(token_ids)} tokens with log-probabilities {values[:8]}")
        yield list(token_ids), values

"""What is asked in a call of a sampler, and the records of what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from configs.records import Completion, Problem
from configs.schema.config import Config, RegenerationConfig
from configs.schema.grpo import GrpoConfig
from grpo_train.sampling.decoding import Decoder, begun_response
from grpo_train.sampling.rows import Sampling
from reward_training.rewards.sought import texts_sought
from reward_training.transformer.rendering import encode_prompt

OnGroup = Callable[[int, Problem, list[Completion]], None]
"""called with a problem's index, the problem and its completions"""


def groups_of(drawn: GrpoConfig | RegenerationConfig, config: Config) -> Sampling:
    """How the run's groups are drawn, in training (`config.grpo_config`) or at the end of a round (`config.regeneration`)."""
    return Sampling(
        group_size=drawn.group_size,
        temperature=drawn.temperature,
        max_response_length=config.grpo_config.max_response_length,
        top_p=drawn.top_p,
        top_k=drawn.top_k,
        max_rows=config.grpo_config.generation_rows,
        sought=texts_sought(config.rewards),
    )


class Write(Protocol):
    """Writes responses: `generation.sample` of a model here, or `PolicyServers.sample`."""

    def __call__(
        self,
        problems: Sequence[Problem],
        sampling: Sampling,
        *,
        seed: int,
        policy_id: str,
        step: int = 0,
        should_stop: Callable[[], bool] = ...,
        on_progress: Callable[[int], None] = ...,
        on_group: OnGroup = ...,
    ) -> list[Completion]: ...


class Asked:
    """Problems with their rendered prompts."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        problems: Sequence[Problem],
        sampling: Sampling,
        *,
        policy_id: str,
        step: int,
        seed: int,
    ) -> None:
        self.problems, self._policy_id, self._step, self._seed = problems, policy_id, step, seed
        self.prompts = [encode_prompt(tokenizer, problem) for problem in problems]
        self._begun = [begun_response(tokenizer, problem.prompt) for problem in problems]
        self._decode = Decoder(tokenizer, sampling.sought)

    def completion(
        self, problem: int, index: int, token_ids: list[int], logprobs: list[float], finish_reason: str
    ) -> Completion:
        """The record of response `index` to the problem at position `problem`."""
        return Completion(
            problem_key=self.problems[problem].key,
            index=index,
            prompt_ids=self.prompts[problem],
            token_ids=token_ids,
            text=self._decode(token_ids),
            begun=self._begun[problem],
            finish_reason=finish_reason,
            logprobs=logprobs,
            policy_id=self._policy_id,
            step=self._step,
            seed=self._seed,
        )

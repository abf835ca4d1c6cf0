"""What a vLLM server is asked for one response, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import ServerAway, ServerRefused
from configs.seeds import seed_for
from grpo_train.sampling.rows import Sampling

COMPLETIONS = "/v1/completions"
PLAIN = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""what a server would otherwise take from the model's generation_config.json"""


@dataclass(frozen=True)
class Ask:
    """One response that is wanted."""

    problem: int
    """the problem's position in the batch"""
    index: int
    """the response's position in its group"""
    body: dict[str, Any]
    """of the request, without the model's name"""


@dataclass(frozen=True)
class Written:
    """One response as a server gave it."""

    token_ids: list[int]
    logprobs: list[float]


def ask(
    problem: int,
    index: int,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    *,
    stop_ids: Collection[int],
    seed: int,
    problem_key: str,
) -> Ask:
    """The request of a response. Its seed depends on problem and index alone, not on what else is asked, or whom.

    The tokens that end a response are ours alone: the server's own ends are ignored. `logprobs: 0` asks for those of
    the tokens that are sampled.
    """
    is_greedy = sampling.is_greedy(index)
    body = {
        "prompt": list(prompt_ids),
        "max_tokens": sampling.max_response_length,
        "temperature": 0.0 if is_greedy else sampling.temperature,
        "top_p": 1.0 if is_greedy else sampling.top_p,
        "top_k": 0 if is_greedy else sampling.top_k,
        "stop_token_ids": sorted(stop_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "skip_special_tokens": False,
        **PLAIN,
    }
    # a greedy row draws nothing, and seeded rows cost a server its fast path
    return Ask(problem, index, body if is_greedy else body | {"seed": seed_for(seed, problem_key, index=index)})


def written(answer: Any, max_tokens: int) -> Written:
    """The response in a server's answer.

    Raises:
        ServerAway: the server gave up in the middle of the response.
        ServerRefused: the response is not there, cut, or without its tokens or their log-probabilities.
    """
    try:
        [choice] = answer["choices"]
        reason = choice["finish_reason"]
        if reason not in ("stop", "length"):
            raise ServerAway(f"the vLLM server ended a response with {reason!r}")
        token_ids = [int(token) for token in choice["token_ids"]]
        logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ServerRefused(
            f"the vLLM server's answer lacks tokens or log-probabilities ({type(error).__name__}: {error}); "
            "run a version that docs/vllm.md names"
        ) from error
    is_whole = 0 < len(token_ids) <= max_tokens and (reason == "stop" or len(token_ids) == max_tokens)
    if not is_whole or len(logprobs) != len(token_ids) or not all(map(math.isfinite, logprobs)):
        raise ServerRefused(
            f"the vLLM server gave {len(token_ids)} of at most {max_tokens} tokens (ended by {reason!r}) with {len(logprobs)} "
            f"log-probabilities {logprobs[:8]}; give it a longer --max-model-len, or run a version that docs/vllm.md names"
        )
    return Written(token_ids, logprobs)

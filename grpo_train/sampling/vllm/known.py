"""A few known tokens, whose log-probabilities server and trainer both give: do they hold the same weights?

The tokens are those of some prompts, so nothing has to be written first. The server is asked for one token after each
beginning of a prompt, and for the log-probability of the token that is known to follow: unlike `prompt_logprobs` this
does not end the engine of a server with --enable-lora on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from configs.errors import ServerDiffers, ServerRefused
from configs.records import Record
from grpo_train.sampling.vllm.asking import COMPLETIONS, PLAIN
from reward_training.endpoint import Endpoint
from reward_training.waiting import Daemons

NUM_PROMPTS, NUM_TOKENS = 8, 12
TELLING = (-6.0, -0.05)
"""log-probabilities in this range differ between weights, and little by rounding"""
TOGETHER = 8
"""requests at the same time"""


class KnownToken(Record):
    """A token with what stands before it, and the log-probability that the policy gives it at temperature 1."""

    before: list[int]
    token: int
    logprob: float


LogprobsOf = Callable[[Sequence[Sequence[int]]], list[list[float]]]
"""{token ids of each sequence: log-probabilities, at temperature 1, of its tokens from the second on}"""


def known_tokens(prompts: Sequence[Sequence[int]], logprobs_of: LogprobsOf) -> list[KnownToken]:
    """At most NUM_TOKENS tokens of the first prompts, with their log-probabilities by `logprobs_of`; telling ones first.

    No two of them follow the same tokens, as the first of all prompts do.
    """
    distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts if len(prompt) > 1))[:NUM_PROMPTS]
    found = {
        prompt[:i]: KnownToken(before=list(prompt[:i]), token=prompt[i], logprob=values[i - 1])
        for prompt, values in zip(distinct, logprobs_of(distinct), strict=True)
        for i in range(1, len(prompt))
    }
    low, high = TELLING
    telling = [known for known in found.values() if low < known.logprob < high]
    others = [known for known in found.values() if not low < known.logprob < high]
    return _spread(telling) + others[: max(0, NUM_TOKENS - len(telling))]


def _spread(known: list[KnownToken]) -> list[KnownToken]:
    """NUM_TOKENS of them, evenly spread; all of fewer."""
    return [known[i * len(known) // NUM_TOKENS] for i in range(NUM_TOKENS)] if len(known) > NUM_TOKENS else known


def rescored(known: Sequence[KnownToken], logprobs_of: LogprobsOf) -> list[KnownToken]:
    """The same tokens with the log-probabilities that `logprobs_of` gives them now."""
    values = logprobs_of([[*one.before, one.token] for one in known])
    return [one.model_copy(update={"logprob": row[-1]}) for one, row in zip(known, values, strict=True)]


def server_mismatch(server: Endpoint, model: str, known: Sequence[KnownToken], timeout_s: float) -> float:
    """Mean distance of the server's log-probabilities from those in `known`, in nats; 0 without known tokens.

    Raises:
        ServerAway: it does not answer.
        ServerRefused: its answers have no log-probability of the token that was asked for.
    """
    if not known:
        return 0.0

    def distance(one: KnownToken) -> float:
        answer = server.post(COMPLETIONS, _body(model, one), timeout_s)
        return abs(_logprob(answer, one.token) - one.logprob)

    threads = Daemons(TOGETHER)
    try:
        asked = [threads.submit(partial(distance, one)) for one in known]
        return fmean([each.result() for each in asked])
    finally:
        threads.close()


def refuse_mismatch(server: Endpoint, mismatch: float, bound: float, held: str) -> None:
    """Raise ServerDiffers if the mismatch is over the bound; `held` says what the server should hold."""
    if mismatch <= bound:
        return
    raise ServerDiffers(
        f"the vLLM server {server.url} gives known tokens log-probabilities that are {mismatch:.3f} nats from those of {held}; "
        f"grpo_config.vllm.max_mismatch={bound}. Likely it holds other weights: started from another model, a plugin or vLLM of "
        "another version, or another trainer sends it weights too. A quantised server, or one without --logprobs-mode "
        "processed_logprobs, differs as well. Restart it by `regroup vllm`, and run the same command again"
    )


def _body(model: str, known: KnownToken) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": known.before,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 1,
        "logprob_token_ids": [known.token],
        "return_tokens_as_token_ids": True,
        "ignore_eos": True,
        **PLAIN,
    }


def _logprob(answer: Any, token: int) -> float:
    """The log-probability of `token` as the next one."""
    try:
        [values] = answer["choices"][0]["logprobs"]["top_logprobs"]
        return float(values[f"token_id:{token}"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ServerRefused(
            f"the vLLM server gave no log-probability of token {token} ({type(error).__name__}: {error}); "
            "run a version that docs/vllm.md names"
        ) from error

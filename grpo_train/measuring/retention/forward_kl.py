r"""Estimates KL(given policy || policy) on the task's own prompts, which predicts what a fine-tuned model forgets.

arXiv 2509.04259 (RL's Razor) finds forgetting to follow the forward KL from the policy that training began with, on prompts of
the new task. It is taken over responses that the given policy wrote to problems of the task, by the k3 estimate for each token,
$e^{d} - d - 1$ with $d = \log p_{policy} - \log p_{given}$, and their mean over a response's tokens. Against the paper: the
distributions are those at the sampling temperature, and the prompts are those of the first regeneration's shard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PreTrainedModel

from configs.records import Completion, Estimate
from configs.seeds import seed_for
from grpo_train.updating.response_logprobs import policy_kl, response_rows
from reward_training.statistics import bootstrap_mean


def first_responses(completions: Sequence[Completion], policy_id: str, num_problems: int) -> list[Completion]:
    """The first response of a policy to each of the first `num_problems` problems."""
    mine = [one for one in completions if one.policy_id == policy_id and one.index == 0 and one.token_ids]
    return mine[:num_problems]


def forward_kl(
    responses: Sequence[Completion],
    policy: PreTrainedModel,
    given: Callable[[], PreTrainedModel],
    *,
    whole_vocabulary: bool,
    temperature: float,
    max_tokens: int,
    run_seed: int,
    draws: int,
) -> Estimate | None:
    """KL(given || policy) in nats per token, with an interval over problems; None without a response.

    `responses` are the given policy's at `temperature`. Unless their log-probabilities are over the `whole_vocabulary`, `given`
    is loaded and scores them itself. `max_tokens` bounds the positions of a forward pass.
    """
    if not responses:
        return None
    if not whole_vocabulary:
        rows = response_rows(given(), responses, max_tokens=max_tokens, temperature=temperature)
        responses = [one.model_copy(update={"logprobs": row}) for one, row in zip(responses, rows, strict=True)]
    values = policy_kl(policy, responses, max_tokens=max_tokens, temperature=temperature)
    return bootstrap_mean(values, seed=seed_for(run_seed, "retention kl_task"), draws=draws)

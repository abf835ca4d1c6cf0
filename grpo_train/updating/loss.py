"""The losses of the GRPO family as a pure function: probability ratio, clipped surrogate, KL estimate, mean.

Take token t of response i with advantage A, log-probability lp, and ratio r = exp(lp - lp_old) to the policy that wrote
it. With N responses in the batch and T_i tokens in response i, the loss is the mean of
-surrogate + kl_coefficient * KL estimate:

- grpo (DeepSeekMath, arXiv 2402.03300, eq. 3): surrogate min(r A, clip(r) A); mean over each response's tokens, then
  over the responses: sum_i sum_t / (N T_i).
- dapo (arXiv 2503.14476, eq. 8): the same surrogate; mean over all tokens, sum_i sum_t / sum_i T_i. The paper takes
  this mean over a group; here, as in TRL, it is over the batch.
- bnpo (TRL's name): dapo with the mean over a local batch. Over less than the whole batch the mean would depend on
  `micro_batch_tokens`, so here bnpo equals dapo.
- dr_grpo (arXiv 2503.20783, section 3.2): the same surrogate; a constant divisor:
  sum_i sum_t / (N max_response_length).
- gspo (arXiv 2507.18071, eq. 5 to 7): grpo with one ratio per response, the geometric mean of its tokens' ratios.
- cispo (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5): surrogate sg[min(r, 1 + clip_range_high)] A lp, so that a clipped
  token keeps its gradient; mean over all tokens.

All divisors are those of the whole batch, including rows that skip the backward pass for their zero advantage, so the
losses of micro-batches add up to the batch's loss whatever their size. With one update per batch,
r is exp(lp - lp.detach()): its value is 1, and its gradient is that of lp.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.schema.grpo import GrpoConfig, KlEstimator, VllmConfig

LARGEST_LOG = 80.0
"""its exponential is still finite in float32"""


@dataclass(frozen=True)
class BatchSize:
    """The size of the whole batch, by which the loss is divided."""

    num_responses: int
    num_tokens: int
    """number of tokens in all responses together"""


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch, and sums for the metrics."""

    value: Tensor
    """() this micro-batch's part of the batch's loss, to call backward on"""
    clipped_low: Tensor
    """() number of tokens whose ratio was raised to the lower bound"""
    clipped_high: Tensor
    """() number of tokens whose ratio was lowered to the upper bound, dual clip's included"""
    kl_sum: Tensor
    """() sum over responses of k3 averaged over their tokens, in nats per token; 0 without a reference"""


def policy_loss(
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    grpo: GrpoConfig,
    size: BatchSize,
    old_logprobs: Tensor | None = None,
    reference_logprobs: Tensor | None = None,
    weights: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> Loss:
    """The part of the batch's loss that these rows contribute.

    Args:
        logprobs: (B, T) float32 log-probabilities of the response tokens, with gradient.
        advantages: (B,) one per response, or (B, T) one per token.
        mask: (B, T) 1 on response tokens, 0 on padding.
        grpo: names the loss, its clip ranges and the KL term.
        size: of the whole batch.
        old_logprobs: (B, T) under the policy that wrote the responses; None where that is the current policy.
        reference_logprobs: (B, T) under the reference policy; None without a KL term.
        weights: (B, T) `importance_weights` of responses that a server wrote, for all but the KL term; None where there are none.
        row_weights: (B, 1) how often each response counts, its KL term too (`row_sampling`); None where each counts once.
    """
    # padding holds arbitrary numbers: exp of them may overflow, and infinity times 0 is NaN
    logprobs = torch.where(mask.bool(), logprobs, 0.0)
    old = logprobs.detach() if old_logprobs is None else torch.where(mask.bool(), old_logprobs, 0.0)
    advantage = advantages.unsqueeze(1) if advantages.dim() == 1 else advantages
    ratio = _ratio(logprobs - old, mask, grpo)
    bounded = _bounded(ratio, advantage, grpo)
    per_token = -bounded.detach() * advantage * logprobs if grpo.loss == "cispo" else -bounded * advantage
    if weights is not None:
        per_token = per_token * weights
    kl_sum = logprobs.new_zeros(len(logprobs))
    if reference_logprobs is not None:
        per_token = per_token + grpo.kl_coefficient * kl_estimate(logprobs, reference_logprobs, mask, grpo.kl_estimator)
        kl_sum = response_means(k3(logprobs, reference_logprobs, mask), mask)
    if row_weights is not None:
        per_token, kl_sum = per_token * row_weights, kl_sum * row_weights.squeeze(1)
    return Loss(
        value=_batch_mean(per_token, mask, grpo, size),
        clipped_low=((bounded > ratio) * mask).sum().detach(),
        clipped_high=((bounded < ratio) * mask).sum().detach(),
        kl_sum=kl_sum.sum().detach(),
    )


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights of tokens that a server sampled for the trainer, and which of them were beyond the bounds."""

    values: Tensor
    """(B, T) without gradient, 1 on what the server did not write; 0 for what is masked"""
    too_low: Tensor
    """(B, T) bool, where the weight was under the lower bound"""
    too_high: Tensor
    """(B, T) bool, where it was over the upper bound"""


def importance_weights(
    logprobs: Tensor, server_logprobs: Tensor, written: Tensor, vllm: VllmConfig
) -> ImportanceWeights:
    """Weights p / p_server of the tokens in `written` (B, T), or of whole responses, within their bounds.

    A server rounds differently from the trainer, so it samples slightly off-policy. Importance sampling corrects for
    that; bounds keep its variance finite (truncated importance sampling, Ionides 2008; for servers that sample for a
    trainer: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"). Beyond them
    `clip` sets the weight to the bound, and `mask` to 0 (IcePop, arXiv 2510.18855): the token then moves the policy no
    more, while the KL term still counts it. The weight of a response is the product of its tokens'; each of its
    tokens gets it.

    Responses that a server wrote ahead, with the weights of one step before, get the same weights: p is the trainer's
    policy at the first update on them, so that they correct for the step as well, and the clipped ratio keeps later updates near
    p and not near the policy that wrote. This is the decoupled objective of Hilton et al. (arXiv 2110.00641), which AReaL
    (arXiv 2505.24298) finds to keep accuracy where PPO's ratio to the policy that wrote loses it. AReaL computes
    p in a pass of its own; here it is that of the first update, at no cost. The bound above is that of truncation, as in
    IMPALA (arXiv 1802.01561).
    """
    log_ratio = torch.where(written.bool(), logprobs - server_logprobs, 0.0).detach()
    if vllm.importance == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True).expand_as(log_ratio)
    # a product over a long response may overflow; a bound this far off is none
    raw = torch.where(written.bool(), log_ratio.clamp(max=LARGEST_LOG).exp(), 1.0)
    low, high = vllm.min_importance_weight, vllm.max_importance_weight
    too_low, too_high = raw < low, raw > high
    values = raw.clamp(min=low, max=high) if vllm.beyond == "clip" else raw.masked_fill(too_low | too_high, 0.0)
    return ImportanceWeights(values, too_low, too_high)


def _ratio(log_ratio: Tensor, mask: Tensor, grpo: GrpoConfig) -> Tensor:
    """(B, T) ratio of policy to old policy per token; for gspo (B, 1), its geometric mean over the response."""
    if grpo.loss == "gspo":
        log_ratio = response_means(log_ratio, mask).unsqueeze(1)
    return torch.exp(log_ratio)


def _bounded(ratio: Tensor, advantage: Tensor, grpo: GrpoConfig) -> Tensor:
    """The ratio, clipped to the bounds that follow from the sign of the advantage; no gradient flows through a bound.

    For A > 0, min(r A, clip(r) A) = A min(r, 1 + high). For A < 0 it is A max(r, 1 - low), which has no bound above;
    dual clip (arXiv 1912.09729, section "Dual-clip PPO") gives it one, max(min(r A, clip(r) A), dual_clip A). CISPO has
    the upper bound only.
    """
    low = 1 - grpo.clip_range
    high = 1 + (grpo.clip_range if grpo.clip_range_high is None else grpo.clip_range_high)
    if grpo.loss == "cispo":
        return ratio.clamp(max=high)
    falling = torch.where(advantage < 0, ratio.clamp(min=low, max=grpo.dual_clip), ratio)
    return torch.where(advantage > 0, ratio.clamp(max=high), falling)


def _batch_mean(per_token: Tensor, mask: Tensor, grpo: GrpoConfig, size: BatchSize) -> Tensor:
    """() what these (B, T) values add to the mean over the whole batch."""
    match grpo.loss:
        case "grpo" | "gspo":
            return response_means(per_token, mask).sum() / size.num_responses
        case "dapo" | "bnpo" | "cispo":
            return (per_token * mask).sum() / size.num_tokens
        case "dr_grpo":
            return (per_token * mask).sum() / (size.num_responses * grpo.max_response_length)


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor, estimator: KlEstimator) -> Tensor:
    """(B, T) estimate of KL(policy || reference) per token (http://joschu.net/blog/kl-approx.html), 0 on padding.

    With d = reference - policy log-probability, on the policy's own samples:

    - k1 = -d: unbiased, of either sign. Its derivative is grad lp, which is 0 on average and would regularise nothing.
      So it enters the loss as a reward would, with d held fixed: -d grad lp is an unbiased gradient of
      KL(policy || reference).
    - k2 = d^2 / 2: biased, never negative; the same gradient as k1's.
    - k3 = exp(d) - d - 1: unbiased, never negative; its gradient (1 - exp(d)) grad lp is an unbiased gradient of
      KL(reference || policy), the other direction.
    """
    difference = torch.where(mask.bool(), reference_logprobs - logprobs, 0.0)
    match estimator:
        case "k1":
            return -difference.detach() * torch.exp(logprobs - logprobs.detach())
        case "k2":
            return difference**2 / 2
        case "k3":
            return torch.exp(difference) - difference - 1


def k3(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    """(B, T) the k3 estimate, unbiased and never negative; 0 on padding."""
    return kl_estimate(logprobs, reference_logprobs, mask, "k3")


def response_means(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean of (B, T) values over each row's unmasked tokens; 0 for a row without any."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)

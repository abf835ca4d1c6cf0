"""The clipped GRPO loss as a pure function (DeepSeekMath, arXiv 2402.03300, eq. 3 and 4).

Left out against the paper: nothing; with one update per batch the ratio is exp(lp - lp.detach()), which is 1 with the
gradient of lp. The mean over tokens is taken within each response, then over the responses of the whole batch, so that
micro-batches add up to the batch's loss whatever their size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch and what is reported of it."""

    value: Tensor
    """() to call backward on: this micro-batch's part of the batch's loss"""
    clipped_tokens: Tensor
    """() number of tokens whose ratio was clipped in the direction of the advantage"""
    kl_sum: Tensor
    """() sum over responses of the token mean of the KL estimate; 0 without a reference"""


def grpo_loss(
    logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    num_responses: int,
    clip_range: float = 0.2,
    old_logprobs: Tensor | None = None,
    reference_logprobs: Tensor | None = None,
    kl_coefficient: float = 0.0,
) -> Loss:
    """The part of the batch's loss that these rows hold.

    Args:
        logprobs: (B, T) float32 log-probabilities of the response tokens, with gradient.
        advantages: (B,) one a response.
        mask: (B, T) 1 on response tokens, 0 on padding.
        num_responses: of the whole batch, rows that were left out for their zero advantage included.
        clip_range: epsilon; the ratio is clipped to [1 - epsilon, 1 + epsilon].
        old_logprobs: (B, T) of the policy that wrote the responses; None where that is the policy itself.
        reference_logprobs: (B, T) of the reference policy; None without a KL term.
        kl_coefficient: beta, weight of the k3 estimate exp(d) - d - 1 with d = reference - policy (eq. 4).
    """
    old = logprobs.detach() if old_logprobs is None else old_logprobs
    # padding holds arbitrary numbers: exp of them may overflow, and infinity times 0 is NaN
    ratio = torch.exp(torch.where(mask.bool(), logprobs - old, 0.0))
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    advantage = advantages.unsqueeze(1)
    per_token = -torch.minimum(ratio * advantage, clipped * advantage)
    kl = torch.zeros_like(per_token)
    if reference_logprobs is not None:
        kl = k3(logprobs, reference_logprobs, mask)
        per_token = per_token + kl_coefficient * kl
    is_clipped = ((ratio < 1 - clip_range) & (advantage < 0)) | ((ratio > 1 + clip_range) & (advantage > 0))
    return Loss(
        value=response_means(per_token, mask).sum() / num_responses,
        clipped_tokens=(is_clipped * mask).sum().detach(),
        kl_sum=response_means(kl, mask).sum().detach(),
    )


def k3(logprobs: Tensor, reference_logprobs: Tensor, mask: Tensor) -> Tensor:
    """(B, T) unbiased, never negative estimate of KL(policy || reference) a token, 0 on padding."""
    difference = torch.where(mask.bool(), reference_logprobs - logprobs, 0.0)
    return torch.exp(difference) - difference - 1


def response_means(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean of (B, T) over each row's unmasked tokens; 0 for a row without any."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)

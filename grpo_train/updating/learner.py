"""Trains the weights: loss and gradient, optimizer, learning-rate schedule, KL reference, low-precision copy.

In mixed precision the weights, their gradients and the optimizer state are float32. A low-precision copy, kept in sync
with the weights, does the work: it samples, and it runs the forward and backward passes (Mixed Precision Training,
arXiv 1710.03740, section 3.1). Rows with advantage 0 skip the backward pass where that is exact (no KL term); they
still count in the loss's denominators.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.errors import TrainingDiverged
from configs.records import Completion, Policy
from configs.schema.grpo import GrpoConfig
from grpo_train.policies.model import load_policy
from grpo_train.updating.advantages import Advantages, Bools, Floats
from grpo_train.updating.checkpoint import Component, OptimizerState, ScheduleState, Weights
from grpo_train.updating.loss import BatchSize, ImportanceWeights, Loss, importance_weights, policy_loss
from grpo_train.updating.ranks import Ranks
from grpo_train.updating.response_logprobs import (
    MicroBatch,
    known_logprobs,
    micro_batches,
    padded_logprobs,
    policy_kl,
    recompute_layers,
    response_logprobs,
    response_rows,
    sequence_logprobs,
)
from grpo_train.updating.schedule import learning_rates
from reward_training.transformer.positions import Positions
from reward_training.transformer.precision import autocast_dtype, cast_weights, deterministic_kernels
from reward_training.transformer.sharding import Sharding, is_part, is_sharded, whole

OF_SAMPLER = (
    "policy/sampler_mismatch",
    "policy/importance_weight",
    "policy/importance_too_low",
    "policy/importance_too_high",
)
"""metrics that compare the trainer with what sampled"""


class Learner:
    """Trains a model in place. `actor` is the model to sample from: the trained model or its low-precision copy."""

    def __init__(
        self, model: PreTrainedModel, grpo: GrpoConfig, *, policy: Policy, initial_policy: Policy, num_updates: int
    ) -> None:
        self.grpo, self.policy, self.initial_policy = grpo, policy, initial_policy
        self.ranks = Ranks()
        self.dtype = autocast_dtype(self.grpo.precision, self.ranks.device)
        self.model = model.to(self.ranks.device)  # type: ignore[arg-type]
        self.optimizer = torch.optim.AdamW(
            [weight for weight in model.parameters() if weight.requires_grad],
            lr=self.grpo.learning_rate,
            betas=self.grpo.adam_betas,
            weight_decay=self.grpo.weight_decay,
            fused=True,  # one pass over memory instead of one per operation
        )
        self.scheduler = learning_rates(
            self.optimizer, self.grpo.schedule, num_warmup=self.grpo.warmup_updates, num_updates=num_updates
        )
        # the weights of a sharded model are cast while they are gathered, and need no copy
        self.actor = model if self.dtype is None or is_sharded(model) else _low_precision_copy(model, self.dtype)
        self.actor.eval()  # type: ignore[no-untyped-call]
        if self.grpo.activation_checkpointing:
            recompute_layers(self.actor)
        self.reference = self._load_frozen(self._reference_policy()) if self.grpo.kl_coefficient > 0 else None
        self.initial: PreTrainedModel | None = None
        self.positions = Positions()
        """token positions that the policy computed in the last `update`, on this rank"""
        self._begun_with: dict[tuple[int, ...], Tensor] = {}

    def _reference_policy(self) -> Policy:
        return self.policy if self.grpo.kl_reference == "round" else self.initial_policy

    def _load_frozen(self, policy: Policy) -> PreTrainedModel:
        sharding = Sharding(self.ranks.device) if is_sharded(self.model) else None
        dtype = self.dtype or torch.float32
        model, _ = load_policy(policy.path, device=self.ranks.device, dtype=dtype, sharding=sharding)
        return model.requires_grad_(False)

    def _load_initial(self) -> PreTrainedModel:
        """The frozen initial policy, shared with the KL term's reference where that is the same policy."""
        if self.reference is not None and self._reference_policy().id == self.initial_policy.id:
            return self.reference
        return self._load_frozen(self.initial_policy)

    def update(
        self,
        completions: Sequence[Completion],
        advantages: Advantages,
        is_old: Bools | None = None,
        row_weights: Floats | None = None,
    ) -> dict[str, float]:
        """Take `updates_per_batch` optimizer steps on the same responses.

        Returns the metrics of the last step, except that those of the sampler are of the first: later ones differ from it
        because they moved.

        Args:
            is_old: (N,) True for responses that an earlier policy wrote; default: none.
            row_weights: (N,) how often each response counts, 0 for those that are left out; default: each once.
        """
        old = np.zeros(len(completions), dtype=np.bool_) if is_old is None else is_old
        self.positions = Positions()
        self._begun_with = {}
        metrics: dict[str, float] = {}
        for update_index in range(self.grpo.updates_per_batch):
            with deterministic_kernels(self.grpo.deterministic):
                metrics = self._update_once(completions, advantages, old, row_weights)
            self._refresh_actor()
            if update_index == 0:
                of_sampler = {name: value for name, value in metrics.items() if name in OF_SAMPLER}
        return metrics | of_sampler

    def _update_once(
        self, completions: Sequence[Completion], advantages: Advantages, is_old: Bools, row_weights: Floats | None
    ) -> dict[str, float]:
        size = BatchSize(len(completions), sum(len(completion.token_ids) for completion in completions))
        sums = _Sums()
        rows = self._rows(completions, advantages, row_weights)
        for batch in micro_batches(self.actor, completions, rows, self.grpo.micro_batch_tokens):
            self.positions.add(batch.packed.num_computed, batch.packed.num_tokens)
            sampled = padded_logprobs(completions, batch)
            old = torch.tensor(is_old[batch.rows], device=sampled.device).unsqueeze(1)
            logprobs = response_logprobs(self.actor, batch, self.grpo.temperature)
            begun_with = self._at_first_update(logprobs, batch)
            weights = self._importance_weights(begun_with, sampled, batch.mask * ~old)
            loss = policy_loss(
                logprobs,
                torch.tensor(
                    advantages.of(batch.rows, batch.mask.shape[1]), dtype=torch.float32, device=logprobs.device
                ),
                batch.mask,
                grpo=self.grpo,
                size=size,
                old_logprobs=self._old_logprobs(begun_with, sampled, old),
                reference_logprobs=self._reference_logprobs(batch),
                weights=None if weights is None else weights.values,
                row_weights=_column(row_weights, batch),
            )
            loss.value.backward()  # type: ignore[no-untyped-call]
            sums.add(loss, batch.mask, fresh=batch.mask * ~old, mismatch=(logprobs.detach() - sampled).abs())
            sums.add_weights(weights, fresh=batch.mask * ~old)
        sums = _Sums(*self.ranks.sums(astuple(sums)))
        self._refuse_nonfinite("loss", sums.loss)
        learning_rate = float(self.scheduler.get_last_lr()[0])
        metrics = sums.metrics(with_weights=self.grpo.vllm is not None) | {
            "policy/grad_norm": self._apply(),
            "policy/learning_rate": learning_rate,
        }
        if self.reference is not None:
            metrics["policy/kl_reference"] = sums.kl / max(len(completions), 1)
        return metrics

    def _rows(self, completions: Sequence[Completion], advantages: Advantages, row_weights: Floats | None) -> list[int]:
        """This rank's rows: the responses to its share of the prompts that are not left out and, without a KL term, move the
        policy."""
        wanted = np.ones(len(completions), dtype=np.bool_) if self.reference is not None else advantages.moves
        wanted = wanted if row_weights is None else wanted & (row_weights > 0)
        rows = np.flatnonzero(wanted).tolist()
        prompts = list(dict.fromkeys(tuple(completions[row].prompt_ids) for row in rows))
        mine = set(self.ranks.share(prompts))
        return [row for row in rows if tuple(completions[row].prompt_ids) in mine]

    def _at_first_update(self, logprobs: Tensor, batch: MicroBatch) -> Tensor:
        """(B, T) the trainer's own log-probabilities before the first update on these responses, without gradient."""
        if self.grpo.updates_per_batch == 1:
            return logprobs.detach()
        # later updates have the same micro-batches
        return self._begun_with.setdefault(tuple(batch.rows), logprobs.detach())

    def _old_logprobs(self, begun_with: Tensor, sampled: Tensor, is_old: Tensor) -> Tensor | None:
        """(B, T) log-probabilities under the policy that wrote each response; None if the current one wrote all.

        What a server recorded of fresh responses enters by their importance weights, and not by the ratio.
        """
        of_fresh = begun_with if self.grpo.vllm is not None or self.grpo.updates_per_batch == 1 else sampled
        if self.grpo.updates_per_batch > 1 or is_old.any():
            return torch.where(is_old, sampled, of_fresh)
        return None

    def _importance_weights(self, begun_with: Tensor, sampled: Tensor, fresh: Tensor) -> ImportanceWeights | None:
        """Weights of the fresh responses if a vLLM server wrote them; None if the policy did."""
        if self.grpo.vllm is None:
            return None
        return importance_weights(begun_with, sampled, fresh, self.grpo.vllm)

    @torch.no_grad()
    def _reference_logprobs(self, batch: MicroBatch) -> Tensor | None:
        """(B, T) log-probabilities under the reference; None without a KL term."""
        if self.reference is None:
            return None
        return response_logprobs(self.reference, batch, self.grpo.temperature)

    def _apply(self) -> float:
        """Clip the gradient and take an optimizer step; returns the gradient's norm before clipping."""
        self._add_up_gradients()
        grad_norm = float(whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.grpo.max_grad_norm)))
        self._refuse_nonfinite("gradient norm", grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return grad_norm

    def _add_up_gradients(self) -> None:
        """All-reduce the gradients. A parameter without one on any rank gets none, so that the optimizer skips it.

        Those of sharded parameters are sums already.
        """
        if self.ranks.count == 1:
            return
        trained = [weight for weight in self.model.parameters() if weight.requires_grad and not is_part(weight)]
        num_ranks = self.ranks.sums([float(weight.grad is not None) for weight in trained])
        with_gradient = [weight for weight, num in zip(trained, num_ranks, strict=True) if num]
        for weight in with_gradient:
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        self.ranks.add_up(weight.grad for weight in with_gradient if weight.grad is not None)

    def _refuse_nonfinite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            self.optimizer.zero_grad()
            raise TrainingDiverged(
                f"{name} is {value}; the weights of the last good update are kept. "
                "Lower grpo_config.learning_rate or look at the rewards of the last step in rollouts.jsonl"
            )

    def _refresh_actor(self) -> None:
        if self.actor is self.model:
            return
        with torch.no_grad():
            for target, source in zip(self.actor.parameters(), self.model.parameters(), strict=True):
                if source.requires_grad:
                    target.copy_(source)

    def log_ratios(self, completions: Sequence[Completion]) -> Floats:
        """(N,) log of policy(response) / writer(response) for whole responses, under the model that samples."""
        max_tokens, temperature = self.grpo.micro_batch_tokens, self.grpo.temperature

        def log_ratios_of(share: Sequence[Completion]) -> list[float]:
            values = [0.0] * len(share)
            for batch, logprobs in known_logprobs(self.actor, share, max_tokens=max_tokens, temperature=temperature):
                ratios = (logprobs - padded_logprobs(share, batch)).sum(dim=1).tolist()
                for row, ratio in zip(batch.rows, ratios, strict=True):
                    values[row] = ratio
            return values

        return np.array(self.ranks.each(completions, log_ratios_of), dtype=np.float64)

    def rescored(self, completions: Sequence[Completion]) -> list[Completion]:
        """The completions with the log-probabilities that the model which samples gives them, over the whole vocabulary."""
        max_tokens, temperature = self.grpo.micro_batch_tokens, self.grpo.temperature

        def rescored_of(share: Sequence[Completion]) -> list[Completion]:
            rows = response_rows(self.actor, share, max_tokens=max_tokens, temperature=temperature)
            return [one.model_copy(update={"logprobs": row}) for one, row in zip(share, rows, strict=True)]

        return self.ranks.each(completions, rescored_of)

    def logprobs_of(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence of token ids, the log-probabilities of its tokens from the second on, at temperature 1, under
        the model that samples. Every rank computes all of them."""
        return sequence_logprobs(self.actor, sequences, max_tokens=self.grpo.micro_batch_tokens)

    def kl_initial(self, completions: Sequence[Completion]) -> float:
        """Mean over the responses of KL(policy || initial policy), in nats per token."""
        if self.initial is None:
            self.initial = self._load_initial()
        max_tokens, temperature = self.grpo.micro_batch_tokens, self.grpo.temperature
        kl_of = partial(policy_kl, self.initial, max_tokens=max_tokens, temperature=temperature)
        return float(np.mean(self.ranks.each(completions, kl_of)))

    def components(self) -> dict[str, Component]:
        """The learner's state in a checkpoint."""
        return {
            "weights": Weights(self.model, self._refresh_actor),
            "optimizer": OptimizerState(self.optimizer),
            "schedule": ScheduleState(self.scheduler),
        }


@dataclass
class _Sums:
    """Sums over the micro-batches of an update."""

    loss: float = 0.0
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    kl: float = 0.0
    mismatch: float = 0.0
    tokens: float = 0.0
    fresh: float = 0.0
    """number of tokens of responses that are not old"""
    weight: float = 0.0
    too_low: float = 0.0
    too_high: float = 0.0

    def add(self, loss: Loss, mask: Tensor, *, fresh: Tensor, mismatch: Tensor) -> None:
        self.loss += float(loss.value.detach())
        self.clipped_low += float(loss.clipped_low)
        self.clipped_high += float(loss.clipped_high)
        self.kl += float(loss.kl_sum)
        self.tokens += float(mask.sum())
        self.fresh += float(fresh.sum())
        self.mismatch += float((mismatch * fresh).sum())

    def add_weights(self, weights: ImportanceWeights | None, *, fresh: Tensor) -> None:
        if weights is None:
            return
        self.weight += float((weights.values * fresh).sum())
        self.too_low += float((weights.too_low * fresh).sum())
        self.too_high += float((weights.too_high * fresh).sum())

    def metrics(self, *, with_weights: bool) -> dict[str, float]:
        """The metrics of an update; those of importance weights only where a server writes."""
        tokens, fresh = max(self.tokens, 1.0), max(self.fresh, 1.0)
        values = (self.mismatch, self.weight, self.too_low, self.too_high)
        of_sampler = dict(zip(OF_SAMPLER, [value / fresh for value in values], strict=True))
        return {
            "policy/loss": self.loss,
            "policy/clip_fraction": (self.clipped_low + self.clipped_high) / tokens,
            "policy/clip_fraction_low": self.clipped_low / tokens,
            "policy/clip_fraction_high": self.clipped_high / tokens,
            **(of_sampler if with_weights else {OF_SAMPLER[0]: of_sampler[OF_SAMPLER[0]]}),
        }


def _column(row_weights: Floats | None, batch: MicroBatch) -> Tensor | None:
    """(B, 1) of the rows of a micro-batch."""
    if row_weights is None:
        return None
    return torch.tensor(row_weights[batch.rows], dtype=torch.float32, device=batch.mask.device).unsqueeze(1)


def _low_precision_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy in `dtype` that moves each gradient, once computed, to `model`, where gradients are summed in float32."""
    twin = copy.deepcopy(model)
    cast_weights(twin, dtype)
    for low, weight in zip(twin.parameters(), model.parameters(), strict=True):
        if weight.requires_grad:
            low.register_post_accumulate_grad_hook(partial(_move_gradient, weight))  # type: ignore[no-untyped-call]
    return twin


def _move_gradient(weight: Tensor, low: Tensor) -> None:
    assert low.grad is not None, "the hook is called with a gradient"
    if weight.grad is None:
        weight.grad = low.grad.float()
    else:
        weight.grad += low.grad
    low.grad = None

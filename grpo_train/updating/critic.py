"""The value model of PPO: says before each token of a response which reward to expect, and learns from what came.

It is a reward model's architecture, a scalar head on the last hidden states, read at every token: the value before token t
is that of position t - 1, the last of what the policy had seen. It begins from a policy's backbone with a head of zeros, so
that the first values are 0 (as in the code of arXiv 1909.08593), or from a reward model, whose calibrated scores are the
first values. The loss is that of the same code, with returns R, and values V that were V_old before the step's updates:

    1/2 mean over tokens of max((V - R)^2, (clip(V, V_old - value_clip, V_old + value_clip) - R)^2)

All weights are trained, also where the policy trains an adapter: float32, with products in bfloat16 where
`grpo_config.precision` says so. Betas, weight decay, gradient clipping and size of the micro-batches are the policy's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from configs.errors import TrainingDiverged
from configs.records import Completion
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.method import PpoMethod
from configs.seeds import rng_for
from grpo_train.updating.advantages import Floats, ValueTargets
from grpo_train.updating.checkpoint import Component, OptimizerState, Weights
from grpo_train.updating.response_logprobs import MicroBatch, micro_batches, recompute_layers
from reward_training.reward_models.scores import Calibration
from reward_training.transformer.attention.kernels import fit_attention, restore_attention
from reward_training.transformer.packing import states_of
from reward_training.transformer.precision import autocast_dtype, deterministic_kernels

NO_VARIANCE = 1e-12
"""largest variance of returns that counts as none: equal ones are sums of rounded numbers"""


@dataclass(frozen=True)
class ValueSamples:
    """What a value model is warmed up on: responses, and the reward of each."""

    completions: Sequence[Completion] = ()
    """(N,)"""
    rewards: Sequence[float] = ()
    """(N,)"""


@dataclass(frozen=True)
class ValueModel:
    """A value model as a round begins with it."""

    model: PreTrainedModel
    """with a linear head `score` of one output"""
    calibration: Calibration | None
    """its values are (head's output - mean) / std; None: the head's output"""
    samples: ValueSamples = ValueSamples()


class Critic:
    """Computes values and trains the value model in place."""

    def __init__(self, start: ValueModel, method: PpoMethod, grpo: GrpoConfig, device: torch.device) -> None:
        self.method, self.grpo, self.device = method, grpo, device
        self.calibration = start.calibration or Calibration(mean=0.0, std=1.0)
        self.model: PreTrainedModel = start.model.to(device).eval()  # type: ignore[arg-type]
        self.samples = start.samples
        self.dtype = autocast_dtype(grpo.precision, device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=method.value_learning_rate,
            betas=grpo.adam_betas,
            weight_decay=grpo.weight_decay,
            fused=True,
        )
        if grpo.activation_checkpointing:
            recompute_layers(self.model)
        self.num_warmed_up = 0
        """updates of the warm-up that are done"""

    def values(self, completions: Sequence[Completion]) -> list[Floats]:
        """(T_i,) for each response, the value before each of its tokens."""
        found: list[Floats] = [np.empty(0)] * len(completions)
        with torch.no_grad():
            for batch in self._batches(completions):
                for row, values in zip(batch.rows, self._values(batch).double().cpu().numpy(), strict=True):
                    found[row] = values[: len(completions[row].token_ids)]
        return found

    def learn(self, completions: Sequence[Completion], targets: ValueTargets) -> dict[str, float]:
        """Take the step's updates on the responses whose returns are known; returns the step's metrics."""
        rows = [i for i, returns in enumerate(targets.returns) if not np.isnan(returns).any()]
        known = ValueTargets(*(tuple(of[row] for row in rows) for of in (targets.values, targets.returns)))
        if not rows:
            return {}
        chosen = [completions[row] for row in rows]
        for _ in range(self.method.value_updates or self.grpo.updates_per_batch):
            updated = self._update(chosen, known.returns, known.values)
        return updated | value_metrics(known)

    def warm_up(self, run_seed: int, round_index: int) -> bool:
        """Take one update of the warm-up, on responses drawn from the samples; False if there is none to take.

        The values learn the discounted rewards themselves (lambda 1), without clipping.
        """
        samples, number = self.samples, self.num_warmed_up
        if number >= self.method.value_warmup_updates or not samples.completions:
            return False
        rng = rng_for(run_seed, "value warm-up", round_index=round_index, step=number)
        num_all = len(samples.completions)
        rows = rng.permutation(num_all)[: self.grpo.batch_size].tolist()
        chosen = [samples.completions[row] for row in rows]
        lengths = [len(completion.token_ids) for completion in chosen]
        returns = [
            samples.rewards[row] * self.method.gamma ** np.arange(length - 1, -1, -1, dtype=np.float64)
            for row, length in zip(rows, lengths, strict=True)
        ]
        self._update(chosen, returns, before=None)
        self.num_warmed_up += 1
        return True

    def components(self) -> dict[str, Component]:
        """The state in a checkpoint."""
        return {
            "value_weights": Weights(self.model, lambda: None),
            "value_optimizer": OptimizerState(self.optimizer),
            "value_warmup": WarmupState(self),
        }

    @cached_property
    def _body(self) -> nn.Module:
        return self.model.get_submodule(self.model.base_model_prefix)

    def _batches(self, completions: Sequence[Completion]) -> Iterator[MicroBatch]:
        rows = range(len(completions))
        return micro_batches(self.model, completions, rows, self.grpo.micro_batch_tokens, self._body)

    def _values(self, batch: MicroBatch) -> Tensor:
        """(B, T) float32 values before the response's tokens, 0 on padding."""
        if batch.packed.attention_mask is None:
            restore_attention(self.model)
        else:
            fit_attention(self.model, batch.packed.input_ids.shape[1], batch.packed.attention_mask)
        is_token = batch.mask.bool()
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            states = states_of(self._body, batch.packed, self.model.dtype)
        read = states.index_select(0, batch.predicted_from[is_token]).float()
        outputs = self.model.get_submodule("score")(read).squeeze(-1)
        values = (outputs - self.calibration.mean) / self.calibration.std
        return torch.zeros_like(batch.mask).masked_scatter(is_token, values)

    def _update(
        self, completions: Sequence[Completion], returns: Sequence[Floats], before: Sequence[Floats] | None
    ) -> dict[str, float]:
        """One optimizer step; returns loss and share of clipped tokens. `before` has the values that clipping is around."""
        num_tokens = sum(len(completion.token_ids) for completion in completions)
        loss_sum, clipped_sum = 0.0, 0.0
        with deterministic_kernels(self.grpo.deterministic):
            for batch in self._batches(completions):
                old = None if before is None else _padded(before, batch)
                clip = self.method.value_clip
                loss, clipped = value_loss(self._values(batch), _padded(returns, batch), batch.mask, old, clip)
                (loss / num_tokens).backward()  # type: ignore[no-untyped-call]
                loss_sum, clipped_sum = loss_sum + float(loss.detach()), clipped_sum + float(clipped)
            self._refuse_nonfinite("loss", loss_sum)
            grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.grpo.max_grad_norm)
        self._refuse_nonfinite("gradient norm", float(grad_norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"value/loss": loss_sum / num_tokens, "value/clip_fraction": clipped_sum / num_tokens}

    def _refuse_nonfinite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingDiverged(
                f"the value model's {name} is {value}; the policy's weights are those of its last good update. Lower "
                f"method.value_learning_rate={self.method.value_learning_rate}"
            )


class WarmupState:
    """How far a critic's warm-up has come."""

    def __init__(self, critic: Critic) -> None:
        self.critic = critic

    def state(self) -> dict[str, Any]:
        return {"updates": self.critic.num_warmed_up}

    def restore(self, state: dict[str, Any]) -> None:
        self.critic.num_warmed_up = int(state["updates"])


def value_loss(
    values: Tensor, returns: Tensor, mask: Tensor, before: Tensor | None, clip: float | None
) -> tuple[Tensor, Tensor]:
    """(sum over the tokens of the loss, number of tokens where the clipped value's error is the larger one).

    All are (B, T), with `mask` 1 on tokens. Without `before` or `clip` nothing is clipped.
    """
    errors = (values - returns) ** 2
    if before is None or clip is None:
        return 0.5 * (errors * mask).sum(), torch.zeros((), device=mask.device)
    clipped_errors = (torch.clamp(values, before - clip, before + clip) - returns) ** 2
    is_clipped = (clipped_errors > errors) * mask
    return 0.5 * (torch.maximum(errors, clipped_errors) * mask).sum(), is_clipped.sum().detach()


def value_metrics(targets: ValueTargets) -> dict[str, float]:
    """Mean of the values before the step's updates, and the share of the returns' variance that they explain."""
    values, returns = np.concatenate(targets.values), np.concatenate(targets.returns)
    metrics = {"value/mean": float(values.mean())}
    if (variance := float(returns.var())) > NO_VARIANCE:
        metrics["value/explained_variance"] = 1.0 - float((returns - values).var()) / variance
    return metrics


def _padded(rows: Sequence[Floats], batch: MicroBatch) -> Tensor:
    """(B, T) float32 numbers of the batch's responses, 0 on padding."""
    padded = np.zeros(batch.mask.shape, dtype=np.float32)
    for i, row in enumerate(batch.rows):
        padded[i, : len(rows[row])] = rows[row]
    return torch.from_numpy(padded).to(batch.mask.device)

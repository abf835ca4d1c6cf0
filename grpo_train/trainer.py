"""The GRPO loop (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 5 to 11) over accelerate.

Pick problems, sample groups, score, normalise within the group, clipped loss, clip the gradient, step, log. Responses are
sampled from a low-precision copy of the weights that is kept in step with them. Rows with advantage 0 are left out of the
backward pass where that is exact (no KL term); they stay in the denominator.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, get_scheduler

from configs.errors import StageStopped
from configs.records import Completion, Policy, Problem, Score
from configs.schema import Config, GrpoConfig
from configs.seeds import seed_for
from grpo_train.advantages import Advantages, group_advantages
from grpo_train.batches import micro_batches, padded_logprobs, policy_kl, problem_batches, response_logprobs
from grpo_train.generation import Sampling, sample
from grpo_train.loss import grpo_loss
from grpo_train.model import load_policy
from grpo_train.precision import autocast_dtype, pick_device
from grpo_train.step_metrics import group_metrics, parts_matrix, response_metrics, reward_metrics, rollout_rows
from grpo_train.watch import Alarm, Watch
from reward_training.scorer import Reward, check_unscored, score


class TrainingDiverged(RuntimeError):
    """Loss or gradient was NaN or infinite; the model still holds the weights of the last good update."""


@dataclass(frozen=True)
class StepResult:
    """What one step did."""

    step: int
    """counts from 1"""
    metrics: dict[str, float]
    rollouts: list[dict[str, Any]]
    alarms: list[Alarm]


@dataclass(frozen=True)
class TrainResult:
    """What a whole training did."""

    num_updates: int
    stopped_by: str | None
    """the watch rule that ended training early"""
    advantage_share: dict[str, float]
    """each objective's share of all advantages of the round"""


@dataclass
class _Phases:
    """Seconds of a step by phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def end(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[f"time/{name}"] = now - self.last
        self.last = now


def num_steps(config: GrpoConfig, num_problems: int) -> int:
    """Batches of a round: `epochs` passes over the problems, capped by `max_updates`."""
    in_epochs = math.ceil(config.epochs * num_problems * config.group_size / config.batch_size)
    if config.max_updates is None:
        return in_epochs
    return min(in_epochs, math.ceil(config.max_updates / config.updates_per_batch))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    policy: Policy,
    initial_policy: Policy,
    rewards: Sequence[Reward],
    config: Config,
    round: int,
    on_step: Callable[[StepResult], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train `model`, which starts as `policy`, in place on `problems`.

    Raises:
        StageStopped: `should_stop()` was true between two steps.
        TrainingDiverged: the loss or the gradient was not finite.
    """
    loop = _Loop(
        model, tokenizer, policy, initial_policy, rewards, config, round, num_steps(config.grpo_config, len(problems))
    )
    watch = Watch(config.watch)
    contributions = np.zeros(len(rewards))
    num_per_batch = config.grpo_config.batch_size // config.grpo_config.group_size
    batches = problem_batches(problems, num_per_batch, seed=config.seed, round=round)
    stopped_by = None
    for step, batch in enumerate(islice(batches, loop.num_steps), start=1):
        if should_stop():
            raise StageStopped(f"stopped before step {step} of {loop.num_steps}")
        metrics, rollouts, advantages = loop.step(step, batch)
        contributions += np.abs(advantages.contributions).sum(axis=0)
        alarms = watch.look(step, metrics)
        on_step(StepResult(step, metrics, rollouts, alarms))
        stopped_by = next((str(alarm) for alarm in alarms if alarm.rule.action == "stop"), None)
        if stopped_by is not None:
            break
    loop.close()
    total = max(float(contributions.sum()), 1e-12)
    shares = {reward.name: float(value) / total for reward, value in zip(rewards, contributions, strict=True)}
    return TrainResult(step * config.grpo_config.updates_per_batch, stopped_by, shares)


class _Loop:
    """The state of training: weights, their low-precision copy, optimizer, learning-rate schedule."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        policy: Policy,
        initial_policy: Policy,
        rewards: Sequence[Reward],
        config: Config,
        round: int,
        num_steps: int,
    ) -> None:
        self.config, self.grpo, self.round, self.num_steps = config, config.grpo_config, round, num_steps
        self.tokenizer, self.rewards = tokenizer, rewards
        self.policy, self.initial_policy = policy, initial_policy
        # transformers' Trainer does the same: an earlier stage of this process may have set another precision
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(cpu=pick_device().type == "cpu", mixed_precision="no")
        self.dtype = autocast_dtype(self.grpo.precision, self.accelerator.device)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=self.grpo.learning_rate,
            betas=self.grpo.adam_betas,
            weight_decay=self.grpo.weight_decay,
        )
        schedule = "constant_with_warmup" if self.grpo.schedule == "constant" else self.grpo.schedule
        scheduler = get_scheduler(
            schedule,
            optimizer,
            num_warmup_steps=self.grpo.warmup_updates,
            num_training_steps=num_steps * self.grpo.updates_per_batch,
        )
        self.bare = model
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(model, optimizer, scheduler)
        self.sampler = model if self.dtype is None else _low_precision_copy(model, self.dtype)
        self.sampler.eval()  # type: ignore[no-untyped-call]
        self.reference = self._load_frozen(self._reference_policy()) if self.grpo.kl_coefficient > 0 else None
        self.initial: PreTrainedModel | None = None

    def _reference_policy(self) -> Policy:
        return self.policy if self.grpo.kl_reference == "round" else self.initial_policy

    def _load_frozen(self, policy: Policy) -> PreTrainedModel:
        model, _ = load_policy(policy.path, device=self.accelerator.device, dtype=self.dtype or torch.float32)
        return model.requires_grad_(False)

    def step(self, step: int, batch: list[Problem]) -> tuple[dict[str, float], list[dict[str, Any]], Advantages]:
        """Sample, score, update; returns metrics, rollouts and advantages."""
        phases = _Phases()
        start = phases.last
        completions = self._sample(step, batch)
        phases.end("generate")
        asked = [problem for problem in batch for _ in range(self.grpo.group_size)]
        scores = score(asked, completions, self.rewards)
        check_unscored(scores, self.config.combination.max_unscored_share)
        parts, advantages = self._advantages(scores)
        phases.end("score")
        metrics = self._update(completions, advantages)
        phases.end("update")
        metrics |= self._monitor_kl(step, completions)
        metrics |= reward_metrics(parts, [reward.name for reward in self.rewards], advantages)
        metrics |= group_metrics(completions, self._right(scores), advantages, self.grpo.group_size)
        metrics |= response_metrics(completions)
        metrics |= phases.seconds
        metrics["time/step"] = time.perf_counter() - start
        num_tokens = sum(len(completion.token_ids) for completion in completions)
        metrics["time/tokens_per_second"] = num_tokens / metrics["time/step"]
        return metrics, rollout_rows(step, asked, completions, scores, advantages), advantages

    def _sample(self, step: int, batch: list[Problem]) -> list[Completion]:
        sampling = Sampling(
            group_size=self.grpo.group_size,
            temperature=self.grpo.temperature,
            max_response_length=self.grpo.max_response_length,
            top_p=self.grpo.top_p,
            top_k=self.grpo.top_k,
            max_rows=self.grpo.generation_rows,
        )
        seed = seed_for(self.config.seed, "train sampling", round=self.round, step=step)
        policy_id = f"{self.policy.id}+{step - 1}"
        return sample(self.sampler, self.tokenizer, batch, sampling, seed=seed, policy_id=policy_id, step=step)

    def _advantages(self, scores: Sequence[Score]) -> tuple[np.ndarray, Advantages]:
        parts = parts_matrix(scores, [reward.name for reward in self.rewards])
        advantages = group_advantages(
            parts,
            np.array([reward.weight for reward in self.rewards]),
            self.grpo.group_size,
            order=self.config.combination.order,
            scale=self.config.combination.scale,
            spread_floor=self.config.combination.reward_spread_floor,
        )
        return parts, advantages

    def _right(self, scores: Sequence[Score]) -> list[bool] | None:
        """What the checker says of each completion, or None where it is not among the training rewards."""
        if self.config.checker not in {reward.name for reward in self.rewards}:
            return None
        return [(s.parts[self.config.checker] or 0.0) >= 1 for s in scores]

    def _update(self, completions: Sequence[Completion], advantages: Advantages) -> dict[str, float]:
        """`updates_per_batch` optimizer steps on the same responses; metrics are those of the last one."""
        metrics: dict[str, float] = {}
        for number in range(self.grpo.updates_per_batch):
            metrics = self._update_once(completions, advantages, is_on_policy=self.grpo.updates_per_batch == 1)
            if number == 0:
                mismatch = metrics["policy/sampler_mismatch"]
        metrics["policy/sampler_mismatch"] = mismatch
        self._refresh_sampler()
        return metrics

    def _update_once(
        self, completions: Sequence[Completion], advantages: Advantages, *, is_on_policy: bool
    ) -> dict[str, float]:
        keep_all = self.reference is not None
        rows = [i for i, value in enumerate(advantages.values) if keep_all or value != 0.0]
        sums = {"loss": 0.0, "clipped": 0.0, "kl": 0.0, "mismatch": 0.0, "tokens": 0.0}
        for batch in micro_batches(completions, rows, self.grpo.micro_batch_size, self.accelerator.device):
            sampled = padded_logprobs(completions, batch)
            logprobs = self._logprobs(self.model, batch)
            loss = grpo_loss(
                logprobs,
                torch.tensor(advantages.values[batch.rows], dtype=torch.float32, device=logprobs.device),
                batch.mask,
                num_responses=len(completions),
                clip_range=self.grpo.clip_range,
                old_logprobs=None if is_on_policy else sampled,
                reference_logprobs=self._reference_logprobs(batch),
                kl_coefficient=self.grpo.kl_coefficient,
            )
            value = float(loss.value.detach())
            self._refuse_nonfinite("loss", value)
            self.accelerator.backward(loss.value)
            sums["loss"] += value
            sums["clipped"] += float(loss.clipped_tokens)
            sums["kl"] += float(loss.kl_sum)
            sums["mismatch"] += float(((logprobs.detach() - sampled).abs() * batch.mask).sum())
            sums["tokens"] += float(batch.mask.sum())
        grad_norm = self._apply()
        tokens = max(sums["tokens"], 1.0)
        metrics = {
            "policy/loss": sums["loss"],
            "policy/clip_fraction": sums["clipped"] / tokens,
            "policy/sampler_mismatch": sums["mismatch"] / tokens,
            "policy/grad_norm": grad_norm,
            "policy/learning_rate": self.scheduler.get_last_lr()[0],
        }
        if self.reference is not None:
            metrics["policy/kl_reference"] = sums["kl"] / len(completions)
        return metrics

    def _logprobs(self, model: torch.nn.Module, batch: Any) -> Tensor:
        with torch.autocast(self.accelerator.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return response_logprobs(model, batch, self.grpo.temperature)

    def _reference_logprobs(self, batch: Any) -> Tensor | None:
        if self.reference is None:
            return None
        with torch.no_grad():
            return response_logprobs(self.reference, batch, self.grpo.temperature)

    def _apply(self) -> float:
        """Clip the gradient and step; returns its norm before clipping."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.grpo.max_grad_norm)
        grad_norm = 0.0 if norm is None else float(norm)
        self._refuse_nonfinite("gradient norm", grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return grad_norm

    def _refuse_nonfinite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            self.optimizer.zero_grad()
            raise TrainingDiverged(
                f"{name} is {value}; the weights of the last good update are kept. "
                "Lower grpo_config.learning_rate or look at the rewards of the last step in rollouts.jsonl"
            )

    def _refresh_sampler(self) -> None:
        if self.sampler is self.bare:
            return
        with torch.no_grad():
            for target, source in zip(self.sampler.parameters(), self.bare.parameters(), strict=True):
                target.copy_(source)

    def _monitor_kl(self, step: int, completions: Sequence[Completion]) -> dict[str, float]:
        every = self.grpo.monitor_kl_every
        if every == 0 or (step % every and step != self.num_steps):
            return {}
        if self.initial is None:
            self.initial = self._load_frozen(self.initial_policy)
        kl = policy_kl(self.initial, completions, size=self.grpo.micro_batch_size, temperature=self.grpo.temperature)
        return {"policy/kl_initial": float(np.mean(kl))}

    def close(self) -> None:
        """Give the model back as it came."""
        self.accelerator.free_memory()


def _low_precision_copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    twin = copy.deepcopy(model)
    twin.to(dtype=dtype)  # type: ignore[call-arg]
    return twin

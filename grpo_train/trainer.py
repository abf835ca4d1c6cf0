"""The GRPO loop (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 5 to 11).

Pick problems, sample groups, score, normalise within the group, clipped loss, clip the gradient, step, log. `learner` holds
the weights and what changes them; here is what a step is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.checkpoints import Checkpoints
from configs.errors import StageStopped
from configs.records import Completion, Policy, Problem, Score
from configs.schema import Config, GrpoConfig
from configs.seeds import seed_for
from grpo_train.advantages import Advantages, Bools, group_advantages
from grpo_train.batches import problem_batches
from grpo_train.checkpoint import Component, read_components, write_components
from grpo_train.early_stop import EarlyStop, left_out, without
from grpo_train.generation import Sampling, sample
from grpo_train.learner import Learner
from grpo_train.response_cache import ResponseCache, Reuse
from grpo_train.step_metrics import (
    Contributions,
    group_metrics,
    parts_matrix,
    response_metrics,
    reward_metrics,
    rollout_rows,
)
from grpo_train.watch import Alarm, Watch
from reward_training.scorer import Reward, check_unscored, score


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
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Train `model`, which starts as `policy`, in place on `problems`; with `checkpoints`, go on from the newest of them.

    Raises:
        StageStopped: `should_stop()` was true between two steps; a checkpoint was made there.
        TrainingDiverged: the loss or the gradient was not finite.
    """
    grpo, total = config.grpo_config, num_steps(config.grpo_config, len(problems))
    num_updates = total * grpo.updates_per_batch
    learner = Learner(model, grpo, policy=policy, initial_policy=initial_policy, num_updates=num_updates)
    loop = _Loop(learner, tokenizer, rewards, config, round)
    done = _resume(checkpoints, loop)
    batches = problem_batches(problems, grpo.batch_size // grpo.group_size, seed=config.seed, round=round)
    for step, batch in enumerate(islice(batches, done, total), start=done + 1):
        if should_stop():
            if checkpoints is not None and checkpoints.wanted(step - 1):
                _save(checkpoints, step - 1, loop)
            raise StageStopped(f"stopped before step {step} of {total}")
        on_step(loop.step(step, batch, is_last=step == total))
        if loop.stopped_by is not None:
            break
        if checkpoints is not None and step < total and checkpoints.due(step):
            _save(checkpoints, step, loop)
    learner.close()
    return TrainResult(step * grpo.updates_per_batch, loop.stopped_by, loop.contributions.shares)


def _resume(checkpoints: Checkpoints | None, loop: _Loop) -> int:
    """Go back to the newest checkpoint; returns the steps that are done."""
    newest = checkpoints.newest() if checkpoints else None
    if newest is None:
        return 0
    folder, seal = newest
    read_components(folder, loop.components())
    return seal.step


def _save(checkpoints: Checkpoints, step: int, loop: _Loop) -> None:
    checkpoints.save(step, lambda folder: write_components(folder, loop.components()))


def _trained_on(
    completions: list[Completion], advantages: Advantages, out: Bools
) -> tuple[list[Completion], Advantages]:
    """What the update sees: all but the rows that are left out."""
    kept = [completion for completion, is_out in zip(completions, out, strict=True) if not is_out]
    return kept, replace(advantages, values=advantages.values[~out])


@dataclass
class _Loop:
    """What a training carries from step to step."""

    learner: Learner
    tokenizer: PreTrainedTokenizerBase
    rewards: Sequence[Reward]
    config: Config
    round: int
    watch: Watch = field(init=False)
    contributions: Contributions = field(init=False)
    cache: ResponseCache = field(init=False)
    stopped_by: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.watch = Watch(self.config.watch)
        self.cache = ResponseCache(self.config.grpo_config.response_cache, self.config.grpo_config.group_size)
        self.contributions = Contributions([reward.name for reward in self.rewards])

    def components(self) -> dict[str, Component]:
        """All that the next step depends on, by the name that it has in a checkpoint."""
        ours: dict[str, Component] = {"watch": self.watch, "contributions": self.contributions, "cache": self.cache}
        return self.learner.components() | ours

    def step(self, step: int, batch: list[Problem], *, is_last: bool) -> StepResult:
        """Sample, score, update."""
        phases = _Phases()
        start = phases.last
        grpo = self.config.grpo_config
        # dropout and rewards may draw from the global generators
        set_seed(seed_for(self.config.seed, "global generators", round=self.round, step=step) % 2**32)
        reuse = self.cache.take(step, batch, self.learner.log_ratios)
        sampled = self._sample(step, batch, reuse.num_sampled)
        completions, is_old = reuse.completions(sampled), reuse.is_old
        phases.end("generate")
        asked = [problem for problem in batch for _ in range(grpo.group_size)]
        scores = self._scores(asked, sampled, reuse)
        out = left_out(completions, grpo)
        parts, advantages = self._advantages(scores, out)
        self.contributions.add(advantages)
        phases.end("score")
        metrics = self.learner.update(*_trained_on(completions, advantages, out), is_old[~out])
        phases.end("update")
        if grpo.monitor_kl_every and (is_last or step % grpo.monitor_kl_every == 0):
            metrics["policy/kl_initial"] = self.learner.kl_initial(sampled)
        right = self._right(scores)
        metrics |= reward_metrics(parts, [reward.name for reward in self.rewards], advantages, is_old)
        metrics |= group_metrics(completions, right, advantages, grpo.group_size, is_old)
        metrics |= response_metrics(sampled)
        metrics |= reuse.metrics | self.cache.add(completions, scores, advantages.values, right, is_old)
        metrics |= phases.seconds
        metrics["time/step"] = time.perf_counter() - start
        num_tokens = sum(len(completion.token_ids) for completion in sampled)
        metrics["time/tokens_per_second"] = num_tokens / metrics["time/step"]
        alarms = self.watch.look(step, metrics)
        self.stopped_by = next((str(alarm) for alarm in alarms if alarm.rule.action == "stop"), None)
        return StepResult(step, metrics, rollout_rows(step, asked, completions, scores, advantages), alarms)

    def _scores(self, asked: Sequence[Problem], sampled: Sequence[Completion], reuse: Reuse) -> list[Score]:
        new = [problem for problem, is_old in zip(asked, reuse.is_old, strict=True) if not is_old]
        scores = score(new, sampled, self.rewards)
        check_unscored(scores, self.config.combination.max_unscored_share)
        return reuse.scores(scores)

    def _sample(self, step: int, batch: list[Problem], group_sizes: list[int]) -> list[Completion]:
        grpo = self.config.grpo_config
        sampling = Sampling(
            group_size=grpo.group_size,
            temperature=grpo.temperature,
            max_response_length=grpo.max_response_length,
            top_p=grpo.top_p,
            top_k=grpo.top_k,
            max_rows=grpo.generation_rows,
        )
        seed = seed_for(self.config.seed, "train sampling", round=self.round, step=step)
        policy_id = f"{self.learner.policy.id}+{step - 1}"
        return sample(
            self.learner.actor,
            self.tokenizer,
            batch,
            sampling,
            seed=seed,
            policy_id=policy_id,
            step=step,
            group_sizes=group_sizes,
            early_stop=self._early_stop(batch),
        )

    def _early_stop(self, batch: list[Problem]) -> EarlyStop | None:
        grpo = self.config.grpo_config
        if not grpo.early_stop.is_on:
            return None
        return EarlyStop(grpo.early_stop, batch, self.tokenizer, grpo.max_response_length, self.rewards)

    def _advantages(self, scores: Sequence[Score], out: Bools) -> tuple[np.ndarray, Advantages]:
        parts = parts_matrix(scores, [reward.name for reward in self.rewards])
        advantages = group_advantages(
            without(parts, out),
            np.array([reward.weight for reward in self.rewards]),
            self.config.grpo_config.group_size,
            order=self.config.combination.order,
            scale=self.config.combination.scale,
            baseline=self.config.combination.baseline,
            spread_floor=self.config.combination.reward_spread_floor,
        )
        return parts, advantages

    def _right(self, scores: Sequence[Score]) -> list[bool] | None:
        """What the checker says of each completion, or None where it is not among the training rewards."""
        if self.config.checker not in {reward.name for reward in self.rewards}:
            return None
        return [(s.parts[self.config.checker] or 0.0) >= 1 for s in scores]

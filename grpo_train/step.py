"""One step of training (GRPO's: DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 5 to 11): pick, sample, score, advantage, update.

Array names end in their axes: G problems with S responses each make N = G x S rows, scored by K objectives. The learner
holds the weights and updates them: clipped loss, backward pass, gradient clipping, optimizer. Everything else that
looks at a step, to report metrics or to remember something, is an observer (`observers/all.py` lists them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerBase

from configs.schema.config import Config
from configs.seeds import rng_for, seed_for
from grpo_train.ahead import Ahead
from grpo_train.credit import Credit
from grpo_train.following import Follower
from grpo_train.groups import left_out
from grpo_train.methods.build import build_method
from grpo_train.observers.all import Observers
from grpo_train.observers.metrics import step_metrics
from grpo_train.observers.observer import StepRecord
from grpo_train.observers.watch import Alarm
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.refill import Refilled
from grpo_train.rollouts import Rollouts, StepSettings, rollout_rows
from grpo_train.updating.advantages import Advantages, Bools, Floats
from grpo_train.updating.checkpoint import Component
from grpo_train.updating.critic import Critic
from grpo_train.updating.learner import Learner
from grpo_train.updating.ranks import Ranks
from grpo_train.updating.row_sampling import row_weights
from reward_training.reward import Reward, take_metrics
from reward_training.transformer.positions import Positions
from reward_training.weighing import Weighing


@dataclass(frozen=True)
class StepResult:
    """Metrics, rollouts and alarms of one step."""

    step: int
    """counts from 1"""
    metrics: dict[str, float]
    rollouts: list[dict[str, Any]]
    """one row per response, refused groups included, for rollouts.jsonl and the tables"""
    alarms: list[Alarm]
    ending_alarm: Alarm | None
    """the alarm that ends training with this step"""
    is_budget_spent: bool = False
    """whether this step reached the budget, which ends training too"""


class Stepper:
    """Runs the training steps and holds the state that is carried from one step to the next."""

    def __init__(
        self,
        learner: Learner,
        tokenizer: PreTrainedTokenizerBase,
        rewards: Sequence[Reward],
        config: Config,
        round_index: int,
        picker: ProblemPicker,
        follower: Follower | None = None,
        critic: Critic | None = None,
        memory: Callable[[], dict[str, float]] = dict,
    ) -> None:
        """`critic` is the value model of a method that has one; `memory` measures that of the process."""
        self.learner, self.rewards, self.config, self.round_index = learner, rewards, config, round_index
        self.objectives = [reward.name for reward in rewards]
        self.picker = picker
        self.rollouts = Rollouts(learner, tokenizer, rewards, config, round_index, follower)
        self.critic, self.memory = critic, memory
        self.method = build_method(config, critic)
        self.credit = Credit(config, self.method, self.objectives, tokenizer)
        self.observers = Observers(config, self.objectives, picker, self.method)

    @property
    def ranks(self) -> Ranks:
        return self.learner.ranks

    def components(self) -> dict[str, Component]:
        """Everything that the next step depends on, under its name in a checkpoint."""
        ahead: dict[str, Component] = {} if self.ahead is None else {"ahead": self.ahead}
        critic = {} if self.critic is None else self.critic.components()
        return ahead | self.learner.components() | critic | self.observers.by_name

    @property
    def ahead(self) -> Ahead | None:
        """The batch of the next step; None if none is written ahead."""
        follower = self.rollouts.follower
        return None if follower is None else follower.ahead

    def step(self, step: int, *, is_last: bool) -> StepResult:
        """Pick problems, sample and score responses, compute advantages, update the policy, report."""
        grpo = self.config.grpo_config
        settings = StepSettings(step, self._weighing(step))
        # dropout and rewards may draw from the global random generators
        set_seed(seed_for(self.config.seed, "global generators", round_index=self.round_index, step=step) % 2**32)

        # pick G problems; sample and score a group of S responses for each
        collected = self._collect(settings, is_last=is_last)
        batch = collected.batch

        # turn the scores into advantages
        advantages = self.credit.advantages(batch, settings.weighing)
        refused_advantages = self.credit.advantages(collected.refused, settings.weighing)
        settings.timer.end("score")

        # update the policy; what is left out of the baseline is left out of the loss as well
        in_loss_n = ~left_out(batch.completions, grpo) & self.method.in_loss(advantages)
        completions = [completion for completion, in_loss in zip(batch.completions, in_loss_n, strict=True) if in_loss]
        kept = advantages.kept(in_loss_n)
        weights = self._row_weights(kept, step)
        metrics = self.learner.update(completions, kept, batch.is_old[in_loss_n], weights)
        if self.critic is not None and kept.targets is not None:
            metrics |= self.critic.learn(completions, kept.targets)
        settings.timer.end("update")

        # report: metrics, observers, rollouts
        record = StepRecord(
            step=step,
            objectives=self.objectives,
            checker_of=self.config.checker_of,
            batch=batch,
            parts=self.credit.parts(batch),
            applies=self.credit.applies(batch),
            advantages=advantages,
            refused=collected.refused,
            refused_advantages=refused_advantages,
            num_refills=collected.num_refills,
            positions=self._on_all_ranks(settings.positions, self.learner.positions),
            downsampled=None if weights is None else _downsampled(in_loss_n, kept, weights),
            metrics=metrics,
        )
        is_last = is_last or self.observers.budget_ends_with(record)
        if grpo.monitor_kl_every and (is_last or step % grpo.monitor_kl_every == 0):
            record.metrics["policy/kl_initial"] = self.learner.kl_initial(batch.sampled)
        record.metrics.update(step_metrics(record, with_refills=grpo.refill > 0) | take_metrics(self.rewards))
        if self.ahead is not None:
            record.metrics["policy/staleness"] = record.staleness
            if record.staleness:  # the policy has moved since, which is no error of what sampled
                record.metrics["policy/writer_distance"] = record.metrics.pop("policy/sampler_mismatch")
        if (follower := self.rollouts.follower) is not None:
            record.metrics.update(follower.servers.metrics())
        record.metrics.update(settings.timer.metrics(record.num_sampled_tokens) | self.memory())
        self.observers.look(record)
        ending_alarm = self.learner.ranks.from_main(self.observers.ending_alarm)
        rollouts = rollout_rows(step, batch, advantages)
        rollouts += rollout_rows(step, collected.refused, refused_advantages, is_refused=True)
        spent = self.config.budget is not None and self.learner.ranks.from_main(self.observers.is_budget_spent)
        return StepResult(step, record.metrics, rollouts, self.observers.watch.alarms, ending_alarm, spent)

    def _collect(self, settings: StepSettings, *, is_last: bool) -> Refilled:
        """Sample the step's groups, or take those that servers wrote ahead."""
        grpo = self.config.grpo_config
        pick = partial(self.picker.pick, grpo.batch_size // grpo.group_size)
        if self.ahead is not None:
            return self.rollouts.collect_ahead(settings, self.ahead, pick, is_last=is_last)
        problems_g = pick()
        kept_g = self.observers.cache.take(settings.step, problems_g, self.learner.log_ratios)
        return self.rollouts.collect(settings, problems_g, kept_g, self.picker, self.credit.advantages)

    def _row_weights(self, advantages: Advantages, step: int) -> Floats | None:
        """How often each row counts in the update; None where all count once."""
        share = self.config.grpo_config.row_sampling.share
        if share == 1:
            return None
        rng = rng_for(self.config.seed, "row sampling", round_index=self.round_index, step=step)
        return row_weights(advantages, share, rng, has_kl_term=self.learner.reference is not None)

    def _weighing(self, step: int) -> Weighing:
        """The configured weights at this step; a reward that the configuration does not name keeps its own weight."""
        configured = Weighing.at(self.config.rewards, self.round_index, step)
        return replace(configured, weights={reward.name: reward.weight for reward in self.rewards} | configured.weights)

    def _on_all_ranks(self, *positions: Positions) -> Positions:
        """The sum of `positions` over all ranks."""
        local = np.sum([astuple(counts) for counts in positions], axis=0)
        return Positions(*(int(count) for count in self.learner.ranks.sums(local.tolist())))


def _downsampled(in_loss_n: Bools, kept: Advantages, weights: Floats) -> Bools:
    """(N,) which responses would move the policy, and are left out of the update."""
    downsampled = np.zeros(len(in_loss_n), dtype=np.bool_)
    downsampled[in_loss_n] = kept.moves & (weights == 0)
    return downsampled

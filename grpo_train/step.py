"""One GRPO step (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 5 to 11): pick, sample, score, advantage, update.

Array names end in their axes: G problems with S responses each make N = G x S rows, scored by K objectives. The learner
holds the weights and updates them: clipped loss, backward pass, gradient clipping, optimizer. Everything else that
looks at a step, to report metrics or to remember something, is an observer (`observers/all.py` lists them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerBase

from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.credit import Credit
from grpo_train.groups import left_out
from grpo_train.observers.all import Observers
from grpo_train.observers.metrics import step_metrics
from grpo_train.observers.observer import StepRecord
from grpo_train.observers.watch import Alarm
from grpo_train.problems.curriculum import ProblemPicker
from grpo_train.rollouts import Rollouts, StepSettings, rollout_rows
from grpo_train.updating.checkpoint import Component
from grpo_train.updating.learner import Learner
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
    ) -> None:
        self.learner, self.rewards, self.config, self.round_index = learner, rewards, config, round_index
        self.objectives = [reward.name for reward in rewards]
        self.picker = picker
        self.rollouts = Rollouts(learner, tokenizer, rewards, config, round_index)
        self.credit = Credit(config, self.objectives, tokenizer)
        self.observers = Observers(config, self.objectives, picker)

    def components(self) -> dict[str, Component]:
        """Everything that the next step depends on, under its name in a checkpoint."""
        return self.learner.components() | self.observers.by_name

    def step(self, step: int, *, is_last: bool) -> StepResult:
        """Pick problems, sample and score responses, compute advantages, update the policy, report."""
        grpo = self.config.grpo_config
        settings = StepSettings(step, self._weighing(step))
        # dropout and rewards may draw from the global random generators
        set_seed(seed_for(self.config.seed, "global generators", round_index=self.round_index, step=step) % 2**32)

        # pick G problems; sample and score a group of S responses for each
        problems_g = self.picker.pick(grpo.batch_size // grpo.group_size)
        kept_g = self.observers.cache.take(step, problems_g, self.learner.log_ratios)
        collected = self.rollouts.collect(settings, problems_g, kept_g, self.picker, self.credit.advantages)
        batch = collected.batch

        # turn the scores into advantages
        advantages = self.credit.advantages(batch, settings.weighing)
        refused_advantages = self.credit.advantages(collected.refused, settings.weighing)
        settings.timer.end("score")

        # update the policy; what is left out of the baseline is left out of the loss as well
        in_loss_n = ~left_out(batch.completions, grpo)
        completions = [completion for completion, in_loss in zip(batch.completions, in_loss_n, strict=True) if in_loss]
        metrics = self.learner.update(completions, advantages.kept(in_loss_n), batch.is_old[in_loss_n])
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
            metrics=metrics,
        )
        if grpo.monitor_kl_every and (is_last or step % grpo.monitor_kl_every == 0):
            record.metrics["policy/kl_initial"] = self.learner.kl_initial(batch.sampled)
        record.metrics.update(step_metrics(record, with_refills=grpo.refill > 0) | take_metrics(self.rewards))
        record.metrics.update(settings.timer.metrics(record.num_sampled_tokens))
        self.observers.look(record)
        ending_alarm = self.learner.ranks.from_main(self.observers.ending_alarm)
        rollouts = rollout_rows(step, batch, advantages)
        rollouts += rollout_rows(step, collected.refused, refused_advantages, is_refused=True)
        return StepResult(step, record.metrics, rollouts, self.observers.watch.alarms, ending_alarm)

    def _weighing(self, step: int) -> Weighing:
        """The configured weights at this step; a reward that the configuration does not name keeps its own weight."""
        configured = Weighing.at(self.config.rewards, self.round_index, step)
        return replace(configured, weights={reward.name: reward.weight for reward in self.rewards} | configured.weights)

    def _on_all_ranks(self, *positions: Positions) -> Positions:
        """The sum of `positions` over all ranks."""
        local = np.sum([astuple(counts) for counts in positions], axis=0)
        return Positions(*(int(count) for count in self.learner.ranks.sums(local.tolist())))

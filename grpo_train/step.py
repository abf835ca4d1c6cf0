"""One step of GRPO (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 5 to 11): pick, sample, score, advantage, update.

Arrays are named by their axes: G problems with S responses each are N = G x S rows, scored by K objectives. `learner` holds the weights
and what changes them: the clipped loss, the gradient, its clipping and the optimiser. Whatever looks at a step, for its metrics or
to remember something, is an observer and is listed in `Stepper.observers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerBase

from configs.schema.config import Config
from configs.schema.rewards import ModelRewardConfig
from configs.seeds import seed_for
from grpo_train.credit import Credit
from grpo_train.groups import Groups, left_out
from grpo_train.objective.advantages import Advantages
from grpo_train.objective.checkpoint import Component
from grpo_train.objective.learner import Learner
from grpo_train.observers.contributions import Contributions
from grpo_train.observers.gaps import Gaps
from grpo_train.observers.metrics import refill_metrics, step_metrics
from grpo_train.observers.observer import Observer, StepRecord
from grpo_train.observers.response_cache import ResponseCache
from grpo_train.observers.token_ledger import TokenLedger
from grpo_train.observers.watch import Alarm, Watch
from grpo_train.problems.curriculum import ProblemPicker
from grpo_train.rollouts import Rollouts, StepSettings
from reward_training.reward import Reward, take_metrics
from reward_training.transformer.positions import Positions
from reward_training.weighing import Weighing


@dataclass(frozen=True)
class StepResult:
    """What one step did."""

    step: int
    """counts from 1"""
    metrics: dict[str, float]
    rollouts: list[dict[str, Any]]
    """a row a response, those of refused groups too, for rollouts.jsonl and the tables"""
    alarms: list[Alarm]


class Stepper:
    """Takes the steps, and holds what a training carries from one to the next."""

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
        self.cache = ResponseCache(config.grpo_config.response_cache, config.grpo_config.group_size)
        self.rollouts = Rollouts(learner, tokenizer, rewards, config, round_index)
        self.credit = Credit(config, self.objectives, tokenizer)
        self.contributions = Contributions(self.objectives)
        self.ledger = TokenLedger()
        self.watch = Watch(config.watch)
        models = [reward.name for reward in config.rewards if isinstance(reward, ModelRewardConfig)]
        self.observers: dict[str, Observer] = {
            "contributions": self.contributions,
            "gaps": Gaps([name for name in models if name in self.objectives], config.checker),
            "cache": self.cache,
            "ledger": self.ledger,
            "picker": self.picker,
        }
        self.stopped_by: Alarm | None = None

    def components(self) -> dict[str, Component]:
        """All that the next step depends on, by the name that it has in a checkpoint."""
        return self.learner.components() | self.observers | {"watch": self.watch}

    def step(self, step: int, *, is_last: bool) -> StepResult:
        """Pick, sample, score, advantage, update; then all look at what happened."""
        grpo = self.config.grpo_config
        settings = StepSettings(step, self._weighing(step))
        # dropout and rewards may draw from the global generators
        set_seed(seed_for(self.config.seed, "global generators", round_index=self.round_index, step=step) % 2**32)

        problems_g = self.picker.pick(grpo.batch_size // grpo.group_size)
        kept_g = self.cache.take(step, problems_g, self.learner.log_ratios)
        drawn = self.rollouts.collect(settings, problems_g, kept_g, self.picker, self.credit.advantages)
        batch = drawn.batch
        advantages = self.credit.advantages(batch, settings.weighing)
        refused_advantages = self.credit.advantages(drawn.refused, settings.weighing)
        settings.timer.end("score")

        learns_n = ~left_out(batch.completions, grpo)
        learned = [completion for completion, learns in zip(batch.completions, learns_n, strict=True) if learns]
        metrics = self.learner.update(learned, advantages.kept(learns_n), batch.is_old[learns_n])
        settings.timer.end("update")

        seen = StepRecord(
            step=step,
            objectives=self.objectives,
            checker=self.config.checker,
            batch=batch,
            parts=self.credit.parts(batch),
            advantages=advantages,
            refused=drawn.refused,
            refused_advantages=refused_advantages,
            num_refills=drawn.num_rounds,
            positions=self._on_all_ranks(settings.positions, self.learner.positions),
            metrics=metrics,
        )
        self._measure(seen, is_last=is_last)
        self._observe(seen, settings)
        rollouts = rollout_rows(step, batch, advantages)
        rollouts += rollout_rows(step, drawn.refused, refused_advantages, is_refused=True)
        return StepResult(step, seen.metrics, rollouts, self.watch.alarms)

    def _weighing(self, step: int) -> Weighing:
        """As configured; a reward that a caller brings along has its own weight."""
        configured = Weighing.at(self.config.rewards, self.round_index, step)
        return replace(configured, weights={reward.name: reward.weight for reward in self.rewards} | configured.weights)

    def _measure(self, seen: StepRecord, *, is_last: bool) -> None:
        """The metrics that remember nothing."""
        grpo = self.config.grpo_config
        if grpo.monitor_kl_every and (is_last or seen.step % grpo.monitor_kl_every == 0):
            seen.metrics["policy/kl_initial"] = self.learner.kl_initial(seen.batch.sampled)
        seen.metrics.update(step_metrics(seen))
        if grpo.refill:
            seen.metrics.update(refill_metrics(seen))
        seen.metrics.update(take_metrics(self.rewards))

    def _observe(self, seen: StepRecord, settings: StepSettings) -> None:
        """Let every observer look, and last the watch, at the metrics of all others: it may end the training, on all ranks."""
        for observer in self.observers.values():
            seen.metrics.update(observer.look(seen))
        seen.metrics.update(settings.timer.metrics(seen.metrics["tokens/generated"]))
        self.watch.look(seen)
        ends = next((alarm for alarm in self.watch.alarms if alarm.rule.action != "warn"), None)
        self.stopped_by = self.learner.ranks.from_main(ends)

    def _on_all_ranks(self, *positions: Positions) -> Positions:
        """The sum over several counts and over all ranks."""
        here = np.sum([astuple(part) for part in positions], axis=0)
        return Positions(*(int(count) for count in self.learner.ranks.sums(here.tolist())))


def rollout_rows(
    step: int, groups: Groups, advantages: Advantages, *, is_refused: bool = False
) -> list[dict[str, Any]]:
    """One row a response for rollouts.jsonl and the tables."""
    rows = zip(groups.asked, groups.completions, groups.scores, advantages.means, strict=True)
    return [
        {
            "step": step,
            "problem_key": problem.key,
            "index": completion.index,
            "written_at": completion.step,
            "prompt": problem.prompt,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "num_tokens": len(completion.token_ids),
            "parts": score.parts,
            "total": score.total,
            "advantage": float(advantage),
            "refused": is_refused,
        }
        for problem, completion, score, advantage in rows
    ]

"""One step of GRPO (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 5 to 11).

Pick problems, sample groups, score, normalise within the group, update. `learner` holds the weights and what changes them:
the clipped loss, the gradient, its clipping and the optimiser.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from accelerate.utils import set_seed
from transformers import PreTrainedTokenizerBase

from configs.records import Completion, Problem, Score
from configs.schema.config import Config
from configs.schema.rewards import ModelRewardConfig
from configs.seeds import seed_for
from grpo_train.gaps import Gaps
from grpo_train.groups import Groups, left_out, without
from grpo_train.objective.advantages import Advantages, Floats, group_advantages
from grpo_train.objective.checkpoint import Component
from grpo_train.objective.learner import Learner
from grpo_train.objective.step_advantages import add_steps, token_steps
from grpo_train.problems.curriculum import ProblemPicker
from grpo_train.problems.prompt_variants import varied
from grpo_train.refill import Refilled, refill
from grpo_train.response_cache import ResponseCache, Reuse
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.generation import OnGroup, Sampling, sample, stop_token_ids
from grpo_train.sampling.vllm_engine import VllmEngine
from grpo_train.step_metrics import (
    Contributions,
    Phases,
    group_metrics,
    parts_matrix,
    response_metrics,
    reward_metrics,
    rollout_rows,
)
from grpo_train.token_ledger import TokenLedger, token_counts
from grpo_train.watch import Alarm, Watch
from reward_training.reward import take_metrics
from reward_training.scorer import Reward, Scoring, check_unscored
from reward_training.transformer.positions import Positions
from reward_training.weighing import Weighing


@dataclass(frozen=True)
class StepResult:
    """What one step did."""

    step: int
    """counts from 1"""
    metrics: dict[str, float]
    rollouts: list[dict[str, Any]]
    alarms: list[Alarm]


@dataclass
class _Step:
    """One step in the making."""

    number: int
    """counts from 1"""
    weighing: Weighing
    phases: Phases = field(default_factory=Phases)
    positions: Positions = field(default_factory=Positions)
    """what sampling computed"""


@dataclass
class Stepper:
    """Takes the steps, and holds what a training carries from one to the next."""

    learner: Learner
    tokenizer: PreTrainedTokenizerBase
    rewards: Sequence[Reward]
    config: Config
    round: int
    picker: ProblemPicker
    watch: Watch = field(init=False)
    ledger: TokenLedger = field(init=False, default_factory=TokenLedger)
    contributions: Contributions = field(init=False)
    cache: ResponseCache = field(init=False)
    engine: VllmEngine | None = field(init=False, default=None)
    stopped_by: Alarm | None = field(init=False, default=None)
    gaps: Gaps = field(init=False)
    per_step: str | None = field(init=False, default=None)
    """the reward whose steps have advantages of their own"""

    def __post_init__(self) -> None:
        grpo = self.config.grpo_config
        if grpo.vllm is not None:
            self.engine = VllmEngine(grpo.vllm, stop_token_ids(self.learner.actor, self.tokenizer))
        self.watch = Watch(self.config.watch)
        self.cache = ResponseCache(grpo.response_cache, grpo.group_size)
        names = [reward.name for reward in self.rewards]
        self.contributions = Contributions(names)
        models = [
            reward.name
            for reward in self.config.rewards
            if isinstance(reward, ModelRewardConfig) and reward.name in names
        ]
        self.gaps = Gaps(models, self.config.checker)
        self.per_step = next((name for name in names if name in self.config.per_step_rewards), None)

    def components(self) -> dict[str, Component]:
        """All that the next step depends on, by the name that it has in a checkpoint."""
        ours: dict[str, Component] = {
            "picker": self.picker,
            "watch": self.watch,
            "ledger": self.ledger,
            "contributions": self.contributions,
            "gaps": self.gaps,
            "cache": self.cache,
        }
        return self.learner.components() | ours

    def step(self, number: int, *, is_last: bool) -> StepResult:
        """Pick, sample, score, update."""
        step = _Step(number, self._weighing(number))
        start = step.phases.last
        grpo = self.config.grpo_config
        # dropout and rewards may draw from the global generators
        set_seed(seed_for(self.config.seed, "global generators", round=self.round, step=number) % 2**32)
        picked = self.picker.pick(grpo.batch_size // grpo.group_size)
        reuse = self.cache.take(number, picked, self.learner.log_ratios)
        filled = self._fill(step, picked, reuse)
        batch, refused = filled.batch, filled.refused
        parts, advantages = self._advantages(batch, step.weighing)
        _, of_refused = self._advantages(refused, step.weighing)
        self.contributions.add(advantages)
        step.phases.end("score")
        out = left_out(batch.completions, grpo)
        kept = [completion for completion, is_out in zip(batch.completions, out, strict=True) if not is_out]
        metrics = self.learner.update(kept, advantages.kept(~out), batch.is_old[~out])
        step.phases.end("update")
        if grpo.monitor_kl_every and (is_last or number % grpo.monitor_kl_every == 0):
            metrics["policy/kl_initial"] = self.learner.kl_initial(batch.sampled)
        right = self._right(batch.scores)
        metrics |= reward_metrics(parts, [reward.name for reward in self.rewards], advantages, batch.is_old)
        metrics |= self.gaps.look(parts[~batch.is_old], [reward.name for reward in self.rewards])
        metrics |= group_metrics(batch.completions, right, advantages, grpo.group_size, batch.is_old)
        metrics |= response_metrics(batch.sampled)
        metrics |= reuse.metrics
        metrics |= self.cache.add(batch.completions, batch.scores, advantages.means, right, batch.is_old)
        if grpo.refill:
            metrics |= {"groups/refused": float(len(refused.problems)), "groups/refills": float(filled.num_rounds)}
        tokens = token_counts(batch, advantages) + token_counts(refused, of_refused)
        metrics |= self.ledger.add(tokens, self._everywhere(step.positions), self._everywhere(self.learner.positions))
        metrics |= take_metrics(self.rewards)
        metrics |= self.picker.end_step(self._pass_rates(batch + refused))
        metrics |= step.phases.seconds
        metrics["time/step"] = time.perf_counter() - start
        metrics["time/tokens_per_second"] = metrics["tokens/generated"] / metrics["time/step"]
        alarms = self.watch.look(number, metrics)
        stopped_by = next((alarm for alarm in alarms if alarm.rule.action != "warn"), None)
        self.stopped_by = self.learner.ranks.from_main(stopped_by)
        rollouts = rollout_rows(number, batch, advantages) + rollout_rows(number, refused, of_refused, is_refused=True)
        return StepResult(number, metrics, rollouts, alarms)

    def _weighing(self, number: int) -> Weighing:
        """As configured; a reward that a caller brings along has its own weight."""
        configured = Weighing.at(self.config.rewards, self.round, number)
        return replace(configured, weights={reward.name: reward.weight for reward in self.rewards} | configured.weights)

    def _fill(self, step: _Step, picked: list[Problem], reuse: Reuse) -> Refilled:
        """The batch: groups of the picked problems, dead ones replaced by fresh ones as far as `refill` allows."""

        def ask(attempt: int, number: int) -> Groups:
            fresh = self.picker.pick_more(number)
            nothing = Reuse(self.config.grpo_config.group_size, [[] for _ in fresh], {})
            return self._ask(step, fresh, nothing, attempt) if fresh else Groups()

        filled = refill(
            self._ask(step, picked, reuse),
            self.config.grpo_config.refill,
            is_dead=lambda groups: self._advantages(groups, step.weighing)[1].dead,
            ask=ask,
        )
        scores = filled.batch.sampled_scores + filled.refused.sampled_scores
        check_unscored(scores, self.config.combination.max_unscored_share)
        return filled

    def _ask(self, step: _Step, problems: list[Problem], reuse: Reuse, attempt: int = 0) -> Groups:
        """Sample and score what `reuse` leaves of each problem's group."""
        worded = [varied(problem, seed=self.config.seed, round=self.round, step=step.number) for problem in problems]
        groups = self.learner.ranks.each(
            list(zip(worded, reuse.num_sampled, strict=True)), partial(self._sample_and_score, step, attempt)
        )
        sampled = [completion for completions, _ in groups for completion in completions]
        scores = [score for _, of_group in groups for score in of_group]
        return Groups(worded, reuse.completions(sampled), reuse.scores(scores), reuse.is_old.tolist())

    def _sample_and_score(
        self, step: _Step, attempt: int, asked: list[tuple[Problem, int]]
    ) -> list[tuple[list[Completion], list[Score]]]:
        """The responses to each problem, so many as are asked for, and their scores."""
        if not asked:
            return []
        problems, numbers = [problem for problem, _ in asked], [number for _, number in asked]
        with Scoring(self.rewards, step.weighing) as scoring:
            sampled = self._sample(step, problems, numbers, attempt, scoring.begin)
            step.phases.end("generate")
            scores = scoring.finish([problem for problem, number in asked for _ in range(number)], sampled)
            step.phases.end("score")
        ends = list(accumulate(numbers))
        parts = [slice(end - number, end) for end, number in zip(ends, numbers, strict=True)]
        return [(sampled[part], scores[part]) for part in parts]

    def _sample(
        self, step: _Step, problems: list[Problem], group_sizes: list[int], attempt: int, on_group: OnGroup
    ) -> list[Completion]:
        grpo = self.config.grpo_config
        sampling = Sampling(
            group_size=grpo.group_size,
            temperature=grpo.temperature,
            max_response_length=grpo.max_response_length,
            top_p=grpo.top_p,
            top_k=grpo.top_k,
            max_rows=grpo.generation_rows,
        )
        seed = seed_for(self.config.seed, "train sampling", round=self.round, step=step.number, index=attempt)
        policy_id = f"{self.learner.policy.id}+{step.number - 1}"
        if self.engine is not None:
            self.engine.follow(self.learner.actor, policy_id)
            return self.engine.sample(
                self.tokenizer, problems, group_sizes, sampling, seed=seed, policy_id=policy_id, step=step.number
            )
        return sample(
            self.learner.actor,
            self.tokenizer,
            problems,
            sampling,
            seed=seed,
            policy_id=policy_id,
            step=step.number,
            group_sizes=group_sizes,
            early_stop=self._early_stop(problems),
            on_group=on_group,
            positions=step.positions,
        )

    def _everywhere(self, positions: Positions) -> Positions:
        """Those of all ranks."""
        return Positions(*(int(number) for number in self.learner.ranks.sums(astuple(positions))))

    def _pass_rates(self, groups: Groups) -> dict[str, float]:
        """{problem key: share of right responses}, sampled ones only; empty where the checker is no training reward."""
        right = self._right(groups.sampled_scores)
        if right is None:
            return {}
        found: dict[str, list[bool]] = {}
        for completion, is_right in zip(groups.sampled, right, strict=True):
            found.setdefault(completion.problem_key, []).append(is_right)
        return {key: sum(verdicts) / len(verdicts) for key, verdicts in found.items()}

    def _early_stop(self, batch: list[Problem]) -> EarlyStop | None:
        grpo = self.config.grpo_config
        if not grpo.early_stop.is_on:
            return None
        return EarlyStop(grpo.early_stop, batch, self.tokenizer, grpo.max_response_length, self.rewards)

    def _advantages(self, groups: Groups, weighing: Weighing) -> tuple[np.ndarray, Advantages]:
        names = [reward.name for reward in self.rewards]
        parts = parts_matrix(groups.scores, names)
        weights, floors = weighing.columns(names)
        out = left_out(groups.completions, self.config.grpo_config)
        column = names.index(self.per_step) if self.per_step else None
        advantages = group_advantages(
            without(parts, out),
            weights if column is None else _but(weights, column),
            self.config.grpo_config.group_size,
            order=self.config.combination.order,
            scale=self.config.combination.scale,
            baseline=self.config.combination.baseline,
            spread_floor=self.config.combination.reward_spread_floor,
            floors=floors,
        )
        if column is None:
            return parts, advantages
        rows = zip(groups.completions, groups.scores, out, strict=True)
        steps = [[] if is_out else token_steps(self.tokenizer, text, score) for text, score, is_out in rows]
        lengths = [len(completion.token_ids) for completion in groups.completions]
        size, combination = self.config.grpo_config.group_size, self.config.combination
        weight = float(weights[column])
        return parts, add_steps(
            advantages,
            steps,
            lengths,
            parts=parts[:, column],
            column=column,
            weight=weight,
            group_size=size,
            combination=combination,
        )

    def _right(self, scores: Sequence[Score]) -> list[bool] | None:
        """What the checker says of each completion, or None where it is not among the training rewards."""
        if self.config.checker not in {reward.name for reward in self.rewards}:
            return None
        return [(s.parts[self.config.checker] or 0.0) >= 1 for s in scores]


def _but(weights: Floats, column: int) -> Floats:
    """The weights with one objective left out."""
    return np.where(np.arange(len(weights)) == column, 0.0, weights)

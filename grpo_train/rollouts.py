"""Collects the rollouts of a step: samples and scores groups of responses on all ranks, and refills dead groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

from transformers import PreTrainedTokenizerBase

from configs.records import Completion, Problem, Score
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.groups import Groups
from grpo_train.observers.response_cache import Reuse, nothing_kept
from grpo_train.problems.curriculum import ProblemPicker
from grpo_train.problems.prompt_variants import varied
from grpo_train.refill import Refilled, refill
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.generation import OnGroup, Sampling, sample
from grpo_train.sampling.vllm_engine import VllmEngine
from grpo_train.updating.advantages import Advantages, Bools
from grpo_train.updating.learner import Learner
from reward_training.reward import Reward
from reward_training.scorer import Scoring, check_unscored
from reward_training.transformer.positions import Positions
from reward_training.transformer.turn_ends import stop_token_ids
from reward_training.weighing import Weighing


@dataclass
class Timer:
    """Seconds of a step by phase; a phase may occur more than once."""

    seconds: dict[str, float] = field(default_factory=dict)
    start: float = field(default_factory=time.perf_counter)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.last = self.start

    def end(self, phase: str) -> None:
        """Count the time since the last call as `phase`."""
        now = time.perf_counter()
        self.seconds[f"time/{phase}"] = self.seconds.get(f"time/{phase}", 0.0) + now - self.last
        self.last = now

    def metrics(self, num_tokens: float) -> dict[str, float]:
        """Seconds of each phase and of the whole step, and sampled tokens per second."""
        total = time.perf_counter() - self.start
        return self.seconds | {"time/step": total, "time/tokens_per_second": num_tokens / total}


@dataclass(frozen=True)
class StepSettings:
    """Settings and counters that all rollouts of one step share."""

    step: int
    """counts from 1"""
    weighing: Weighing
    timer: Timer = field(default_factory=Timer)
    positions: Positions = field(default_factory=Positions)
    """token positions that sampling computed on this rank"""


class Rollouts:
    """Samples responses from the learner's policy, in this process or on a vLLM server, and scores them."""

    def __init__(
        self,
        learner: Learner,
        tokenizer: PreTrainedTokenizerBase,
        rewards: Sequence[Reward],
        config: Config,
        round_index: int,
    ) -> None:
        self.learner, self.tokenizer, self.rewards = learner, tokenizer, rewards
        self.config, self.round_index = config, round_index
        vllm = config.grpo_config.vllm
        self.engine = None if vllm is None else VllmEngine(vllm, stop_token_ids(learner.actor, tokenizer))

    def collect(
        self,
        settings: StepSettings,
        problems: list[Problem],
        reuse: Reuse,
        picker: ProblemPicker,
        advantages: Callable[[Groups, Weighing], Advantages],
    ) -> Refilled:
        """Sample and score a group for each problem; replace dead groups by fresh ones in up to `refill` rounds.

        Args:
            reuse: responses from the response cache, which take the place of sampled ones.
            picker: supplies the fresh problems.
            advantages: computes the advantages of groups, and with them which groups are dead.

        Raises:
            RewardError: a reward left more than `max_unscored_share` of the responses unscored.
        """
        group_size = self.config.grpo_config.group_size

        def ask(attempt: int, num_problems: int) -> Groups:
            fresh = picker.pick_more(num_problems)
            return self._groups(settings, fresh, nothing_kept(fresh, group_size), attempt) if fresh else Groups()

        def is_dead(groups: Groups) -> Bools:
            return advantages(groups, settings.weighing).dead

        first = self._groups(settings, problems, reuse, attempt=0)
        refilled = refill(first, self.config.grpo_config.refill, is_dead=is_dead, ask=ask)
        scores = refilled.batch.sampled_scores + refilled.refused.sampled_scores
        check_unscored(scores, self.config.combination.max_unscored_share)
        return refilled

    def _groups(self, settings: StepSettings, problems: list[Problem], reuse: Reuse, attempt: int) -> Groups:
        """Sample and score the rows that `reuse` leaves open in each group; each rank does its share of problems."""
        variants = [
            varied(problem, seed=self.config.seed, round_index=self.round_index, step=settings.step)
            for problem in problems
        ]
        asked = list(zip(variants, reuse.num_sampled, strict=True))
        scored = self.learner.ranks.each(asked, partial(self._sample_and_score, settings, attempt))
        sampled = [completion for completions, _ in scored for completion in completions]
        scores = [score for _, group_scores in scored for score in group_scores]
        return Groups(variants, reuse.completions(sampled), reuse.scores(scores), reuse.is_old.tolist())

    def _sample_and_score(
        self, settings: StepSettings, attempt: int, asked: list[tuple[Problem, int]]
    ) -> list[tuple[list[Completion], list[Score]]]:
        """(completions, scores) of each problem in `asked`, which holds (problem, number of responses)."""
        if not asked:
            return []
        problems, sizes = [problem for problem, _ in asked], [size for _, size in asked]
        with Scoring(self.rewards, settings.weighing) as scoring:
            sampled = self._sample(settings, problems, sizes, attempt, scoring.begin)
            settings.timer.end("generate")
            scores = scoring.finish([problem for problem, size in asked for _ in range(size)], sampled)
            settings.timer.end("score")
        ends = list(accumulate(sizes))
        groups = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        return [(sampled[group], scores[group]) for group in groups]

    def _sample(
        self,
        settings: StepSettings,
        problems: list[Problem],
        group_sizes: list[int],
        attempt: int,
        on_group: OnGroup,
    ) -> list[Completion]:
        grpo, step = self.config.grpo_config, settings.step
        sampling = Sampling(
            group_size=grpo.group_size,
            temperature=grpo.temperature,
            max_response_length=grpo.max_response_length,
            top_p=grpo.top_p,
            top_k=grpo.top_k,
            max_rows=grpo.generation_rows,
        )
        seed = seed_for(self.config.seed, "train sampling", round_index=self.round_index, step=step, index=attempt)
        policy_id = f"{self.learner.policy.id}+{step - 1}"
        if self.engine is not None:
            self.engine.follow(self.learner.actor, policy_id)
            return self.engine.sample(
                self.tokenizer, problems, group_sizes, sampling, seed=seed, policy_id=policy_id, step=step
            )
        return sample(
            self.learner.actor,
            self.tokenizer,
            problems,
            sampling,
            group_sizes=group_sizes,
            early_stop=self._early_stop(problems),
            on_group=on_group,
            positions=settings.positions,
            seed=seed,
            policy_id=policy_id,
            step=step,
        )

    def _early_stop(self, problems: list[Problem]) -> EarlyStop | None:
        grpo = self.config.grpo_config
        if not grpo.early_stop.is_on:
            return None
        return EarlyStop(grpo.early_stop, problems, self.tokenizer, grpo.max_response_length, self.rewards)


def rollout_rows(
    step: int, groups: Groups, advantages: Advantages, *, is_refused: bool = False
) -> list[dict[str, Any]]:
    """One row per response for rollouts.jsonl and the tables."""
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
            "faults": score.faults,
            "total": score.total,
            "advantage": float(advantage),
            "refused": is_refused,
        }
        for problem, completion, score, advantage in rows
    ]

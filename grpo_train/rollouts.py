"""Collects the rollouts of a step: samples and scores groups of responses on all ranks, and refills dead groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from configs.records import Completion, Problem, Score
from configs.schema.config import Config
from configs.seeds import seed_for
from grpo_train.ahead import Ahead
from grpo_train.following import Follower
from grpo_train.groups import Groups
from grpo_train.observers.response_cache import Reuse, nothing_kept
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.problems.prompt_variants import varied
from grpo_train.refill import Refilled, refill
from grpo_train.sampling.asked import groups_of
from grpo_train.sampling.early_stop import EarlyStop
from grpo_train.sampling.generation import OnGroup, sample
from grpo_train.updating.advantages import Advantages, Bools
from grpo_train.updating.learner import Learner
from reward_training.reward import Reward
from reward_training.rewards.sought import texts_sought
from reward_training.scorer import Scoring, check_unscored
from reward_training.transformer.positions import Positions
from reward_training.weighing import Weighing

Row = TypeVar("Row")


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
    """Samples responses from the learner's policy, in this process or on vLLM servers, and scores them."""

    def __init__(
        self,
        learner: Learner,
        tokenizer: PreTrainedTokenizerBase,
        rewards: Sequence[Reward],
        config: Config,
        round_index: int,
        follower: Follower | None = None,
    ) -> None:
        """`follower` has the vLLM servers that write, if there are some."""
        self.learner, self.tokenizer, self.rewards = learner, tokenizer, rewards
        self.config, self.round_index = config, round_index
        self.follower = follower

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
        return self._checked(refill(first, self.config.grpo_config.refill, is_dead=is_dead, ask=ask))

    def _checked(self, collected: Refilled) -> Refilled:
        scores = collected.batch.sampled_scores + collected.refused.sampled_scores
        check_unscored(scores, self.config.combination.max_unscored_share)
        return collected

    def collect_ahead(
        self, settings: StepSettings, ahead: Ahead, pick: Callable[[], list[Problem]], *, is_last: bool
    ) -> Refilled:
        """Take the step's responses, which servers wrote ahead, let them write the next step's, and score those that were taken.

        Args:
            pick: the problems of the next step that has none yet.

        Raises:
            RewardError: a reward left more than `max_unscored_share` of the responses unscored.
            StageStopped, ServerAway, ServerRefused, ServerDiffers: as `PolicyServers.sample`, of what was written ahead.
        """
        assert self.follower is not None, "servers write ahead"
        step = settings.step
        if not ahead.has_batch:  # nothing was there to write the first batch ahead
            self._start(ahead, step, pick(), during=step)
            settings.timer.end("weights")
        batch = ahead.take(step)
        settings.timer.end("generate")
        settings.timer.seconds["time/overlapped"] = ahead.overlapped_s
        self.follower.follow(self._policy_id(step), batch.problems)
        if not is_last:
            self._start(ahead, step + 1, pick(), during=step)
        settings.timer.end("weights")
        written = list(zip(batch.problems, batch.groups, strict=True))
        scores = [one for group in self.learner.ranks.each(written, partial(self._score, settings)) for one in group]
        completions = [completion for group in batch.groups for completion in group]
        groups = Groups(batch.problems, completions, scores, [False] * len(completions))
        return self._checked(Refilled(groups, Groups(), num_refills=0))

    def _start(self, ahead: Ahead, step: int, problems: Sequence[Problem], *, during: int) -> None:
        """Let the servers write the responses of `step` with the weights from before step `during`."""
        assert self.follower is not None, "servers write ahead"
        variants, policy_id = self._as_asked(step, problems), self._policy_id(during)
        self.follower.follow(policy_id, variants)
        mine = self.learner.ranks.share(variants)
        order = self.follower.servers.order(
            mine,
            groups_of(self.config.grpo_config, self.config),
            seed=self._seed(step),
            policy_id=policy_id,
            step=during,
        )
        ahead.start(step, variants, order)

    def _groups(self, settings: StepSettings, problems: list[Problem], reuse: Reuse, attempt: int) -> Groups:
        """Sample and score the rows that `reuse` leaves open in each group; each rank does its share of problems."""
        variants = self._as_asked(settings.step, problems)
        if self.follower is not None:
            self.follower.follow(self._policy_id(settings.step), variants)
            settings.timer.end("weights")
        asked = list(zip(variants, reuse.num_sampled, strict=True))
        scored = self.learner.ranks.each(asked, partial(self._sample_and_score, settings, attempt))
        sampled = [completion for completions, _ in scored for completion in completions]
        scores = [score for _, group_scores in scored for score in group_scores]
        if self.follower is not None and self.config.grpo_config.draws_from_a_part:
            sampled = self.learner.rescored(sampled)  # the servers' log-probabilities are those within that part
        return Groups(variants, reuse.completions(sampled), reuse.scores(scores), reuse.is_old.tolist())

    def _sample_and_score(
        self, settings: StepSettings, attempt: int, asked: list[tuple[Problem, int]]
    ) -> list[tuple[list[Completion], list[Score]]]:
        """(completions, scores) of each problem in `asked`, which holds (problem, number of responses).

        A rank without a problem scores too: ranks may compute a reward together.
        """
        problems, sizes = [problem for problem, _ in asked], [size for _, size in asked]
        with Scoring(self.rewards, settings.weighing) as scoring:
            sampled = self._sample(settings, problems, sizes, attempt, scoring.begin) if asked else []
            settings.timer.end("generate")
            scores = scoring.finish([problem for problem, size in asked for _ in range(size)], sampled)
            settings.timer.end("score")
        return list(zip(grouped(sampled, sizes), grouped(scores, sizes), strict=True))

    def _score(self, settings: StepSettings, written: list[tuple[Problem, list[Completion]]]) -> list[list[Score]]:
        """The scores of each group of `written`, which holds (problem, responses); a rank without one scores too."""
        problems = [problem for problem, group in written for _ in group]
        with Scoring(self.rewards, settings.weighing) as scoring:
            for i, (problem, group) in enumerate(written):
                scoring.begin(i, problem, group)
            scores = scoring.finish(problems, [completion for _, group in written for completion in group])
            settings.timer.end("score")
        return grouped(scores, [len(group) for _, group in written])

    def _sample(
        self,
        settings: StepSettings,
        problems: list[Problem],
        group_sizes: list[int],
        attempt: int,
        on_group: OnGroup,
    ) -> list[Completion]:
        step, sampling = settings.step, groups_of(self.config.grpo_config, self.config)
        seed, policy_id = self._seed(step, attempt), self._policy_id(step)
        if self.follower is not None:
            return self.follower.servers.sample(
                problems,
                sampling,
                group_sizes=group_sizes,
                on_group=on_group,
                seed=seed,
                policy_id=policy_id,
                step=step,
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

    def _seed(self, step: int, attempt: int = 0) -> int:
        return seed_for(self.config.seed, "train sampling", round_index=self.round_index, step=step, index=attempt)

    def _policy_id(self, step: int) -> str:
        """The policy at the beginning of the step."""
        return f"{self.learner.policy.id}+{step - 1}"

    def _as_asked(self, step: int, problems: Sequence[Problem]) -> list[Problem]:
        """The problems in the wording that the step asks."""
        seed, round_index = self.config.seed, self.round_index
        return [varied(problem, seed=seed, round_index=round_index, step=step) for problem in problems]

    def _early_stop(self, problems: list[Problem]) -> EarlyStop | None:
        grpo = self.config.grpo_config
        if not grpo.early_stop.is_on:
            return None
        sought = texts_sought(self.config.rewards)
        return EarlyStop(grpo.early_stop, problems, self.tokenizer, grpo.max_response_length, self.rewards, sought)


def grouped(rows: Sequence[Row], sizes: Sequence[int]) -> list[list[Row]]:
    """The rows in groups of these sizes.

    >>> grouped("abc", [1, 2])
    [['a'], ['b', 'c']]
    """
    return [list(rows[end - size : end]) for end, size in zip(accumulate(sizes), sizes, strict=True)]


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

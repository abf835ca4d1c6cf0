"""What a method whose samples are there before it trains learns from in a round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import JOURNAL, Journal, read_jsonl, write_jsonl
from configs.records import Completion, Problem, Score
from configs.schema.methods.method import BestOfNMethod, PairMethod
from configs.schema.methods.offline import DpoMethod, IpoMethod
from configs.schema.rewards import asking
from configs.seeds import rng_for, seed_for
from grpo_train.methods.dpo import TrainingPair, find_pairs, train_on_pairs
from grpo_train.methods.given_samples import Training, num_updates
from grpo_train.methods.offline_best_of_n import Imitated, best_of_groups, imitate
from grpo_train.observers.token_ledger import token_class
from grpo_train.problems.prompt_variants import varied
from grpo_train.sampling.asked import groups_of
from reward_training.reward import take_metrics
from reward_training.scorer import build_rewards, check_unscored, score
from reward_training.weighing import Weighing
from tasks.running.stage import Context
from tasks.runs.stage_files import COMPLETIONS, SCORES
from tasks.stages.policy import PolicySpec
from tasks.stages.samples import Samples
from tasks.stages.writing import writing

TRAINING_PAIRS = "training_pairs.jsonl"
Learn = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Training], int]


@dataclass(frozen=True)
class Lesson:
    """What training goes over, and what it cost."""

    learn: Learn
    """trains a model in place; returns the number of updates"""
    num_updates: int
    tokens: dict[str, int]
    """{class of the token ledger: number of tokens} of all samples, also of those that nothing is learned from"""
    untrained: str | None = None
    """why there is too little to learn from; None where there is enough"""


def lesson_of(spec: PolicySpec, out_dir: Path, context: Context) -> Lesson:
    """What the method of the configuration learns from in this round. Its files stay in `out_dir` while a checkpoint does."""
    match spec.method:
        case BestOfNMethod() as method:
            return best_lesson(spec, method, out_dir, context)
        case DpoMethod() | IpoMethod() as method:
            assert spec.samples is not None, "the flow gives them"
            return _of_pairs(spec, spec.samples, method, out_dir, context)
        case method:
            raise AssertionError(f"{method.kind} samples while it trains")


def _tokens(completions: Sequence[Completion], scored: Sequence[bool], dead_keys: set[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for completion, is_scored in zip(completions, scored, strict=True):
        is_dead = completion.problem_key in dead_keys
        counts[token_class(completion, is_old=False, is_scored=is_scored, is_dead=is_dead)] += len(completion.token_ids)
    return dict(counts)


# ---- pairs of the round before --------------------------------------------------------------------------------------


def _of_pairs(spec: PolicySpec, samples: Samples, method: PairMethod, out_dir: Path, context: Context) -> Lesson:
    context.progress.say("pairing the samples")
    completions, scores = champions_samples(spec, samples, context)
    weighing = Weighing.at(spec.config.rewards, spec.round)
    totals = [weighing.known_total(scored.parts) for scored in scores]
    found = find_pairs(completions, totals, per_problem=method.pairs_per_problem, min_margin=method.min_margin)
    goes_on = (out_dir / TRAINING_PAIRS).exists()
    write_jsonl(out_dir / TRAINING_PAIRS, found.pairs)
    if not goes_on:
        Journal(out_dir / JOURNAL).write(0, found.metrics)
    return Lesson(
        learn=partial(_learn_pairs, found.pairs, method),
        num_updates=num_updates(method.epochs * len(found.pairs), method.batch_size),
        tokens=_tokens(completions, [total is not None for total in totals], found.dead_keys),
        untrained=_too_few(found.pairs, len(completions), method),
    )


def _learn_pairs(
    pairs: Sequence[TrainingPair],
    method: PairMethod,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Training,
) -> int:
    return train_on_pairs(model, tokenizer, pairs, method, training)


def _too_few(pairs: Sequence[TrainingPair], num_samples: int, method: PairMethod) -> str | None:
    """Why nothing is trained; None if there are enough pairs."""
    if len(pairs) >= method.min_pairs:
        return None
    stays = "nothing was trained, and the policy is the one that the round started from"
    if not num_samples:
        return f"none of the samples is of the policy that training starts from, as after a rollback; the next round has some: {stays}"
    return f"the samples make {len(pairs)} preference pairs, fewer than method.min_pairs={method.min_pairs}; {stays}"


def champions_samples(spec: PolicySpec, samples: Samples, context: Context) -> tuple[list[Completion], list[Score]]:
    """The responses of the policy that training starts from, and their scores by the rewards of this round.

    The scores are those of the regeneration, except where a reward model that was trained since has a part in them.
    """
    problems = {problem.key: problem for problem in read_jsonl(Path(samples.problems), Problem)}
    both = zip(read_jsonl(Path(samples.completions), Completion), read_jsonl(Path(samples.scores), Score), strict=True)
    its = [(completion, scored) for completion, scored in both if completion.policy_id == spec.policy.id]
    completions = [completion for completion, _ in its]
    anew = asking(spec.config.rewards, spec.config.trained_reward_models)
    with build_rewards(anew, spec.reward_models, context.waiting) as rewards:
        fresh = score([problems[completion.problem_key] for completion in completions], completions, rewards)
    check_unscored(fresh, spec.config.combination.max_unscored_share, where=" of the round before")
    names = {reward.name for reward in anew}
    return completions, [_replaced(old, new, names) for (_, old), new in zip(its, fresh, strict=True)]


def _replaced(old: Score, new: Score, names: set[str]) -> Score:
    """`old` with the parts of the rewards `names` as `new` has them."""
    parts = {name: part for name, part in old.parts.items() if name not in names} | new.parts
    return old.model_copy(update={"parts": parts})


# ---- best of N ------------------------------------------------------------------------------------------------------


def best_lesson(spec: PolicySpec, method: BestOfNMethod, out_dir: Path, context: Context) -> Lesson:
    """The best of what the policy writes to training problems, which stays in `out_dir` with its scores."""
    grpo, goes_on = spec.grpo, (out_dir / SCORES).exists()
    completions, scores = _written(spec, out_dir, context)
    kept = best_of_groups(
        completions,
        scores,
        method=method,
        weighing=Weighing.at(spec.config.rewards, spec.round),
        objectives=[reward.name for reward in spec.config.rewards],
        group_size=grpo.group_size,
    )
    dead_keys = {completion.problem_key for completion in completions} - {best.problem_key for best in kept}
    scored = [any(part is not None for part in row.parts.values()) for row in scores]
    batch_size = grpo.batch_size // grpo.group_size
    if not goes_on:
        Journal(out_dir / JOURNAL).write(
            0, {"best_of_n/kept": float(len(kept)), "best_of_n/dead_groups": float(len(dead_keys))}
        )
    return Lesson(
        learn=partial(learn_responses, kept, method.epochs, batch_size),
        num_updates=num_updates(method.epochs * len(kept), batch_size),
        tokens=_tokens(completions, scored, dead_keys),
        untrained=None if kept else _none_kept(len(dead_keys), spec.LEAST, method),
    )


def learn_responses(
    kept: Sequence[Imitated],
    epochs: int,
    batch_size: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    training: Training,
) -> int:
    return imitate(model, tokenizer, kept, epochs=epochs, batch_size=batch_size, training=training)


def _none_kept(num_problems: int, least: str, method: BestOfNMethod) -> str:
    """`least` is the field with the least score."""
    none = (
        "no reward could score any of them" if method.min_score is None else f"none is over {least}={method.min_score}"
    )
    return f"of the responses to {num_problems} problems {none}; nothing was trained, and the policy is the one that the round started from"


def _written(spec: PolicySpec, out_dir: Path, context: Context) -> tuple[list[Completion], list[Score]]:
    """The responses of the policy to the problems that are asked, and their scores; those of before a checkpoint, if any.

    Raises:
        RewardError: a reward raised, or could not score too many of them.
    """
    if (out_dir / SCORES).exists():
        return read_jsonl(out_dir / COMPLETIONS, Completion), read_jsonl(out_dir / SCORES, Score)
    problems = asked(spec)
    completions = _sample(spec, problems, context)
    context.progress.say("scoring")
    aligned = [problem for problem in problems for _ in range(spec.grpo.group_size)]
    with build_rewards(spec.config.rewards, spec.reward_models, context.waiting) as rewards:
        scores = score(aligned, completions, rewards, Weighing.at(spec.config.rewards, spec.round))
        measured = take_metrics(rewards)
    check_unscored(scores, spec.config.combination.max_unscored_share)
    write_jsonl(out_dir / COMPLETIONS, completions)
    write_jsonl(out_dir / SCORES, scores)
    Journal(out_dir / JOURNAL).write(0, measured)
    return completions, scores


def asked(spec: PolicySpec) -> list[Problem]:
    """The training problems that the policy writes to, in a random order, each once."""
    problems = read_jsonl(Path(spec.problems), Problem)
    number = spec.num_asked(len(problems))
    order = rng_for(spec.config.seed, "problems of best of N", round_index=spec.round).permutation(len(problems))
    return [varied(problems[i], seed=spec.config.seed, round_index=spec.round, step=0) for i in order[:number]]


def _sample(spec: PolicySpec, problems: list[Problem], context: Context) -> list[Completion]:
    grpo, done = spec.grpo, 0

    def on_progress(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        context.progress.set(done, total=len(problems) * grpo.group_size, unit="responses")

    with writing(spec.config, spec.policy, context) as write:
        return write(
            problems,
            groups_of(grpo, spec.config),
            seed=seed_for(spec.config.seed, "best of N", round_index=spec.round),
            policy_id=spec.policy.id,
            should_stop=context.should_stop,
            on_progress=on_progress,
        )

"""The stage that samples and scores completions, and makes the pairs that the next round's reward models learn from.

Where people label, it also makes the review items that they are asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from configs.disk.files import JOURNAL, Journal, digest, digest_json, read_jsonl, write_json, write_jsonl
from configs.disk.rows.opening import Paths, local_files, looks_like_path
from configs.records import Completion, Policy, PreferencePair, Problem, ReviewItem, Score, is_right
from configs.schema.config import Config
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import PeopleLabeler
from configs.seeds import rng_for, seed_for
from grpo_train.groups import CheckerOf
from grpo_train.problems.picking.pass_rates import Measured, facts
from grpo_train.problems.splits import shard_name
from grpo_train.sampling.asked import groups_of
from reward_training.pairs.building import build_pairs
from reward_training.pairs.review import build_items
from reward_training.preferences.reading import Preferences, draw_preferences, read_preferences
from reward_training.reward import take_metrics
from reward_training.scorer import RewardModelSource, build_rewards, check_unscored, score
from reward_training.weighing import Weighing
from tasks.people.asking import ask_people
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, dataset_fact, run_stage
from tasks.running.stage_spec import TEMPLATE, StageSpec
from tasks.runs.history import left_out_file
from tasks.runs.lineage import PAIRS, REVIEW
from tasks.runs.stage_files import COMPLETIONS, SCORES
from tasks.runs.workspace import round_folder
from tasks.stages.reward_ids import OF_REWARDS, model_ids, reward_ids, scoring_packages
from tasks.stages.writing import WRITTEN_BY, writing


def regenerate(
    run: Run, round_index: int, policies: list[Policy], reward_models: Mapping[str, RewardModelSource]
) -> None:
    """Sample and score completions, make pairs of them, and ask people about the pairs where they label."""
    stage_dir = round_folder(run.folder, round_index) / "regenerate"
    split = shard_name(round_index)
    problems = run.problems(round_index, split)
    spec = RegenerateSpec(
        config=run.config,
        round=round_index,
        policies=policies,
        problems=str(problems),
        reward_models=dict(reward_models),
    )
    run_stage(run, spec, stage_dir, body, datasets=[dataset_fact(run, problems, "regeneration", split)])
    if (stage_dir / REVIEW).exists():
        ask_people(run, read_jsonl(stage_dir / REVIEW, ReviewItem))


class RegenerateSpec(StageSpec):
    """Which policies respond to which problems: the champion, and a refused challenger too, to collect its exploits."""

    TOLD = OF_REWARDS
    """what was sampled and labelled stays, since models are trained on it"""

    policies: list[Policy]
    problems: str
    """file of the round's shard of problems"""
    reward_models: dict[str, RewardModelSource]

    def scorers(self) -> dict[str, str]:
        return reward_ids(self.config.rewards)

    def scored_with(self) -> dict[str, str]:
        return scoring_packages(self.config.rewards)

    def reads(self) -> tuple[str, ...]:
        return ("seed", "rewards", "combination", "reward_models", "grpo_config", "regeneration", *TEMPLATE)

    def depends_on(self) -> tuple[str, ...]:
        if self.config.people_label:  # who are asked in the name of this run
            return ()
        combined = "combination.max_unscored_share"
        return ("seed", "rewards", combined, "reward_models", "regeneration", *WRITTEN_BY, *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        policies = {f"policy/{i}": policy.id for i, policy in enumerate(self.policies)}
        return (
            policies
            | {"problems": digest(Path(self.problems))}
            | model_ids(self.reward_models)
            | self.scorers()
            | self._preference_files()
        )

    def _preference_files(self) -> dict[str, str]:
        labelers = {name: model.labeler for name, model in self.config.trained_reward_models.items()}
        paths = {name: labeler.path for name, labeler in labelers.items() if isinstance(labeler, FileLabeler)}
        digests = {name: [digest(file) for file in _files_at(path)] for name, path in paths.items()}
        return {
            f"preferences/{name}": found[0] if len(found) == 1 else digest_json(found)
            for name, found in digests.items()
            if found
        }


def _files_at(path: Paths) -> list[Path]:
    """The files that a labeler's path names; none for a folder or a hub id."""
    if isinstance(path, str) and not looks_like_path(path) and not Path(path).expanduser().exists():
        return []
    return [file for file in local_files(path, "labeler.path") if file.is_file()]


def body(spec: RegenerateSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write completions.jsonl, scores.jsonl (aligned with it), pairs.jsonl and the journal.

    If people are asked to label, review.jsonl holds the items.
    """
    problems = {problem.key: problem for problem in read_jsonl(Path(spec.problems), Problem)}
    completions = _sample_completions(spec, list(problems.values()), context)
    aligned_problems = [problems[completion.problem_key] for completion in completions]
    context.progress.say("scoring")
    with build_rewards(spec.config.rewards, spec.reward_models, context.waiting) as rewards:
        scores = score(aligned_problems, completions, rewards, Weighing.at(spec.config.rewards, spec.round))
        reward_metrics = take_metrics(rewards)
    check_unscored(scores, spec.config.combination.max_unscored_share)
    items = _review_items(spec, aligned_problems, completions, scores)
    files = _preferences(spec)
    pairs = _pairs(spec, aligned_problems, completions, scores, items, files)
    write_jsonl(out_dir / COMPLETIONS, completions)
    write_jsonl(out_dir / SCORES, scores)
    write_jsonl(out_dir / PAIRS, pairs)
    if files:
        write_json(left_out_file(out_dir / PAIRS), {name: read.left_out for name, read in files.items()})
    if items:
        write_jsonl(out_dir / REVIEW, items)
    Journal(out_dir / JOURNAL).write(spec.round, _metrics(spec, completions, scores, pairs) | reward_metrics)


def _sample_completions(spec: RegenerateSpec, problems: list[Problem], context: Context) -> list[Completion]:
    """The completions of each policy to all problems, one policy after the other."""
    regeneration = spec.config.regeneration
    total, done = len(problems) * regeneration.group_size * len(spec.policies), 0

    def on_progress(num_rows: int) -> None:
        nonlocal done
        done += num_rows
        context.progress.set(done, total=total, unit="responses")

    completions = []
    for policy_index, policy in enumerate(spec.policies):
        with writing(spec.config, policy, context) as write:
            completions += write(
                problems,
                groups_of(regeneration, spec.config),
                seed=seed_for(spec.config.seed, "regenerate", round_index=spec.round, index=policy_index),
                policy_id=policy.id,
                should_stop=context.should_stop,
                on_progress=on_progress,
            )
    return completions


def verdicts(
    out_dir: Path, problems: Path, *, policy: Policy, checker_of: CheckerOf
) -> list[tuple[Problem, list[bool]]]:
    """Each problem with which of the policy's scored completions are right; without problems that have none, or no checker
    among the rewards."""
    by_key = {problem.key: problem for problem in read_jsonl(problems, Problem)}
    completions = read_jsonl(out_dir / COMPLETIONS, Completion)
    right: dict[str, list[bool]] = {}
    for completion, scored in zip(completions, read_jsonl(out_dir / SCORES, Score), strict=True):
        value = scored.parts.get(checker_of(by_key[completion.problem_key].source) or "")
        if completion.policy_id == policy.id and value is not None:
            right.setdefault(completion.problem_key, []).append(is_right(value))
    return [(by_key[key], its) for key, its in right.items()]


def by_source(of_problems: Sequence[tuple[Problem, list[bool]]]) -> dict[str, float]:
    """{source: share of right responses}"""
    right: dict[str, list[bool]] = {}
    for problem, its in of_problems:
        right.setdefault(problem.source, []).extend(its)
    return {source: fmean(its) for source, its in right.items()}


def by_problem(of_problems: Sequence[tuple[Problem, list[bool]]]) -> list[dict[str, Any]]:
    """Pass rates with what predictions read of a problem."""
    return [asdict(Measured(problem.source, facts(problem), fmean(its))) for problem, its in of_problems]


def _review_items(
    spec: RegenerateSpec, problems: Sequence[Problem], completions: Sequence[Completion], scores: Sequence[Score]
) -> list[ReviewItem]:
    """The review items of each reward model that people label for."""
    items = []
    for name, config in spec.config.trained_reward_models.items():
        if isinstance(config.labeler, PeopleLabeler):
            items += build_items(
                problems,
                completions,
                scores,
                name=name,
                config=config,
                sources=spec.config.sources_of_model(name),
                rewards=spec.config.rewards,
                run_name=spec.config.run_name,
                round_index=spec.round,
                rng=rng_for(spec.config.seed, f"review {name}", round_index=spec.round),
            )
    return items


def _preferences(spec: RegenerateSpec) -> dict[str, Preferences]:
    """{reward model: what is drawn from its preference file}."""
    models = spec.config.trained_reward_models.items()
    return {
        name: preferences(spec.config, name, spec.round)
        for name, model in models
        if isinstance(model.labeler, FileLabeler)
    }


def _pairs(
    spec: RegenerateSpec,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    scores: Sequence[Score],
    items: Sequence[ReviewItem],
    files: Mapping[str, Preferences],
) -> list[PreferencePair]:
    """Pairs for every trained reward model (their `objective`), without those that people are asked about."""
    asked = {(item.objective, item.problem_key, frozenset((item.first, item.second))) for item in items}
    pairs: list[PreferencePair] = []
    for name, config in spec.config.trained_reward_models.items():
        labeler = config.automatic_labeler
        if name in files:
            pairs += files[name].pairs
        elif labeler is not None:
            pairs += build_pairs(
                problems,
                completions,
                scores,
                name=name,
                config=config,
                labeler=labeler,
                sources=spec.config.sources_of_model(name),
                rewards=spec.config.rewards,
                round_index=spec.round,
            )
    return [
        pair
        for pair in pairs
        if (pair.objective, pair.problem_key, frozenset((pair.chosen, pair.rejected))) not in asked
    ]


def preferences(config: Config, name: str, round_index: int) -> Preferences:
    """The round's random draw from the preference file of the reward model `name`."""
    model = config.trained_reward_models[name]
    assert isinstance(model.labeler, FileLabeler)
    read = read_preferences(model.labeler, name=name, config=model, round_index=round_index)
    rng = rng_for(config.seed, f"preferences {name}", round_index=round_index)
    return replace(read, pairs=draw_preferences(read.pairs, max_pairs=model.max_pairs, rng=rng))


def _metrics(
    spec: RegenerateSpec, completions: Sequence[Completion], scores: Sequence[Score], pairs: Sequence[PreferencePair]
) -> dict[str, float]:
    values = {
        "regenerate/completions": float(len(completions)),
        "regenerate/truncated_share": fmean(completion.finish_reason == "length" for completion in completions),
        "regenerate/response_length": fmean(len(completion.token_ids) for completion in completions),
    }
    if totals := [row.total for row in scores if not row.unscored]:
        values["regenerate/reward_mean"] = fmean(totals)
    for name in dict.fromkeys(name for row in scores for name in row.parts):
        its_scores = [row for row in scores if name in row.parts]
        if parts := [part for row in its_scores if (part := row.parts[name]) is not None]:
            values[f"regenerate/{name}/mean"] = fmean(parts)
        values[f"regenerate/{name}/at_fault_share"] = fmean(name in row.faults for row in its_scores)
    for name in spec.config.trained_reward_models:
        for split in ("train", "held_out"):
            num_pairs = sum(pair.objective == name and pair.split == split for pair in pairs)
            values[f"pairs/{name}/{split}"] = float(num_pairs)
    return values

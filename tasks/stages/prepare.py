"""The first stage: fetches or builds the given policy, and writes the problems of every round, one file per split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, read_jsonl, write_json, write_jsonl
from configs.errors import ConfigError
from configs.records import Policy, Problem
from configs.schema.problems import ReasoningGymSource
from grpo_train.measuring.retention.suites import trained_on
from grpo_train.policies.model import load_tokenizer
from grpo_train.policies.model_source import prepare_policy
from grpo_train.problems.left_out import missing
from grpo_train.problems.picking.curriculum import check_difficulty
from grpo_train.problems.sources import source_digests
from grpo_train.problems.splits import load_problems
from reward_training.golds import outcome_pairs, refuse_failing_golds
from reward_training.rewards.columns import columns_read
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, run_stage
from tasks.running.stage_spec import StageSpec
from tasks.runs.cleaned import is_cleaned, refuse_cleaned, saved_policy
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.history import last_champion, last_finished_round
from tasks.runs.lineage import refuse_lost
from tasks.runs.progress import rounds_wanted
from tasks.runs.rollbacks import refuse_ended
from tasks.runs.run_file import ask_for_rounds, write_run
from tasks.runs.workspace import models_folder, problems_of_round

MEASURED = ("dev", "test")
"""splits that policies are measured on"""


def prepare(run: Run) -> None:
    """Make sure that the given policy and the problems of every round asked for so far are on disk."""
    refuse_lost(run.folder)
    _refuse_without_start(run)
    policy = given_policy(run)
    rounds_asked = run.file.rounds_asked
    for rounds in rounds_asked:
        stage_dir = problems_of_round(run.folder, rounds, rounds_asked)
        first = problems_of_round(run.folder, 0, rounds_asked)
        measured_on = None if stage_dir == first else str(first)
        spec = ProblemsSpec(config=run.config, round=0, policy=policy, rounds=rounds, measured_on=measured_on)
        outcome = _registered(run, policy) if rounds == rounds_asked[0] else Outcome()
        run_stage(run, spec, stage_dir, body, outcome=partial(Outcome.model_copy, outcome))


def _refuse_without_start(run: Run) -> None:
    """Check that the rounds that are left can start: from a champion of this run, or the given policy, whose weights are there."""
    last = last_finished_round(run.folder)
    if last is not None and last.round >= rounds_wanted(run.folder, run.config.rounds):
        return
    refuse_ended(run.folder)
    if (champion := last_champion(run.folder)) is not None:
        refuse_cleaned(Path(champion.path))
    if run.config.policy.start_from == "given" and (given := run.file.given_policy) is not None:
        refuse_cleaned(Path(given.path))


def added_round(run: Run) -> int | None:
    """The round that a watch rule has just added to the run, or None. It is noted in run.json.

    Its problems are made when `prepare` is called again.
    """
    wanted = rounds_wanted(run.folder, run.config.rounds)
    if wanted <= max(run.file.rounds_asked):
        return None
    ask_for_rounds(run.workspace, run.name, wanted)
    run.console.warn(
        f"round {wanted} is added to the {run.config.rounds} of `rounds`: a watch rule ended training and asks for retraining"
    )
    return wanted


def given_policy(run: Run) -> Policy:
    """The run's given policy, as it was before a cold start. The first call finds or builds it, and notes it in run.json.

    Raises:
        ConfigError: the weights are gone or differ from those that the run was started with.
    """
    file = run.file
    given = file.before_cold_start or file.given_policy
    if given is None:
        with run.console.stage("model"):
            policy = prepare_policy(run.config.policy, models_folder(run.workspace))
        policy = policy.model_copy(update={"path": str(Path(policy.path).absolute())})
        initial = file.initial_policy or policy
        write_run(run.workspace, file.model_copy(update={"given_policy": policy, "initial_policy": initial}))
        return policy
    folder = Path(given.path)
    current = saved_policy(folder, round_index=0) if folder.exists() or is_cleaned(folder) else None
    if file.predecessor is None and current is None:
        current = prepare_policy(run.config.policy, models_folder(run.workspace))
    if current is None or current.id != given.id:
        raise ConfigError(
            f"{given.path} is gone or holds other weights than when run {run.name!r} was started; "
            "restore it, or start a run of its own with --run NEWNAME"
        )
    return given if current.path == given.path else _found_elsewhere(run, given, current)


def _found_elsewhere(run: Run, given: Policy, current: Policy) -> Policy:
    """The given policy where it is now, which is noted: made again, or in another folder that the configuration names."""
    found = given.model_copy(update={"path": str(Path(current.path).absolute())})
    fields = ("given_policy", "initial_policy", "before_cold_start")
    moved = {field: found for field in fields if getattr(run.file, field) == given}
    write_run(run.workspace, run.file.model_copy(update=moved))
    return found


def _registered(run: Run, policy: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id}
    model = ModelFact(name=run.policy_model, folder="policy", alias="champion", tags=tags, source=policy.path)
    return Outcome(model=model, tags=tags)


class ProblemsSpec(StageSpec):
    """What the splits are made from, including the policy, whose tokenizer counts the tokens of prompts."""

    policy: Policy
    rounds: int
    """number of rounds after round 0; each round, and round 0, gets a regeneration shard"""
    measured_on: str | None = None
    """folder of the problems that the rounds so far were measured on; None for the first rounds"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", "problems", "regeneration", "curriculum")

    def inputs(self) -> dict[str, str]:
        read = {"columns": ", ".join(sorted(self.columns))} if self.columns else {}
        return (
            {"policy": self.policy.id, "rounds": str(self.rounds)} | read | source_digests(self.config.problems.sources)
        )

    @property
    def columns(self) -> frozenset[str]:
        """Names that rewards may read as columns of files and data sets."""
        if all(isinstance(source, ReasoningGymSource) for source in self.config.problems.sources):
            return frozenset()
        read = columns_read([*self.config.rewards, *self.config.evaluation.rewards])
        return read.names | read.choices


def body(spec: ProblemsSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write `<split>.jsonl` for each split, counts.json and the journal.

    Raises:
        ConfigError: the problems do not suit the configuration, or are others than those that the rounds so far were measured
            on; or an outcome reward refuses their gold answers.
    """
    context.progress.say("reading and splitting")
    config = spec.config
    tokenizer = load_tokenizer(spec.policy.path, config.template_settings)
    problems = load_problems(
        config.problems,
        config.regeneration,
        rounds=spec.rounds,
        seed=config.seed,
        tokenizer=tokenizer,
        read=columns_read([*config.rewards, *config.evaluation.rewards]),
    )
    if spec.measured_on is not None:
        refuse_other_problems(problems.by_split, Path(spec.measured_on))
    if said := missing(problems.counts, problems.examples):
        context.warn(f"problems: {said}")
    check_difficulty(problems.by_split["train"], config.curriculum)
    for name, suite in config.evaluation.retention.items():
        if told := trained_on(suite, name, problems.by_split["train"], tokenizer):
            context.warn(told)
    context.progress.say("trying gold answers")
    members = [problem for split in problems.by_split.values() for problem in split]
    refuse_failing_golds(outcome_pairs([*config.rewards, *config.evaluation.rewards], members))
    for split, members in problems.by_split.items():
        write_jsonl(out_dir / f"{split}.jsonl", members)
    write_json(out_dir / "counts.json", problems.counts)
    counts = {f"problems/{name}": float(count) for name, count in problems.counts.items()}
    Journal(out_dir / JOURNAL).write(0, counts)


def refuse_other_problems(by_split: Mapping[str, Sequence[Problem]], measured_on: Path) -> None:
    """Check that dev and test hold the problems that are in a folder: a champion and its challenger are compared on the same.

    Raises:
        ConfigError: they hold others; the message names the sources.
    """
    for split in MEASURED:
        before = {problem.key: problem.source for problem in read_jsonl(measured_on / f"{split}.jsonl", Problem)}
        now = {problem.key: problem.source for problem in by_split[split]}
        if before.keys() == now.keys():
            continue
        other = sorted({source for key, source in [*before.items(), *now.items()] if (key in before) != (key in now)})
        raise ConfigError(
            f"the added rounds would be measured on other {split} problems than the rounds so far ({len(before.keys() & now.keys())} of "
            f"{len(before)} are the same; {', '.join(other)} gives others now), so that no challenger could be compared with the "
            "champion: bring the data, or the version of the library that makes them, back to what the run began with; or start "
            "a run of its own from the champion, with --run NEWNAME and the path in runs/champion.json as policy.path"
        )

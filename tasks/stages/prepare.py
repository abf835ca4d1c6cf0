"""The first stage: fetches or builds the given policy, and writes the problems of every round, one file per split."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, write_json, write_jsonl
from configs.disk.rows.opening import local_digest
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.problems import ReasoningGymSource, Source
from grpo_train.policies.model import load_tokenizer, open_policy
from grpo_train.policies.model_source import prepare_policy
from grpo_train.problems.curriculum import check_difficulty
from grpo_train.problems.splits import load_problems
from reward_training.golds import outcome_pairs, refuse_failing_golds
from reward_training.rewards.columns import columns_read
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, StageSpec, run_stage
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.history import rounds_wanted
from tasks.runs.run_file import ask_for_rounds, write_run
from tasks.runs.workspace import models_folder, problems_of_round


def prepare(run: Run) -> None:
    """Make sure that the given policy and the problems of every round asked for so far are on disk."""
    policy = given_policy(run)
    rounds_asked = run.file.rounds_asked
    for rounds in rounds_asked:
        stage_dir = problems_of_round(run.folder, rounds, rounds_asked)
        spec = ProblemsSpec(config=run.config, round=0, policy=policy, rounds=rounds)
        outcome = _registered(run, policy) if rounds == rounds_asked[0] else Outcome()
        run_stage(run, spec, stage_dir, body, outcome=partial(Outcome.model_copy, outcome))


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
    """The run's given policy. The first call finds or builds it, and notes it in run.json.

    Raises:
        ConfigError: the weights are gone or differ from those that the run was started with.
    """
    file = run.file
    if file.given_policy is None:
        with run.console.stage("model"):
            policy = prepare_policy(run.config.policy, models_folder(run.workspace))
        policy = policy.model_copy(update={"path": str(Path(policy.path).absolute())})
        initial = file.initial_policy or policy
        write_run(run.workspace, file.model_copy(update={"given_policy": policy, "initial_policy": initial}))
        return policy
    given = file.given_policy
    current = open_policy(Path(given.path), round_index=0) if Path(given.path).exists() else None
    if file.predecessor is None and current is None:
        current = prepare_policy(run.config.policy, models_folder(run.workspace))
    if current is None or current.id != given.id:
        raise ConfigError(
            f"{given.path} is gone or holds other weights than when run {run.name!r} was started; "
            "restore it, or start a run of its own with --run NEWNAME"
        )
    return given


def _registered(run: Run, policy: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id}
    model = ModelFact(name=run.policy_model, folder="policy", alias="champion", tags=tags, source=policy.path)
    return Outcome(model=model, tags=tags)


class ProblemsSpec(StageSpec):
    """What the splits are made from, including the policy, whose tokenizer counts the tokens of prompts."""

    policy: Policy
    rounds: int
    """number of rounds after round 0; each round, and round 0, gets a regeneration shard"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", "problems", "regeneration", "curriculum")

    def inputs(self) -> dict[str, str]:
        sources = self.config.problems.sources
        files = {f"source/{i}": value for i, source in enumerate(sources) if (value := _source_digest(source))}
        read = {"columns": ", ".join(sorted(self.columns))} if self.columns else {}
        return {"policy": self.policy.id, "rounds": str(self.rounds)} | read | files

    @property
    def columns(self) -> frozenset[str]:
        """Names that rewards may read as columns of files and data sets."""
        if all(isinstance(source, ReasoningGymSource) for source in self.config.problems.sources):
            return frozenset()
        read = columns_read([*self.config.rewards, *self.config.evaluation.rewards])
        return read.names | read.choices


def _source_digest(source: Source) -> str | None:
    """Digest of a source's local data; None if the data is generated by a program or downloaded by name."""
    return None if isinstance(source, ReasoningGymSource) else local_digest(source.path)


def body(spec: ProblemsSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write `<split>.jsonl` for each split, counts.json and the journal.

    Raises:
        ConfigError: the problems do not suit the configuration, or an outcome reward refuses their gold answers.
    """
    context.progress.say("reading and splitting")
    config = spec.config
    problems = load_problems(
        config.problems,
        config.regeneration,
        rounds=spec.rounds,
        seed=config.seed,
        tokenizer=load_tokenizer(spec.policy.path, config.template_settings),
        read=columns_read([*config.rewards, *config.evaluation.rewards]),
    )
    check_difficulty(problems.by_split["train"], config.curriculum)
    context.progress.say("trying gold answers")
    members = [problem for split in problems.by_split.values() for problem in split]
    refuse_failing_golds(outcome_pairs([*config.rewards, *config.evaluation.rewards], members))
    for split, members in problems.by_split.items():
        write_jsonl(out_dir / f"{split}.jsonl", members)
    write_json(out_dir / "counts.json", problems.counts)
    counts = {f"problems/{name}": float(count) for name, count in problems.counts.items()}
    Journal(out_dir / JOURNAL).write(0, counts)

"""The first stage: the given policy in a local folder, and the problems of every round, a file a split."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, digest_files, digest_json, write_json, write_jsonl
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.problems import DatasetSource, JsonlSource, Source
from grpo_train.policies.model import load_tokenizer, open_policy
from grpo_train.policies.model_source import prepare_policy
from grpo_train.problems.curriculum import check_difficulty
from grpo_train.problems.splits import load_problems
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, StageSpec, digest_or_gone, run_stage
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.history import rounds_wanted
from tasks.runs.run_file import ask_for_rounds, write_run
from tasks.runs.workspace import models_folder, problems_of_round


def prepare(run: Run) -> None:
    """The given policy in a local folder, and the problems of every round that was asked for."""
    policy = given_policy(run)
    asked = run.file.rounds_asked
    for rounds in asked:
        folder = problems_of_round(run.folder, rounds, asked)
        spec = ProblemsSpec(config=run.config, round=0, policy=policy, rounds=rounds)
        outcome = _registered(run, policy) if rounds == asked[0] else Outcome()
        run_stage(run, spec, folder, body, outcome=partial(Outcome.model_copy, outcome))


def added_round(run: Run) -> int | None:
    """The round that a watch rule has just added to the run, noted in run.json; None where there is none.

    It has no problems before `prepare` is called again.
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
    """The run's given policy; found, or made, on the first call.

    Raises:
        ConfigError: its weights are others than when the run was started.
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
    now = open_policy(Path(given.path), round_index=0) if Path(given.path).exists() else None
    if file.predecessor is None and now is None:
        now = prepare_policy(run.config.policy, models_folder(run.workspace))
    if now is None or now.id != given.id:
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
    """What the splits are made from; the policy's tokenizer counts the tokens of prompts."""

    policy: Policy
    rounds: int
    """shards for so many rounds after round 0"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", "problems", "regeneration", "curriculum")

    def inputs(self) -> dict[str, str]:
        sources = self.config.problems.sources
        files = {f"source/{i}": value for i, source in enumerate(sources) if (value := _source_digest(source))}
        return {"policy": self.policy.id, "rounds": str(self.rounds)} | files


def _source_digest(source: Source) -> str | None:
    """Digest of a source's local data; None where it is made by a program or fetched by name."""
    if isinstance(source, JsonlSource):
        return digest_or_gone(Path(source.path))
    if isinstance(source, DatasetSource) and Path(source.path).is_dir():
        return digest_json(digest_files(Path(source.path)))
    return None


def body(spec: ProblemsSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write `<split>.jsonl` for each split, and counts.json."""
    context.progress.say("reading and splitting")
    config = spec.config
    problems = load_problems(
        config.problems,
        config.regeneration,
        rounds=spec.rounds,
        seed=config.seed,
        tokenizer=load_tokenizer(spec.policy.path),
    )
    check_difficulty(problems.by_split["train"], config.curriculum)
    for split, members in problems.by_split.items():
        write_jsonl(out_dir / f"{split}.jsonl", members)
    write_json(out_dir / "counts.json", problems.counts)
    counts = {f"problems/{name}": float(count) for name, count in problems.counts.items()}
    Journal(out_dir / JOURNAL).write(0, counts)

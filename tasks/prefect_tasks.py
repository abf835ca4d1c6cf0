"""The stages as Prefect tasks. Each returns at once, with what is on disk, where its manifest matches.

Prefect is told, never asked: no cache, no stored results. Only what another try can help is tried again: fetching a model,
and telling others what is on disk already.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from configs.disk.files import digest, read_jsonl, write_jsonl
from configs.errors import ConfigError
from configs.records import EvalReport, Policy, ReviewItem, RewardModelReport, RoundState
from configs.schema.problems import ThresholdCurriculum
from configs.schema.rewards import FileLabeler
from grpo_train.measuring.promotion import Decision
from grpo_train.policies.model import open_policy
from grpo_train.policies.model_source import prepare_policy
from reward_training.scorer import RewardModelSource
from tasks.people import compare as comparing
from tasks.people import labels as labelling
from tasks.people.asking import ask_people, desk, labels_by_hand
from tasks.running.launcher import launched
from tasks.running.run import Run, ask_for_rounds, write_run
from tasks.running.stage import run_stage
from tasks.runs import history
from tasks.runs.facts import DatasetFact, ModelFact, Outcome
from tasks.runs.history import (
    REVIEW,
    ModelRef,
    last_accepted,
    last_finished_round,
    pair_files,
    problems_of_round,
    review_files,
)
from tasks.runs.workspace import by_hand_folder, models_folder, regeneration_split, reward_model_folder, round_folder
from tasks.showing.page import paused_for_people, show
from tasks.stages import evaluate as evaluating
from tasks.stages import policy as training
from tasks.stages import prepare as reading
from tasks.stages import promote as promoting
from tasks.stages import regenerate as regenerating
from tasks.stages import reward_model as rewarding
from tasks.stages.rounds import close_round, policy_model_name, reward_model_name, round_state, usable_reward_models

__all__ = [
    "compare",
    "evaluate",
    "finish_round",
    "first_state",
    "prepare",
    "promote",
    "regenerate",
    "retrain_reward_model",
    "round_state",
    "take_labels",
    "train_policy",
    "train_reward_model",
    "usable_reward_models",
]

HOUR_S = 3600
NEVER_STORED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


def _another_try_may_help(_task: Any, _run: Any, state: Any) -> bool:
    """A network or a disk may be back in a moment; a faulty configuration will not mend itself."""
    return isinstance(state.result(raise_on_failure=False), OSError)


# ---- problems and policy --------------------------------------------------------------------------------------------


@task(
    name="prepare",
    timeout_seconds=6 * HOUR_S,
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_another_try_may_help,
    **NEVER_STORED,
)
def prepare(run: Run) -> None:
    """The given policy in a local folder, and the problems of every round that was asked for."""
    policy = _given_policy(run)
    asked = run.file.rounds_asked
    for rounds in asked:
        folder = problems_of_round(run.folder, rounds, asked)
        spec = reading.ProblemsSpec(config=run.config, round=0, policy=policy, rounds=rounds)
        outcome = _given_model(run, policy) if rounds == asked[0] else Outcome()
        run_stage(run, spec, folder, reading.run, outcome=partial(Outcome.model_copy, outcome))


def rounds_wanted(run: Run) -> int:
    """How many rounds the run has so far; an added one has its problems then."""
    wanted = history.rounds_wanted(run.folder, run.config.rounds)
    if wanted > max(run.file.rounds_asked):
        ask_for_rounds(run.workspace, run.name, wanted)
        run.console.warn(
            f"round {wanted} is added to the {run.config.rounds} of `rounds`: a watch rule ended training and asks for retraining"
        )
        prepare(run)
    return wanted


def _given_policy(run: Run) -> Policy:
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
    now = open_policy(Path(given.path), round=0) if Path(given.path).exists() else None
    if file.predecessor is None and now is None:
        now = prepare_policy(run.config.policy, models_folder(run.workspace))
    if now is None or now.id != given.id:
        raise ConfigError(
            f"{given.path} is gone or holds other weights than when run {run.name!r} was started; "
            "restore it, or start a run of its own with --run NEWNAME"
        )
    return given


def _given_model(run: Run, policy: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id}
    model = ModelFact(name=policy_model_name(run), folder="policy", alias="champion", tags=tags, source=policy.path)
    return Outcome(model=model, tags=tags)


def first_state(run: Run) -> RoundState:
    """What round 0 stands on: the given policy is the champion."""
    return round_state(run, 0, run.given_policy, run.given_policy)


# ---- people ---------------------------------------------------------------------------------------------------------


@task(name="take labels", task_run_name="labels-{round}", timeout_seconds=30 * 24 * HOUR_S, **NEVER_STORED)
def take_labels(run: Run, round: int) -> None:
    """Pairs from what people said of the samples of the rounds before; waits for them as configured."""
    folder = round_folder(run.folder, round) / "labels"
    spec = labelling.LabelsSpec(
        config=run.config,
        round=round,
        asked=[str(path) for path in review_files(run.folder, before=round)],
        taken=[str(path) for path in pair_files(run.folder, before=round - 1)],
    )
    with paused_for_people() as told_to_go_on:
        run_stage(run, spec, folder, partial(labelling.run, desk=desk(run, told_to_go_on)))


@task(name="compare", task_run_name="compare-{round}", timeout_seconds=30 * 24 * HOUR_S, **NEVER_STORED)
def compare(run: Run, round: int, champion: Policy, challenger: Policy) -> None:
    """People compare two policies of this run blind; waits for them as configured."""
    spec = comparing.CompareSpec(
        config=run.config,
        round=round,
        champion=champion,
        challenger=challenger,
        champion_examples=str(_evaluated(run, champion.round, "examples.jsonl")),
        challenger_examples=str(_evaluated(run, challenger.round, "examples.jsonl")),
    )
    with paused_for_people() as told_to_go_on:
        folder = _comparison(run, round).parent
        run_stage(run, spec, folder, partial(comparing.run, desk=desk(run, told_to_go_on)))


def _comparison(run: Run, round: int) -> Path:
    return round_folder(run.folder, round) / "compare" / comparing.COMPARISON


# ---- reward models --------------------------------------------------------------------------------------------------


@task(name="train reward model", task_run_name="reward-model-{name}", timeout_seconds=48 * HOUR_S, **NEVER_STORED)
def train_reward_model(run: Run, round: int, name: str, state: RoundState) -> RewardModelReport:
    """Train a round's reward model on the pairs of the round before; `state` is what that round handed on."""
    last = last_accepted(run.folder, name, before=round, inherited=run.file.reward_models)
    base = _reward_model_base(run, name, last, state.champion)
    folder = reward_model_folder(run.folder, round, name)
    report = _reward_model_stage(run, round, name, base, folder, *_pairs_up_to(run, round - 1))
    if not report.accepted:
        _say_refused(run, round, name, report)
    return report


@task(name="retrain reward model", task_run_name="by-hand-{name}", timeout_seconds=48 * HOUR_S, **NEVER_STORED)
def retrain_reward_model(run: Run, name: str) -> RewardModelReport:
    """Train a reward model again on the pairs up to the last finished round; the next round starts from it.

    Before the first round, one that a file labels is trained on that.

    Raises:
        ConfigError: no round is finished, and no file labels.
    """
    last_round = last_finished_round(run.folder)
    if last_round is None:
        return _train_on_file(run, name)
    round, champion = last_round.round, last_round.state.champion
    folder = by_hand_folder(run.folder, round, name)
    inherited = run.file.reward_models
    last = last_accepted(run.folder, name, before=round + 1, inherited=inherited, leave_out=folder)
    base = _reward_model_base(run, name, last, champion)
    new, earlier = _pairs_up_to(run, round)
    return _reward_model_stage(run, round, name, base, folder, [*new, *labels_by_hand(run, round, name)], earlier)


def _reward_model_base(run: Run, name: str, last: ModelRef | None, champion: Policy) -> ModelRef:
    """What a reward model is trained from: the last accepted one, or the backbone, by default the champion's."""
    model = run.config.trained_reward_models[name]
    if last is not None and model.start_from == "last_accepted":
        return last
    if model.backbone is None:
        return ModelRef(id=champion.id, path=champion.path)
    try:
        found = prepare_policy(model.backbone, models_folder(run.workspace))
    except ConfigError as error:
        message = str(error).replace("policy.path", f"reward_models.{name}.backbone.path")
        raise ConfigError(message) from error
    return ModelRef(id=found.id, path=str(Path(found.path).absolute()))


def _train_on_file(run: Run, name: str) -> RewardModelReport:
    if not isinstance(run.config.trained_reward_models[name].labeler, FileLabeler):
        raise ConfigError(
            f"run {run.name!r} has finished no round; `regroup run` makes the pairs that reward model {name!r} learns from, "
            "or give it a labeler of kind file"
        )
    base = _reward_model_base(run, name, run.file.reward_models.get(name), _given_policy(run))
    pairs = run.folder / "preferences" / f"{name}.jsonl"
    write_jsonl(pairs, regenerating.preferences(run.config, name, round=0))
    return _reward_model_stage(run, 0, name, base, by_hand_folder(run.folder, 0, name), [pairs], [])


def _pairs_up_to(run: Run, round: int) -> tuple[list[Path], list[Path]]:
    """Files of the pairs of that round, and of those before."""
    earlier = pair_files(run.folder, before=round)
    return [path for path in pair_files(run.folder, before=round + 1) if path not in earlier], earlier


def _reward_model_stage(
    run: Run, round: int, name: str, base: ModelRef, folder: Path, new: list[Path], earlier: list[Path]
) -> RewardModelReport:
    spec = rewarding.RewardModelSpec(
        config=run.config,
        round=round,
        name=name,
        base=base,
        new_pairs=[str(path) for path in new],
        earlier_pairs=[str(path) for path in earlier],
    )
    run_stage(
        run,
        spec,
        folder,
        launched(run.config.launcher, "reward_model", rewarding.run),
        datasets=[_dataset(run, path, "training", f"pairs of {path.parent.parent.name}") for path in new],
        outcome=lambda: _reward_model_outcome(run, name, rewarding.load(folder), base),
        tags={"regroup.base_model": base.id},
    )
    report = rewarding.load(folder)
    show(run, f"round-{round}-reward-model-{name}", f"Reward model {name}, round {round}", rewarding.metrics(report))
    return report


def _reward_model_outcome(run: Run, name: str, report: RewardModelReport, base: ModelRef) -> Outcome:
    tags = {"regroup.accepted": str(report.accepted).lower(), "regroup.reasons": "; ".join(report.reasons)}
    if not report.id:
        return Outcome(tags=tags)
    model = ModelFact(
        name=reward_model_name(run, name),
        folder="model",
        alias="champion" if report.accepted else "challenger",
        tags={"regroup.model_id": report.id, "regroup.base_model": base.id},
    )
    return Outcome(model=model, tags=tags | model.tags)


def _say_refused(run: Run, round: int, name: str, report: RewardModelReport) -> None:
    used = usable_reward_models(run, round).get(name)
    instead = f"the last accepted one ({used.path}) is used" if used else "the round goes on without it"
    run.console.warn(f"round {round}: reward model {name!r} is refused ({'; '.join(report.reasons)}); {instead}")


# ---- policy, evaluation, promotion, regeneration --------------------------------------------------------------------


@task(name="train policy", task_run_name="policy-{round}", timeout_seconds=240 * HOUR_S, **NEVER_STORED)
def train_policy(run: Run, round: int, state: RoundState, reward_models: Mapping[str, RewardModelSource]) -> Policy:
    """Train the round's challenger from the champion of `state`."""
    folder = round_folder(run.folder, round) / "policy"
    problems = _problems(run, round, "train")
    spec = training.PolicySpec(
        config=run.config,
        round=round,
        policy=state.champion,
        initial_policy=run.initial_policy,
        problems=str(problems),
        reward_models=dict(reward_models),
        curriculum=_curriculum(run, round, state),
    )
    run_stage(
        run,
        spec,
        folder,
        launched(run.config.launcher, "policy", training.run),
        datasets=[_dataset(run, problems, "training", "train")],
        outcome=lambda: _policy_outcome(run, training.load(folder, round), state.champion),
        tags={"regroup.parent_policy": state.champion.id},
    )
    return training.load(folder, round)


def _curriculum(run: Run, round: int, state: RoundState) -> dict[str, Any] | None:
    """What the round before handed on, with the pass rates that its regeneration measured where they are asked for."""
    wanted = run.config.curriculum
    if not isinstance(wanted, ThresholdCurriculum) or wanted.difficulty == "data":
        return state.curriculum
    before = round_folder(run.folder, round - 1) / "regenerate"
    shard = _problems(run, round - 1, regeneration_split(round - 1))
    rates = regenerating.pass_rates(before, shard, policy=state.champion, checker=run.config.checker)
    return (state.curriculum or {"epoch": 0.0, "rates": {}}) | {"sources": rates}


def _policy_outcome(run: Run, policy: Policy, parent: Policy) -> Outcome:
    tags = {"regroup.policy_id": policy.id, "regroup.parent_policy": parent.id}
    return Outcome(
        model=ModelFact(name=policy_model_name(run), folder="model", alias="challenger", tags=tags), tags=tags
    )


@task(name="evaluate", task_run_name="{policy_stage_name}-{round}", timeout_seconds=48 * HOUR_S, **NEVER_STORED)
def evaluate(
    run: Run,
    round: int,
    policy: Policy,
    reward_models: Mapping[str, RewardModelSource],
    policy_stage_name: str = "evaluate",
) -> dict[str, EvalReport]:
    """Measure a policy on dev and test."""
    folder = round_folder(run.folder, round) / policy_stage_name
    splits = {split: _problems(run, round, split) for split in ("dev", "test")}
    spec = evaluating.EvaluateSpec(
        config=run.config,
        round=round,
        policy=policy,
        initial_policy=run.initial_policy,
        problems={split: str(path) for split, path in splits.items()},
        reward_models=dict(reward_models),
    )
    run_stage(
        run,
        spec,
        folder,
        evaluating.run,
        datasets=[_dataset(run, path, "evaluation", split) for split, path in splits.items()],
        tags={"regroup.policy_id": policy.id},
    )
    reports = evaluating.load(folder)
    show(run, f"round-{round}-{policy_stage_name}", f"Evaluation of round {round}", evaluating.estimates(reports))
    return reports


@task(name="promote", task_run_name="promote-{round}", timeout_seconds=HOUR_S, **NEVER_STORED)
def promote(run: Run, round: int, champion: Policy, challenger: Policy) -> Decision:
    """Decide between two policies of this run by their results on dev."""
    folder = round_folder(run.folder, round) / "promote"
    spec = promoting.PromoteSpec(
        config=run.config,
        round=round,
        champion=champion,
        challenger=challenger,
        champion_results=str(_evaluated(run, champion.round, "results.jsonl")),
        challenger_results=str(_evaluated(run, challenger.round, "results.jsonl")),
        comparison=str(_comparison(run, round)) if run.config.promotion.people else None,
    )
    run_stage(run, spec, folder, promoting.run)
    decision = promoting.load(folder)
    run.console.say(f"round {round}: {'promoted' if decision.promoted else 'refused'}; {decision.reason}")
    return decision


def _evaluated(run: Run, round: int, file: str) -> Path:
    return round_folder(run.folder, round) / "evaluate" / file


@task(name="regenerate", task_run_name="regenerate-{round}", timeout_seconds=48 * HOUR_S, **NEVER_STORED)
def regenerate(run: Run, round: int, policies: list[Policy], reward_models: Mapping[str, RewardModelSource]) -> None:
    """Sample what the next round's reward models learn from."""
    folder = round_folder(run.folder, round) / "regenerate"
    split = regeneration_split(round)
    problems = _problems(run, round, split)
    spec = regenerating.RegenerateSpec(
        config=run.config,
        round=round,
        policies=policies,
        problems=str(problems),
        reward_models=dict(reward_models),
    )
    run_stage(run, spec, folder, regenerating.run, datasets=[_dataset(run, problems, "regeneration", split)])
    if (folder / REVIEW).exists():
        ask_people(run, read_jsonl(folder / REVIEW, ReviewItem))


@task(
    name="finish round",
    task_run_name="finish-round",
    timeout_seconds=6 * HOUR_S,
    retries=1,
    retry_condition_fn=_another_try_may_help,
    **NEVER_STORED,
)
def finish_round(run: Run, state: RoundState) -> None:
    """Close the round: champion.json, the parent run's metrics with step = round, the registry's aliases."""
    close_round(run, state)
    run.tracking.send_missing()


# ---- files ----------------------------------------------------------------------------------------------------------


def _problems(run: Run, round: int, split: str) -> Path:
    return problems_of_round(run.folder, round, run.file.rounds_asked) / f"{split}.jsonl"


def _dataset(run: Run, path: Path, context: str, name: str) -> DatasetFact:
    num_rows = path.read_bytes().count(b"\n")
    source = str(path.relative_to(run.workspace)) if path.is_relative_to(run.workspace) else str(path)
    return DatasetFact(name=name, digest=digest(path), context=context, source=source, num_rows=num_rows)

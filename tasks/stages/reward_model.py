"""The stage that trains and checks one reward model; also says which reward models a round scores with."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, digest, read_jsonl, write_json, write_jsonl
from configs.errors import ConfigError
from configs.records import Policy, PreferencePair, RewardModelReport, RoundState
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import FrozenRewardModel, RewardModel, ServedRewardModel, TrainedRewardModel
from configs.seeds import rng_for, seed_for
from grpo_train.policies.model_source import prepare_policy
from reward_training.pairs.building import count_settled, select_training_pairs, settle
from reward_training.preferences.reading import told
from reward_training.reward_models.backbone import load_tokenizer
from reward_training.reward_models.check import check_reward_model
from reward_training.reward_models.distinct import distinct_pairs
from reward_training.reward_models.train import NUM_ANCHORS, train_reward_model
from reward_training.scorer import RewardModelSource
from tasks.alerting.happenings import tell_refused_model
from tasks.people.asking import labels_by_hand
from tasks.running.launcher import launched
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, dataset_fact, run_stage
from tasks.running.stage_spec import TEMPLATE, StageSpec
from tasks.runs.facts import ModelFact, Outcome
from tasks.runs.history import (
    ModelRef,
    accepted_model,
    last_accepted,
    last_finished_round,
    left_out_file,
    left_out_of_file,
)
from tasks.runs.lineage import pair_files
from tasks.runs.stage_files import REPORT, reward_model_report
from tasks.runs.workspace import by_hand_folder, models_folder, reward_model_folder, served_file
from tasks.showing.page import show
from tasks.stages.prepare import given_policy
from tasks.stages.regenerate import preferences


def train(run: Run, round_index: int, name: str, state: RoundState) -> RewardModelReport:
    """Train a round's reward model on the pairs of the previous round and some older ones.

    `state` is what the previous round handed on.
    """
    last_model = last_accepted(run.folder, name, before=round_index, inherited=run.file.reward_models)
    base = _base(run, name, last_model, state.champion)
    stage_dir = reward_model_folder(run.folder, round_index, name)
    report = _run_training(run, round_index, name, base, stage_dir, *_pairs_up_to(run, round_index - 1))
    if not report.accepted:
        _say_refused(run, round_index, name, report)
    return report


def retrain(run: Run, name: str) -> RewardModelReport:
    """Train a reward model again, by hand, on the pairs up to the last finished round; the next round starts from it.

    If no round is finished, a reward model with a preference file is trained on that file.

    Raises:
        ConfigError: no round is finished, and the reward model has no preference file.
    """
    last_round = last_finished_round(run.folder)
    if last_round is None:
        return _train_on_file(run, name)
    round_index, champion = last_round.round, last_round.state.champion
    stage_dir = by_hand_folder(run.folder, round_index, name)
    inherited = run.file.reward_models
    last_model = last_accepted(run.folder, name, before=round_index + 1, inherited=inherited, leave_out=stage_dir)
    base = _base(run, name, last_model, champion)
    new, earlier = _pairs_up_to(run, round_index)
    return _run_training(
        run, round_index, name, base, stage_dir, [*new, *labels_by_hand(run, round_index, name)], earlier
    )


def usable_models(run: Run, round_index: int) -> dict[str, RewardModelSource]:
    """The reward models that a round scores with, once its own are trained.

    A refused one is replaced by the last accepted one or left out, as `when_refused` says. Round 0 trains none: it uses
    the frozen and the served ones and, in a follow-on, the last accepted ones of the predecessor.
    """
    sources = {name: _source(run, round_index, name, model) for name, model in run.config.reward_models.items()}
    return {name: source for name, source in sources.items() if source is not None}


def _source(run: Run, round_index: int, name: str, model: RewardModel) -> RewardModelSource | None:
    template = run.config.template_settings
    if isinstance(model, FrozenRewardModel):
        return RewardModelSource(
            path=model.path, max_length=model.max_length, revision=model.revision, template=template
        )
    if isinstance(model, ServedRewardModel):
        return RewardModelSource(
            path=model.path,
            max_length=model.max_length,
            revision=model.revision,
            template=template,
            served=model,
            record=served_file(run.folder, name),
        )
    accepted = accepted_model(reward_model_folder(run.folder, round_index, name))
    if accepted is None and (round_index == 0 or model.when_refused == "last_accepted"):
        accepted = last_accepted(run.folder, name, before=round_index, inherited=run.file.reward_models)
    if accepted is None:
        return None
    return RewardModelSource(path=accepted.path, max_length=model.max_length, template=template)


def _base(run: Run, name: str, last: ModelRef | None, champion: Policy) -> ModelRef:
    """The model that training starts from: the last accepted one, or the backbone, by default the champion."""
    model = run.config.trained_reward_models[name]
    if last is not None and model.start_from == "last_accepted":
        return last
    if model.backbone is None:
        return ModelRef(id=champion.id, path=champion.path)
    try:
        backbone = prepare_policy(model.backbone, models_folder(run.workspace))
    except ConfigError as error:
        message = str(error).replace("policy.path", f"reward_models.{name}.backbone.path")
        raise ConfigError(message) from error
    return ModelRef(id=backbone.id, path=str(Path(backbone.path).absolute()))


def _train_on_file(run: Run, name: str) -> RewardModelReport:
    if not isinstance(run.config.trained_reward_models[name].labeler, FileLabeler):
        raise ConfigError(
            f"run {run.name!r} has finished no round; `regroup run` makes the pairs that reward model {name!r} learns from, "
            "or give it a labeler of kind file"
        )
    base = _base(run, name, run.file.reward_models.get(name), given_policy(run))
    pairs_file = run.folder / "preferences" / f"{name}.jsonl"
    read = preferences(run.config, name, round_index=0)
    write_jsonl(pairs_file, read.pairs)
    write_json(left_out_file(pairs_file), {name: read.left_out})
    return _run_training(run, 0, name, base, by_hand_folder(run.folder, 0, name), [pairs_file], [])


def _pairs_up_to(run: Run, round_index: int) -> tuple[list[Path], list[Path]]:
    """(files of the pairs of that round, files of the pairs of all rounds before it)."""
    earlier = pair_files(run.folder, before=round_index)
    return [path for path in pair_files(run.folder, before=round_index + 1) if path not in earlier], earlier


def _run_training(
    run: Run, round_index: int, name: str, base: ModelRef, stage_dir: Path, new: list[Path], earlier: list[Path]
) -> RewardModelReport:
    spec = RewardModelSpec(
        config=run.config,
        round=round_index,
        name=name,
        base=base,
        new_pairs=[str(path) for path in new],
        earlier_pairs=[str(path) for path in earlier],
    )
    run_stage(
        run,
        spec,
        stage_dir,
        launched(run.config.launcher, "reward_model", body, run.folder),
        datasets=[dataset_fact(run, path, "training", f"pairs of {path.parent.parent.name}") for path in new],
        outcome=lambda: _outcome(run, name, _report(stage_dir), base),
        tags={"regroup.base_model": base.id},
    )
    report = _report(stage_dir)
    title = f"Reward model {name}, round {round_index}"
    show(run.name, f"round-{round_index}-reward-model-{name}", title, metrics(report))
    return report


def _report(stage_dir: Path) -> RewardModelReport:
    report = reward_model_report(stage_dir)
    assert report is not None, "the stage's body wrote it"
    return report


def _outcome(run: Run, name: str, report: RewardModelReport, base: ModelRef) -> Outcome:
    tags = {"regroup.accepted": str(report.accepted).lower(), "regroup.reasons": "; ".join(report.reasons)}
    if not report.id:
        return Outcome(tags=tags)
    model = ModelFact(
        name=run.reward_model(name),
        folder="model",
        alias="champion" if report.accepted else "challenger",
        tags={"regroup.model_id": report.id, "regroup.base_model": base.id},
    )
    return Outcome(model=model, tags=tags | model.tags)


def _say_refused(run: Run, round_index: int, name: str, report: RewardModelReport) -> None:
    used = usable_models(run, round_index).get(name)
    instead = f"the last accepted one ({used.path}) is used" if used else "the round goes on without it"
    run.console.warn(f"round {round_index}: reward model {name!r} is refused ({'; '.join(report.reasons)}); {instead}")
    tell_refused_model(run.alerts, round_index, name, report, instead)


class RewardModelSpec(StageSpec):
    """The model that a reward model starts from, and the pairs that it learns from."""

    name: str
    base: ModelRef
    """an earlier reward model, or a policy whose backbone is given a new head"""
    new_pairs: list[str]
    """files of the pairs of the last regeneration, and of people's labels of its samples"""
    earlier_pairs: list[str]
    """files of all older pairs, for replay"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", f"reward_models.{self.name}", *TEMPLATE)

    def inputs(self) -> dict[str, str]:
        new = {f"new_pairs/{i}": digest(Path(path)) for i, path in enumerate(self.new_pairs)}
        earlier = {f"earlier_pairs/{i}": digest(Path(path)) for i, path in enumerate(self.earlier_pairs)}
        return {"base": self.base.id} | new | earlier

    @property
    def save_steps(self) -> int:
        return self.block.save_steps

    @property
    def block(self) -> TrainedRewardModel:
        return self.config.trained_reward_models[self.name]


def body(spec: RewardModelSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write train_pairs.jsonl, held_out_pairs.jsonl, model/, report.json and the journal.

    With fewer than `min_pairs` training pairs no model is trained, and the report says so.
    """
    tokenizer = load_tokenizer(spec.base.path, spec.config.template_settings)
    distinct = distinct_pairs(tokenizer, _read_pairs(spec, spec.new_pairs))
    all_new, all_earlier = distinct.pairs, distinct_pairs(tokenizer, _read_pairs(spec, spec.earlier_pairs)).pairs
    for told_of in filter(None, (distinct.told, distinct.unwritten)):
        context.warn(f"round {spec.round}, reward model {spec.name}: {told_of}")
    new, earlier = settle(all_new, all_earlier)
    train = select_training_pairs(
        new,
        earlier,
        replay_fraction=spec.block.replay_fraction,
        max_pairs=spec.block.max_pairs,
        rng=rng_for(spec.config.seed, f"pairs {spec.name}", round_index=spec.round),
    )
    held_out = [pair for pair in new if pair.split == "held_out"]
    write_jsonl(out_dir / "train_pairs.jsonl", train)
    write_jsonl(out_dir / "held_out_pairs.jsonl", held_out)
    num_replayed = len({id(pair) for pair in train} - {id(pair) for pair in new})
    if len(train) < spec.block.min_pairs:
        report = _too_few(spec, len(train), len(held_out), num_replayed, distinct.told)
    else:
        # the oldest pairs, the same in every round even if people have relabelled them since
        anchors = [pair for pair in [*all_earlier, *all_new] if pair.split == "train"][:NUM_ANCHORS]
        _train(spec, train, anchors, out_dir, context)
        context.progress.say("checking on held-out pairs")
        report = check_reward_model(
            out_dir / "model",
            held_out,
            [pair for pair in earlier if pair.split == "held_out"],
            config=spec.block,
            num_train_pairs=len(train),
            num_replayed_pairs=num_replayed,
            seed=seed_for(spec.config.seed, f"check {spec.name}", round_index=spec.round),
            template=spec.config.template_settings,
        )
    report = report.model_copy(update={"left_out": _left_out(spec, all_new, all_earlier) | distinct.left_out})
    if isinstance(spec.block.labeler, FileLabeler) and "contradicting" in report.left_out:
        context.warn(
            f"reward model {spec.name}: of the preference file and the pairs drawn from it are left out: {told(report.left_out)}"
        )
    write_json(out_dir / REPORT, report.model_dump(mode="json") | {"path": "model"})
    Journal(out_dir / JOURNAL).write(spec.round, metrics(report))


def _read_pairs(spec: RewardModelSpec, files: list[str]) -> list[PreferencePair]:
    pairs = [pair for path in files for pair in read_jsonl(Path(path), PreferencePair)]
    return [pair for pair in pairs if pair.objective == spec.name]


def _left_out(spec: RewardModelSpec, new: list[PreferencePair], earlier: list[PreferencePair]) -> dict[str, int]:
    """{reason: new labels that `settle` leaves out, and rows of the preference file from which these were drawn}."""
    counts = Counter(count_settled(new, earlier))
    for path in map(Path, spec.new_pairs):
        counts.update(left_out_of_file(path).get(spec.name, {}))
    return dict(counts)


def _train(
    spec: RewardModelSpec, train: list[PreferencePair], anchors: list[PreferencePair], out_dir: Path, context: Context
) -> None:
    journal = Journal(out_dir / JOURNAL)

    def on_step(step: int, values: dict[str, float]) -> None:
        journal.write(step, values)
        context.written()
        context.progress.set(step, unit="updates")

    train_reward_model(
        train,
        base=Path(spec.base.path),
        out_dir=out_dir / "model",
        config=spec.block,
        seed=seed_for(spec.config.seed, f"reward model {spec.name}", round_index=spec.round),
        on_step=on_step,
        should_stop=context.should_stop,
        checkpoints=spec.checkpoints(out_dir, context.warn),
        anchors=anchors,
        template=spec.config.template_settings,
    )


def _too_few(
    spec: RewardModelSpec, num_train: int, num_held_out: int, num_replayed: int, why: str
) -> RewardModelReport:
    reason = f"{num_train} training pairs are fewer than min_pairs={spec.block.min_pairs}; it was not trained"
    reason = f"{reason}; {why}" if why else reason
    return RewardModelReport(
        id="",
        path="",
        accepted=False,
        reasons=[reason],
        accuracy=None,
        margin=None,
        length_correlation=None,
        num_train_pairs=num_train,
        num_held_out_pairs=num_held_out,
        num_replayed_pairs=num_replayed,
    )


def metrics(report: RewardModelReport) -> dict[str, float]:
    """The metrics of a report, without those that were not measured."""
    values: dict[str, float | None] = {
        "check/accuracy": report.accuracy.estimate if report.accuracy else None,
        "check/accuracy_low": report.accuracy.low if report.accuracy else None,
        "check/accuracy_high": report.accuracy.high if report.accuracy else None,
        "check/margin": report.margin,
        "check/length_correlation": report.length_correlation,
        "check/markup_correlation": report.markup_correlation,
        "check/calibration_error": report.calibration_error,
        "check/old_accuracy": report.old_accuracy.estimate if report.old_accuracy else None,
        "check/canary_wins": report.canary_wins,
        "check/accepted": float(report.accepted),
        "pairs/train": float(report.num_train_pairs),
        "pairs/held_out": float(report.num_held_out_pairs),
        "pairs/replayed": float(report.num_replayed_pairs),
    }
    values |= {f"pairs/left_out/{reason}": float(count) for reason, count in report.left_out.items()}
    return {name: value for name, value in values.items() if value is not None}

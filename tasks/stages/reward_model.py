"""Training and checking one reward model on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from configs.disk.files import JOURNAL, Journal, digest, read_jsonl, write_json, write_jsonl
from configs.records import PreferencePair, RewardModelReport
from configs.schema.rewards import TrainedRewardModel
from configs.seeds import rng_for, seed_for
from reward_training.pairs.building import select_training_pairs, settle
from reward_training.reward_models.check import check_reward_model
from reward_training.reward_models.train import NUM_ANCHORS, train_reward_model
from tasks.running.stage import ALONE, Context, StageSpec
from tasks.runs.history import ModelRef, reward_model_report


class RewardModelSpec(StageSpec):
    """What a reward model starts from and learns from."""

    reads: ClassVar[tuple[str, ...]] = ("seed", "reward_models")

    name: str
    base: ModelRef
    """an earlier reward model, or a policy whose backbone the first one takes"""
    new_pairs: list[str]
    """files of the pairs that the last regeneration wrote"""
    earlier_pairs: list[str]
    """files of all pairs before that"""

    def inputs(self) -> dict[str, str]:
        new = {f"new_pairs/{i}": digest(Path(path)) for i, path in enumerate(self.new_pairs)}
        earlier = {f"earlier_pairs/{i}": digest(Path(path)) for i, path in enumerate(self.earlier_pairs)}
        return {"base": self.base.id} | new | earlier

    def config_part(self) -> dict[str, Any]:
        """Of `reward_models` this one's block only, without the distance of checkpoints, which changes nothing."""
        parts = super().config_part()
        del parts["reward_models"][self.name]["save_steps"]
        return {"seed": parts["seed"], f"reward_models.{self.name}": parts["reward_models"][self.name]}

    @property
    def save_steps(self) -> int:
        return self.block.save_steps

    @property
    def block(self) -> TrainedRewardModel:
        return self.config.trained_reward_models[self.name]


def run(spec: RewardModelSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write train_pairs.jsonl, held_out_pairs.jsonl, model/, report.json and the journal.

    With fewer than `min_pairs` training pairs there is no model, and the report says so.
    """
    all_new, all_earlier = _read_pairs(spec, spec.new_pairs), _read_pairs(spec, spec.earlier_pairs)
    new, earlier = settle(all_new, all_earlier)
    train = select_training_pairs(
        new,
        earlier,
        replay_fraction=spec.block.replay_fraction,
        max_pairs=spec.block.max_pairs,
        rng=rng_for(spec.config.seed, f"pairs {spec.name}", round=spec.round),
    )
    held_out = [pair for pair in new if pair.split == "held_out"]
    write_jsonl(out_dir / "train_pairs.jsonl", train)
    write_jsonl(out_dir / "held_out_pairs.jsonl", held_out)
    num_replayed = sum(pair not in new for pair in train)
    if len(train) < spec.block.min_pairs:
        report = _too_few(spec, len(train), len(held_out), num_replayed)
    else:
        # the oldest pairs, in every round the same, whatever was said of them since
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
            seed=seed_for(spec.config.seed, f"check {spec.name}", round=spec.round),
        )
    write_json(out_dir / "report.json", report.model_dump(mode="json") | {"path": "model"})
    Journal(out_dir / JOURNAL).write(spec.round, metrics(report))


def _read_pairs(spec: RewardModelSpec, files: list[str]) -> list[PreferencePair]:
    pairs = [pair for path in files for pair in read_jsonl(Path(path), PreferencePair)]
    return [pair for pair in pairs if pair.objective == spec.name]


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
        seed=seed_for(spec.config.seed, f"reward model {spec.name}", round=spec.round),
        on_step=on_step,
        should_stop=context.should_stop,
        checkpoints=spec.checkpoints(out_dir, context.warn),
        anchors=anchors,
    )


def _too_few(spec: RewardModelSpec, num_train: int, num_held_out: int, num_replayed: int) -> RewardModelReport:
    reason = f"{num_train} training pairs are fewer than min_pairs={spec.block.min_pairs}; it was not trained"
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


def load(out_dir: Path) -> RewardModelReport:
    """The report, its `path` where the model is now."""
    report = reward_model_report(out_dir)
    assert report is not None, "the stage is finished"
    return report


def metrics(report: RewardModelReport) -> dict[str, float]:
    """What a report says, as numbers; what was not measured is left out."""
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
    return {name: value for name, value in values.items() if value is not None}

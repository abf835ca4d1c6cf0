"""Taking people's labels in: pairs for the reward models, made of what people said of the last rounds' samples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from configs.disk.files import JOURNAL, Journal, digest, read_jsonl, write_jsonl
from configs.records import PreferencePair, ReviewItem
from configs.schema.reward_models import PeopleLabeler
from reward_training.pairs.review import label_items, opinion
from tasks.people.asking import desk_of
from tasks.people.review_desk import Answers, ReviewDesk
from tasks.running.run import Run
from tasks.running.stage import Context, StageSpec, run_stage
from tasks.runs.history import PAIRS, pair_files, review_files
from tasks.runs.workspace import round_folder
from tasks.showing.page import paused_for_people


def take_labels(run: Run, round_index: int) -> None:
    """Pairs from what people said of the samples of the rounds before; waits for them as configured."""
    spec = LabelsSpec(
        config=run.config,
        round=round_index,
        asked=[str(path) for path in review_files(run.folder, before=round_index)],
        taken=[str(path) for path in pair_files(run.folder, before=round_index - 1)],
    )
    with paused_for_people() as told_to_go_on:
        folder = round_folder(run.folder, round_index) / "labels"
        run_stage(run, spec, folder, partial(body, desk=desk_of(run, told_to_go_on)))


class LabelsSpec(StageSpec):
    """What people were asked, and which pairs came of it already."""

    asked: list[str]
    """files of items, those of the last round last"""
    taken: list[str]
    """files of all pairs so far"""

    def reads(self) -> tuple[str, ...]:
        return ("reward_models",)

    def inputs(self) -> dict[str, str]:
        asked = {f"asked/{i}": digest(Path(path)) for i, path in enumerate(self.asked)}
        return asked | {f"taken/{i}": digest(Path(path)) for i, path in enumerate(self.taken)}

    def labelers(self) -> dict[str, PeopleLabeler]:
        """By the name of the reward model that learns from it."""
        models = self.config.trained_reward_models
        return {name: model.labeler for name, model in models.items() if isinstance(model.labeler, PeopleLabeler)}


def body(spec: LabelsSpec, out_dir: Path, context: Context, *, desk: ReviewDesk) -> None:
    """Wait as configured; write pairs.jsonl (those that are new), verdicts.jsonl (what they rest on) and the journal."""
    by_file = [read_jsonl(Path(path), ReviewItem) for path in spec.asked]
    taken = [pair for path in spec.taken for pair in read_jsonl(Path(path), PreferencePair)]
    newest = {_texts(pair): _said(pair) for pair in taken}
    pairs: list[PreferencePair] = []
    metrics: dict[str, float] = {}
    used: Answers = {}
    for name, labeler in spec.labelers().items():
        mine = [item for items in by_file for item in items if item.objective == name]
        last = [item for item in by_file[-1] if item.objective == name] if by_file else []
        desk.wait(last, minutes=labeler.wait_minutes, enough=labeler.enough, context=context)
        answers = desk.answers(mine)
        stand_in = labeler.otherwise.kind if labeler.otherwise else None
        new = [
            pair for pair in label_items(mine, answers, stand_in=stand_in) if newest.get(_texts(pair)) != _said(pair)
        ]
        pairs += new
        used |= answers
        metrics |= _metrics(name, last, answers, new)
    write_jsonl(out_dir / PAIRS, pairs)
    write_jsonl(out_dir / "verdicts.jsonl", [verdict for verdicts in used.values() for verdict in verdicts])
    Journal(out_dir / JOURNAL).write(spec.round, metrics)


def _texts(pair: PreferencePair) -> tuple[str, str, frozenset[str]]:
    return pair.objective, pair.problem_key, frozenset((pair.chosen, pair.rejected))


def _said(pair: PreferencePair) -> tuple[str, str | None]:
    """Who said it, and which of the two is better; None where neither is."""
    return pair.labeler, pair.chosen if pair.margin else None


def _metrics(
    name: str, last: Sequence[ReviewItem], answers: Answers, new: Sequence[PreferencePair]
) -> dict[str, float]:
    people = {verdict.person for verdicts in answers.values() for verdict in verdicts}
    known = [(opinion(answers[item.id]), item.otherwise) for item in last if item.id in answers]
    decided = [(leaning, other) for leaning, other in known if leaning and other]
    values = {
        f"labels/{name}/asked": float(len(last)),
        f"labels/{name}/answered": float(len(known)),
        f"labels/{name}/people": float(len(people)),
        f"labels/{name}/pairs": float(sum(pair.margin > 0 for pair in new)),
    }
    if decided:
        agreeing = sum((leaning > 0) == (other > 0) for leaning, other in decided)
        values[f"labels/{name}/stand_in_agreement"] = agreeing / len(decided)
    return values

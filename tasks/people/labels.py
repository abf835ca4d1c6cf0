"""The stage that makes preference pairs from people's verdicts on earlier rounds' samples."""

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
from tasks.running.stage import Context, run_stage
from tasks.running.stage_spec import StageSpec
from tasks.runs.lineage import PAIRS, pair_files, review_files
from tasks.runs.stage_files import VERDICTS
from tasks.runs.workspace import round_folder
from tasks.showing.page import paused_for_people


def take_labels(run: Run, round_index: int) -> None:
    """Make pairs from people's verdicts on the samples of earlier rounds; waits for people as configured."""
    spec = LabelsSpec(
        config=run.config,
        round=round_index,
        asked=[str(path) for path in review_files(run.folder, before=round_index)],
        taken=[str(path) for path in pair_files(run.folder, before=round_index - 1)],
    )
    with paused_for_people() as told_to_go_on:
        stage_dir = round_folder(run.folder, round_index) / "labels"
        run_stage(run, spec, stage_dir, partial(body, desk=desk_of(run, told_to_go_on)))


class LabelsSpec(StageSpec):
    """What people were asked, and which pairs were made already."""

    asked: list[str]
    """files of review items, that of the last round last"""
    taken: list[str]
    """files of all pairs so far, except the last round's automatic ones"""

    def reads(self) -> tuple[str, ...]:
        return ("reward_models",)

    def inputs(self) -> dict[str, str]:
        asked = {f"asked/{i}": digest(Path(path)) for i, path in enumerate(self.asked)}
        return asked | {f"taken/{i}": digest(Path(path)) for i, path in enumerate(self.taken)}

    def labelers(self) -> dict[str, PeopleLabeler]:
        """{reward model: its labeler} of the reward models that people label for."""
        models = self.config.trained_reward_models
        return {name: model.labeler for name, model in models.items() if isinstance(model.labeler, PeopleLabeler)}


def body(spec: LabelsSpec, out_dir: Path, context: Context, *, desk: ReviewDesk) -> None:
    """Wait for people; write pairs.jsonl (new or changed labels), verdicts.jsonl (all verdicts) and the journal."""
    by_file = [read_jsonl(Path(path), ReviewItem) for path in spec.asked]
    taken = [pair for path in spec.taken for pair in read_jsonl(Path(path), PreferencePair)]
    known_labels = {_pair_key(pair): _label(pair) for pair in taken}
    pairs: list[PreferencePair] = []
    metrics: dict[str, float] = {}
    used: Answers = {}
    for name, labeler in spec.labelers().items():
        items = [item for file_items in by_file for item in file_items if item.objective == name]
        last_items = [item for item in by_file[-1] if item.objective == name] if by_file else []
        desk.wait(last_items, minutes=labeler.wait_minutes, enough=labeler.enough, context=context)
        answers = desk.answers(items)
        stand_in = labeler.otherwise.kind if labeler.otherwise else None
        new = [
            pair
            for pair in label_items(items, answers, stand_in=stand_in)
            if known_labels.get(_pair_key(pair)) != _label(pair)
        ]
        pairs += new
        used |= answers
        metrics |= _metrics(name, last_items, answers, new)
    write_jsonl(out_dir / PAIRS, pairs)
    write_jsonl(out_dir / VERDICTS, [verdict for verdicts in used.values() for verdict in verdicts])
    Journal(out_dir / JOURNAL).write(spec.round, metrics)


def _pair_key(pair: PreferencePair) -> tuple[str, str, frozenset[str]]:
    return pair.objective, pair.problem_key, frozenset((pair.chosen, pair.rejected))


def _label(pair: PreferencePair) -> tuple[str, str | None]:
    """(labeler, better response), the latter None if neither is better."""
    return pair.labeler, pair.chosen if pair.margin else None


def _metrics(
    name: str, last_items: Sequence[ReviewItem], answers: Answers, new_pairs: Sequence[PreferencePair]
) -> dict[str, float]:
    people = {verdict.person for verdicts in answers.values() for verdict in verdicts}
    opinions = [(opinion(answers[item.id]), item.otherwise) for item in last_items if item.id in answers]
    decided = [(leaning, other) for leaning, other in opinions if leaning and other]
    values = {
        f"labels/{name}/asked": float(len(last_items)),
        f"labels/{name}/answered": float(len(opinions)),
        f"labels/{name}/people": float(len(people)),
        f"labels/{name}/pairs": float(sum(pair.margin > 0 for pair in new_pairs)),
    }
    if decided:
        agreeing = sum((leaning > 0) == (other > 0) for leaning, other in decided)
        values[f"labels/{name}/stand_in_agreement"] = agreeing / len(decided)
    return values

"""People's labels on their way from MLflow and from files into reward models and promotions: real stages, a real store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import AssessmentSource, Feedback
from mlflow.tracing.client import TracingClient

from configs.disk.files import Journal, read_jsonl
from configs.records import PreferencePair, ReviewItem, RoundState, Verdict
from tasks import prefect_tasks as stages
from tasks.people.review_desk import ReviewDesk
from tasks.people.review_queue import QUESTION
from tasks.running.run import Run
from tasks.runs.follow_on import follow_on
from tasks.runs.run_file import read_run, stored_config
from tasks.runs.workspace import by_hand_folder
from tasks.stages.rounds import first_state
from tests.tasks.stage_kit import open_in, tiny

OVERRIDES = (
    "rounds=1",
    "grpo_config.max_updates=2",
    "reward_models.taste.held_out_share=0.25",
    "reward_models.taste.min_pairs=1",
    "reward_models.taste.labeler={kind: people, num_items: 30, otherwise: {kind: score}}",
    "promotion.people={num_problems: 4}",
)


@pytest.fixture
def run(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    run = open_in(tmp_path, tiny(*OVERRIDES))
    run.tracking.start()
    return run


def baseline(run: Run) -> RoundState:
    stages.prepare.fn(run)
    state = first_state(run)
    stages.evaluate.fn(run, 0, state.policy, {})
    stages.regenerate.fn(run, 0, [state.policy], {})
    stages.finish_round.fn(run, state)
    return state


def items(run: Run, round_index: int = 0) -> list[ReviewItem]:
    return read_jsonl(run.folder / f"round_{round_index:03d}" / "regenerate" / "review.jsonl", ReviewItem)


def answer_in_mlflow(run: Run, item: ReviewItem, choice: str) -> None:
    client = MlflowClient(tracking_uri=run.tracking.uri)
    experiment = client.get_experiment_by_name("regroup")
    assert experiment is not None
    where = f"tags.`regroup.item` = '{item.id}'"
    [trace] = client.search_traces(locations=[experiment.experiment_id], filter_string=where)
    feedback = Feedback(name=QUESTION, value=choice, source=AssessmentSource("HUMAN", "somebody"))
    TracingClient(run.tracking.uri).log_assessment(trace.info.trace_id, feedback)


def pairs(path: Path) -> list[PreferencePair]:
    return read_jsonl(path, PreferencePair)


def test_people_are_asked_about_other_texts_than_the_stand_in_labels(run: Run) -> None:
    baseline(run)
    asked = {(item.problem_key, frozenset((item.first, item.second))) for item in items(run)}
    automatic = pairs(run.folder / "round_000" / "regenerate" / "pairs.jsonl")
    assert len(asked) == 30
    assert automatic
    assert {pair.labeler for pair in automatic} == {"score"}
    assert not asked & {(pair.problem_key, frozenset((pair.chosen, pair.rejected))) for pair in automatic}


def test_answers_from_mlflow_and_from_a_file_become_the_next_rounds_pairs(run: Run) -> None:
    state = baseline(run)
    one, two, three, *rest = items(run)
    answer_in_mlflow(run, one, "second")
    ReviewDesk(run.workspace).add([Verdict(item=two.id, choice="first", person="p", given_ms=1, via="file")])
    answer_in_mlflow(run, three, "equal")
    stages.take_labels.fn(run, 1)
    labelled = pairs(run.folder / "round_001" / "labels" / "pairs.jsonl")
    *people, equal = [pair for pair in labelled if pair.labeler == "people"]
    assert [(p.chosen, p.rejected, p.sources) for p in people] == [
        (one.second, one.first, one.sources[::-1]),
        (two.first, two.second, two.sources),
    ]
    assert (equal.problem_key, equal.margin) == (three.problem_key, 0.0)
    stood_in = {pair.problem_key for pair in labelled if pair.labeler == "score"}
    assert stood_in == {item.problem_key for item in rest if item.otherwise}
    stages.train_reward_model.fn(run, 1, "taste", state)
    folder = run.folder / "round_001" / "reward_model" / "taste"
    learned = [*pairs(folder / "train_pairs.jsonl"), *pairs(folder / "held_out_pairs.jsonl")]
    assert [pair for pair in learned if pair.labeler == "people"] == people


def test_a_finished_stage_of_labels_is_not_taken_again_and_a_late_answer_comes_in_the_next_round(run: Run) -> None:
    baseline(run)
    one = next(item for item in items(run) if item.otherwise)
    stages.take_labels.fn(run, 1)
    before = pairs(run.folder / "round_001" / "labels" / "pairs.jsonl")
    answer_in_mlflow(run, one, "second" if (one.otherwise or 0) > 0 else "first")
    stages.take_labels.fn(run, 1)
    assert pairs(run.folder / "round_001" / "labels" / "pairs.jsonl") == before
    stages.take_labels.fn(run, 2)
    [late] = pairs(run.folder / "round_002" / "labels" / "pairs.jsonl")
    assert (late.labeler, late.problem_key) == ("people", one.problem_key)
    assert {late.chosen, late.rejected} == {one.first, one.second}
    for round_index, choice in ((3, "equal"), (4, "first"), (5, "second"), (6, "first"), (7, "first")):
        answer_in_mlflow(run, one, choice)
        stages.take_labels.fn(run, round_index)
    changed = [pairs(run.folder / f"round_{round_index:03d}" / "labels" / "pairs.jsonl") for round_index in range(3, 8)]
    assert [[(p.chosen, p.margin) for p in each] for each in changed] == [
        [(one.first, 0.0)],
        [(one.first, 1.0)],
        [(one.second, 1.0)],
        [(one.first, 1.0)],
        [],  # said before
    ]


def test_a_model_retrained_by_hand_learns_from_answers_up_to_now(run: Run) -> None:
    baseline(run)
    one = items(run)[0]
    answer_in_mlflow(run, one, "first")
    stages.retrain_reward_model.fn(run, "taste")
    folder = by_hand_folder(run.folder, 0, "taste")
    learned = [*pairs(folder / "train_pairs.jsonl"), *pairs(folder / "held_out_pairs.jsonl")]
    [person] = [pair for pair in learned if pair.labeler == "people"]
    assert (person.chosen, person.rejected) == (one.first, one.second)


def test_a_follow_on_takes_answers_to_what_its_predecessor_asked(run: Run) -> None:
    baseline(run)
    run.tracking.finish("FINISHED")
    file = follow_on(run.workspace, run.config, "tiny")
    answer_in_mlflow(run, items(run)[0], "first")
    after = open_in(run.workspace, stored_config(read_run(run.workspace, file.name)))
    after.tracking.start()
    baseline(after)
    stages.take_labels.fn(after, 1)
    folder = after.folder / "round_001" / "labels"
    assert [pair.labeler for pair in pairs(folder / "pairs.jsonl")].count("people") == 1
    told = {line.key: line.value for line in Journal(folder / "journal.jsonl").read()}
    # waited for, and counted, are the follow-on's own items alone
    assert (told["labels/taste/asked"], told["labels/taste/answered"]) == (len(items(after)), 0.0)


def test_people_compare_two_policies_blind_and_their_word_stands_in_the_decision(run: Run) -> None:
    state = baseline(run)
    policy = stages.train_policy.fn(run, 1, state, {})
    stages.evaluate.fn(run, 1, policy, {})
    _let_them_differ(run)
    champion = state.champion
    stages.compare.fn(run, 1, champion, policy)
    asked = read_jsonl(run.folder / "round_001" / "compare" / "items.jsonl", ReviewItem)
    assert len(asked) == 4
    assert {frozenset(item.sources) for item in asked} == {frozenset((champion.id, policy.id))}
    shutil.rmtree(run.folder / "round_001" / "compare")
    for item in asked:
        answer_in_mlflow(run, item, "first" if item.sources[0] == policy.id else "second")
    stages.compare.fn(run, 1, champion, policy)
    decision = stages.promote.fn(run, 1, champion, policy)
    assert decision.people is not None
    assert (decision.people.estimate, decision.people.n) == (1.0, 4)


def _let_them_differ(run: Run) -> None:
    """Two updates of a random model may leave its likeliest tokens as they were."""
    path = run.folder / "round_001" / "evaluate" / "examples.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"greedy": row["greedy"] + "!"}) + "\n" for row in rows))


def test_how_long_to_wait_may_change_while_a_run_is_stopped(run: Run) -> None:
    baseline(run)
    stages.take_labels.fn(run, 1)
    longer = tiny(*OVERRIDES, "reward_models.taste.labeler.wait_minutes=30", "promotion.people.wait_minutes=5")
    again = open_in(run.workspace, longer)
    again.tracking.start()
    written = (run.folder / "round_000" / "regenerate" / "manifest.json").stat().st_mtime_ns
    state = first_state(again)
    stages.regenerate.fn(again, 0, [state.policy], {})
    assert (run.folder / "round_000" / "regenerate" / "manifest.json").stat().st_mtime_ns == written


def test_what_people_take_back_leaves_the_anchors_as_they_were(run: Run) -> None:
    state = baseline(run)
    stages.take_labels.fn(run, 1)
    stages.train_reward_model.fn(run, 1, "taste", state)
    labelled = pairs(run.folder / "round_001" / "labels" / "pairs.jsonl")
    for number, item in enumerate(items(run)):
        answer_in_mlflow(run, item, ("first", "equal")[number % 2])
    seen: list[list[PreferencePair]] = []

    def train(*args: object, anchors: list[PreferencePair], **kwargs: object) -> None:
        seen.append(anchors)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.stages.reward_model.train_reward_model", train)
        patch.setattr("tasks.stages.reward_model.NUM_ANCHORS", 10_000)
        stages.take_labels.fn(run, 2)
        with pytest.raises(InterruptedError):
            stages.train_reward_model.fn(run, 2, "taste", state)
    taken_back = [pair for pair in labelled if pair.split == "train"]
    assert taken_back
    assert all(pair in seen[0] for pair in taken_back)

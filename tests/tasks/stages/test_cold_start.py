"""The stage that fine-tunes the given policy before round 0, and what the run takes for its given policy then."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import tasks.stages.lessons as lessons
from configs.disk.files import JOURNAL, Journal, read_manifest, write_jsonl
from configs.errors import ConfigError, StageStopped
from configs.records import Policy, Problem
from configs.schema.methods.method import BestOfNMethod
from flows import evaluate
from grpo_train.policies.model import open_policy
from grpo_train.policies.tiny_model import save_tiny_model
from tasks.running.run import Run
from tasks.running.stage import ALONE, clear
from tasks.runs.run_file import read_run, write_run
from tasks.runs.run_records import read_run_records
from tasks.runs.workspace import cold_start_folder
from tasks.showing.terminal import Terminal
from tasks.stages.cold_start.before import before_stands, given_retention_rows, measure_before
from tasks.stages.cold_start.stage import ColdStartSpec, begins_cold, body, cold_start, refuse_before_cold_start
from tasks.stages.evaluate import evaluate_policy
from tasks.stages.offline_policy import train_offline
from tasks.stages.prepare import given_policy
from tasks.stages.rounds import _policy_key, _retention, first_state
from tests.tasks.offline_samples import REWARDS, best_spec
from tests.tasks.stage_kit import open_untold, tiny, write_sums

IMITATING = "cold_start={demonstrations: {path: d.jsonl}, learning_rate: 1.0e-3, epochs: 3, batch_size: 4}"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def given(tmp_path: Path) -> Policy:
    save_tiny_model(tmp_path / "given")
    return open_policy(tmp_path / "given", 0)


def write_demonstrations(number: int = 8, response: str = "so {}") -> None:
    rows = [{"question": f"{i} + {i} = ?", "response": response.format(2 * i)} for i in range(number)]
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def spec_of(given: Policy, root: Path, *changes: str) -> ColdStartSpec:
    """Six updates of four demonstrations, with checkpoints after 2 and 4."""
    config = tiny(*REWARDS, IMITATING, "grpo_config.save_steps=2", "grpo_config.micro_batch_tokens=128", *changes)
    held_out = Problem(key="h", prompt=[{"role": "user", "content": "5 + 5 = ?"}], answer="10", source="s", split="dev")
    write_jsonl(root / "dev.jsonl", [held_out])
    return ColdStartSpec(
        config=config,
        round=0,
        policy=given,
        initial_policy=given,
        problems=str(write_sums(root)),
        held_out=[str(root / "dev.jsonl")],
        reward_models={},
    )


def measured(stage: Path) -> list[tuple[str, int, float]]:
    """(key, step, value) of the lines of a journal."""
    return [(line.key, line.step, line.value) for line in Journal(stage / JOURNAL).read()]


# ---- the stage alone ------------------------------------------------------------------------------------------------


def test_a_stopped_training_on_demonstrations_goes_on_bit_for_bit(given: Policy, tmp_path: Path) -> None:
    write_demonstrations(9)  # one of which dev asks
    spec, said = spec_of(given, tmp_path), list[str]()
    context = replace(ALONE, warn=said.append)
    body(spec, tmp_path / "whole", context)
    with pytest.raises(StageStopped, match="after step 2 of 6"):
        body(spec, tmp_path / "cut", replace(context, should_stop=iter([False, True]).__next__))
    body(spec, tmp_path / "cut", context)
    ids = {open_policy(tmp_path / name / "model", 0).id for name in ("whole", "cut")}
    assert len(ids) == 1
    assert given.id not in ids
    journals = [measured(tmp_path / name) for name in ("whole", "cut")]
    assert journals[0] == journals[1]
    counts = {key: value for key, step, value in journals[0] if step == 0}
    # "so 0", .. "so 16": eight responses of four to six tokens with the end of the turn
    tokens = sum(len(f"so {2 * i}") + 1 for i in range(9) if i != 5)
    assert counts == {"demonstrations/kept": 8, "demonstrations/tokens": tokens, "demonstrations/left_out/held_out": 1}
    assert said == [said[0]] * 2
    assert said[0].startswith("cold start: 8 demonstrations are imitated; left out: 1 with a question of dev or test")


def test_own_samples_are_those_of_best_of_n_offline(given: Policy, tmp_path: Path) -> None:
    """Six updates of four responses, as a round of that method would do them: the same draws, files and weights."""
    reference = best_spec(given, tmp_path).model_copy(update={"round": 0})
    (tmp_path / "reference").mkdir()
    train_offline(reference, tmp_path / "reference", ALONE)
    own = "cold_start={own_samples: {num_problems: 8, group_size: 4}, learning_rate: 1.0e-3, epochs: 3, batch_size: 4}"
    spec = spec_of(given, tmp_path, own, "grpo_config.group_size=2", "grpo_config.micro_batch_tokens=64")
    body(spec, tmp_path / "own")
    assert measured(tmp_path / "own") == measured(tmp_path / "reference")
    for name in ("completions.jsonl", "scores.jsonl"):
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "reference" / name).read_bytes()
    assert open_policy(tmp_path / "own/model", 0).id == open_policy(tmp_path / "reference/model", 0).id != given.id


def test_as_many_problems_are_asked_as_there_are_at_most(given: Policy, tmp_path: Path) -> None:
    own = "cold_start={own_samples: {num_problems: 3, group_size: 2, min_score: 1000}}"
    said: list[str] = []
    body(spec_of(given, tmp_path, own), tmp_path / "own", replace(ALONE, warn=said.append))
    assert "of the responses to 3 problems none is over cold_start.own_samples.min_score=1000" in said[0]
    told = lessons._none_kept(3, ColdStartSpec.LEAST, BestOfNMethod(mode="offline"))
    assert told.startswith("of the responses to 3 problems no reward could score any of them; nothing was trained")
    assert open_policy(tmp_path / "own/model", 0).id == given.id
    assert spec_of(given, tmp_path, own.replace("3", "30")).num_asked(8) == 8


def test_own_samples_are_not_written_again(given: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = "cold_start={own_samples: {num_problems: 8, group_size: 2}, learning_rate: 1.0e-3, epochs: 3, batch_size: 4}"
    spec = spec_of(given, tmp_path, own)
    body(spec, tmp_path / "whole")
    asked = iter([False, True])
    with pytest.raises(StageStopped, match="after step 2 of 6"):  # sampling asks too
        body(spec, tmp_path / "cut", replace(ALONE, should_stop=lambda: _trains(tmp_path) and next(asked)))
    monkeypatch.setattr(lessons, "writing", lambda *_: pytest.fail("it wrote again"))
    body(spec, tmp_path / "cut")
    assert open_policy(tmp_path / "cut/model", 0).id == open_policy(tmp_path / "whole/model", 0).id


def _trains(root: Path) -> bool:
    return (root / "cut/scores.jsonl").exists()


def test_an_adapter_is_trained_and_merged(given: Policy, tmp_path: Path) -> None:
    write_demonstrations()
    body(spec_of(given, tmp_path, "grpo_config.lora={rank: 2, between_rounds: carry_on}"), tmp_path / "lora")
    assert (tmp_path / "lora/adapter/origin.json").exists()
    assert open_policy(tmp_path / "lora/model", 0).id != given.id


def test_only_what_it_reads_is_in_its_digest(given: Policy, tmp_path: Path) -> None:
    write_demonstrations()
    spec = spec_of(given, tmp_path)

    def digest_with(change: str) -> str:
        return spec_of(given, tmp_path, change).config_digest()

    assert digest_with("promotion.confidence=0.9") == digest_with("rounds=5") == spec.config_digest()
    for change in ("cold_start.epochs=2", "problems.system=Add.", "grpo_config.max_grad_norm=2"):
        assert digest_with(change) != spec.config_digest()
    before = spec.inputs()
    assert before.keys() == {"policy", "demonstrations", "held_out/dev"}
    write_demonstrations(7)
    assert [name for name, value in spec.inputs().items() if value != before[name]] == ["demonstrations"]


# ---- in a run -------------------------------------------------------------------------------------------------------

SUITES = "evaluation.retention={prose: {kind: text, path: prose.jsonl}}"


@pytest.fixture
def run(tmp_path: Path, given: Policy) -> Run:
    """A run whose problems are there."""
    write_demonstrations()
    Path("prose.jsonl").write_text('{"text": "the cat sat on the mat"}\n{"text": "a dog sat on a log"}\n')
    run = open_untold(tmp_path, tiny("policy.path=given", *REWARDS, IMITATING, SUITES))
    given_policy(run)
    folder = run.problems(0, "train").parent
    folder.mkdir(parents=True)
    write_sums(folder)
    for split in ("dev", "test"):
        asked = [Problem(key=split, prompt=f"{split}?", answer="1", source="s", split=split)]
        write_jsonl(folder / f"{split}.jsonl", asked)
    return run


def test_what_it_makes_is_the_given_and_initial_policy_of_the_run(run: Run, given: Policy) -> None:
    assert first_state(run).policy.id == given.id
    cold_start(run, {})
    made = open_policy(cold_start_folder(run.folder) / "model", 0)
    assert made.id != given.id
    state, file = first_state(run), run.file
    assert {policy.id for policy in (state.policy, state.champion, state.initial_policy, run.given_policy)} == {made.id}
    assert file.before_cold_start == given.model_copy(update={"path": str(Path(given.path).absolute())})
    told = read_run_records(run.folder).cold_start
    assert told is not None
    assert told.startswith("8 demonstrations, 6 updates, loss ")
    assert given_policy(run).id == given.id  # whose tokenizer counted the problems' tokens
    assert _policy_key(run, state.policy) == "round_000/cold_start"
    manifest = read_manifest(cold_start_folder(run.folder))
    assert manifest is not None
    assert (manifest.stage, manifest.round, manifest.inputs["policy"]) == ("cold_start", 0, given.id)
    cold_start(run, {})
    assert run.file == file
    assert read_manifest(cold_start_folder(run.folder)) == manifest


def test_another_file_of_demonstrations_is_said_and_makes_another_policy(run: Run) -> None:
    cold_start(run, {})
    before = run.file
    write_demonstrations(response="it is {}")
    said = StringIO()
    cold_start(replace(run, console=Terminal(out=Console(quiet=True), err=Console(file=said, width=200))), {})
    assert "round 0 · cold start runs again: inputs changed: demonstrations" in said.getvalue()
    assert run.given_policy.id not in (before.given_policy and before.given_policy.id, given_policy(run).id)
    assert run.file.before_cold_start == before.before_cold_start


def test_evaluating_waits_for_the_cold_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, the policy that was given was measured as if it were that of round 0."""
    measured: list[Policy] = []
    monkeypatch.setattr(evaluate, "open_run", lambda *_: run.file)
    monkeypatch.setattr(evaluate, "working_on", lambda *_: nullcontext(run))
    monkeypatch.setattr(evaluate.stages, "prepare", lambda _: None)
    monkeypatch.setattr(evaluate.stages, "evaluate", lambda _run, _round, policy, _models: measured.append(policy))
    with pytest.raises(ConfigError, match=r"is not done yet; `regroup run` does the cold start first"):
        evaluate._evaluate(run.workspace, run.config)
    assert not (run.folder / "round_000").exists()
    cold_start(run, {})
    evaluate._evaluate(run.workspace, run.config)
    assert measured == [run.given_policy]
    clear(cold_start_folder(run.folder))  # as a cold start that is done anew does, before it is killed
    with pytest.raises(ConfigError, match="does the cold start first"):
        evaluate._evaluate(run.workspace, run.config)


def test_a_policy_of_before_is_refused_after_a_kill_and_one_of_a_later_round_never(run: Run) -> None:
    with pytest.raises(ConfigError, match="does the cold start first"):
        refuse_before_cold_start(run, None)
    before = run.given_policy
    cold_start(run, {})
    refuse_before_cold_start(run, run.given_policy)
    with pytest.raises(ConfigError, match="does the cold start first"):
        refuse_before_cold_start(run, before)  # killed before `run.json` named the new one
    refuse_before_cold_start(run, before.model_copy(update={"round": 1}))
    write_run(run.workspace, run.file.model_copy(update={"predecessor": "another"}))
    refuse_before_cold_start(run, before)


def test_a_follow_on_goes_on_from_its_champion(run: Run) -> None:
    assert begins_cold(run)
    write_run(run.workspace, run.file.model_copy(update={"predecessor": "another"}))
    assert not begins_cold(run)
    assert before_stands(run)
    assert given_retention_rows(run).parent.name == "evaluate"


def test_old_abilities_are_lost_against_the_policy_before(run: Run, given: Policy) -> None:
    measure_before(run)
    cold_start(run, {})
    assert before_stands(run)
    rows = given_retention_rows(run)
    assert {json.loads(line)["suite"] for line in rows.read_text().splitlines()} == {"prose"}
    evaluate_policy(run, 0, run.given_policy, {})
    records = read_run_records(run.folder)
    assert records.given is not None
    assert records.given.retention is not None
    assert records.given.retention.policy_id == given.id
    change = _retention(run, 0)["retention/prose/change"]
    values = [
        record.retention.suites["prose"]["value"].estimate
        for record in (records.given, records.rounds[0])
        if record.retention
    ]
    assert change == pytest.approx(values[1] - values[0]) != 0
    with Path("prose.jsonl").open("a") as file:
        file.write('{"text": "the owl sat on the bowl"}\n')
    assert not before_stands(run)


def test_a_run_without_one_has_no_stage_more(tmp_path: Path, given: Policy) -> None:
    run = open_untold(tmp_path, tiny("policy.path=given", *REWARDS))
    given_policy(run)
    assert not begins_cold(run)
    measure_before(run)
    assert not (run.folder / "round_000").exists()
    assert read_run(tmp_path, run.name).before_cold_start is None
    assert _policy_key(run, run.given_policy) == "problems"

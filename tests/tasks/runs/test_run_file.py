"""run.json: what a run was started with, and what may change when it goes on."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from configs.disk.files import write_jsonl
from configs.errors import ConfigError
from configs.reader import load_config
from configs.records import Policy, RoundState
from configs.schema.config import Config
from tasks.runs import facts
from tasks.runs.follow_on import follow_on
from tasks.runs.history import ModelRef
from tasks.runs.lineage import pair_files
from tasks.runs.run_file import create_run, open_run, read_run, run_names, stored_config, write_run
from tasks.runs.workspace import problems_of_round, round_folder, run_folder
from tasks.stages.policy import PolicySpec
from tests.paths import TINY

POLICY = Policy(path="x", id="x", round=0)


def tiny(*overrides: str) -> Config:
    return load_config(TINY, list(overrides))


def test_changed_fields_are_named_with_both_values_and_the_remedy(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    with pytest.raises(ConfigError) as error:
        open_run(tmp_path, tiny("grpo_config.group_size=8", "rewards.0.weight=0.3"))
    assert "grpo_config.group_size is 8, was 4" in str(error.value)
    assert "rewards.0.weight is 0.3, was 0.2" in str(error.value)
    assert "--run NEWNAME" in str(error.value)
    assert "learning_rate" not in str(error.value)


def test_blocks_that_came_or_went_are_named_once_with_what_is_in_them(tmp_path: Path) -> None:
    """A line for each of their fields hid what had changed, such as suites that were added."""
    suites = "evaluation.retention={prose: {kind: text, path: p.jsonl}, facts: {kind: choice, path: f.jsonl}}"
    added = tiny(suites, "promotion.retention={prose: {max_loss: 0.1}}")
    open_run(tmp_path, tiny())
    with pytest.raises(ConfigError) as error:
        open_run(tmp_path, added)
    assert str(error.value).splitlines()[1:-1] == [
        "  evaluation.retention is {prose, facts}, was left out",
        "  promotion.retention is {prose}, was left out",
    ]
    open_run(tmp_path / "other", added)
    with pytest.raises(ConfigError) as error:
        open_run(tmp_path / "other", tiny("evaluation.retention={facts: {kind: choice, path: f.jsonl}}"))
    assert str(error.value).splitlines()[1:-1] == [
        "  evaluation.retention.prose is left out, was {kind, path, column, num_items, max_tokens}",
        "  promotion.retention is left out, was {prose}",
    ]


def test_rounds_may_be_raised_and_are_remembered(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    raised = open_run(tmp_path, tiny("rounds=5"))
    assert raised.rounds_asked == [2, 5]
    assert read_run(tmp_path, "tiny").config["rounds"] == 5


def test_rounds_may_not_be_lowered(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    with pytest.raises(ConfigError, match=r"rounds is 1, was 2 \(it can only be raised\)"):
        open_run(tmp_path, tiny("rounds=1"))


def test_the_experiment_may_change(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    open_run(tmp_path, tiny("tracking.experiment=elsewhere"))


def test_what_concerns_checkpoints_may_change(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    changes = ["keep_checkpoints=1", "grpo_config.save_steps=7", "reward_models.taste.save_steps=7"]
    open_run(tmp_path, tiny(*changes))


JUDGE = "{name: kind, kind: judge, base_url: 'http://127.0.0.1:1/v1', model: m, rubric: rubric.md, weight: 0.1}"


def test_how_a_judge_is_reached_and_what_it_may_cost_may_change_and_what_it_says_may_not(tmp_path: Path) -> None:
    (tmp_path / "rubric.md").write_text("kind")
    judged = [f"rewards=[{{name: correct, kind: outcome}}, {JUDGE}]", "reward_models={}"]
    free = [
        "max_calls=9",
        "base_url='http://127.0.0.1:2/v1'",
        "concurrency=2",
        "prices={input_per_million: 1, output_per_million: 2}",
    ]
    changed = tiny(*judged, *(f"rewards.1.{change}" for change in free))
    open_run(tmp_path, tiny(*judged))
    open_run(tmp_path, changed)
    specs = [
        PolicySpec(config=config, round=1, policy=POLICY, initial_policy=POLICY, problems="x", reward_models={})
        for config in (tiny(*judged), changed)
    ]
    assert specs[0].config_digest() == specs[1].config_digest()
    with pytest.raises(ConfigError, match=r"rewards\.1\.model is 'n', was 'm'"):
        open_run(tmp_path, tiny(*judged, "rewards.1.model=n"))


def test_going_on_keeps_the_run_file(tmp_path: Path) -> None:
    assert open_run(tmp_path, tiny()) == open_run(tmp_path, tiny())


def test_an_unknown_run_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    with pytest.raises(ConfigError, match=r"no run 'other' .*; runs there: tiny"):
        read_run(tmp_path, "other")


def test_added_rounds_have_problems_of_their_own(tmp_path: Path) -> None:
    """The training problems of rounds 0 to 2 must stay as they were, or those rounds would run again."""
    assert problems_of_round(tmp_path, 2, [2, 5]) == tmp_path / "problems"
    assert problems_of_round(tmp_path, 3, [2, 5]) == tmp_path / "problems_005"


def finish_round_0(root: Path, name: str) -> None:
    folder = run_folder(root, name)
    given = Policy(path="models/tiny", id="given", round=0)
    file = read_run(root, name)
    write_run(root, file.model_copy(update={"given_policy": given, "initial_policy": given}))
    state = RoundState(round=0, policy=given, champion=given, initial_policy=given, reward_models={})
    fact = facts.RoundFile(round=0, state=state, ended_ms=1, metrics={}, aliases=[])
    facts.save(round_folder(folder, 0) / facts.ROUND_FILE, fact)
    write_jsonl(round_folder(folder, 0) / "regenerate" / "pairs.jsonl", [{"from": name}])


def test_follow_on_takes_champion_initial_policy_and_pairs_along(tmp_path: Path) -> None:
    config = tiny()
    create_run(tmp_path, config, reward_models={"taste": ModelRef(id="rm", path="somewhere")})
    finish_round_0(tmp_path, "tiny")
    second = follow_on(tmp_path, config, "tiny")
    assert second.name == "tiny-0002"
    assert (second.predecessor, second.given_policy, second.initial_policy) == (
        "tiny",
        Policy(path=str(tmp_path / "models/tiny"), id="given", round=0),
        Policy(path=str(tmp_path / "models/tiny"), id="given", round=0),
    )
    assert second.config["seed"] != config.seed
    assert second.config["run"] == read_run(tmp_path, "tiny").config["run"] | {"name": "tiny-0002"}
    assert second.reward_models == {"taste": ModelRef(id="rm", path=str(tmp_path / "somewhere"))}
    finish_round_0(tmp_path, "tiny-0002")
    third = follow_on(tmp_path, config, "tiny-0002")
    inherited = pair_files(run_folder(tmp_path, third.name), before=0)
    assert [path.read_text() for path in inherited] == ['{"from": "tiny"}\n', '{"from": "tiny-0002"}\n']
    assert third.config["seed"] != second.config["seed"]
    assert run_names(tmp_path) == ["tiny", "tiny-0002", "tiny-0003"]


def test_follow_on_needs_a_finished_round(tmp_path: Path) -> None:
    open_run(tmp_path, tiny())
    with pytest.raises(ConfigError, match="'tiny' has finished no round"):
        follow_on(tmp_path, tiny(), "tiny")


# ---- the run's date -------------------------------------------------------------------------------------------------

DAY = datetime.date(2024, 2, 29)


def on(date: datetime.date, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it be noon of that day."""
    noon = datetime.datetime.combine(date, datetime.time(12)).timestamp()
    monkeypatch.setattr("tasks.runs.run_file.time.time", lambda: noon)


def test_the_date_is_fixed_when_the_run_starts_and_kept_on_other_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(DAY, monkeypatch)
    assert stored_config(open_run(tmp_path, tiny())).run.date == DAY
    on(datetime.date(2024, 3, 1), monkeypatch)
    resumed = stored_config(open_run(tmp_path, tiny("rounds=3")))
    assert (resumed.run.date, resumed.rounds) == (DAY, 3)
    assert resumed.template_settings.date == DAY
    assert read_run(tmp_path, "tiny").config["run"]["date"] == "2024-02-29"


def test_a_date_that_is_given_counts_and_cannot_change(tmp_path: Path) -> None:
    assert stored_config(open_run(tmp_path, tiny("run.date=2020-01-31"))).run.date == datetime.date(2020, 1, 31)
    assert stored_config(open_run(tmp_path, tiny())).run.date == datetime.date(2020, 1, 31)
    with pytest.raises(ConfigError, match=r"run\.date is 2021-01-31, was 2020-01-31"):
        open_run(tmp_path, tiny("run.date=2021-01-31"))


def test_a_run_of_an_older_version_has_the_day_on_which_it_was_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(DAY, monkeypatch)
    file = open_run(tmp_path, tiny())
    without = {**file.config, "run": {"name": "tiny"}}
    write_run(tmp_path, file.model_copy(update={"config": without}))
    on(datetime.date(2025, 1, 1), monkeypatch)
    assert stored_config(open_run(tmp_path, tiny())).run.date == DAY


def test_the_variables_of_the_template_cannot_change(tmp_path: Path) -> None:
    open_run(tmp_path, tiny("problems.template_variables={enable_thinking: false}"))
    with pytest.raises(ConfigError, match=r"problems\.template_variables\.enable_thinking is True, was False"):
        open_run(tmp_path, tiny("problems.template_variables={enable_thinking: true}"))


def test_a_file_in_the_place_of_a_runs_folder_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/notes").write_text("mine")
    with pytest.raises(ConfigError, match=r"run\.name='notes': .*runs/notes is a file; move it away, or .* --run NAME"):
        open_run(tmp_path, tiny("run.name=notes"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["notes"]


def test_a_run_in_the_place_of_the_champions_file_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "runs/champion.json").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"champion\.json is a folder.*mv .*champion\.json .*champion-run"):
        run_names(tmp_path)

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.records import Problem
from configs.schema.config import Config
from configs.schema.methods.cold_start import DemonstrationsConfig
from flows import launch
from flows.doctor.cold_start import check_cold_start
from flows.doctor.preflight import Preflight, preflight_checks
from flows.doctor.report import DoctorReport, refuse_faulty
from grpo_train.methods.demonstrations import refuse_moving
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from grpo_train.problems.splits import ProblemSet
from tasks.runs.run_file import create_run, write_run
from tasks.showing.terminal import Terminal

Configure = Callable[..., Config]
SUM = {"question": "2 + 3 = ?", "response": "5"}


def found(configure: Configure, **cold_start: Any) -> list[tuple[str, str, str]]:
    """(name, status, detail) of each finding, where dev asks for 1 + 1 and there are ten training problems."""
    config = configure(cold_start=cold_start)
    dev = Problem(key="d", prompt=[{"role": "user", "content": "1 + 1 = ?"}], answer="2", source="s", split="dev")
    problems = ProblemSet({"dev": [dev], "test": []}, {"train": 10})
    return [
        (each.name, each.status, each.detail) for each in check_cold_start(config, build_tiny_tokenizer(), problems)
    ]


def written(*rows: dict[str, Any]) -> dict[str, str]:
    Path("d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": "d.jsonl"}


def test_demonstrations_are_counted_with_what_is_left_out(configure: Configure) -> None:
    """17 rows make two updates of 16 and 1."""
    rows = [SUM | {"question": f"{i} + 3 = ?"} for i in range(17)]
    fine = ("cold start", "ok", "17 demonstrations, the longest of 2 tokens, in 2 updates")
    assert found(configure, demonstrations=written(*rows)) == [fine]
    told = "1 with a question of dev or test (d.jsonl line 18)"
    held_out = {"question": "1 + 1 = ?", "response": "2"}
    assert found(configure, demonstrations=written(*rows, held_out)) == [
        fine,
        ("demonstrations left out", "warn", told),
    ]


def test_a_faulty_file_fails(configure: Configure) -> None:
    [(name, status, detail)] = found(configure, demonstrations={"path": "gone.jsonl"})
    assert (name, status) == ("cold start", "fail")
    assert detail.startswith("gone.jsonl does not exist; set cold_start.demonstrations.path")


def test_a_data_set_of_a_hub_needs_a_revision(configure: Configure) -> None:
    """A run that was killed and went on learned from what had become of it by then."""
    [(name, status, detail)] = found(configure, demonstrations={"path": "someone/solutions"})
    assert (name, status) == ("cold start", "fail")
    assert detail.startswith("cold_start.demonstrations.path='someone/solutions' is read again when the run goes on")
    assert detail.endswith("set cold_start.demonstrations.revision")
    refuse_moving(DemonstrationsConfig(path="someone/solutions", revision="0a1b2c3"))


def test_more_problems_than_there_are_is_warned_of(configure: Configure) -> None:
    assert found(configure, own_samples={"num_problems": 10, "group_size": 4}) == [
        ("cold start", "ok", "the best of 4 own responses to each of 10 problems")
    ]
    [(_, status, detail)] = found(configure, own_samples={"num_problems": 11})
    assert status == "warn"
    assert "num_problems=11 is more than the 10 training problems" in detail


def test_a_run_does_not_begin_with_a_missing_file(configure: Configure, tmp_path: Path) -> None:
    config = configure(cold_start={"demonstrations": {"path": "gone.jsonl"}})
    with pytest.raises(ValueError, match=r"cold start: gone\.jsonl does not exist"):
        refuse_faulty(config, tmp_path)
    refuse_faulty(config, tmp_path, is_follow_on=True)  # which has no cold start


def test_a_follow_on_is_checked_as_one(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(cold_start={"demonstrations": {"path": "gone.jsonl"}})
    checked: list[bool] = []

    def refuse(config: Config, root: Path, *, is_follow_on: bool) -> DoctorReport:
        checked.append(is_follow_on)
        return DoctorReport([])

    monkeypatch.setattr("flows.doctor.report.refuse_faulty", refuse)
    launch._check_data(tmp_path, config, Terminal())
    file = create_run(tmp_path, config)
    launch._check_data(tmp_path, config, Terminal())
    write_run(tmp_path, file.model_copy(update={"predecessor": "another"}))
    launch._check_data(tmp_path, config, Terminal())
    assert checked == [False, False, True]


def test_a_policy_that_gets_nothing_right_yet_may_learn_from_demonstrations(configure: Configure) -> None:
    """Its groups are all dead before, which is refused otherwise, also where it would learn from itself."""
    seen = Preflight(4, [0.0, 0.0], 1.0, 0.1, 8, [], [])

    def status(**cold_start: Any) -> str:
        return next(preflight_checks(seen, configure(cold_start=cold_start))).status

    assert status(demonstrations=written(SUM)) == "warn"
    assert status(own_samples={}) == "fail"

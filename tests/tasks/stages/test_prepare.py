"""What keeps a run from starting once its problems are read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.config import Config
from grpo_train.policies.tiny_model import save_tiny_model
from tasks.running.stage import Context
from tasks.stages.prepare import ProblemsSpec, body
from tests.paths import TINY

SCORER = {"name": "correct", "kind": "outcome", "extract": "whole", "checker": "reasoning_gym"}


def spec(sources: list[dict[str, Any]], *rewards: dict[str, Any], **problems: Any) -> ProblemsSpec:
    data = yaml.safe_load(TINY.read_text())
    data["problems"] |= {"sources": sources, "dev": 4, "test": 4, "max_prompt_length": 4096, **problems}
    data["regeneration"]["num_problems"] = 4
    data["rewards"], data["reward_models"] = list(rewards), {}
    if not Path("model").exists():
        save_tiny_model(Path("model"))
    return ProblemsSpec(
        config=Config.model_validate(data), round=0, policy=Policy(path="model", id="x", round=0), rounds=1
    )


def test_run_whose_golds_fail_their_checker_does_not_start(workspace: Path) -> None:
    """It trained two rounds at accuracy 0 and ended 0; a source that is fine did not help the one that is not."""
    rows = [{"question": f"Colour {i}?", "answer": f"red {i} or blue"} for i in range(30)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [
        {"kind": "jsonl", "path": "a.jsonl"},
        {"kind": "reasoning_gym", "family": "chain_sum", "size": 60},
    ]
    numbers = {"name": "correct", "kind": "outcome"}
    with pytest.raises(ConfigError, match=r"^gold answers, correct: 30 of 30 fail, for instance 'red .* of a.jsonl; "):
        body(spec(sources, numbers), Path("out"))
    assert not Path("out").exists()


def test_entries_of_a_family_pass_through_the_problem_files(workspace: Path) -> None:
    """The gold answers of arc_agi scored 0.05, since tuples came back as lists."""
    Path("out").mkdir()
    sources = [{"kind": "reasoning_gym", "family": "arc_agi", "size": 20}]
    body(spec(sources, SCORER), Path("out"))
    counts = json.loads(Path("out/counts.json").read_text())
    assert (counts["loaded"], counts["dev"], counts["test"]) == (20, 4, 4)
    row = json.loads(Path("out/dev.jsonl").read_text().splitlines()[0])
    assert row["meta"]["entry"]["metadata"]["output"].keys() == {"$tuple"}


def test_scorer_that_takes_any_text_for_right_keeps_a_run_from_starting(workspace: Path) -> None:
    sources = [{"kind": "reasoning_gym", "family": "game_of_life_halting", "size": 30}]
    with pytest.raises(ConfigError, match="takes any text for right"):
        body(spec(sources, SCORER), Path("out"))


def test_evaluation_rewards_are_tried_too(workspace: Path) -> None:
    sources = [{"kind": "reasoning_gym", "family": "rush_hour", "size": 20}]
    exact = SCORER | {"name": "exact", "checker": "exact", "weight": 0}
    asked = spec(sources, SCORER)
    evaluation = asked.config.evaluation.model_copy(update={"rewards": [type(asked.config.rewards[0])(**exact)]})
    with pytest.raises(ConfigError, match=r"^gold answers, exact: \d+ problems of rush_hour have no gold"):
        body(
            asked.model_copy(update={"config": asked.config.model_copy(update={"evaluation": evaluation})}), Path("out")
        )


# ---- added rounds, and what is left out -----------------------------------------------------------------------------


def _write(name: str, rows: list[dict[str, str]]) -> dict[str, str]:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "jsonl", "path": name}


def test_added_rounds_that_would_be_measured_on_other_problems_are_refused(workspace: Path) -> None:
    """Champion and challenger had no problem in common, which was seen after the challenger's training."""
    numbers = {"name": "correct", "kind": "outcome"}
    rows = [{"question": f"Say {i}", "answer": str(i)} for i in range(40)]
    families: list[dict[str, Any]] = [{"kind": "reasoning_gym", "family": "ransom_note", "size": 20}]
    rewards = [numbers | {"sources": ["a.jsonl"]}, SCORER | {"name": "note", "sources": ["ransom_note"]}]
    for folder in ("problems", "problems_002"):
        Path(folder).mkdir()
    body(spec([_write("a.jsonl", rows), *families], *rewards), Path("problems"))
    added = spec([_write("a.jsonl", rows[::-1]), *families], *rewards).model_copy(
        update={"rounds": 2, "measured_on": "problems"}
    )
    body(added, Path("problems_002"))
    for split in ("dev", "test"):
        assert Path(f"problems_002/{split}.jsonl").read_bytes() == Path(f"problems/{split}.jsonl").read_bytes()
    shutil.rmtree("problems_002")
    Path("problems_002").mkdir()
    _write("a.jsonl", [row | {"question": f"Tell {row['question']}"} for row in rows])
    with pytest.raises(
        ConfigError,
        match=r"measured on other dev problems .*\d of 4 are the same; a\.jsonl.*bring the data.*--run NEWNAME",
    ):
        body(added, Path("problems_002"))
    assert not list(Path("problems_002").iterdir())


def test_the_run_says_what_is_left_out(workspace: Path) -> None:
    rows = [{"question": f"Say {i}", "answer": str(i)} for i in range(40)]
    odd: list[dict[str, Any]] = [
        {"question": "x?", "answer": float("inf")},
        {"question": [{"role": "critic", "content": "Say 1"}], "answer": "1"},
        {"question": "So?\n#### 5", "answer": "5"},
        {"question": "Say 3", "answer": "4"},
        {"question": "Say " * 4000, "answer": "4"},
    ]
    said: list[str] = []
    Path("out").mkdir()
    source = _write("a.jsonl", [*rows, *odd])
    body(spec([source], {"name": "correct", "kind": "outcome"}), Path("out"), Context(warn=said.append))
    assert said == [
        "problems: left out: 2 that cannot be read (a.jsonl line 41: the answer is inf, which is no number; write it as a text "
        "if it is meant), 2 whose question stands with another answer too ('Say 3' with '3'), 1 with a prompt over "
        "max_prompt_length; kept: 1 questions that end with their own answer (a.jsonl line 43)"
    ]
    counts = json.loads(Path("out/counts.json").read_text())
    reasons = (
        "loaded",
        "empty",
        "unreadable",
        "leaking",
        "contradicting",
        "overlong",
        "duplicates",
        "cut",
        "unwritten",
    )
    assert [counts[reason] for reason in reasons] == [43, 0, 2, 1, 2, 1, 0, 0, 0]


def test_the_run_says_that_a_suite_of_old_abilities_is_trained_on(workspace: Path) -> None:
    source = _write("a.jsonl", [{"question": f"Say {i}", "answer": str(i)} for i in range(40)])
    problems = spec([source], {"name": "correct", "kind": "outcome"})
    suite = {"kind": "generate", "problems": source, "checker": {"name": "c", "kind": "outcome"}, "num_items": 40}
    data = problems.config.model_dump(mode="json")
    data["evaluation"]["retention"] = {"old": suite}
    said: list[str] = []
    Path("out").mkdir()
    body(problems.model_copy(update={"config": Config.model_validate(data)}), Path("out"), Context(warn=said.append))
    num_trained = len(Path("out/train.jsonl").read_text().splitlines())
    [sentence] = said
    assert sentence.startswith(f"evaluation.retention.old: {num_trained} of its 40 questions are trained on")

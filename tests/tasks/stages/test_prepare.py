"""What keeps a run from starting once its problems are read."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.config import Config
from grpo_train.policies.tiny_model import save_tiny_model
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

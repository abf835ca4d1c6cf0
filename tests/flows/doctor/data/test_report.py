import json
from pathlib import Path

import pytest
import yaml

from configs.schema.config import Config
from flows.cli import main
from tests.paths import TINY

SUMS = [
    {"question": f"Ann has {i} apples and buys 3. How many has she?", "answer": f"{i}+3\n#### {i + 3}"}
    for i in range(9)
]


@pytest.fixture
def sums(workspace: Path) -> Path:
    file = workspace / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    return file


def test_what_is_printed_is_a_part_of_a_configuration_and_three_problems(
    sums: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--data", "sums.jsonl"]) == 0
    printed = capsys.readouterr().out
    block = printed[printed.index("problems:") : printed.index("--- problem 1")]
    config = Config.model_validate({"policy": {"path": "builtin:tiny"}} | yaml.safe_load(block))
    assert config.problems.sources[0].answer_place == "hash"  # type: ignore[union-attr]
    assert "user: Ann has 2 apples and buys 3. How many has she?\n--- gold answer: '5'" in printed
    assert "--- problem 4" not in printed


def test_prompts_are_rendered_for_the_policy_of_a_configuration(sums: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(TINY), "--data", "sums.jsonl"]) == 0
    assert "<|im_start|>user\nAnn has 0 apples and buys 3. How many has she?<|im_end|>" in capsys.readouterr().out


def test_direction_that_only_a_person_knows_ends_in_an_error_below_the_proposal(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"Q{i}", "response1": "a", "response2": "b", "preference": i - 2} for i in range(5)]
    Path("votes.json").write_text(json.dumps(rows))
    assert main(["doctor", "--data", "votes.json"]) == 2
    shown = capsys.readouterr()
    assert "better: {column: preference, negative: '?'}" in shown.out
    assert "put it in place of '?'" in shown.err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["doctor"], "by --data PATH"),
        (["doctor", "--data", "none.jsonl"], "none.jsonl does not exist"),
        (["doctor", "--data", "colours.csv"], "neither questions nor pairs"),
        (["doctor", "--data", "pictures.json"], "The first try ended with: pictures.json"),
    ],
)
def test_what_cannot_be_read_is_told(
    workspace: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    Path("colours.csv").write_text("id,colour\n1,red\n")
    parts = [{"type": "image", "image": "a.png"}]
    Path("pictures.json").write_text(json.dumps([{"messages": [{"role": "user", "content": parts}]}]))
    assert main(argv) == 2
    assert words in capsys.readouterr().err

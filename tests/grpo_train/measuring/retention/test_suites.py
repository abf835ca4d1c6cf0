import json
from pathlib import Path
from typing import Any

import pytest

from configs.disk.rows.opening import local_digest
from configs.errors import ConfigError
from configs.schema.measuring.retention import ChoiceColumns, ChoiceSuite, GenerateSuite, TextSuite
from grpo_train.measuring.retention.suites import read_choices, read_problems, read_texts, suite_digests, trained_on
from grpo_train.policies.tiny_model import build_tiny_tokenizer


def written(folder: Path, rows: list[dict[str, Any]], name: str = "suite.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_texts_are_the_first_distinct_ones(tmp_path: Path) -> None:
    path = written(tmp_path, [{"story": text} for text in ("one two", "one two", "three", "four")])
    assert [item.text for item in read_texts(TextSuite(path=path, column="story", num_items=2), "s")] == [
        "one two",
        "three",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"body": "a b"}], r"no column 'text'; set evaluation.retention.s.column to one of 'body'"),
        (
            [{"text": "a b"}, {"text": "  "}],
            r"line 2: column 'text' of evaluation.retention.s is '  ', which is no text",
        ),
        ([{"text": None}], r"is None, which is no text"),
        ([], r"evaluation.retention.s holds no item"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_texts(TextSuite(path=written(tmp_path, rows)), "s")


def test_a_missing_file_is_refused_by_the_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.jsonl does not exist; set evaluation.retention.s.path"):
        read_texts(TextSuite(path=str(tmp_path / "gone.jsonl")), "s")


@pytest.mark.parametrize("answers", [[0, 2], ["A", "C"], ["red", "blue"]])
def test_answers_are_numbers_letters_or_texts(tmp_path: Path, answers: list[Any]) -> None:
    rows = [
        {"question": f"Colour {i}?", "choices": ["red", "green", "blue"], "answer": a} for i, a in enumerate(answers)
    ]
    items = read_choices(ChoiceSuite(path=written(tmp_path, rows)), "s")
    assert [item.golds for item in items] == [[0], [2]]
    assert items[0].choices == ["red", "green", "blue"]


def test_numbers_may_be_counted_from_one_as_the_message_says(tmp_path: Path) -> None:
    """The remedy that it gave named a field that a suite did not have."""
    rows = [{"question": f"Colour {i}?", "choices": ["red", "green", "blue"], "answer": i % 3 + 1} for i in range(6)]
    path = written(tmp_path, rows)
    with pytest.raises(ConfigError, match=r"is no option of 3 counted from 0; set columns\.first_option: 1"):
        read_choices(ChoiceSuite(path=path), "s")
    columns = ChoiceColumns(first_option=1)
    assert [item.golds for item in read_choices(ChoiceSuite(path=path, columns=columns), "s")][:3] == [[0], [1], [2]]


def test_questions_that_are_trained_on_are_told(tmp_path: Path) -> None:
    """They measured an old ability, and nobody said that it was the new one."""
    tokenizer = build_tiny_tokenizer()
    rows = [{"question": f"How much is {i} and {i} together?", "answer": str(2 * i)} for i in range(4)]
    suite = GenerateSuite.model_validate(
        {
            "problems": {"kind": "file", "path": written(tmp_path, rows)},
            "checker": {"name": "c", "kind": "outcome"},
            "template": "Q: {question}",
        }
    )
    trained = read_problems(suite, "s", tokenizer)[:3]
    told = trained_on(suite, "s", trained, tokenizer)
    assert told is not None
    assert told.startswith("evaluation.retention.s: 3 of its 4 questions are trained on")
    assert trained_on(suite, "s", [], tokenizer) is None
    choices = [
        row | {"choices": ["none", row["answer"], "x"]} for row in [*rows, {"question": "Is 1 odd?", "answer": "y"}]
    ]
    of_choice = ChoiceSuite(path=written(tmp_path, choices, "choices.jsonl"))
    told = trained_on(of_choice, "s", trained, tokenizer)
    assert told is not None
    assert "3 of its 5" in told
    texts = TextSuite(path=written(tmp_path, [{"text": "a b"}], "texts.jsonl"))
    assert trained_on(texts, "s", trained, tokenizer) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"answer": "violet"}, r"the answer 'violet' of evaluation.retention.s is none of the choices"),
        ({"answer": None}, r"evaluation.retention.s has a question without an answer"),
        ({"question": ""}, r"'question' of evaluation.retention.s holds no text to choose after"),
        ({"choices": ["red"]}, r"no list of 2 to 26 options; columns.choices takes"),
    ],
)
def test_questions_that_cannot_be_measured_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    rows = [{"question": f"Colour {i}?", "choices": ["red", "green"], "answer": "red"} for i in range(3)]
    rows[1] |= changed
    with pytest.raises(ConfigError, match=message):
        read_choices(ChoiceSuite(path=written(tmp_path, rows)), "s")


def generate(path: str, **fields: Any) -> GenerateSuite:
    block = {"kind": "generate", "problems": {"kind": "file", "path": path}, "checker": {"name": "right"}}
    return GenerateSuite.model_validate(block | fields)


def test_problems_have_the_suites_own_prompt(tmp_path: Path) -> None:
    path = written(tmp_path, [{"question": f"{i} + 1 =", "answer": i + 1} for i in range(3)])
    suite = generate(path, template="Say: {question}", system="Be brief.", num_items=2)
    problems = read_problems(suite, "sums", build_tiny_tokenizer())
    assert [problem.answer for problem in problems] == ["1", "2"]
    assert problems[1].prompt == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say: 1 + 1 ="},
    ]


def test_digests_follow_the_data(tmp_path: Path) -> None:
    text, sums = written(tmp_path, [{"text": "a b"}], "t.jsonl"), written(tmp_path, [{"question": "1"}], "s.jsonl")
    family = {"kind": "reasoning_gym", "family": "chain_sum", "size": 3}
    suites = {"t": TextSuite(path=text), "s": generate(sums), "made": generate(sums, problems=family)}
    before = suite_digests(suites)
    assert before == {"retention/t": local_digest(text), "retention/s": local_digest(sums)}
    written(tmp_path, [{"text": "a c"}], "t.jsonl")
    after = suite_digests(suites)
    assert after["retention/t"] != before["retention/t"]
    assert after["retention/s"] == before["retention/s"]

"""What becomes of the columns of a row."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from configs.errors import ConfigError
from configs.schema.problems import Columns, FileSource, Source
from grpo_train.problems.raw_problem import RawProblem, SourceRows
from grpo_train.problems.rows import problems_of_rows
from grpo_train.problems.sources import read_source
from reward_training.rewards.columns import ColumnsRead

NOTHING = ColumnsRead()
CHOICES = ColumnsRead(choices=frozenset({"choices"}))


@pytest.fixture(autouse=True)
def _in_workspace(workspace: Path) -> None:
    """The files are written there."""


def _rows(*rows: dict[str, Any], read: ColumnsRead = NOTHING, **source: Any) -> SourceRows:
    Path("a.jsonl").write_text("".join(json.dumps({"question": "1?", "answer": "1"} | row) + "\n" for row in rows))
    return read_source(TypeAdapter[Any](Source).validate_python({"kind": "file", "path": "a.jsonl", **source}), read)


def _one(row: dict[str, Any], read: ColumnsRead = NOTHING, **columns: Any) -> RawProblem:
    [problem] = _rows(row, read=read, columns=columns).problems
    return problem


# ---- questions ------------------------------------------------------------------------------------------------------


def test_a_question_may_be_put_together() -> None:
    row = {"task": {"body": "Ann has 3 pears."}, "ask": "How many {pears}?", "note": None, "n": 4}
    assert _one(row, question="{task.body} {ask}").question == "Ann has 3 pears. How many {pears}?"
    assert _one(row, question="{note}\n\n{ask}\n\n{note}").question == "How many {pears}?"
    assert _one(row, question="{n} times").question == "4 times"
    with pytest.raises(ConfigError, match=r"no column 'body'; set columns.question to one of"):
        _one(row, question="{body} {ask}")
    with pytest.raises(ConfigError, match=r"'task' is .*; a template takes texts and numbers; name .* task\.body"):
        _one(row, question="{task} {ask}")


def test_nan_in_a_template_is_nothing() -> None:
    """`nan` stood under the instruction, since pandas writes NaN for an empty cell."""
    row = {"instruction": "Name a star.", "input": float("nan"), "unit": float("nan")}
    problem = _one(row, question="{instruction}\n\n{input}", keep=["unit"])
    assert (problem.question, problem.meta) == ("Name a star.", {"unit": None})
    rows = _rows(row, row | {"input": "The sun?"}, columns={"question": "{input}"})
    assert ([p.question for p in rows.problems], rows.num_empty) == (["The sun?"], 1)


def test_a_text_that_is_a_list_stays_the_question_and_a_list_of_texts_is_turns() -> None:
    """Every other word of a list that stood as text in its column became the assistant's."""
    assert _one({"question": '["sort", "this 0", "list"]'}).question == '["sort", "this 0", "list"]'
    turns = _one({"question": ["2 + 2?", "4", "And 3 + 3?"]}).question
    assert [message["role"] for message in turns if isinstance(message, dict)] == ["user", "assistant", "user"]


def test_a_conversation_ends_with_its_last_question() -> None:
    """The answer of a conversation for fine-tuning stood in the prompt."""
    turns = [
        {"from": "human", "value": "2 + 2?"},
        {"from": "gpt", "value": "4"},
        {"from": "human", "value": "And 3 + 3?"},
    ]
    row = {"conversations": [*turns, {"from": "gpt", "value": "6"}]}
    wanted = [{"role": r, "content": t["value"]} for r, t in zip(("user", "assistant", "user"), turns, strict=True)]
    problem = _one(row, question="conversations", answer="conversations.-1.value")
    assert (problem.question, problem.answer) == (wanted, "6")
    with pytest.raises(ConfigError, match="the conversation in 'conversations' has no user message"):
        _one({"conversations": [{"from": "gpt", "value": "Hello"}]}, question="conversations")


SAID = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
ASKED: list[Any] = [*SAID, {"role": "user", "content": "And 3 + 3?"}]
BAD: dict[str, Any] = {
    "role": [{"role": "narrator", "content": "Once upon a time"}],
    "null": [{"role": "user", "content": None}],
    "null between": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}, *SAID],
    "picture": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which?"}]}],
    "nobody asks": SAID[1:],
    "empty": [{"role": "user", "content": ""}],
    "blank": [*SAID, {"role": "user", "content": [{"type": "text", "text": " "}]}],
    "truth value": True,
    "mapping": {"a": 1},
}


@pytest.mark.parametrize("name", BAD)
def test_one_conversation_that_holds_no_question_is_left_out_and_counted(name: str) -> None:
    """Such a row stopped the run, and an empty question of a conversation was asked."""
    rows = _rows(*({"question": f"{i}?"} for i in range(3)), {"question": BAD[name]})
    assert [problem.question for problem in rows.problems] == ["0?", "1?", "2?"]
    assert (rows.num_empty, rows.num_unreadable) == ((1, 0) if name in ("empty", "blank") else (0, 1))


def test_an_answer_that_is_null_is_left_out_of_the_conversation() -> None:
    assert _one({"question": [*ASKED, {"role": "assistant", "content": None}]}).question == ASKED


def test_an_answer_that_is_a_mapping_is_left_out_and_counted() -> None:
    rows = _rows({}, {"question": "2?"}, {"question": "3?", "answer": {"a": 1}})
    assert (len(rows.problems), rows.num_unreadable) == (2, 1)


def test_many_rows_that_cannot_be_read_are_refused_with_the_reason_of_the_first() -> None:
    with pytest.raises(
        ConfigError, match=r"2 of 3 rows cannot be read, for instance a\.jsonl line 2: a message has the role"
    ):
        _rows({}, {"question": BAD["role"]}, {"question": BAD["mapping"]})


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "golds"),
    [
        ("007", ["007"]),
        (7, ["7"]),
        (2.5, ["2.5"]),
        (["Rome", "Roma", "", None, "Rome"], ["Rome", "Roma"]),
        ([4], ["4"]),
        (True, ["True", "Yes"]),
        (False, ["False", "No"]),
        ("[1, 2]", ["[1, 2]"]),
    ],
)
def test_the_gold_answers_are_what_stands_there(answer: Any, golds: list[str]) -> None:
    problem = _one({"answer": answer})
    assert [problem.answer, *problem.other_answers] == golds


def test_each_answer_of_a_list_is_taken_out_of_its_solution() -> None:
    rows = _rows({"answer": ["so #### 4", "none", "#### four"]}, answer_place="hash")
    assert [(p.answer, p.other_answers) for p in rows.problems] == [("4", ["four"])]


def test_the_gold_answer_stands_after_the_last_mark() -> None:
    assert _rows({"answer": "#### Step 1\nHalf.\n#### 9\n#### 18"}, answer_place="hash").problems[0].answer == "18"


def test_rows_without_question_or_answer_are_left_out_and_counted() -> None:
    """One empty answer of 14,470 refused the whole set."""
    lost = [
        {"answer": None},
        {"answer": " "},
        {"answer": float("nan")},
        {"answer": []},
        {"question": ""},
        {"question": None},
    ]
    rows = _rows(*({"question": f"{i}?"} for i in range(8)), *lost)
    assert (len(rows.problems), rows.num_empty, rows.num_unmatched) == (8, 6, 0)
    with pytest.raises(ConfigError, match=r"empty in 6 of 9 rows, for instance a\.jsonl line 4; name their columns"):
        _rows({}, {}, {}, *lost)


def test_data_may_have_no_gold_answers() -> None:
    problem = _one({"answer": "unused"}, answer=None)
    assert (problem.answer, problem.other_answers) == (None, [])
    with pytest.raises(ValidationError, match=r"columns.answer=null leaves nothing to find by 'boxed'"):
        FileSource.model_validate({"path": "a", "columns": {"answer": None}, "answer_place": "boxed"})


def test_half_a_character_is_replaced() -> None:
    """It ended in a traceback as the problem's key was made."""
    problem = _one({"question": "Sm\ud83dile?", "answer": "\ude00x"})
    assert (problem.question, problem.answer) == ("Sm\ufffdile?", "\ufffdx")
    assert len(problem.key) == 64


# ---- options --------------------------------------------------------------------------------------------------------

TEXTS = {"A": "red", "B": "blue", "C": "green"}


@pytest.mark.parametrize(
    "options",
    [
        ["red", "blue", "green"],
        ["A)red", "B) blue", "C)green "],
        ["(a) red", "(b) blue", "(c) green"],
        {"text": ["red", "blue", "green"], "label": ["A", "B", "C"]},
        {"text": ["red", "blue", "green"], "label": ["1", "2", "3"]},
        {"a": "red", "b": "blue", "c": "green", "d": None},
        [{"label": "A", "text": "red"}, {"label": "B", "text": "blue"}, {"label": "C", "text": "green"}],
        [{"key": 1, "value": "red"}, {"key": 2, "value": "blue"}, {"key": 3, "value": "green"}],
        [{"text": "red"}, {"text": "blue"}, {"text": "green"}],
        '["red", "blue", "green"]',
        "['red', 'blue', 'green']",
        "{'A': 'red', 'B': 'blue', 'C': 'green'}",
        ["red", "blue", "green", None],
        "a ) red , b ) blue , c ) green",
        "A. red\nB. blue\nC. green",
        "(A) red (B) blue (C) green",
    ],
)
def test_options_are_written_under_the_question_with_letters(options: Any) -> None:
    problem = _one({"options": options, "answer": "b"}, options="options")
    assert problem.question == "1?\nA. red\nB. blue\nC. green"
    assert problem.meta == {"choices": TEXTS}
    assert problem.answer == "B"


@pytest.mark.parametrize(
    ("answer", "options", "letters"),
    [
        (0, ["red", "blue"], ["A"]),
        (1.0, ["red", "blue"], ["B"]),
        ("1", ["red", "blue"], ["B"]),
        ("b", ["red", "blue"], ["B"]),
        ("(B)", ["red", "blue"], ["B"]),
        ("B) blue", ["red", "blue"], ["B"]),
        ("Blue", ["red", "blue"], ["B"]),
        ("2", {"text": ["red", "blue"], "label": ["1", "2"]}, ["B"]),
        (1, {"text": ["red", "blue"], "label": ["1", "2"]}, ["A"]),
        (2, ["4", "3", "2"], ["C"]),  # a number is a place, also where the options are numbers
        ("2", ["4", "3", "2", "1"], ["C"]),  # a text is the option's text before it is a place
        ([1, 0, 0], ["red", "blue", "green"], ["A"]),
        ([0, 1, 1], ["red", "blue", "green"], ["B", "C"]),
        (["A", "c"], ["red", "blue", "green"], ["A", "C"]),
        ("blue", {"C": "red", "D": "blue"}, ["D"]),
    ],
)
def test_the_answer_becomes_the_letters_that_are_right(answer: Any, options: Any, letters: list[str]) -> None:
    problem = _one({"options": options, "answer": answer}, options="options")
    assert [problem.answer, *problem.other_answers] == letters


def test_numbers_may_be_counted_from_one_and_a_number_of_no_option_stops() -> None:
    row = {"options": ["red", "blue"], "answer": "2"}
    assert _one(row, options="options", first_option=1).answer == "B"
    with pytest.raises(
        ConfigError, match=r"line 1: the answer 2 is no option of 2 counted from 0; set columns.first_option: 1"
    ):
        _one(row, options="options")
    with pytest.raises(
        ConfigError, match=r"the answer 0 is no option of 2 counted from 1; set columns.first_option: 0"
    ):
        _one(row | {"answer": 0}, options="options", first_option=1)


def test_answers_that_are_none_of_the_options_are_left_out_and_counted() -> None:
    good, bad = {"options": ["red", "blue"], "answer": "a"}, {"options": ["red", "blue"], "answer": "mauve"}
    rows = _rows(good, good, bad, bad | {"answer": -1}, columns={"options": "options"})
    assert (len(rows.problems), rows.num_unmatched) == (2, 2)
    with pytest.raises(
        ConfigError, match=r"the answer is none of the options in 1 of 1 rows, for instance a.jsonl line 1"
    ):
        _rows(bad, columns={"options": "options"})


@pytest.mark.parametrize("options", ["red, blue", ["red"], [], None, 5, ["x"] * 27, "['red' 'blue']", {"a": [1]}])
def test_what_holds_no_options_is_named(options: Any) -> None:
    with pytest.raises(ConfigError, match=r"line 1: .* is no list of 2 to 26 options; columns.options takes"):
        _one({"options": options}, options="options")


def test_options_may_stand_in_columns_of_their_own() -> None:
    row = {"one": "red", "two": "blue", "answer": 1}
    assert _one(row, options=["one", "two"]).question == "1?\nA. red\nB. blue"


def test_options_of_which_one_column_is_right_are_shuffled_by_the_question() -> None:
    """The right answer would always have the same letter."""
    rows = [{"question": f"{i}?", "right": "yes", "wrong": ["no", "maybe"]} for i in range(60)]
    columns = {"options": ["right", "wrong"], "answer": "right"}
    problems = _rows(*rows, columns=columns).problems
    assert problems == _rows(*rows, columns=columns).problems
    places = [str(problem.answer) for problem in problems]
    assert {letter: 10 < places.count(letter) < 30 for letter in "ABC"} == {"A": True, "B": True, "C": True}
    assert all(problem.meta["choices"][problem.answer] == "yes" for problem in problems)


def test_options_stand_under_the_last_message() -> None:
    row = {
        "question": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}],
        "o": ["x", "y"],
    }
    question = _one(row | {"answer": 0}, options="o").question
    assert question == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?\nA. x\nB. y"}]


@pytest.mark.parametrize(
    ("choices", "answer", "letter"),
    [
        (["red", "blue"], 1, "B"),
        ({"A": "red", "B": "blue"}, "b", "B"),
        ({"text": ["red", "blue"], "label": ["1", "2"]}, "2", "B"),
    ],
)
def test_choices_that_a_reward_reads_are_lettered_and_not_written(choices: Any, answer: Any, letter: str) -> None:
    """Integer answers, small letters and {text, label} ended in a traceback."""
    problem = _one({"choices": choices, "answer": answer}, read=CHOICES)
    assert (problem.question, problem.answer) == ("1?", letter)
    assert problem.meta == {"choices": {"A": "red", "B": "blue"}}


# ---- difficulty -----------------------------------------------------------------------------------------------------


def _difficulties(*values: Any, **columns: Any) -> list[float | None]:
    rows = [{"question": f"{i}?", "difficulty": value} for i, value in enumerate(values)]
    return [problem.difficulty for problem in _rows(*rows, columns=columns).problems]


def test_a_difficulty_that_nobody_named_counts_where_all_of_it_is_a_scale() -> None:
    """Of 1 to 5 the 1 was taken, as the hardest."""
    assert _difficulties(0.25, 1, None, 0) == [0.25, 1.0, None, 0.0]
    assert _difficulties(1, 2, 3, 4, 5) == [None] * 5
    assert _difficulties(1, 1) == [None, None]
    assert _difficulties("easy", "hard") == [None, None]
    assert _difficulties("0.5", "1") == [0.5, 1.0]


@pytest.mark.parametrize(
    ("setting", "values", "wanted"),
    [
        ({"easy": 1, "hard": 5}, [1, 2, 5, "3", None], [0.0, 0.25, 1.0, 0.5, None]),
        ({"easy": 1, "hard": 0}, [1.0, 0.25, 0.0], [0.0, 0.75, 1.0]),  # a solve rate
        ({"easy": 1, "hard": 5}, ["Level 5", "Level 2", "Level ?"], [1.0, 0.25, None]),
        ({"easy": 0, "hard": 10}, [5, -1, 12, 5, 5], [0.5, 0.0, 1.0, 0.5, 0.5]),
        ({"levels": ["easy", "medium", "hard"]}, ["Medium", "easy", "hard", None], [0.5, 0.0, 1.0, None]),
    ],
)
def test_a_difficulty_of_any_range_is_mapped(
    setting: dict[str, Any], values: list[Any], wanted: list[float | None]
) -> None:
    assert _difficulties(*values, difficulty={"column": "difficulty", **setting}) == wanted


@pytest.mark.parametrize(
    ("setting", "values", "message"),
    [
        (
            "difficulty",
            [1, 3],
            r"line 2: the difficulty is 3; scale it .*columns.difficulty: \{column: difficulty, easy: 1",
        ),
        (
            {"easy": 1, "hard": 5},
            [0.1, 0.2, 0.3],
            "3 of 3 values of 'difficulty' are outside of easy=1 and hard=5, for instance 0.1",
        ),
        ({"easy": 1, "hard": 5}, [[1]], "line 1: the difficulty 'difficulty' is .1.; it must be a number"),
        ({"levels": ["easy", "hard"]}, ["medium"], "the difficulty is 'medium', none of columns.difficulty.levels"),
        (
            {"easy": 0, "hard": 1},
            ["easy", "mid"],
            "no number alone; if these are words, name them .* in columns.difficulty.levels",
        ),
    ],
)
def test_a_difficulty_that_is_named_and_of_no_use_is_refused(setting: Any, values: list[Any], message: str) -> None:
    named = setting if isinstance(setting, str) else {"column": "difficulty", **setting}
    with pytest.raises(ConfigError, match=message):
        _difficulties(*values, difficulty=named)


@pytest.mark.parametrize(
    "setting",
    [{"easy": 1}, {"easy": 2, "hard": 2}, {"easy": 0, "hard": 1, "levels": ["a", "b"]}, {"levels": ["a"]}, {}],
)
def test_a_scale_has_two_ends_or_words(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"span no range|needs two words"):
        FileSource.model_validate({"path": "a", "columns": {"difficulty": {"column": "x", **setting}}})


# ---- system messages ------------------------------------------------------------------------------------------------

BRIEF = {"role": "system", "content": "Be brief."}


def test_system_message_of_a_row_stands_before_its_question_with_its_options() -> None:
    source = FileSource(path="f", columns=Columns(system="system", options="choices"))
    rows = [("line 1", {"system": "Be brief.", "question": "Q?", "choices": ["red", "blue"], "answer": 1}),
            ("line 2", {"system": "", "question": "R?", "choices": ["red", "blue"], "answer": 0})]  # fmt: skip
    first, second = problems_of_rows(source, "f", rows).problems
    assert first.question == [BRIEF, {"role": "user", "content": "Q?\nA. red\nB. blue"}]
    assert first.stem == "Q?\n"
    assert (second.question, second.answer) == ("R?\nA. red\nB. blue", "A")


def test_system_message_goes_before_a_conversation_and_has_to_agree_with_its_own() -> None:
    source = FileSource(path="f", columns=Columns(question="messages", answer=None, system="system"))
    asked = {"role": "user", "content": "Q?"}
    [without] = problems_of_rows(source, "f", [("line 1", {"system": "Be brief.", "messages": [asked]})]).problems
    [same] = problems_of_rows(source, "f", [("line 1", {"system": "Be brief.", "messages": [BRIEF, asked]})]).problems
    assert without.question == same.question == [BRIEF, asked]
    with pytest.raises(ConfigError, match=r"line 1: .*'Be brief\.', and column 'system' says 'Be long\.'"):
        problems_of_rows(source, "f", [("line 1", {"system": "Be long.", "messages": [BRIEF, asked]})])

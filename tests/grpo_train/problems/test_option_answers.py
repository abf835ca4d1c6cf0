"""Which options the answers of a column name."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.schema.problems import Columns, FileSource
from grpo_train.problems.raw_problem import SourceRows
from grpo_train.problems.sources import read_source
from reward_training.rewards.columns import ColumnsRead


@pytest.fixture(autouse=True)
def _in_workspace(workspace: Path) -> None:
    """The files are written there."""


def _read(name: str, content: str, **columns: Any) -> SourceRows:
    Path(name).write_text(content)
    return read_source(FileSource(path=name, columns=Columns(**columns)), ColumnsRead())


def _rows(*rows: dict[str, Any], **columns: Any) -> SourceRows:
    lines = [json.dumps({"question": f"{i}?"} | row) + "\n" for i, row in enumerate(rows)]
    return _read("a.jsonl", "".join(lines), **({"options": "options"} | columns))


def _letters(*rows: tuple[list[Any], Any], **columns: Any) -> list[list[str | None]]:
    read = _rows(*({"options": options, "answer": answer} for options, answer in rows), **columns)
    return [[problem.answer, *problem.other_answers] for problem in read.problems]


@pytest.mark.parametrize(
    "texts", [(2, 4, 6, 8), ("A", "B", "AB", "O"), ("1", "0", "3", "2"), ("O", "A", "B", "AB"), (0.5, 1, 2, 3)]
)
def test_an_answer_with_a_column_of_its_own_among_the_options_is_a_text(texts: tuple[Any, ...]) -> None:
    """Each gold answer was the letter or the number that the text looks like, whatever stood there."""
    names = ["right", "d1", "d2", "d3"]
    row = dict(zip(names, texts, strict=True))
    problems = _rows(*[row] * 40, options=names, answer="right").problems
    assert {problem.meta["choices"][problem.answer] for problem in problems} == {str(texts[0])}
    assert {problem.answer for problem in problems} == set("ABCD")


def test_numbers_of_a_table_are_places_where_other_rows_say_so() -> None:
    table = "question,a,b,c,d,answer\n1+1?,4,2,1,0,1\nSky?,red,green,blue,grey,2\nLegs?,3,4,5,6,0\n"
    problems = _read("a.csv", table, options=["a", "b", "c", "d"]).problems
    assert [problem.answer for problem in problems] == ["B", "C", "A"]


def test_numbers_of_a_table_are_texts_where_other_rows_say_so() -> None:
    table = "question,a,b,c,d,answer\n1+1?,4,2,1,0,2\n7+8?,13,14,15,16,15\n2+1?,3,4,5,6,3\n"
    problems = _read("a.csv", table, options=["a", "b", "c", "d"]).problems
    assert [problem.answer for problem in problems] == ["B", "C", "A"]


def test_texts_that_may_be_numbers_are_refused_until_somebody_counts() -> None:
    rows = [(["4", "2", "1", "0"], "1"), (["0", "3", "2", "1"], "3")]
    with pytest.raises(
        ConfigError, match=r"line 1: the answer 1 may be the number of an option or its text.*columns\.first_option"
    ):
        _letters(*rows)
    assert _letters(*rows, first_option=0) == [["B"], ["D"]]
    assert _letters(*rows, first_option=1) == [["A"], ["C"]]
    assert _letters((["4", "2", "1", "0"], 1)) == [["B"]]  # a number is a place
    assert _letters((["0", "1", "2", "3"], "1"), (["3", "1", "0", "2"], "1")) == [["B"], ["B"]]  # either way


def test_options_that_are_letters_are_refused_where_the_answers_may_be_either() -> None:
    """The text was taken, so that every gold answer of a column of letters was another option's."""
    letters = (["B", "A", "C", "D"], "A"), (["C", "D", "A", "B"], "D")
    with pytest.raises(ConfigError, match=r"answer A may be the letter of an option or its text.*as labels"):
        _letters(*letters)
    assert _letters(*letters, (["red", "blue"], "b")) == [["A"], ["D"], ["B"]]
    assert _letters(*letters, (["red", "blue"], "blue")) == [["B"], ["B"], ["B"]]
    assert _letters((["A", "B", "C"], "A"), (["A", "B", "C"], "C")) == [["A"], ["C"]]  # either way
    labelled = {"A": "B", "B": "A", "C": "C"}
    assert [problem.answer for problem in _rows({"options": labelled, "answer": "A"}).problems] == ["A"]


@pytest.mark.parametrize(
    ("rows", "letters"),
    [
        ([([10, 20, 30], 20), ([5, 15, 25], 25)], "BC"),
        ([(["10", "20", "30"], "20"), (["1", "2", "3"], "1")], "BA"),
        ([(["A", "B", "AB", "O"], "AB"), (["O", "A", "B", "AB"], "A")], "CB"),
        ([(["O", "A", "B", "AB"], "A"), (["red", "blue", "green", "grey"], "A")], "AA"),
        ([(["red", "blue"], "b"), (["red", "blue"], "(A)"), (["red", "blue"], "B) blue")], "BAB"),
    ],
)
def test_the_reading_that_fits_the_column_is_that_of_each_row(rows: list[Any], letters: str) -> None:
    assert _letters(*rows) == [[letter] for letter in letters]


def test_names_of_option_columns_are_labels_where_they_are_letters() -> None:
    row = {"A": "K", "B": "A", "C": "D", "D": "C", "answer": "A"}
    assert [problem.answer for problem in _rows(row, options=list("ABCD")).problems] == ["A"]


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["$3", "$5", "$7"], "$5", "B"),
        (["$x^2$", "$x^3$", "$x$"], "$x^3$", "B"),
        (["x<3", "x>3", "x=3"], "x>3", "B"),
        (["2^3", "2*3", "2/3"], "2*3", "B"),
        (["1/2", "1:2", "1 2"], "1:2", "B"),
        (["Co", "CO", "CO2"], "CO", "B"),
        (["us", "US", "c"], "us", "A"),
        (["C", "C++", "C#"], "C", "A"),
        (["(1, 2)", "[1, 2]", "{1, 2}"], "[1, 2]", "B"),
    ],
)
def test_the_exact_text_of_an_option_is_found(options: list[str], answer: str, letter: str) -> None:
    """Texts that differ in their marks alone were none of the options, or another one."""
    assert _letters((options, answer), (["red", "blue"], "blue")) == [[letter], ["B"]]


def test_a_number_of_no_option_is_left_out_where_the_others_are_counted_right() -> None:
    good = [(["red", "blue", "green"], i % 3) for i in range(6)]
    assert _letters(*good, (["red", "7", "9"], 7), (["red", "blue", "green"], 3)) == [["A"], ["B"], ["C"]] * 2
    with pytest.raises(
        ConfigError, match=r"line 3: the answer 3 is no option of 3 counted from 0; set columns.first_option: 1"
    ):
        _letters(*((options, answer + 1) for options, answer in good))


@pytest.mark.parametrize("gap", [None, "", float("nan")])
def test_a_missing_option_is_not_asked_and_the_others_keep_their_places(gap: Any) -> None:
    """The question asked `B. None`."""
    rows = [{"options": ["cow", gap, "pig", "hen"], "answer": answer} for answer in (2, 3, 0, 1)]
    read = _rows(*rows)
    assert read.problems[0].question == "0?\nA. cow\nC. pig\nD. hen"
    assert [problem.answer for problem in read.problems] == ["C", "D", "A"]
    assert read.num_unmatched == 1
    assert _letters((["cow", gap, "pig"], "C"), (["cow", gap, "pig"], "pig")) == [["C"], ["C"]]


@pytest.mark.parametrize(
    "marks",
    [["0", "0", "1", "0"], "[0, 0, 1, 0]", "['0', '0', '1', '0']", [False, False, True, False], [0.0, 0.0, 1.0, 0.0]],
)
def test_marks_may_be_texts(marks: Any) -> None:
    assert _letters((["red", "blue", "green", "grey"], marks)) == [["C"]]


def test_a_list_of_numbers_is_no_list_of_marks_where_other_rows_say_so() -> None:
    assert _letters((["x", "y"], [0, 1]), (["x", "y", "z"], [0, 2]), (["x", "y", "z"], [1])) == [
        ["A", "B"],
        ["A", "C"],
        ["B"],
    ]


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ([{"text": "apple"}, {"text": "stone"}], ["A", "B"]),
        ({"label": "B", "text": "stone"}, ["B"]),
        ([["apple"], ["stone"]], ["A", "B"]),
        ('["B"]', ["B"]),
        ([None, "stone"], ["B"]),
    ],
)
def test_the_answer_may_be_options_as_they_stand_in_the_data(answer: Any, letters: list[str]) -> None:
    """A mapping ended in a traceback."""
    assert _letters((["apple", "stone"], answer)) == [letters]


@pytest.mark.parametrize("answer", [{"x": 1}, [{"x": 1}], [[None]], True, [["mauve"]]])
def test_an_answer_of_another_form_is_left_out_and_counted(answer: Any) -> None:
    good = {"options": ["apple", "stone"], "answer": "apple"}
    read = _rows(good, good, good | {"answer": answer})
    assert (len(read.problems), read.num_unmatched + read.num_empty + read.num_unreadable) == (2, 1)


@pytest.mark.parametrize("options", [[], None, ["x"], {"A": "x", "a": "y"}, "none"])
def test_a_row_without_options_is_left_out_and_counted(options: Any) -> None:
    """One of them stopped the run."""
    good, bad = {"options": ["red", "blue"], "answer": "red"}, {"options": options, "answer": "red"}
    read = _rows(good, good, bad)
    assert (len(read.problems), read.num_unreadable) == (2, 1)
    with pytest.raises(
        ConfigError, match=r"2 of 3 rows cannot be read, for instance a\.jsonl line 2: .* (option|label)"
    ):
        _rows(good, bad, bad)

"""Rows that are no question or answer, or whose question gives the answer away, are left out and told of."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from configs.disk.rows import lines
from configs.errors import ConfigError
from configs.schema.problems import Columns, FileSource
from grpo_train.problems.questions import shown_answer
from grpo_train.problems.raw_problem import SourceRows
from grpo_train.problems.rows import problems_of_rows
from grpo_train.problems.sources import read_source

GOOD = [{"question": f"{i}?", "answer": str(i)} for i in range(5)]


def _read(*rows: dict[str, Any], **columns: Any) -> SourceRows:
    source = FileSource(path="a.jsonl", columns=Columns.model_validate(columns))
    return problems_of_rows(source, "a", [(f"a line {i}", row) for i, row in enumerate([*GOOD, *rows], start=1)])


# ---- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (float("inf"), "the answer is inf, which is no number"),
        (float("-inf"), "the answer is -inf"),
        (["5", float("inf")], "the answer is inf"),
        (Decimal("Infinity"), "the answer is Infinity"),
        ("nan", "the answer is 'nan', as a missing number is written"),
        (["4", "NaN"], "the answer is 'NaN'"),
        ("1e4001", r"the answer '1e4001' is a number .* an exponent over 1000"),
        ("9" * 4500, r"the answer '9+\.\.\. is a number of more than 4000 digits"),
        (7 * 10**4200, "is a number of more than 4000 digits"),
    ],
)
def test_an_answer_that_is_no_number_to_compare_is_left_out_with_its_reason(answer: Any, words: str) -> None:
    """`inf` was a gold answer that nothing equals, and `nan` one that equals itself."""
    rows = _read({"question": "x?", "answer": answer})
    assert (len(rows.problems), rows.num_unreadable, rows.num_empty) == (5, 1, 0)
    assert rows.examples.keys() == {"unreadable"}
    assert re.match(f"a line 6: .*{words}", rows.examples["unreadable"])


@pytest.mark.parametrize("answer", ["Infinity", r"\infty", "Nan", "banana", "1e400", "-1,250.5", "9" * 4000])
def test_an_answer_that_only_looks_so_is_kept(answer: str) -> None:
    rows = _read({"question": "x?", "answer": answer})
    assert rows.problems[-1].answer == answer
    assert rows.examples == {}


def test_an_infinite_number_of_a_table_is_left_out(workspace: Path) -> None:
    table = pa.table({"question": ["a?", "b?", "c?"], "answer": pa.array([1.5, float("inf"), 2.5], pa.float32())})
    parquet.write_table(table, "a.parquet")
    rows = read_source(FileSource(path="a.parquet"))
    assert [problem.answer for problem in rows.problems] == ["1.5", "2.5"]
    assert rows.examples == {
        "unreadable": "a.parquet row 2: the answer is inf, which is no number; write it as a text if it is meant"
    }


@pytest.mark.parametrize(
    "row",
    [
        {"question": "a" * 60},
        {"question": [{"role": "user", "content": "a" * 60}]},
        {"answer": "a" * 60},
    ],
)
def test_a_very_long_text_is_left_out(row: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_CHARACTERS", 50)
    rows = _read({"question": "x?", "answer": "1"} | row)
    assert (len(rows.problems), rows.num_unreadable) == (5, 1)
    assert "60 characters; at most 50 are read" in rows.examples["unreadable"]


def test_numbers_larger_than_any_float_are_no_difficulty_and_no_option() -> None:
    """Both ended in a traceback."""
    source = FileSource(
        path="a.jsonl", columns=Columns.model_validate({"difficulty": {"column": "d", "easy": 1, "hard": 5}})
    )
    rated = problems_of_rows(
        source,
        "a",
        [(f"a line {i}", {"question": f"{i}?", "answer": "1", "d": d}) for i, d in enumerate([1, 3, 10**400])],
    )
    assert [problem.difficulty for problem in rated.problems] == [0.0, 0.5, 1.0]
    options = [{"question": f"{i}?", "answer": 1, "o": ["a", "b"]} for i in range(5)]
    source = FileSource(path="a.jsonl", columns=Columns(options="o"))
    rows = [*options, options[0] | {"answer": 10**400}]
    found = problems_of_rows(source, "a", [(f"a line {i}", row) for i, row in enumerate(rows, start=1)])
    assert (len(found.problems), found.num_unmatched) == (5, 1)


# ---- questions ------------------------------------------------------------------------------------------------------

TRANSCRIPTS = {
    "hh": "\n\nHuman: Where?{between}\n\nAssistant:{reply}",
    "chatml": "<|im_start|>user\nWhere?<|im_end|>{between}\n<|im_start|>assistant\n{reply}<|im_end|>",
    "llama": "<|start_header_id|>user<|end_header_id|>\n\nWhere?{between}<|start_header_id|>assistant<|end_header_id|>\n\n{reply}",
    "mistral": "[INST] Where? {between}[/INST]{reply}",
    "alpaca": "### Instruction:\nWhere?{between}\n\n### Response:\n{reply}",
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript_that_ends_with_a_reply_gives_the_answer_away(name: str) -> None:
    def holds(reply: str, between: str = "") -> bool:
        return shown_answer(TRANSCRIPTS[name].format(reply=reply, between=between), ["Oslo"]) == "gold"

    assert holds(" In Oslo.")
    assert not holds("")
    assert not holds(" Let's think step by step.")
    assert not holds("", between=TRANSCRIPTS[name].format(reply=" In Oslo.", between=""))


@pytest.mark.parametrize(
    ("question", "gold", "leaks"),
    [
        ("3 pears and 4?\nSo 3 + 4 = 7.\n#### 7", "7", True),
        ("How many?\nAnswer: 7", "7", True),
        ("How many?\nSolution: **7**.", "7", True),
        ("How many? The answer is $7$.", "7", True),
        (r"How many? It is \boxed{7}", "7", True),
        ("How many?\nAnswer:", "7", False),
        ("How many? Write #### and the number.", "7", False),
        ("Say 7", "7", False),
        ("Which letter? Write Answer: X", "X", False),
        ("Is it 7? The answer is 7 or 8.", "8", False),
    ],
)
def test_a_question_that_ends_with_its_gold_answer_is_told_from_one_that_asks_for_it(
    question: str, gold: str, leaks: bool
) -> None:
    assert (shown_answer(question, [gold]) == "gold") == leaks


@pytest.mark.parametrize(
    ("question", "gold"),
    [
        ("Below is a task.\n\n### Instruction:\n2 + 3?\n\n### Response: Let's think step by step.", "5"),
        (
            "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\nLet me solve this step by step.\n<think>",
            "5",
        ),
        ("User: hi\n\nAssistant: hello\n\nSummarize the dialog above.", "A greeting"),
        ("Who speaks last?\n\nUser: hi\n\nAssistant: hello", "Assistant"),
        ("[INST] How many? [/INST] So 10 / 2 = 15.", "5"),
    ],
)
def test_words_of_an_assistant_without_the_gold_answer_are_no_leak(question: str, gold: str) -> None:
    """Prompts that begin the answer, and tasks about a dialogue, were refused."""
    rows = [{"question": f"{i}. {question}", "answer": gold} for i in range(9)]
    assert (len(_read(*rows).problems), _read(*rows).num_leaking) == (14, 0)


def test_questions_that_leak_are_counted_and_most_of_them_refused() -> None:
    leaks = [{"question": f"{i} + 1?\n#### {i + 1}", "answer": str(i + 1)} for i in range(6)]
    few = _read(*leaks[:5])
    assert (len(few.problems), few.num_leaking, few.examples) == (10, 5, {"leaking": "a line 6"})
    with pytest.raises(
        ConfigError, match=r"ends with its own answer in 6 of 11 rows, for instance a line 6; .* columns\.question"
    ):
        _read(*leaks)
    assert _read(*leaks, question="{question}\n\nYour answer:").num_leaking == 0


def test_answers_that_are_to_be_verified_are_kept() -> None:
    """Of such a set exactly the rows whose shown answer is the gold one were left out."""
    rows = [{"question": f"Is {i} even?\nAnswer: yes", "answer": "no" if i % 4 == 1 else "yes"} for i in range(40)]
    read = _read(*rows)
    assert (len(read.problems), read.num_leaking) == (45, 30)


def test_replies_in_prompts_without_gold_answers_are_counted() -> None:
    rows = [{"question": f"Human: {i}?\n\nAssistant: No."} for i in range(9)]
    read = _read(*rows, {"question": "Fill in.\nAnswer: X"}, answer=None)
    assert (len(read.problems), read.num_leaking) == (15, 9)


def test_calls_of_tools_after_the_question_are_not_read() -> None:
    """Such a row was unreadable."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}
    asked = [{"role": "user", "content": "2 + 3?"}]
    said = [call, {"role": "tool", "content": "5"}, {"role": "assistant", "content": "It is 5."}]
    found = [_read({"question": asked + after, "answer": "5"}).problems[-1] for after in ([call], said)]
    assert [(problem.question, problem.is_cut) for problem in found] == [(asked, False), (asked, True)]


def test_a_number_is_asked_as_its_text() -> None:
    assert [problem.question for problem in _read({"question": 12, "answer": "3"}).problems][-1] == "12"


def test_a_template_with_a_null_is_counted() -> None:
    rows = [{"question": "Name a star.", "input": given, "answer": "Sol"} for given in ("", None, "Near.")]
    source = FileSource(path="a.jsonl", columns=Columns(question="{question}\n\n{input}"))
    found = problems_of_rows(source, "a", [(f"a line {i}", row) for i, row in enumerate(rows)])
    assert [problem.is_unfilled for problem in found.problems] == [False, True, False]


def test_an_unknown_role_is_told_with_the_known_ones() -> None:
    rows = _read({"question": [{"from": "critic", "value": "a"}], "answer": "1"})
    assert "the role 'critic'; use one of system" in rows.examples["unreadable"]

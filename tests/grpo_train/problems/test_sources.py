import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from configs.errors import ConfigError
from configs.schema.problems import Source
from grpo_train.problems.raw_problem import SourceRows
from grpo_train.problems.sources import read_source
from reward_training.rewards.columns import ColumnsRead


def _read(**source: Any) -> SourceRows:
    return read_source(TypeAdapter[Any](Source).validate_python(source))


# ---- files ----------------------------------------------------------------------------------------------------------


def test_columns_are_mapped_and_only_those_that_something_reads_are_kept(workspace: Path) -> None:
    """Every column went into every problem: 259 MB of memory for 1,500 rows with long solutions."""
    rows = [{"q": "1+1?", "a": 2, "difficulty": 0.5, "unit": "cm", "long": "x" * 60_000, "info": {"level": 3}}]
    rows += [{"q": [{"role": "user", "content": "x"}], "a": "y", "difficulty": None, "unit": "m", "info": {"level": 1}}]
    Path("a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    columns = {"question": "q", "answer": "a"}
    first, second = _read(kind="file", path="a.jsonl", columns=columns).problems
    assert (first.question, first.answer, first.difficulty, first.meta) == ("1+1?", "2", 0.5, {})
    assert first.key == hashlib.sha256(b'["1+1?", "2"]').hexdigest()
    assert (second.question, second.text, second.difficulty) == ([{"role": "user", "content": "x"}], "x", None)
    kept = _read(kind="jsonl", path="a.jsonl", columns=columns | {"keep": ["unit", "info.level"]}).problems
    assert [problem.meta for problem in kept] == [{"unit": "cm", "info.level": 3}, {"unit": "m", "info.level": 1}]
    source = TypeAdapter[Any](Source).validate_python({"kind": "file", "path": "a.jsonl", "columns": columns})
    read = read_source(source, ColumnsRead(names=frozenset({"unit", "a", "no such column"}))).problems
    assert [problem.meta for problem in read] == [{"unit": "cm"}, {"unit": "m"}]
    with pytest.raises(ConfigError, match=r"a\.jsonl line 1: no column 'units'; set columns\.keep to one of 'a', "):
        _read(kind="file", path="a.jsonl", columns=columns | {"keep": ["units"]})


def test_difficulty_comes_from_the_column_that_is_named(workspace: Path) -> None:
    Path("a.jsonl").write_text('{"question": "1?", "answer": "1", "level": 0.75, "difficulty": 0.5}\n')
    columns = {"difficulty": "level"}
    assert _read(kind="jsonl", path="a.jsonl").problems[0].difficulty == 0.5
    assert _read(kind="jsonl", path="a.jsonl", columns=columns).problems[0].difficulty == 0.75


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"level": 3}, "the difficulty is 3; scale it to a number from 0"),
        ({"level": "hard"}, "the difficulty is 'hard'; scale it"),
        ({"grade": 0.5}, r"no column 'level'; set columns\.difficulty to one of 'answer', 'grade', 'question'"),
    ],
)
def test_difficulty_that_is_named_but_of_no_use_is_refused(row: dict[str, Any], message: str, workspace: Path) -> None:
    Path("a.jsonl").write_text(json.dumps({"question": "1?", "answer": "1"} | row) + "\n")
    with pytest.raises(ConfigError, match=message):
        _read(kind="jsonl", path="a.jsonl", columns={"difficulty": "level"})


def test_answer_pattern_takes_the_answer_out_and_rows_without_it_are_counted(workspace: Path) -> None:
    answers = ["so 3 #### 1,003", "#### 4", "no mark"]
    Path("a.jsonl").write_text("".join(json.dumps({"question": f"{len(a)}?", "answer": a}) + "\n" for a in answers))
    rows = _read(kind="jsonl", path="a.jsonl", answer_pattern="#### (.+)")
    assert [problem.answer for problem in rows.problems] == ["1,003", "4"]
    assert rows.num_unmatched == 1


GOOD = '{"question": "1?", "answer": "1"}\n'


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "a.jsonl is empty; it needs a row a problem"),
        (b"\n\n", {}, "a.jsonl is empty"),
        (GOOD.encode() + b'{"question": "2?", "answ\n', {}, r"a\.jsonl line 2: broken JSON .* mend the line"),
        (b"\xff\x00\x01", {}, r"a\.jsonl line 1 is not text in UTF-8 .*; save the file as UTF-8"),
        (b"[1, 2]\n", {}, r"line 1: \[1, 2\] is no JSON object; write one"),
        (
            b'{"prompt": "1?", "answer": "1"}\n',
            {},
            r"no column 'question'; set columns\.question to one of 'answer', 'prompt'",
        ),
        (
            b'{"question": "1?", "gold": "1"}\n',
            {},
            r"no column 'answer'; set columns\.answer to one of 'gold', 'question'",
        ),
        (b'{"question": "", "answer": "1"}\n', {}, "the question or the answer is empty in 1 of 1 rows"),
        (
            b'{"question": {"stem": "1?"}, "answer": "1"}\n',
            {},
            r"name what is in it in columns\.question: question\.stem",
        ),
        (b'{"question": [{"role": "user"}], "answer": "1"}\n', {}, "chat messages with role and content"),
        (
            b'{"question": "1?", "answer": null}\n',
            {},
            r"empty in 1 of 1 rows, for instance a\.jsonl line 1; .* set columns\.answer to null for data without gold",
        ),
        (b'{"question": "1?", "answer": " "}\n', {}, "the question or the answer is empty in 1 of 1 rows"),
        (
            b'{"question": "1?", "answer": {"value": "1"}}\n',
            {},
            r"the answer is .*; it must be a text or a number, or a list of these; name what is in it in columns.answer: answer.value",
        ),
        (GOOD.encode(), {"answer_pattern": "#### (.+)"}, "is missing in 1 of 1 answers; mend the pattern"),
        (GOOD.encode(), {"answer_pattern": "(("}, "is no regular expression"),
        (GOOD.encode(), {"answer_pattern": "####"}, r"has 0 groups; put one \(\.\.\.\) around the answer"),
    ],
)
def test_faulty_file_names_the_place_and_the_remedy(
    content: bytes, options: dict[str, Any], message: str, workspace: Path
) -> None:
    Path("a.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        _read(kind="jsonl", path="a.jsonl", **options)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.jsonl", "does not exist; set"),
        ("data/train", "does not exist; set"),
        (".", "doesn't contain any data files"),
    ],
)
def test_missing_file_names_the_remedy(path: str, message: str, workspace: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _read(kind="jsonl", path=path)


# ---- data sets ------------------------------------------------------------------------------------------------------


def test_local_data_set_is_read_with_its_split_and_columns(workspace: Path) -> None:
    Path("data").mkdir()
    for split, first in (("train", 0), ("test", 10)):
        rows = [{"q": f"{i}?", "a": f"#### {i}"} for i in range(first, first + 3)]
        Path(f"data/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = _read(
        kind="dataset",
        path="data",
        dataset_split="test[:2]",
        columns={"question": "q", "answer": "a"},
        answer_pattern="#### (.+)",
        split="test",
    )
    assert [(p.question, p.answer, p.split, p.is_text) for p in rows.problems] == [
        ("10?", "10", "test", True),
        ("11?", "11", "test", True),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "no/such-data"}, "could not be loaded: .*; check path, name, dataset_split and the network"),
        ({"path": "./none"}, "./none does not exist; set problems.sources.path"),
        ({"path": "data", "dataset_split": "valid"}, "data has no split 'valid'; set dataset_split to one of 'train'"),
        ({"path": "data", "name": "x"}, "could not be loaded: .*; check path, name"),
    ],
)
def test_data_set_that_cannot_be_loaded_names_the_remedy(source: dict[str, Any], message: str, workspace: Path) -> None:
    Path("data").mkdir()
    Path("data/train.jsonl").write_text(GOOD)
    with pytest.raises(ConfigError, match=message):
        _read(kind="dataset", **source)


def test_a_source_has_the_name_that_it_is_given(workspace: Path) -> None:
    (workspace / "a.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    assert [p.source for p in _read(kind="jsonl", path="a.jsonl").problems] == ["a.jsonl"]
    assert [p.source for p in _read(kind="jsonl", path="a.jsonl", source="math").problems] == ["math"]
    [family] = _read(kind="reasoning_gym", family="chain_sum", size=1, source="sums").problems
    assert (family.source, family.meta["family"]) == ("sums", "chain_sum")


def test_a_column_names_the_source_of_each_row(workspace: Path) -> None:
    rows = [
        {"question": f"{i}?", "answer": "1", "data_source": name} for i, name in enumerate(["openai/gsm8k", "code", ""])
    ]
    (workspace / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    found = _read(kind="jsonl", path="a.jsonl", columns={"source": "data_source"})
    assert [problem.source for problem in found.problems] == ["openai/gsm8k", "code"]
    (workspace / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=r"b\.jsonl.*line 3: the source is ''; it must be a name"):
        _read(kind="jsonl", path="b.jsonl", columns={"source": "data_source"})

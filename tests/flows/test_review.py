"""`regroup review`: items out to a file, answers in from it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from configs.records import ReviewItem
from flows.cli import main
from tasks.people.review_desk import ReviewDesk


def item(name: str, run: str = "r", first: str = "one", second: str = "two") -> ReviewItem:
    return ReviewItem(
        id=name, kind="pair", objective="quality", run=run, round=0, problem_key=name, first=first, second=second,
        prompt=[{"role": "user", "content": f"question {name}"}], sources=("A", "B"), split="train",
    )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReviewDesk:
    monkeypatch.chdir(tmp_path)
    desk = ReviewDesk(tmp_path)
    desk.ask([item("a"), item("b", first='a "quoted"\nline, with\tall', second="= 3"), item("c", run="other")])
    return desk


def answers(desk: ReviewDesk) -> dict[str, list[tuple[str, str]]]:
    found = desk.answers([asked.item for asked in desk.asked()])
    return {name: [(verdict.choice, verdict.person) for verdict in verdicts] for name, verdicts in found.items()}


def fill_csv(path: Path, choices: dict[str, str]) -> None:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"choice": choices.get(row["item"], "")} for row in rows)


def test_a_table_goes_out_is_filled_in_and_comes_back(desk: ReviewDesk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "export", "items.csv"]) == 0
    with Path("items.csv").open(newline="") as file:
        rows = {row["item"]: row for row in csv.DictReader(file)}
    assert rows["b"]["first"] == 'a "quoted"\nline, with\tall'
    assert rows["a"]["question"] == "question a"
    fill_csv(Path("items.csv"), {"a": "First", "b": " equal "})
    assert main(["review", "import", "items.csv", "--person", "p"]) == 0
    assert "2 answers taken in, 0 were known" in capsys.readouterr().out
    assert answers(desk) == {"a": [("first", "p")], "b": [("equal", "p")]}
    assert main(["review", "import", "items.csv", "--person", "p"]) == 0
    assert "0 answers taken in, 2 were known" in capsys.readouterr().out


def test_only_what_nobody_answered_goes_out_and_only_of_the_run_that_was_named(desk: ReviewDesk) -> None:
    main(["review", "export", "one.jsonl", "--run", "r"])
    rows = [json.loads(line) for line in Path("one.jsonl").read_text().splitlines()]
    assert [row["item"] for row in rows] == ["a", "b"]
    Path("one.jsonl").write_text(json.dumps(rows[0] | {"choice": "second", "person": "q"}) + "\n")
    assert main(["review", "import", "one.jsonl"]) == 0
    assert answers(desk) == {"a": [("second", "q")]}
    main(["review", "export", "two.jsonl"])
    assert [json.loads(line)["item"] for line in Path("two.jsonl").read_text().splitlines()] == ["b", "c"]


def test_a_changed_mind_is_a_further_verdict(desk: ReviewDesk) -> None:
    for choice in ("first", "second", "first"):
        Path("one.jsonl").write_text(json.dumps({"item": "a", "choice": choice, "person": "q"}) + "\n")
        assert main(["review", "import", "one.jsonl"]) == 0
    assert answers(desk)["a"] == [("first", "q"), ("second", "q"), ("first", "q")]


def test_status_counts_what_is_answered(desk: ReviewDesk, capsys: pytest.CaptureFixture[str]) -> None:
    Path("one.jsonl").write_text('{"item": "a", "choice": "first"}\n')
    main(["review", "import", "one.jsonl"])
    capsys.readouterr()
    assert main(["review", "status"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "quality" in line]
    assert [line[:7] for line in lines] == [
        ["r", "0", "reward", "model", "quality", "2", "1"],
        ["other", "0", "reward", "model", "quality", "1", "0"],
    ]


@pytest.mark.parametrize(
    ("name", "text", "remedy"),
    [
        ("a.csv", None, "does not exist; `regroup review export"),
        ("a.txt", "x", "must end in .csv or .jsonl"),
        (
            "a.jsonl",
            '{"item": "a", "choice": "first"}\n{"item": "b", "choice": "left"}\n',
            "line 2: choice is 'left'; write first",
        ),
        ("a.jsonl", '{"item": "z", "choice": "first"}\n', "item 'z' was not asked in this workspace"),
        ("a.jsonl", '{"item": "a", "cho\n', "line 1: broken JSON"),
        ("a.jsonl", "[1]\n", "line 1: [1] is no JSON object"),
        ("a.csv", "item,choice\na,\n", "has no row with a choice; fill in first, second, equal"),
        ("a.csv", b"item,choice\na,\xff\n", "is not UTF-8 text"),
    ],
)
def test_a_faulty_file_adds_nothing_and_says_what_to_do(
    name: str, text: str | bytes | None, remedy: str, desk: ReviewDesk, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["review", "import", name]) == 2
    assert remedy in capsys.readouterr().err
    assert answers(desk) == {}


def test_an_export_never_writes_over_a_file(desk: ReviewDesk, capsys: pytest.CaptureFixture[str]) -> None:
    Path("items.csv").write_text("answers")
    assert main(["review", "export", "items.csv"]) == 2
    assert "name a file that does not exist" in capsys.readouterr().err
    assert Path("items.csv").read_text() == "answers"

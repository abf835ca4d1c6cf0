"""Lines and texts over the limits are refused by name, whatever the format."""

from pathlib import Path

import pytest

from configs.disk.rows import lines
from configs.disk.rows.lines import within_limit
from configs.disk.rows.reading import read_rows
from configs.errors import ConfigError, UnreadableRow

LONG = {
    "a.jsonl": '{"q": "a"}\n{"q": "' + "b" * 50 + '"}\n',
    "a.csv": "q,a\n1,2\n" + "b" * 50 + ",3\n",
    "a.tsv": "q\ta\n1\t2\n" + "b" * 50 + "\t3\n",
    "a.txt": "a\n" + "b" * 50 + "\n",
}


@pytest.mark.parametrize("name", LONG)
def test_a_line_over_the_limit_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_text(LONG[name])
    assert len(list(read_rows(str(tmp_path / name), None, "train", None, "field"))) == 2
    monkeypatch.setattr(lines, "MAX_LINE", 40)
    number = LONG[name].count("\n")
    with pytest.raises(ConfigError, match=rf"{name} line {number}: a line of more than 40 characters"):
        list(read_rows(str(tmp_path / name), None, "train", None, "field"))


def test_an_object_of_an_array_over_the_limit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100_000)
    (tmp_path / "a.json").write_text('[{"q": "' + "b" * 300_000 + '"}]')
    with pytest.raises(ConfigError, match=r"a\.json line 1: an object of more than 100,000 characters"):
        list(read_rows(str(tmp_path / "a.json"), None, "train", None, "field"))


def test_a_text_over_the_limit_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_CHARACTERS", 5)
    assert within_limit("12345", "line 1: the answer") == "12345"
    with pytest.raises(UnreadableRow, match="line 1: the answer has 6 characters; at most 5 are read"):
        within_limit("123456", "line 1: the answer")

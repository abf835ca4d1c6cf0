"""Every format and every kind of place gives the same rows."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from configs.disk.rows.columns import lookup
from configs.disk.rows.reading import read_rows
from configs.errors import ConfigError

ROWS = [{"question": "Wie groß? \u2028\n½", "answer": "007"}, {"question": 'a "b", c', "answer": "null"}]


def read(
    path: str | list[str], split: str = "train", name: str | None = None, revision: str | None = None
) -> list[Any]:
    return [row for _, row in read_rows(path, name, split, revision, "field")]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table(rows: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


def _arrow(rows: list[dict[str, Any]], opened: Callable[..., Any]) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.Table.from_pylist(rows)
    with opened(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _doubled(form: str) -> bytes:
    """A table of two columns of one name."""
    sink, table = pa.BufferOutputStream(), pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    if form == "parquet":
        parquet.write_table(table, sink)
    else:
        with (pa.ipc.new_file if form == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table)
    return bytes(sink.getvalue())


FORMATS: dict[str, bytes] = {
    ".jsonl": _lines(ROWS),
    ".json": json.dumps(ROWS).encode(),
    ".indented.json": json.dumps(ROWS, indent=2).encode(),
    ".in_object.json": json.dumps({"version": "1", "data": ROWS}).encode(),
    ".lines.json": _lines(ROWS),
    ".columns.json": json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}).encode(),
    ".pandas.json": json.dumps({n: {str(i): r[n] for i, r in enumerate(ROWS)} for n in ROWS[0]}).encode(),
    ".index.json": json.dumps({"q1": ROWS[0], "q2": ROWS[1]}).encode(),
    ".csv": _table(ROWS),
    ".semicolons.csv": _table(ROWS, ";"),
    ".tsv": _table(ROWS, "\t"),
    ".parquet": _parquet(ROWS),
    ".arrow": _arrow(ROWS, pa.ipc.new_stream),
    ".feather": _arrow(ROWS, pa.ipc.new_file),
}


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(data)
    return bytes(sink.getvalue())


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": _zstd,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_its_rows_packed_or_not(suffix: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}{packed}"
    path.write_bytes(PACKERS[packed](FORMATS[suffix]))
    assert read(str(path)) == ROWS


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_name_without_a_suffix_leaves_it_to_the_content(suffix: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(PACKERS[packed](FORMATS[suffix]))
    assert read(str(path)) == ROWS


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".indented.json", ".csv", ".tsv"])
def test_a_byte_order_mark_is_no_part_of_the_text(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    for data in (codecs.BOM_UTF8 + FORMATS[suffix], FORMATS[suffix].decode().encode("utf-16")):
        path.write_bytes(data)
        assert read(str(path)) == ROWS


def test_numbers_and_texts_of_one_column_stay_what_they_are(tmp_path: Path) -> None:
    """`datasets` read each of these texts as JSON: 7, None, a list."""
    answers = ["007", "null", "[1, 2]", 2.5, "two", 12, True, None]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(_lines([{"answer": answer} for answer in answers]))
    for path in (tmp_path / "data", tmp_path / "data" / "train.jsonl"):
        assert [row["answer"] for row in read(str(path))] == answers
    (tmp_path / "data" / "train.jsonl").rename(tmp_path / "a.jsonl")
    (tmp_path / "data" / "train.csv").write_text("answer,n\n007,1\nnull,2\n1e3,3\n")
    assert [row["answer"] for row in read(str(tmp_path / "data"))] == ["007", "null", "1e3"]


def test_texts_of_a_mixed_column_that_datasets_saved_are_given_back(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines([{"answer": answer} for answer in ["007", "null", 2.5, "two"]]))
    loaded = datasets.load_dataset("json", data_files=str(tmp_path / "a.jsonl"), split="train")
    loaded.save_to_disk(tmp_path / "saved")
    loaded.to_parquet(tmp_path / "a.parquet")
    for path in ("saved", "a.parquet"):
        assert [row["answer"] for row in read(str(tmp_path / path))] == ["007", "null", "2.5", "two"]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet", ".feather"])
def test_nan_is_nothing_wherever_it_stands(suffix: str, tmp_path: Path) -> None:
    """pandas writes NaN for a cell without anything; it stood in the prompt as `nan`."""
    nan = float("nan")
    rows = [{"a": nan, "b": [1.5, nan], "c": {"d": nan, "e": [{"f": nan}]}}]
    made: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
        ".jsonl": _lines,
        ".json": lambda rows: json.dumps(rows).encode(),
        ".parquet": _parquet,
        ".feather": lambda rows: _arrow(rows, pa.ipc.new_file),
    }
    (tmp_path / f"a{suffix}").write_bytes(made[suffix](rows))
    assert read(str(tmp_path / f"a{suffix}")) == [{"a": None, "b": [1.5, None], "c": {"d": None, "e": [{"f": None}]}}]


@pytest.mark.parametrize(("kind", "number"), [(pa.float32(), 0.1), (pa.float32(), -2.675e-7), (pa.float16(), 0.3)])
def test_a_number_of_few_bits_has_the_digits_that_it_was_written_with(
    kind: pa.DataType, number: float, tmp_path: Path
) -> None:
    """A gold 0.1 of 32 bits was read as 0.10000000149011612, which no answer equals."""
    columns = {
        "a": pa.array([number, None], kind),
        "in_list": pa.array([[number, None], None], pa.list_(kind)),
        "in_struct": pa.array([{"of": [{"n": number}]}, None], pa.struct([("of", pa.list_(pa.struct([("n", kind)])))])),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = read(str(tmp_path / "a.parquet"))
    assert first == {"a": number, "in_list": [number, None], "in_struct": {"of": [{"n": number}]}}
    assert second == dict.fromkeys(columns)


def test_half_a_character_becomes_the_replacement_character(tmp_path: Path) -> None:
    for name, text in (
        ("a.jsonl", '{"q": "a \\ud83d b", "k\\uDC00": ["\\ude00\\ud83d", "\\ud83d\\ude00"]}\n'),
        ("a.json", '[{"q": "a \\ud83d b", "k\\uDC00": ["\\ude00\\ud83d", "\\ud83d\\ude00"]}]'),
    ):
        (tmp_path / name).write_text(text)
        assert read(str(tmp_path / name)) == [{"q": "a \ufffd b", "k\ufffd": ["\ufffd\ufffd", "\U0001f600"]}]


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", '{"q": "a\\u0000b"}\n'), ("a.csv", "q\na\0b\n")])
def test_nul_becomes_the_replacement_character(name: str, content: str, tmp_path: Path) -> None:
    """PostgreSQL takes no such text, so that a run whose records are there ended when it was told of one."""
    (tmp_path / name).write_text(content)
    assert read(str(tmp_path / name)) == [{"q": "a\ufffdb"}]


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ('{"a": ', "}")])
@pytest.mark.parametrize(
    ("depth", "words"), [(120, "more than 100 lists"), (600, "more than 100"), (20_000, "too many br")]
)
def test_a_value_in_many_brackets_is_refused_by_line(
    opened: str, closed: str, depth: int, words: str, tmp_path: Path
) -> None:
    """A traceback of a thousand lines."""
    value = f"{opened * depth}1{closed * depth}"
    for name, content in (
        ("a.jsonl", f'{{"q": "a"}}\n{{"q": "b", "x": {value}}}\n'),
        ("b.json", f'[{{"q": "a"}},\n{{"q": "b", "x": {value}}}]'),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=rf"{name} (line|row) 2: .*{words}"):
            read(str(tmp_path / name))
    assert len(lookup({"x": value}, "x")) == len(value)  # a text that holds it stays a text


def test_an_integer_that_python_does_not_read_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "a"}\n{"q": 1' + "0" * 6000 + "}\n")
    with pytest.raises(ConfigError, match=r"a\.jsonl line 2: .*has 6001 digits\); mend the line"):
        read(str(tmp_path / "a.jsonl"))


# ---- which files ----------------------------------------------------------------------------------------------------


ONE_OBJECT: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "a null in a column": ({"q": ["a", "b"], "a": ["1", None]}, [{"q": "a", "a": "1"}, {"q": "b", "a": None}]),
    "a column of lists": ({"q": ["a"], "o": [["x", "y"]]}, [{"q": "a", "o": ["x", "y"]}]),
    "a column of mappings": (
        {"q": ["a", "b"], "m": [{"g": 1}, {"g": 2}]},
        [{"q": q, "m": {"g": g}} for q, g in (("a", 1), ("b", 2))],
    ),
    "a column of conversations": (
        {"m": [[{"role": "user", "content": "a"}], []], "a": [1, 2]},
        [{"m": [{"role": "user", "content": "a"}], "a": 1}, {"m": [], "a": 2}],
    ),
    "columns and data": (
        {"columns": ["q", "a"], "index": [0, 1], "data": [["x", 1], ["y", None]]},
        [{"q": "x", "a": 1}, {"q": "y", "a": None}],
    ),
    "rows beside a list": ({"data": [{"q": "a"}, {"q": "b"}], "ids": [1, 2]}, [{"q": "a"}, {"q": "b"}]),
    "an optional key": (
        {"x": {"q": "a", "a": 1}, "y": {"a": 2, "q": "b", "hint": "c"}},
        [{"q": "a", "a": 1}, {"a": 2, "q": "b", "hint": "c"}],
    ),
    "a row of conversations": (
        {"prompt": [{"role": "user", "content": "a"}], "options": ["x"]},
        [{"prompt": [{"role": "user", "content": "a"}], "options": ["x"]}],
    ),
    "a row of mappings": ({"a": {"q": 1}, "b": {"r": 2}}, [{"a": {"q": 1}, "b": {"r": 2}}]),
}


@pytest.mark.parametrize("name", ONE_OBJECT)
def test_an_object_is_read_as_the_rows_that_it_holds(name: str, tmp_path: Path) -> None:
    """A file of columns with a null in one, or records of which one has a key more, made one row of all."""
    value, rows = ONE_OBJECT[name]
    for indent in (None, 2):
        (tmp_path / "a.json").write_text(json.dumps(value, indent=indent))
        assert read(str(tmp_path / "a.json")) == rows


@pytest.mark.parametrize("beside", [{}, {"version": "1", "validation": []}])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_may_hold_several_splits(indent: int | None, beside: dict[str, Any], tmp_path: Path) -> None:
    """The lists of rows of two splits made one row."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps(beside | {"train": [{"n": n} for n in range(4)], "test": [{"n": 9}]}, indent=indent))
    assert read(str(path)) == [{"n": n} for n in range(4)]
    assert read(str(path), "train[1:3]+test") == [{"n": 1}, {"n": 2}, {"n": 9}]
    with pytest.raises(ConfigError, match="has no split 'dev'; set dataset_split to one of 'train', 'test'"):
        read(str(path), "dev")
    with pytest.raises(ConfigError, match="holds the splits train, test; name it alone"):
        read([str(path), str(path)])


def test_several_files_and_patterns_are_read_in_order(workspace: Path) -> None:
    for name in "bca":
        Path(f"{name}.jsonl").write_bytes(_lines([{"q": name}]))
    assert [row["q"] for row in read("*.jsonl")] == ["a", "b", "c"]
    assert [row["q"] for row in read(["c.jsonl", "[ab].jsonl"])] == ["c", "a", "b"]


def test_an_array_is_decoded_item_by_item_whatever_the_size_of_an_item(tmp_path: Path) -> None:
    rows = [{"q": "x" * size, "n": [size, {"a": "]}"}]} for size in (1, 65_530, 300_000, 5)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert read(str(tmp_path / "a.json")) == rows


def test_plain_lines_are_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Name a colour, any.\n\n  Sing!\n")
    assert read(str(tmp_path / "a.txt")) == [{"text": "Name a colour, any."}, {"text": "Sing!"}]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('q\ta\n"Stop, he said\t1\n5"\t2\nx\t3\n', [('"Stop, he said', "1"), ('5"', "2"), ("x", "3")]),
        ('q\ta\r\n"Yes" or "no"?\t1\r\n\r\nx\t"2\r\n', [('"Yes" or "no"?', "1"), ("x", '"2')]),
        ('q\ta\n"a ""b""\tc"\t1\n"x"\t2\n', [('a "b"\tc', "1"), ("x", "2")]),
        ('q\ta\n"one\ntwo"\t1\nx\t2\n', [("one\ntwo", "1"), ("x", "2")]),
    ],
)
def test_quotation_marks_in_a_table_with_tabs_are_what_the_whole_table_says(
    text: str, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    """A cell that began with a mark swallowed the rows up to the next one."""
    (tmp_path / "a.tsv").write_bytes(text.encode())
    assert [(row["q"], row["a"]) for row in read(str(tmp_path / "a.tsv"))] == rows


def test_parts_of_a_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_bytes(_lines([{"n": n} for n in range(10)]))
    assert [row["n"] for row in read(str(path), "train[:2]")] == [0, 1]
    assert [row["n"] for row in read(str(path), "test[80%:]")] == [8, 9]


# ---- folders --------------------------------------------------------------------------------------------------------


def test_a_saved_dataset_and_a_saved_dict_are_read_with_their_splits(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    rows.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"validation": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "dict")
    assert read(str(tmp_path / "one")) == ROWS
    assert read(str(tmp_path / "dict"), "test") == ROWS[1:]
    assert read(str(tmp_path / "dict"), "validation[:1]+test") == ROWS
    with pytest.raises(ConfigError, match="has no split 'train'; set dataset_split to one of 'validation', 'test'"):
        read(str(tmp_path / "dict"))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".jsonl.gz", ".jsonl.zst"])
def test_a_folder_is_read_by_its_files(suffix: str, tmp_path: Path) -> None:
    kind, packed = Path(f"a{suffix}").suffixes[0], "".join(Path(f"a{suffix}").suffixes[1:])
    for split in ("train", "test"):
        (tmp_path / f"{split}{suffix}").write_bytes(PACKERS[packed](FORMATS[kind]))
    assert read(str(tmp_path), "train[:1]+test") == [ROWS[0], *ROWS]
    assert read(str(tmp_path), "all") == [*ROWS, *ROWS]


def test_a_folder_may_say_in_its_readme_which_files_are_which(tmp_path: Path) -> None:
    (tmp_path / "hard").mkdir()
    (tmp_path / "hard" / "a.jsonl").write_bytes(_lines(ROWS))
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: hard\n  data_files:\n  - split: dev\n    path: hard/*.jsonl\n---\n"
    )
    assert read(str(tmp_path), "dev", name="hard") == ROWS


# ---- refusals -------------------------------------------------------------------------------------------------------


def _no_hub(*_: Any, **__: Any) -> Any:
    raise AssertionError("a hub was asked")


@pytest.mark.parametrize(
    "path", ["a.jsonl", "data/none.parquet", "./none", "a/b/c", "*.jsonl", "x.csv.gz", "~/none-here"]
)
def test_what_looks_like_a_path_never_asks_a_hub(path: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It took 23 seconds to learn that a file was not there."""
    monkeypatch.setattr(datasets, "load_dataset_builder", _no_hub)
    with pytest.raises(ConfigError, match=r"(does not exist|matches no file); set field, relative to"):
        read(path)


def test_what_a_hub_says_is_in_the_message(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        try:
            raise RuntimeError("403 Forbidden: accept the terms")
        except RuntimeError as first:
            raise datasets.exceptions.DatasetNotFoundError("is gated") from first

    monkeypatch.setattr(datasets, "load_dataset_builder", fails)
    with pytest.raises(
        ConfigError, match="is gated, because of RuntimeError: 403 Forbidden: accept the terms; check path"
    ):
        read("owner/name")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl line 2: broken JSON .* mend the line"),
        ("a.json", b'[{"a": 1},\n {"a": oh}]', "a.json line 2: broken JSON .Expecting value at column 8"),
        ("a.json", b'[{"a": 1}', "a.json line 1: broken JSON"),
        ("a.json", b'{"a":\n 1,\n "b" 2}', "a.json line 3: broken JSON"),
        ("a.json", b"[{}, 5]", "a.json row 2: 5 is no JSON object"),
        ("a.jsonl", b"[1, 2]\n", r"a.jsonl line 1: \[1, 2\] is no JSON object; write one"),
        ("a.jsonl", b'{"a": "\xe4"}\n{"b": "\xff"}', "a.jsonl line 1 is not text in UTF-8"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "a.csv line 3: 3 cells under a header of 2"),
        ("a.csv", b'a,b\n1,"2\n1,2\n', "broken CSV .* mend its quotation marks"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": 1, "b": 2, "a": 3}\n',
            "line 2: broken JSON .the key 'a' stands twice in an object",
        ),
        ("a.json", b'[{"a": {"c": 1, "c": 1}}]', "line 1: broken JSON .the key 'c' stands twice"),
        ("a.json", b'{"a": 1, "a": 2}', "line 1: broken JSON .the key 'a' stands twice"),
        ("a.parquet", _doubled("parquet"), r"a.parquet: the columns \['a'\] stand more than once; rename them"),
        ("a.arrow", _doubled("stream"), r"a.arrow: the columns \['a'\] stand more than once"),
        ("a.feather", _doubled("file"), r"a.feather: the columns \['a'\] stand more than once"),
        ("a.csv", b"a,a\n1,2\n", r"the columns \['a'\] stand more than once"),
        ("a.parquet", b"PAR1 and no more", "a.parquet cannot be read: .* is it damaged"),
        ("a.parquet", b"hello", "a.parquet cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:-9], "a.jsonl.gz cannot be read: .* is it damaged"),
        ("a.xlsx", b"PK\x03\x04\0,;\0", "a.xlsx is of no format"),
        ("a", b"just words\n", "a is of no format that its name .* tell; convert it"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(name: str, content: bytes, message: str, workspace: Path) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(name)


def test_settings_of_a_data_set_are_refused_for_a_file(workspace: Path) -> None:
    Path("a.jsonl").write_bytes(_lines(ROWS))
    with pytest.raises(ConfigError, match=r"a\.jsonl is a file, for which name=main, revision=f00 has no meaning"):
        read("a.jsonl", name="main", revision="f00")
    with pytest.raises(ConfigError, match="has no split 'dev'; set dataset_split to one of 'train'"):
        read("a.jsonl", "dev")
    with pytest.raises(ConfigError, match="is a folder; name it alone in field"):
        read(["a.jsonl", "."])

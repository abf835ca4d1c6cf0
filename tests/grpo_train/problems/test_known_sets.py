"""Each block under `Problems` of docs/data.md brings rows of its set's layout in, with exactly the problems that they hold."""

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from configs.schema.problems import DatasetSource, ProblemsConfig
from grpo_train.problems.sources import read_source
from tests.docs.markdown import blocks
from tests.grpo_train.problems.known_sets import KNOWN, Rows
from tests.paths import ROOT

DATA = ROOT / "docs" / "data.md"
SECTION = DATA.read_text(encoding="utf-8").partition("\n## Problems\n")[2].partition("\n## ")[0]
BLOCKS = {block.title: yaml.safe_load(block.text) for block in blocks(DATA) if f"```yaml {block.title}\n" in SECTION}


def write(path: Path, rows: Rows) -> None:
    """Write rows in the format that the file's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffixes[0]:
        case ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows, indent=4))
        case ".csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            data = text.getvalue().encode()
            path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_each_block_has_rows_and_a_line_in_the_table() -> None:
    assert set(BLOCKS) == {*KNOWN, "saved"}
    table = [line for line in SECTION.splitlines() if line.startswith("| ")]
    named = [title for line in table for title in re.findall(r"`([\w-]+)`", line.rpartition(" | ")[2])]
    assert [title for title in named if title in BLOCKS] == list(BLOCKS)
    assert len(BLOCKS) >= 30


@pytest.mark.parametrize("title", KNOWN)
def test_a_block_of_the_documentation_brings_its_set_in(title: str, workspace: Path) -> None:
    known = KNOWN[title]
    [block] = BLOCKS[title]["problems"]["sources"]
    [source] = ProblemsConfig.model_validate({"sources": [block]}).sources
    if isinstance(source, DatasetSource):
        source = source.model_copy(update={"path": "the_set", "name": None})
    for name, rows in known.files.items():
        write(Path("the_set", name) if isinstance(source, DatasetSource) else Path(name), rows)
    found = read_source(source).problems
    assert [(problem.question, _golds(problem)) for problem in found] == known.problems
    if known.difficulties:
        assert [problem.difficulty for problem in found] == known.difficulties
    if known.metas:
        assert [problem.meta for problem in found] == known.metas


def _golds(problem: Any) -> list[str]:
    return [] if problem.answer is None else [problem.answer, *problem.other_answers]


def test_the_block_of_a_saved_dict_brings_its_splits_in(workspace: Path) -> None:
    rows = datasets.Dataset.from_list([{"question": f"{i}?", "answer": i} for i in range(4)])
    datasets.DatasetDict({"train": rows.select(range(3)), "validation": rows.select([3])}).save_to_disk("my_data")
    sources = ProblemsConfig.model_validate(BLOCKS["saved"]["problems"]).sources
    found = [[(p.question, p.answer, p.split) for p in read_source(source).problems] for source in sources]
    assert found == [[("0?", "0", None), ("1?", "1", None), ("2?", "2", None)], [("3?", "3", "dev")]]

"""Each block under `Preferences` of docs/data.md brings rows of its set's layout in, with exactly the pairs that they hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import TrainedRewardModel
from reward_training.preferences.reading import read_preferences
from tests.docs.markdown import blocks
from tests.paths import ROOT
from tests.reward_training.preferences.known_sets import CASES

DATA = ROOT / "docs" / "data.md"
SECTION = DATA.read_text(encoding="utf-8").partition("\n## Preferences\n")[2].partition("\n## ")[0]
BLOCKS = {
    block.title: yaml.safe_load(block.text)["labeler"]
    for block in blocks(DATA)
    if f"```yaml {block.title}\n" in SECTION
}


def test_each_block_has_rows_and_a_line_in_the_table() -> None:
    assert len(BLOCKS) == SECTION.count("```yaml")
    assert list(BLOCKS) == list(CASES)
    assert re.findall(r"^\| .* \| `([\w-]+)` \|$", SECTION, re.MULTILINE) == list(BLOCKS)


@pytest.mark.parametrize("title", CASES)
def test_a_block_of_the_documentation_brings_its_set_in(title: str, tmp_path: Path) -> None:
    case, path = CASES[title], tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in case.rows))
    names = {"path": str(path), "name": None, "dataset_split": "train"}
    labeler = FileLabeler.model_validate(BLOCKS[title] | names)
    read = read_preferences(labeler, name="taste", config=TrainedRewardModel(labeler=labeler), round_index=0)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in read.pairs] == case.pairs
    assert read.left_out == case.left_out
    assert read.num_rows == len(case.rows)

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reader import load_comparison, load_config
from flows.cli import app
from tests.docs.markdown import DOCUMENTS, anchors, blocks, commands, links
from tests.paths import ROOT

REGROUP = ".venv/bin/regroup"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_understood(path: Path) -> None:
    for words in commands(path, REGROUP):
        app.parse_args(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {words[0] for words in commands(path, "make")}
    named |= set(re.findall(r"`make ([a-z-]+)`", path.read_text(encoding="utf-8")))
    assert named <= targets


def test_yaml_blocks_are_configurations(tmp_path: Path) -> None:
    """Those without a title are some blocks of one, and a labeler is a reward model's: they take the place of the README's."""
    found = [block for path in DOCUMENTS for block in blocks(path) if block.language == "yaml"]
    [whole] = [yaml.safe_load(block.text) for block in found if block.title == "mine.yaml"]
    for number, block in enumerate(found):
        path = tmp_path / f"{number}.yaml"
        settings = yaml.safe_load(block.text)
        settings = _with_labeler(whole, settings["labeler"]) if "labeler" in settings else settings
        path.write_text(yaml.safe_dump(whole | settings))
        assert (load_comparison(path).name if "compare" in settings else load_config(path).run.name) == str(number)


def _with_labeler(whole: dict[str, Any], labeler: dict[str, Any]) -> dict[str, Any]:
    rewards = [*whole["rewards"], {"name": "style", "kind": "reward_model", "model": "style"}]
    return {"rewards": rewards, "reward_models": {"style": {"kind": "trained", "labeler": labeler}}}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_no_machine(path: Path) -> None:
    """A document is true for every reader: no absolute paths of one machine."""
    assert not re.search(r"(?<![\w.:/])/(work|home|root|tmp|opt)/", path.read_text(encoding="utf-8"))


NAMED_PATH = re.compile(
    r"`((?:configs|reward_training|grpo_train|tasks|flows|tests|benchmarks|docs|findings)/[\w./-]*)`"
)
HISTORY = ("log.md", "CHANGELOG.md")
"""say what was true when it was written"""


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path.name not in HISTORY], ids=lambda path: path.name)
def test_paths_of_the_project_that_a_document_names_are_there(path: Path) -> None:
    """When modules moved into inner rooms, documents went on naming the old places."""
    named = NAMED_PATH.findall(path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("room", ["flows", "tasks", "grpo_train", "reward_training", "configs"])
def test_the_drawing_of_the_rooms_names_everything_in_a_room_and_nothing_else(room: str) -> None:
    drawing = next(block.text for block in blocks(ROOT / "docs" / "architecture.md") if "prefect_tasks" in block.text)
    mine = drawing[drawing.index(f"{room}/") :].partition("\n\n")[0].removeprefix(f"{room}/")
    named = [re.split(r" {2,}", line.strip())[0] for line in mine.splitlines()]  # what follows in a line explains
    drawn = {name.strip(" /") for line in named for name in line.split("|")}
    there = [path for path in (ROOT / room).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    assert drawn == {path.stem for path in there if path.stem != "__init__"}

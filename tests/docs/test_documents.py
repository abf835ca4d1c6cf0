import re
from pathlib import Path

import pytest

from configs.reader import load_config
from flows.cli import app
from tests.docs.markdown import DOCUMENTS, ROOT, anchors, blocks, commands, links

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
    found = [block for path in DOCUMENTS for block in blocks(path) if block.language == "yaml"]
    assert [block.title for block in found] == ["mine.yaml"]
    (tmp_path / "mine.yaml").write_text(found[0].text)
    assert load_config(tmp_path / "mine.yaml").run.name == "mine"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_no_machine(path: Path) -> None:
    """A document is true for every reader: no absolute paths of one machine."""
    assert not re.search(r"(?<![\w.:/])/(work|home|root|tmp|opt)/", path.read_text(encoding="utf-8"))

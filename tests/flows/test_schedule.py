"""Which run a scheduled call works on."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.reader import load_config
from configs.schema.config import Config, RunConfig
from flows import schedule
from flows.schedule import next_run
from tasks.runs.follow_on import runs_of_chain
from tasks.runs.run_file import create_run
from tests.paths import TINY


@pytest.fixture
def config() -> Config:
    return load_config(TINY)


def _create(root: Path, config: Config, *names: str) -> None:
    for name in names:
        create_run(root, config.model_copy(update={"run": RunConfig(name=name)}))


def test_the_first_call_starts_the_run_itself(tmp_path: Path, config: Config) -> None:
    assert next_run(tmp_path, config).name == "tiny"


def test_an_interrupted_run_comes_first_whatever_its_number(tmp_path: Path, config: Config) -> None:
    _create(tmp_path, config, "tiny", "tiny-0002")
    assert next_run(tmp_path, config).name == "tiny"


def test_when_all_are_finished_the_newest_is_followed(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(tmp_path, config, "tiny", "tiny-0002")
    monkeypatch.setattr(schedule, "finished_summary", lambda *_: {"status": "done"})
    monkeypatch.setattr(schedule, "follow_on", lambda _root, _config, predecessor: predecessor)
    assert next_run(tmp_path, config) == "tiny-0002"


def test_a_chain_holds_its_own_runs_only(tmp_path: Path, config: Config) -> None:
    _create(tmp_path, config, "tiny", "tiny-b", "tinytown", "tiny-0002", "other", "tiny-12345")
    assert {file.name for file in runs_of_chain(tmp_path, "tiny")} == {"tiny", "tiny-0002"}
    assert {file.name for file in runs_of_chain(tmp_path, "tiny-0002")} == {"tiny", "tiny-0002"}

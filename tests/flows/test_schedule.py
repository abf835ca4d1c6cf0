"""Which run a scheduled call works on."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.reader import load_config
from configs.schema.config import Config, RunConfig
from flows import schedule
from flows.schedule import next_run
from tasks.runs.run_file import create_run
from tests.paths import TINY


@pytest.fixture
def config() -> Config:
    return load_config(TINY)


def _create(root: Path, config: Config, *names: str) -> None:
    """Runs each of which follows on from the one before."""
    for name, predecessor in zip(names, [None, *names[:-1]], strict=True):
        create_run(root, config.model_copy(update={"run": RunConfig(name=name)}), predecessor=predecessor)


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


def test_an_interrupted_run_keeps_its_settings_and_those_that_differ_are_named(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs named alike were one chain, so that one was taken up with the other's settings."""
    _create(tmp_path, load_config(TINY, ["grpo_config.group_size=2"]), "tiny", "bench-0100")
    _create(tmp_path, config, "bench-0200")
    assert next_run(tmp_path, load_config(TINY, ["run.name=bench-0200"])).name == "bench-0200"
    assert capsys.readouterr().err == ""
    assert next_run(tmp_path, config).config["grpo_config"]["group_size"] == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "run 'tiny' goes on with the settings that it was started with" in said
    assert "grpo_config.group_size: 2, not 4" in said

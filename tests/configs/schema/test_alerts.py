"""The block `alerts`: what is taken, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.reader import load_config
from tests.paths import TINY


def _with(tmp_path: Path, block: str) -> Path:
    path = tmp_path / "mini.yaml"
    path.write_text(TINY.read_text() + "\nalerts:\n" + block)
    return path


@pytest.mark.parametrize(
    "on", ["run.failed", "[run.failed]", "[regroup.run.failed]", '"regroup.run.failed"', "\n      - run.failed"]
)
def test_a_bare_on_is_a_key_and_names_have_two_forms(tmp_path: Path, on: str) -> None:
    """YAML 1.1 reads a bare `on` as true."""
    config = load_config(_with(tmp_path, f"  - on: {on}\n    webhook_env: MY_HOOK\n"))
    [alert] = config.alerts
    assert (alert.on, alert.webhook_env, alert.command) == (["run.failed"], "MY_HOOK", None)


def test_a_quoted_on_is_the_same(tmp_path: Path) -> None:
    assert load_config(_with(tmp_path, '  - {"on": run.failed, command: [a, b]}\n')).alerts[0].command == ["a", "b"]


def test_an_override_replaces_it(tmp_path: Path) -> None:
    path = _with(tmp_path, "  - {on: run.failed, command: [a]}\n")
    assert load_config(path, ["alerts.0.on=[run.finished]"]).alerts[0].on == ["run.finished"]


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ("  - {on: run.failed}\n", "exactly one of `webhook_env` and `command`"),
        ("  - {on: run.failed, webhook_env: A, command: [b]}\n", "exactly one of `webhook_env` and `command`"),
        ("  - {webhook_env: A}\n", "alerts.0.on: missing"),
        ("  - {on: [], webhook_env: A}\n", "alerts.0.on: is empty, and needs 1 or more"),
        ("  - {on: run.fialed, webhook_env: A}\n", "alerts.0.on.0: Input should be 'challenger.promoted', "),
        ("  - {on: run.failed, command: notify-send hello}\n", "command is a list of program and arguments"),
        ("  - {on: run.failed, command: []}\n", "alerts.0.command: is empty, and needs 1 or more"),
        ("  - {on: run.failed, webhook: A}\n", "alerts.0.webhook: unknown key"),
    ],
)
def test_faults_are_told_with_their_remedy(tmp_path: Path, block: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(_with(tmp_path, block))
    assert words in str(error.value)


@pytest.mark.parametrize("address", ["https://hooks.example.org/T0/B0/secret", "T0/B0/secret", "secret key"])
def test_an_address_in_the_place_of_its_name_is_refused_and_not_shown(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(_with(tmp_path, f'  - {{on: run.failed, webhook_env: "{address}"}}\n'))
    assert "webhook_env is the name of an environment variable, for instance SLACK_WEBHOOK" in str(error.value)
    assert "secret" not in str(error.value)

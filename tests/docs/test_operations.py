"""What docs/operations.md says is what the code does: its commands, units, settings, messages and alerts."""

from __future__ import annotations

import ast
import configparser
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.automations import AutomationCore
from prefect.settings import Settings

from configs.schema.run import HAPPENINGS, AlertConfig
from flows.cli import app
from tests.docs.operations import COMMANDS, FILES, TEXT, blocks, installed_at
from tests.paths import ROOT

ROOMS = ("flows", "tasks", "grpo_train", "reward_training", "configs")

# ---- commands -------------------------------------------------------------------------------------------------------


def test_every_command_line_of_ours_is_one_that_the_command_line_takes() -> None:
    inline = re.findall(r"`(regroup [a-z][^`]*)`", TEXT)
    for command in [line for line in COMMANDS if line.startswith("regroup ")] + inline:
        words = shlex.split(command)[1:]
        if words[0] == "serve" and "--cron" not in words:
            continue
        if words in (["run"], ["fetch"], ["rollback"], ["report"]):  # named in a sentence
            continue
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_shell_blocks_are_whole() -> None:
    for text in blocks("sh"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=10)


def test_the_installation_is_that_of_the_makefile() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    pip = [line.partition("/pip ")[2] for line in COMMANDS if "/pip install" in line]
    assert len(pip) == 4, "to set up and to upgrade"
    for arguments in pip:
        assert arguments.replace("[s3,postgres,login]", "[dev]") in made.replace("install --quiet", "install")


@pytest.mark.parametrize("unit", [name for name in FILES if name.endswith(".service")])
def test_units_are_sound(unit: str, tmp_path: Path) -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not here")
    for name, text in FILES.items():
        if name.endswith(".service"):
            (tmp_path / Path(name).name).write_text(installed_at(tmp_path, text).replace("User=regroup", "User=daemon"))
    (tmp_path / "work").mkdir()
    result = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / Path(unit).name)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    own = [line for line in result.stderr.splitlines() if Path(unit).name in line]
    assert own == []


def test_services_start_what_is_installed() -> None:
    for name, text in FILES.items():
        if name.endswith(".service"):
            unit = configparser.ConfigParser(interpolation=None, strict=False)
            unit.optionxform = str  # type: ignore[assignment, method-assign]
            unit.read_string(text)
            assert unit["Service"]["EnvironmentFile"] in FILES
            assert (Path(sys.executable).parent / Path(shlex.split(unit["Service"]["ExecStart"])[0]).name).exists()


def test_settings_are_prefects_and_mlflows() -> None:
    import mlflow.cli
    import mlflow.environment_variables as known

    options = {option.envvar for option in mlflow.cli.server.params if getattr(option, "envvar", None)}
    of_mlflow = {name for name in dir(known) if name.startswith("MLFLOW_")} | options
    of_mlflow |= {"MLFLOW_AUTH_ADMIN_PASSWORD"}  # of the login's own module, which needs Flask-WTF
    of_prefect = {f"PREFECT_{'_'.join(path).upper()}" for path in _paths(Settings.model_json_schema())}
    names = {line.partition("=")[0] for name, text in FILES.items() if name.endswith(".env") for line in text.split()}
    for name in names:
        assert name.startswith("AWS_") or name in of_mlflow | of_prefect, name


def _paths(schema: dict[str, Any]) -> list[tuple[str, ...]]:
    """The place of each setting in the tree of settings."""

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = []
        for name, value in node.get("properties", {}).items():
            reference = value.get("$ref")
            inner = schema["$defs"][reference.rpartition("/")[2]] if reference else None
            found += walk(inner, (*path, name)) if inner and "properties" in inner else [(*path, name)]
        return found

    return walk(schema, ())


# ---- messages -------------------------------------------------------------------------------------------------------


def _said() -> set[str]:
    """Every string in the code, in f-strings the pieces between the values, and the operating system's on a full disk."""
    found = {os.strerror(errno.ENOSPC)}
    for room in ROOMS:
        for file in (ROOT / room).rglob("*.py"):
            values = [node.value for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Constant)]
            found |= {value for value in values if isinstance(value, str)}
            found |= {value.decode(errors="replace") for value in values if isinstance(value, bytes)}
    return found


def test_every_quoted_message_is_in_the_code() -> None:
    section = TEXT[TEXT.index("## What each failure looks like") :]
    cells = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(cells) > 25
    said = _said()
    for cell in cells:
        for quoted in re.findall(r"``(.+?)``|`([^`]+)`", cell):
            message = quoted[0] or quoted[1]
            if message in HAPPENINGS:
                continue
            for piece in message.split("..."):
                words = piece.strip(" ()'")
                assert not words or any(words in text for text in said), f"{words!r} of {message!r}"


def test_exit_codes() -> None:
    from flows import cli

    assert (cli.DONE, cli.FAILED, cli.AT_FAULT, cli.BUSY, cli.STOPPED) == (0, 1, 2, 3, 130)


# ---- alerts ---------------------------------------------------------------------------------------------------------


def test_every_happening_is_explained_and_no_other() -> None:
    section = TEXT[TEXT.index("## Alerts") :]
    assert tuple(re.findall(r"^\| `(\w+\.\w+)` \|", section, re.MULTILINE)) == HAPPENINGS


def test_blocks_are_taken() -> None:
    alerts = [AlertConfig.model_validate(alert) for text in blocks("yaml") for alert in yaml.safe_load(text)["alerts"]]
    assert [alert.webhook_env for alert in alerts] == ["SLACK_WEBHOOK", None]
    [automation] = [AutomationCore.model_validate_json(text) for text in blocks("json")]
    assert automation.name == "refused challengers"

"""Tags that are special tokens of the policy stay in responses where a reward looks for them, and the doctor says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.reader import load_config
from flows.cli import main
from flows.doctor.checks import Finding
from flows.doctor.report import check
from flows.doctor.special_tokens import check_special_tokens
from tests.flows.doctor.test_templates import save_policy_with
from tests.paths import TINY
from tests.reward_training.transformer.templates import CHATML, tokenizer_with

TAGS = ["<think>", "</think>", "<answer>", "</answer>"]


def findings(tmp_path: Path, rewards: list[dict[str, Any]], special: list[str] = TAGS) -> list[Finding]:
    tokenizer = tokenizer_with(CHATML)
    tokenizer.add_special_tokens({"additional_special_tokens": special}, replace_extra_special_tokens=False)
    data = yaml.safe_load(TINY.read_text()) | {"rewards": rewards, "reward_models": {}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data))
    return list(check_special_tokens(load_config(path), tokenizer))


CORRECT = {"name": "correct", "kind": "outcome"}


def test_tags_that_are_special_tokens_are_named_and_stay(tmp_path: Path) -> None:
    form = {"name": "form", "kind": "format", "tags": ["think", "answer"]}
    [found] = findings(tmp_path, [CORRECT, form])
    assert (found.name, found.status) == ("reward form", "ok")
    assert found.detail == f"looks for special tokens of the tokenizer, {', '.join(TAGS)}: they stay in responses"


def test_nothing_is_said_where_tags_are_ordinary_text(tmp_path: Path) -> None:
    form = {"name": "form", "kind": "format", "tags": ["think", "answer"]}
    assert findings(tmp_path, [CORRECT, form], special=["<tool>"]) == []


def test_a_token_that_ends_responses_can_be_no_part_of_them(tmp_path: Path) -> None:
    form = {"name": "form", "kind": "format", "pattern": r"<answer>.*</answer><\|im_end\|>$"}
    kept, lost = findings(tmp_path, [CORRECT, form])
    assert kept.detail.startswith("looks for special tokens of the tokenizer, <answer>, </answer>:")
    assert (lost.status, lost.detail) == (
        "warn",
        "looks for <|im_end|>, which ends a response and is no part of its text",
    )
    assert lost.remedy == "take it out of the pattern or tags of form: it is never found"


def test_a_function_that_names_special_tokens_is_warned_of_and_told_how_to_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "grades_tags.py").write_text(
        "def reward(problems, completions):\n    return [float('<answer>' in c.text) for c in completions]  # <|im_end|>\n"
    )
    own = {"name": "own", "kind": "python", "function": "grades_tags:reward"}
    [found] = findings(tmp_path, [CORRECT, own])
    assert found.status == "warn"
    assert (
        found.detail == "the file of grades_tags:reward names <answer>: special tokens, which are left out of responses"
    )
    keeps = {"name": "keeps", "kind": "format", "pattern": "<answer>", "weight": 0.0}
    assert [each.name for each in findings(tmp_path, [CORRECT, own, keeps])] == ["reward keeps"]


def test_run_and_doctor_say_it_before_anything_is_sampled(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_policy_with(CHATML, workspace / "policy")
    form = {"name": "form", "kind": "format", "pattern": r"<\|im_end\|>$"}
    changed = {"rewards": [CORRECT, form], "reward_models": {}, "policy": {"path": "policy"}}
    data = yaml.safe_load(TINY.read_text()) | changed
    Path("config.yaml").write_text(yaml.safe_dump(data))
    report = check(load_config(Path("config.yaml")), workspace, quick=True)
    assert ["looks for <|im_end|>" in found.detail for found in report.findings if found.status == "warn"].count(
        True
    ) == 1
    main(["doctor", "config.yaml", "--no-sample"])
    assert "looks for <|im_end|>" in " ".join(capsys.readouterr().out.split())

"""Old abilities in the real stages: a policy that was trained to forget is refused, an unchanged one is not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.records import Policy
from flows.summary import summarise
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from tasks.running.run import Run
from tasks.runs.run_records import read_run_records
from tasks.runs.stage_files import retention_report, rows
from tasks.showing.report import render
from tasks.stages.evaluate import evaluate_policy, evaluation_stands
from tasks.stages.prepare import prepare
from tasks.stages.promote import promote
from tasks.stages.regenerate import regenerate
from tasks.stages.rounds import _retention
from tests.paths import ROOT
from tests.tasks.stage_kit import open_untold, tiny

MODELS = (
    "reward_models={}",
    "rewards=[{name: correct, kind: outcome, weight: 0.2}, {name: brief, kind: length, target: 2, limit: 16}]",
)
SUITES = (
    "evaluation.retention={prose: {kind: text, path: prose.jsonl}, rhymes: {kind: choice, path: rhymes.jsonl}, "
    "gcd: {kind: generate, problems: {kind: reasoning_gym, family: gcd, size: 6}, checker: {name: right, checker: reasoning_gym}, "
    "max_response_length: 8}}"
)
BOUNDS = "promotion.retention={prose: {max_loss: 0.05}, rhymes: {max_loss: 0.05, measure: gold}}"
ANIMALS, PLACES = ("cat", "dog", "hen", "fox", "cow", "pig"), ("mat", "log", "pen", "box", "bow", "rig")


def sentences() -> list[str]:
    return [f"the {animal} sat on the {place} and slept" for animal in ANIMALS for place in PLACES]


def train_on(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, steps: int) -> None:
    """Steps of AdamW on the texts' mean negative log-likelihood."""
    ids = tokenizer(list(texts), return_tensors="pt", padding=True)["input_ids"]
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def write_suites(root: Path) -> None:
    """Every third sentence, which the given policy was not trained on."""
    lines = [json.dumps({"text": text}) for text in sentences()[::3]]
    (root / "prose.jsonl").write_text("\n".join(lines) + "\n")
    questions = [
        {"question": f"the {animal} sat on the", "choices": [place, "qqq"], "answer": 0}
        for animal, place in zip(ANIMALS, PLACES, strict=True)
    ]
    (root / "rhymes.jsonl").write_text("\n".join(map(json.dumps, questions)) + "\n")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with a run whose round 0 is done: its given policy has learned the sentences."""
    root = tmp_path_factory.mktemp("retention")
    tokenizer = build_tiny_tokenizer()
    model = build_tiny_model(tokenizer)
    train_on(model, tokenizer, [text for i, text in enumerate(sentences()) if i % 3], steps=60)
    save_policy(model, tokenizer, root / "given", round_index=0)
    write_suites(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run = opened(root)
        prepare(run)
        evaluate_policy(run, 0, run.given_policy, {})
        regenerate(run, 0, [run.given_policy], {})
        yield root


def opened(root: Path) -> Run:
    return open_untold(root, tiny("policy.path=given", *MODELS, SUITES, BOUNDS))


@pytest.fixture
def copied(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(begun, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def challenger(run: Run, *, forget_steps: int) -> Policy:
    """The policy of round 1: the given one after steps on other text."""
    model, tokenizer = load_policy(run.given_policy.path, device="cpu")
    if forget_steps:
        train_on(model, tokenizer, [f"{i} {i} {i} {i} {i}" for i in range(100, 120)], steps=forget_steps)
    return save_policy(model, tokenizer, run.folder / "round_001" / "policy" / "model", round_index=1)


def decided(run: Run, policy: Policy) -> tuple[bool, str]:
    evaluate_policy(run, 1, policy, {})
    decision = promote(run, 1, run.given_policy, policy)
    return decision.promoted, decision.reason


def test_a_policy_that_was_trained_to_forget_is_refused_for_it(copied: Path) -> None:
    """The positive control: the rule promotes whatever the gain."""
    run = opened(copied)
    promoted, reason = decided(run, challenger(run, forget_steps=20))
    assert not promoted
    assert "refused for what it forgot: prose lost +" in reason
    assert "rhymes (gold) lost +" in reason
    records = read_run_records(run.folder)
    [given, forgetful] = [record.retention for record in records.rounds]
    assert given is not None
    assert forgetful is not None
    assert given.suites.keys() == {"prose", "rhymes", "gcd"}
    assert given.suites["prose"]["value"].estimate - forgetful.suites["prose"]["value"].estimate > 0.5
    assert given.kl_task is not None
    assert forgetful.kl_task is not None
    assert (given.kl_task.estimate, forgetful.kl_task.estimate > 0.01) == (0.0, True)
    page = render(records, {})
    assert 'id="old-abilities"' in page
    assert "lost</span>" in page
    told = summarise(copied, run.name, status="done", mlflow={}, flow_run_id=None)["rounds"][1]
    assert told["retention"]["prose"]["change"]["high"] < -0.05
    assert told["kl_task"]["estimate"] == forgetful.kl_task.estimate


def test_an_unchanged_policy_is_not_refused(copied: Path) -> None:
    run = opened(copied)
    promoted, reason = decided(run, challenger(run, forget_steps=0))
    assert promoted
    assert "old abilities: prose lost +0.0000 [+0.0000, +0.0000] on 12 items, within max_loss=0.05" in reason
    given, same = (rows(run.folder / f"round_00{i}" / "evaluate" / "retention.jsonl") for i in (0, 1))
    assert given == same
    assert len(given) == 12 + 6 + 6


def test_a_changed_suite_is_measured_anew(copied: Path) -> None:
    run = opened(copied)
    given = run.given_policy
    assert evaluation_stands(run, given, {})
    with (copied / "prose.jsonl").open("a") as file:
        file.write('{"text": "the owl sat on the bowl"}\n')
    assert not evaluation_stands(run, given, {})
    evaluate_policy(run, 0, given, {})
    report = retention_report(run.folder / "round_000" / "evaluate")
    assert report is not None
    assert report.suites["prose"]["value"].n == 13


def test_an_interrupted_stage_measures_the_same_again(copied: Path) -> None:
    run = opened(copied)
    stage = run.folder / "round_000" / "evaluate"
    whole = (stage / "retention.jsonl").read_bytes()
    (stage / "manifest.json").unlink()  # a kill while the rows were written leaves this
    (stage / "retention.jsonl").write_bytes(whole[:100])
    evaluate_policy(run, 0, run.given_policy, {})
    assert (stage / "retention.jsonl").read_bytes() == whole


def test_metrics_of_a_round_have_values_and_changes(copied: Path) -> None:
    run = opened(copied)
    decided(run, challenger(run, forget_steps=20))
    found = _retention(run, 1)
    suites = {"prose", "rhymes", "rhymes/gold", "gcd"}
    ends = ("", "/change", "/change_champion")
    assert found.keys() == {f"retention/{suite}{end}" for suite in suites for end in ends} | {"policy/kl_task"}
    section = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").partition("## Old abilities, by round")[2]
    defined = re.findall(r"^\| `([^`]+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert {re.sub(r"/(prose|rhymes|gcd)", "/<suite>", key) for key in found} == set(defined)
    assert found["retention/prose/change"] == found["retention/prose/change_champion"] < -0.5
    assert _retention(run, 0).keys() == {f"retention/{suite}" for suite in suites} | {"policy/kl_task"}

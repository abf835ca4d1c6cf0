"""What the stage of a reward model says of labels, rows and pairs that are left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from configs.disk.files import JOURNAL, Journal, write_json, write_jsonl
from configs.records import PreferencePair, RewardModelReport
from tasks.running.stage import ALONE, Context
from tasks.runs.history import ModelRef, left_out_file
from tasks.stages.reward_model import RewardModelSpec, body, metrics
from tests.reward_training.reward_models.test_distinct import pair as chat_pair
from tests.reward_training.transformer.templates import STRIPPING, tokenizer_with
from tests.tasks.stage_kit import tiny


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A random policy whose chat template strips thoughts."""
    tokenizer = tokenizer_with(STRIPPING)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(tmp_path / "base"))
    tokenizer.save_pretrained(str(tmp_path / "base"))
    return tmp_path / "base"


FILE_LABELER = 'reward_models.taste.labeler={"kind": "file", "path": "prefs.jsonl"}'


def pair(chosen: str, rejected: str, round_index: int) -> PreferencePair:
    return PreferencePair(
        problem_key="k", prompt="q", chosen=chosen, rejected=rejected, margin=1.0, objective="taste", labeler="file",
        sources=("file", "file"), round=round_index, split="train",
    )  # fmt: skip


def run_body(tmp_path: Path, base: Path, *overrides: str) -> tuple[dict[str, int], dict[str, float], list[str]]:
    """(left_out of the report, the journal's metrics, warnings) of a stage with too few pairs to train on."""
    new, earlier = tmp_path / "new" / "pairs.jsonl", tmp_path / "earlier" / "pairs.jsonl"
    write_jsonl(new, [pair("a", "b", 1), pair("c", "d", 1)])
    write_jsonl(earlier, [pair("b ", "a", 0), pair("c", "d", 0), pair("e", "f", 0)])
    write_json(left_out_file(new), {"taste": {"contradicting": 4, "tie": 2}, "other": {"null": 9}})
    spec = RewardModelSpec(
        config=tiny("reward_models.taste.min_pairs=99", *overrides),
        round=1,
        name="taste",
        base=ModelRef(id="x", path=str(base)),
        new_pairs=[str(new)],
        earlier_pairs=[str(earlier)],
    )
    out_dir, warnings = tmp_path / "out", list[str]()
    out_dir.mkdir()
    body(spec, out_dir, replace(ALONE, warn=warnings.append))
    metrics = {line.key: line.value for line in Journal(out_dir / JOURNAL).read()}
    return json.loads((out_dir / "report.json").read_text())["left_out"], metrics, warnings


def test_labels_left_out_are_in_the_report_the_journal_and_the_log(tmp_path: Path, base: Path) -> None:
    """Of two labels that contradict each other the newest stood, and nothing told of the other one."""
    left_out, metrics, [warning] = run_body(tmp_path, base, FILE_LABELER)
    # of the earlier pairs one is contradicted and one said again; the file itself had 4 and 2 rows
    assert left_out == {"contradicting": 5, "duplicate": 1, "tie": 2}
    assert {key: value for key, value in metrics.items() if "left_out" in key} == {
        "pairs/left_out/contradicting": 5.0,
        "pairs/left_out/duplicate": 1.0,
        "pairs/left_out/tie": 2.0,
    }
    assert "reward model taste" in warning
    assert "2 ties, 1 that repeat a pair, 5 that contradict another row" in warning


def test_labels_of_samples_may_change_without_a_warning(tmp_path: Path, base: Path) -> None:
    left_out, _, warnings = run_body(tmp_path, base)
    assert left_out["contradicting"] == 5
    assert warnings == []


def test_replayed_pairs_are_counted_without_comparing_pairs(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing each training pair with each new one took half a minute for 4,000 and 10,000 of them."""
    monkeypatch.setattr(PreferencePair, "__eq__", lambda *_: pytest.fail("two pairs were compared"))
    run_body(tmp_path, base, "reward_models.taste.replay_fraction=0.5")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    # the file of round 1 has two pairs; of the earlier ones only "e" against "f" stands, and half are to be replayed
    assert (report["num_train_pairs"], report["num_replayed_pairs"]) == (3, 1)


# ---- pairs that the chat template renders alike ---------------------------------------------------------------------


def train(base: Path, pairs: list[PreferencePair], out_dir: Path) -> tuple[RewardModelReport, list[str]]:
    """(report, warnings)"""
    write_jsonl(out_dir / "pairs.jsonl", pairs)
    spec = RewardModelSpec(
        config=tiny("reward_models.taste.epochs=1"),
        round=1,
        name="taste",
        base=ModelRef(id="x", path=str(base)),
        new_pairs=[str(out_dir / "pairs.jsonl")],
        earlier_pairs=[],
    )
    warnings: list[str] = []
    body(spec, out_dir, Context(warn=warnings.append))
    return RewardModelReport.model_validate(json.loads((out_dir / "report.json").read_text())), warnings


def alike(i: int, split: str = "train") -> PreferencePair:
    return chat_pair(f"<think>{i}</think>5", "<think>hm</think>5", prompt=f"Say {i}").model_copy(
        update={"split": split}
    )


def different(i: int, split: str = "train") -> PreferencePair:
    return chat_pair(f"<think>{i}</think>5", "<think>hm</think>6", prompt=f"Say {i}").model_copy(
        update={"split": split}
    )


def test_pairs_that_differ_in_thoughts_alone_are_left_out_of_training_and_check(base: Path, tmp_path: Path) -> None:
    pairs = [*(different(i) for i in range(20)), *(alike(i) for i in range(30, 37))]
    pairs += [*(different(i, "held_out") for i in range(40, 44)), *(alike(i, "held_out") for i in range(50, 53))]
    report, warnings = train(base, pairs, tmp_path / "stage")
    assert (report.num_train_pairs, report.num_held_out_pairs, report.left_out) == (20, 4, {"alike": 10})
    assert metrics(report)["pairs/left_out/alike"] == 10
    assert len((tmp_path / "stage" / "train_pairs.jsonl").read_text().splitlines()) == 20
    [warning] = warnings
    assert "10 of 34 pairs are left out" in warning
    assert f"the chat template of {base} renders both responses alike" in warning
    assert "set backbone.path" in warning


def test_a_reward_model_is_not_trained_where_all_pairs_are_alike(base: Path, tmp_path: Path) -> None:
    report, _ = train(base, [alike(i) for i in range(40)], tmp_path / "stage")
    assert not report.accepted
    [reason] = report.reasons
    assert reason.startswith(
        "0 training pairs are fewer than min_pairs=16; it was not trained; 40 of 40 pairs are left out"
    )
    assert not (tmp_path / "stage" / "model").exists()

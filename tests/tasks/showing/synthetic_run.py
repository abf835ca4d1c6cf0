"""A run's folder written by hand: what the report is made from, with numbers that a test can know."""

import math
from pathlib import Path
from typing import Any

from configs.disk.files import Journal, Manifest, write_json, write_jsonl, write_manifest
from configs.records import Estimate, EvalReport, Policy, Problem, RewardModelReport
from configs.schema.config import Config

CONFIG: dict[str, Any] = {
    "run": {"name": "made-up"},
    "policy": {"path": "builtin:tiny"},
    "problems": {"sources": [{"kind": "reasoning_gym", "family": "chain_sum", "size": 100}]},
    "rewards": [
        {"name": "correct", "kind": "outcome"},
        {"name": "quality", "kind": "reward_model", "model": "quality", "weight": 0.2},
    ],
    "reward_models": {"quality": {"kind": "trained", "labeler": {"kind": "outcome", "reward": "correct"}}},
    "watch": [{"metric": "policy/entropy", "below": 0.3, "patience": 2}],
}
NUM_PROBLEMS = 40
RIGHT = {0: 4, 1: 14, 2: 12}
"""round: test problems answered rightly, the first ones"""
HOSTILE = "<script>alert('x')</script> & <b>42</b> {{ 7 * 7 }} \ud800"


def write_run(folder: Path, *, rounds: int = 2, up_to: int | None = None, hostile: str = "4 + 4 is 8") -> Path:
    """A run of which rounds 0 to `up_to` (default: all) are finished; round 1 is promoted, round 2 refused."""
    config = Config.model_validate(CONFIG | {"rounds": rounds})
    write_json(
        folder / "run.json",
        {
            "name": "made-up",
            "config": config.model_dump(mode="json"),
            "created_ms": 1_772_336_100_000,  # 2026-03-01 03:35 UTC
            "given_policy": Policy(path="models/x", id=_id(0), round=0).model_dump(),
        },
    )
    for round_index in range((rounds if up_to is None else up_to) + 1):
        write_round(folder / f"round_{round_index:03d}", round_index, hostile)
    return folder


def write_problems(folder: Path) -> None:
    """The test problems, and every response of each round to them, as newer runs keep them."""
    problems = [
        Problem(key=f"p{i}", prompt=f"{i} + 4 =", answer=str(i + 4), source="x", split="test")
        for i in range(NUM_PROBLEMS)
    ]
    write_jsonl(folder / "problems" / "test.jsonl", problems)
    for path in folder.glob("round_*"):
        texts = [
            {"split": "test", "problem_key": f"p{i}", "greedy": f"{path.name} says {i}"} for i in range(NUM_PROBLEMS)
        ]
        write_jsonl(path / "evaluate" / "responses.jsonl", texts)


def write_round(folder: Path, round_index: int, hostile: str) -> None:
    if round_index > 0:
        _write_training(folder, round_index)
        _write_decision(folder / "promote", round_index)
    _write_evaluation(folder / "evaluate", round_index, hostile)
    stages = ["evaluate", "regenerate"] if round_index == 0 else ["policy", "evaluate", "promote", "regenerate"]
    for number, stage in enumerate(stages):
        _write_manifest(folder / stage, stage, round_index, started_ms=1000 * number, ended_ms=1000 * number + 12_500)


def _id(round_index: int) -> str:
    return f"{round_index}abc" * 8


def _estimate(value: float, half: float = 0.05, n: int = NUM_PROBLEMS) -> Estimate:
    return Estimate(estimate=value, low=value - half, high=value + half, n=n)


def _write_training(folder: Path, round_index: int) -> None:
    report = RewardModelReport(
        id=f"{round_index}fed" * 8,
        path="x",
        accepted=round_index == 1,
        reasons=[] if round_index == 1 else ["accuracy 0.51 [0.42, 0.60] is not over 0.5"],
        accuracy=_estimate(0.7125 if round_index == 1 else 0.51, 0.09, n=80),
        margin=0.83,
        length_correlation=-0.125,
        num_train_pairs=211,
        num_held_out_pairs=80,
        num_replayed_pairs=0 if round_index == 1 else 21,
    )
    write_json(folder / "reward_model" / "quality" / "report.json", report.model_dump())
    shares = {"correct": 0.8125, "quality": 0.1875}
    tokens = {
        "useful": 1200,
        "truncated": 100,
        "dead": 700,
        "unscored": 0,
        "aborted": 0,
        "computed": 5000,
        "padding": 550,
    }
    result = {"num_updates": 20, "stopped_by": None, "advantage_share": shares, "tokens": tokens}
    write_json(folder / "policy" / "result.json", result)
    journal = Journal(folder / "policy" / "journal.jsonl")
    for step in range(1, 21):
        time = (round_index - 1) * 20 + step
        journal.write(step, _step(time) | ({"policy/kl_initial": 0.002 * time} if step % 10 == 0 else {}))


def _step(time: int) -> dict[str, float]:
    wobble = 0.04 * math.sin(time * 1.7)
    accuracy = 0.1 + 0.25 * (1 - math.exp(-time / 12)) + wobble
    return {
        "reward/mean": accuracy + 0.02 * time / 20,
        "objective/correct/mean": accuracy,
        "objective/quality/mean": 0.02 * time - 0.3 + wobble,
        "objective/correct/advantage_share": 0.75,
        "objective/quality/advantage_share": 0.25,
        "policy/entropy": 0.9 - 0.016 * time,
        "policy/grad_norm": 1.2 + wobble,
        "groups/dead_share": 0.5 - accuracy,
        "groups/all_right_share": 0.3 * accuracy,
        "groups/all_wrong_share": 0.5 - 1.3 * accuracy,
        "response/length_mean": 30 - 0.2 * time + 10 * wobble,
        "response/truncated_share": 0.2 - 0.004 * time,
    }


def _write_decision(folder: Path, round_index: int) -> None:
    gain = {1: 0.234375, 2: -0.03125}[round_index]
    decision = {
        "promoted": round_index == 1,
        "rule": "better",
        "metric": "greedy_accuracy",
        "gain": gain,
        "low": gain - 0.06,
        "high": gain + 0.06,
        "n": 64,
        "reason": f"greedy_accuracy {gain:+.3f}; rule better needs a lower bound over 0",
        "challenger": _id(round_index),
        "champion": _id(round_index - 1),
    }
    write_json(folder / "decision.json", decision)


def _write_evaluation(folder: Path, round_index: int, hostile: str) -> None:
    accuracy = RIGHT[round_index] / NUM_PROBLEMS
    values = {
        "greedy_accuracy": _estimate(accuracy),
        "greedy/quality": _estimate(0.3 * round_index - 0.2),
        "sampled/correct": _estimate(accuracy * 0.8),
        "sampled/quality": _estimate(0.3 * round_index - 0.25),
        "pass_at_1": _estimate(accuracy * 0.8),
        "pass_at_4": _estimate(accuracy * 1.5),
        "maj_at_4": _estimate(accuracy * 0.95),
        "kl_initial": _estimate(0.05 * round_index, 0.01),
        "response_length": _estimate(30 - 4 * round_index, 2),
        "truncated_share": _estimate(0.1, 0.02),
    }
    reports = {s: EvalReport(policy_id=_id(round_index), split=s, values=values).model_dump() for s in ("dev", "test")}
    write_json(folder / "report.json", reports)
    rows = [
        {"split": "test", "problem_key": f"p{i}", "source": "x", "greedy_accuracy": float(i < RIGHT[round_index])}
        for i in range(NUM_PROBLEMS)
    ]
    write_jsonl(folder / "results.jsonl", rows)
    examples = [
        {
            "split": "test",
            "problem_key": f"p{i}",
            "prompt": [{"role": "user", "content": f"State the final answer: {i} + 4 ="}],
            "answer": str(i + 4),
            "greedy": hostile,
            "samples": [hostile, "The sum is 9.\nSo the answer is 9."],
        }
        for i in (3, 10, 30)
    ]
    write_jsonl(folder / "examples.jsonl", examples)


def _write_manifest(folder: Path, stage: str, round_index: int, *, started_ms: int, ended_ms: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        stage=stage,
        round=round_index,
        config_digest="0",
        inputs={},
        outputs={},
        seed=0,
        versions={"torch": "2.13.0", "num_threads": "2"},
        started_ms=started_ms,
        ended_ms=ended_ms,
    )
    write_manifest(folder, manifest)

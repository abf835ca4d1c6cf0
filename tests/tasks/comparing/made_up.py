"""Finished members of a comparison, written by hand: numbers that a test can know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.disk.files import Journal, Manifest, write_json, write_jsonl, write_manifest
from configs.records import Estimate, EvalReport, Policy
from configs.schema.comparing.compare import Comparison, Member

BASE: dict[str, Any] = {
    "run": {"name": "made-up"},
    "rounds": 1,
    "policy": {"path": "builtin:tiny"},
    "problems": {"sources": [{"kind": "reasoning_gym", "family": "chain_sum", "size": 100}]},
    "rewards": [{"name": "correct", "kind": "outcome"}],
    "grpo_config": {"learning_rate": 1e-5, "batch_size": 16},
    "evaluation": {"bootstrap_draws": 400},
}
METHODS: dict[str, Any] = {"grpo": {}, "rloo": {"combination": {"baseline": "leave_one_out", "scale": "none"}}}


NEWS = {"kind": "text", "path": "news.jsonl", "column": "text"}


def comparison(*, retention: bool = False, **changes: Any) -> Comparison:
    """With `retention`, the suite `news` is measured."""
    evaluation = BASE["evaluation"] | ({"retention": {"news": NEWS}} if retention else {})
    compare = {"methods": METHODS, "seeds": [0, 1], "budget": {"generated_tokens": 1000}} | changes
    return Comparison.model_validate({"name": "made-up", "base": BASE | {"evaluation": evaluation}, "compare": compare})


def write_member(
    root: Path,
    member: Member,
    *,
    test: Sequence[int],
    dev: Sequence[float] = (0.1, 0.5),
    promoted: bool = True,
    tokens: Sequence[int] = (400, 700),
    spent: bool = True,
    kl: float = 0.25,
    phases: Mapping[str, float] | None = None,
    scorer: str = "a",
    problems: str = "p",
    memory: Sequence[tuple[float, int]] = (),
    news: Sequence[float] = (),
    untrained: str | None = None,
) -> None:
    """The folder of a run of one round.

    Args:
        test: whether the trained policy answers each test problem; the given policy answers none.
        dev: accuracy on dev of the given and of the trained policy.
        tokens: generated at each step.
        phases: seconds of each step by phase.
        memory: (peak in MiB, number of models) at each step; by default not measured.
        untrained: why nothing was trained.
        news: change of each item of the suite `news`, of which the given policy has -2 nats each.
    """
    folder = root / "runs" / member.name
    write_json(
        folder / "run.json",
        {
            "name": member.name,
            "config": member.config.model_dump(mode="json"),
            "created_ms": 1_772_336_100_000,
            "given_policy": Policy(path="models/x", id="0" * 8, round=0).model_dump(),
        },
    )
    write_jsonl(folder / "problems" / "train.jsonl", [{"key": problems}])
    for i, accuracy in enumerate(dev):
        answers = [0] * len(test) if i == 0 else test
        stage = folder / f"round_{i:03d}" / "evaluate"
        _write_evaluation(stage, answers, accuracy, kl if i else 0.0, scorer)
        values = [-2.0 + change if i else -2.0 for change in news]
        write_jsonl(
            stage / "retention.jsonl", [{"suite": "news", "item": f"n{k}", "value": v} for k, v in enumerate(values)]
        )
    policy = folder / "round_001" / "policy"
    counts = {"useful": sum(tokens), "computed": 9, "padding": 1}
    write_json(
        policy / "result.json",
        {"num_updates": len(tokens), "is_budget_spent": spent, "tokens": counts, "untrained": untrained},
    )
    for step, count in enumerate(tokens, start=1):
        seconds = {f"time/{name}": value for name, value in (phases or {"generate": 2.0, "update": 3.0}).items()}
        whole = {"time/step": 99.0, "time/tokens_per_second": 7.0}
        Journal(policy / "journal.jsonl").write(
            step, {"tokens/generated": count, "reward/mean": 0.1 * step} | seconds | whole
        )
    for step, (peak, models) in enumerate(memory, start=1):
        Journal(policy / "journal.jsonl").write(step, {"memory/peak_mib": peak, "memory/models": models})
    decision = {
        "promoted": promoted,
        "rule": "better",
        "metric": "m",
        "gain": 0,
        "low": 0,
        "high": 0,
        "n": 4,
        "reason": "",
    }
    write_json(folder / "round_001" / "promote" / "decision.json", decision)


def _write_evaluation(folder: Path, answers: Sequence[int], dev: float, kl: float, scorer: str) -> None:
    rows = [{"split": "test", "problem_key": f"p{i}", "greedy_accuracy": float(a)} for i, a in enumerate(answers)]
    write_jsonl(folder / "results.jsonl", rows)
    values = {
        "test": {"greedy_accuracy": sum(answers) / len(answers), "kl_initial": kl},
        "dev": {"greedy_accuracy": dev},
    }
    reports = {
        split: EvalReport(
            policy_id="x",
            split=split,
            values={n: Estimate(estimate=v, low=v, high=v, n=4) for n, v in of_split.items()},
        ).model_dump(mode="json")
        for split, of_split in values.items()
    }
    write_json(folder / "report.json", reports)
    write_manifest(
        folder,
        Manifest(
            stage="evaluate", round=0, inputs={"scorer/correct": scorer, "policy": "x"}, config_digest="x", outputs={},
            seed=0, versions={}, started_ms=0, ended_ms=5000,
        ),
    )  # fmt: skip

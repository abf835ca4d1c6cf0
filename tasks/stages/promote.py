"""Deciding on disk whether a challenger becomes champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from configs.disk.files import digest, write_json
from configs.records import Policy
from configs.seeds import seed_for
from grpo_train.measuring.promotion import Decision, decide
from tasks.people import compare
from tasks.people.compare import SPLIT
from tasks.running.stage import ALONE, Context, StageSpec


class PromoteSpec(StageSpec):
    """Two policies and their rows of results, a row a problem."""

    reads: ClassVar[tuple[str, ...]] = ("seed", "promotion", "evaluation")

    champion: Policy
    challenger: Policy
    champion_results: str
    challenger_results: str
    comparison: str | None = None
    """file of what people said of the two"""

    def inputs(self) -> dict[str, str]:
        compared = {"comparison": digest(Path(self.comparison))} if self.comparison else {}
        return compared | {
            "champion": self.champion.id,
            "challenger": self.challenger.id,
            "champion_results": digest(Path(self.champion_results)),
            "challenger_results": digest(Path(self.challenger_results)),
        }


def run(spec: PromoteSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write decision.json."""
    context.progress.say("comparing on dev")
    decision = decide(
        _rows(Path(spec.champion_results)),
        _rows(Path(spec.challenger_results)),
        config=spec.config.promotion,
        seed=seed_for(spec.config.seed, "promotion", round=spec.round),
        draws=spec.config.evaluation.bootstrap_draws,
        people=compare.load(Path(spec.comparison)) if spec.comparison else None,
    )
    ids = {"champion": spec.champion.id, "challenger": spec.challenger.id}
    write_json(out_dir / "decision.json", decision.model_dump(mode="json") | ids)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["split"] == SPLIT]


def load(out_dir: Path) -> Decision:
    """The decision."""
    data = json.loads((out_dir / "decision.json").read_bytes())
    return Decision.model_validate({name: data[name] for name in Decision.model_fields if name in data})

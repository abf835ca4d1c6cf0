"""The stage that decides whether a challenger becomes champion."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from configs.disk.files import digest, read_rows, write_json
from configs.records import Policy
from configs.seeds import seed_for
from grpo_train.measuring.promotion import Decision, decide
from tasks.people.compare import SPLIT
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, StageSpec, run_stage
from tasks.runs.stage_files import COMPARISON, DECISION, RESULTS, people_win_rate
from tasks.runs.stage_files import decision as read_decision
from tasks.runs.workspace import round_folder


def promote(run: Run, round_index: int, champion: Policy, challenger: Policy) -> Decision:
    """Decide between two policies of this run by their results on dev and, where people are asked, their verdicts."""
    round_dir = partial(round_folder, run.folder)
    spec = PromoteSpec(
        config=run.config,
        round=round_index,
        champion=champion,
        challenger=challenger,
        champion_results=str(round_dir(champion.round) / "evaluate" / RESULTS),
        challenger_results=str(round_dir(challenger.round) / "evaluate" / RESULTS),
        comparison=str(round_dir(round_index) / "compare" / COMPARISON) if run.config.promotion.people else None,
    )
    run_stage(run, spec, round_dir(round_index) / "promote", body)
    decision = read_decision(round_dir(round_index) / "promote")
    assert decision is not None, "the stage's body wrote it"
    run.console.say(f"round {round_index}: {'promoted' if decision.promoted else 'refused'}; {decision.reason}")
    return decision


class PromoteSpec(StageSpec):
    """Two policies and their results files, which hold one row per problem."""

    champion: Policy
    challenger: Policy
    champion_results: str
    challenger_results: str
    comparison: str | None = None
    """file with the challenger's win rate in people's comparisons; None where people are not asked"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", "promotion", "evaluation")

    def inputs(self) -> dict[str, str]:
        compared = {"comparison": digest(Path(self.comparison))} if self.comparison else {}
        return compared | {
            "champion": self.champion.id,
            "challenger": self.challenger.id,
            "champion_results": digest(Path(self.champion_results)),
            "challenger_results": digest(Path(self.challenger_results)),
        }


def body(spec: PromoteSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write decision.json."""
    context.progress.say("comparing on dev")
    decision = decide(
        _rows(Path(spec.champion_results)),
        _rows(Path(spec.challenger_results)),
        config=spec.config.promotion,
        seed=seed_for(spec.config.seed, "promotion", round_index=spec.round),
        draws=spec.config.evaluation.bootstrap_draws,
        people=people_win_rate(Path(spec.comparison).parent) if spec.comparison else None,
    )
    ids = {"champion": spec.champion.id, "challenger": spec.challenger.id}
    write_json(out_dir / DECISION, decision.model_dump(mode="json") | ids)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(path) if row["split"] == SPLIT]

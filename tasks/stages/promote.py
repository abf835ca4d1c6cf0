"""The stage that decides whether a challenger becomes champion."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from configs.disk.files import digest, read_rows, write_json
from configs.records import Policy
from configs.seeds import seed_for
from grpo_train.measuring.promotion import Decision, decide
from tasks.alerting.happenings import tell_decision, tell_fall
from tasks.people.compare import SPLIT
from tasks.running.run import Run
from tasks.running.stage import ALONE, Context, run_stage
from tasks.running.stage_spec import StageSpec
from tasks.runs.facts import Outcome
from tasks.runs.run_records import RoundRecords
from tasks.runs.stage_files import COMPARISON, DECISION, RESULTS, RETENTION_ROWS, people_win_rate
from tasks.runs.stage_files import decision as read_decision
from tasks.runs.workspace import round_folder
from tasks.stages.cold_start.before import given_retention_rows
from tasks.stages.retention import challenger_losses


def promote(run: Run, round_index: int, champion: Policy, challenger: Policy) -> Decision:
    """Decide between two policies of this run by their results on dev and, where people are asked, their verdicts."""
    round_dir = partial(round_folder, run.folder)

    def rows_of(index: int) -> str:
        return str(round_dir(index) / "evaluate" / RETENTION_ROWS)

    spec = PromoteSpec(
        config=run.config,
        round=round_index,
        champion=champion,
        challenger=challenger,
        champion_results=str(round_dir(champion.round) / "evaluate" / RESULTS),
        challenger_results=str(round_dir(challenger.round) / "evaluate" / RESULTS),
        comparison=str(round_dir(round_index) / "compare" / COMPARISON) if run.config.promotion.people else None,
        given_retention=str(given_retention_rows(run)) if run.config.promotion.retention else None,
        challenger_retention=rows_of(round_index) if run.config.promotion.retention else None,
    )
    stage_dir = round_dir(round_index) / "promote"
    run_stage(run, spec, stage_dir, body, outcome=partial(_outcome, stage_dir))
    decision = read_decision(stage_dir)
    assert decision is not None, "the stage's body wrote it"
    run.console.say(f"round {round_index}: {'promoted' if decision.promoted else 'refused'}; {decision.reason}")
    tell_decision(run.alerts, round_index, decision, champion=champion, challenger=challenger)
    rounds = [RoundRecords(index, round_dir(index)) for index in (champion.round, round_index)]
    tell_fall(run.alerts, run.config, *rounds)
    if decision.promoted and champion.round > 0:  # many small steps down are a fall too
        tell_fall(run.alerts, run.config, RoundRecords(0, round_dir(0)), rounds[1])
    return decision


def _outcome(stage_dir: Path) -> Outcome:
    decision = read_decision(stage_dir)
    assert decision is not None, "the stage's body wrote it"
    return Outcome(tags={"regroup.reason": decision.reason})


class PromoteSpec(StageSpec):
    """Two policies and their results files, which hold one row per problem."""

    TOLD = ("champion_results", "challenger_results", "given_retention", "challenger_retention")
    """a decision stays, whatever is measured of its policies later: the rounds after it go on from it"""

    champion: Policy
    challenger: Policy
    champion_results: str
    challenger_results: str
    comparison: str | None = None
    """file with the challenger's win rate in people's comparisons; None where people are not asked"""
    given_retention: str | None = None
    challenger_retention: str | None = None
    """files with a row an item of the suites of old abilities; None where promotion bounds none"""

    def reads(self) -> tuple[str, ...]:
        return ("seed", "promotion", "evaluation")

    def inputs(self) -> dict[str, str]:
        compared = {"comparison": digest(Path(self.comparison))} if self.comparison else {}
        files = {"given_retention": self.given_retention, "challenger_retention": self.challenger_retention}
        retention = {name: digest(Path(path)) for name, path in files.items() if path is not None}
        policies = {"champion": self.champion.id, "challenger": self.challenger.id}
        results = {"champion_results": self.champion_results, "challenger_results": self.challenger_results}
        return compared | retention | policies | {name: digest(Path(path)) for name, path in results.items()}


def body(spec: PromoteSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write decision.json."""
    context.progress.say("comparing on dev")
    files = (spec.given_retention, spec.challenger_retention)
    given, challenger = (Path(file) if file is not None else None for file in files)
    decision = decide(
        _rows(Path(spec.champion_results)),
        _rows(Path(spec.challenger_results)),
        config=spec.config.promotion,
        seed=seed_for(spec.config.seed, "promotion", round_index=spec.round),
        draws=spec.config.evaluation.bootstrap_draws,
        people=people_win_rate(Path(spec.comparison).parent) if spec.comparison else None,
        retention=challenger_losses(spec.config, given, challenger) if given and challenger else (),
    )
    ids = {"champion": spec.champion.id, "challenger": spec.challenger.id}
    write_json(
        out_dir / DECISION,
        decision.model_dump(mode="json", exclude=None if decision.retention else {"retention"}) | ids,
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(path) if row["split"] == SPLIT]

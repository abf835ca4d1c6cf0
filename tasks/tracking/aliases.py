"""Which model each alias of a chain's registered models is to serve, by what its runs left on disk.

`champion` is the accepted model, or the one that a rollback went back to, `previous` the champion before it, `challenger` one that is refused, or not yet decided
upon. They follow from the stages that made models and from the rounds that decided, so it does not matter when MLflow
is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tasks.runs.facts import ROUND_FILE, ModelFact, RoundFile, load, rollbacks
from tasks.runs.follow_on import policy_model
from tasks.tracking.outbox import StageTracking, stage_records

MODEL_IDS = ("regroup.policy_id", "regroup.model_id")

Aliases = dict[str, dict[str, str | None]]
"""{registered model: {alias: model id, or None if it serves nothing}}"""


class Event(NamedTuple):
    """An alias that a stage set, or the round after its stages."""

    round: int
    by_round: bool
    ended_ms: int
    name: str
    alias: str
    model_id: str | None


def model_id(model: ModelFact, key: str) -> str:
    """The id of a stage's model; without one, the stage's key."""
    return next((model.tags[tag] for tag in MODEL_IDS if tag in model.tags), key)


def models_of(run_dir: Path) -> list[tuple[StageTracking, ModelFact]]:
    """The finished stages of a run that made, or were given, a model."""
    records = [record for _, record in stage_records(run_dir) if record.status == "FINISHED"]
    return [(record, record.outcome.model) for record in records if record.outcome.model is not None]


def events_of(run_dir: Path) -> list[Event]:
    """What a run's stages and rounds set, oldest first."""
    models = models_of(run_dir)
    ids = {record.facts.key: model_id(model, record.facts.key) for record, model in models}
    found = [
        Event(_round(record.facts.key), False, record.ended_ms or 0, model.name, model.alias, ids[record.facts.key])
        for record, model in models
    ]
    for path in run_dir.glob(f"round_*/{ROUND_FILE}"):
        if (file := load(path, RoundFile)) is not None:
            facts = [fact for fact in file.aliases if fact.key is None or fact.key in ids]
            found += [Event(file.round, True, 0, f.name, f.alias, ids[f.key] if f.key else None) for f in facts]
    policies = {model.name for _, model in models if MODEL_IDS[0] in model.tags}
    for back in rollbacks(run_dir):
        names = policies or {policy_model(run_dir.parent.parent, run_dir.name)}
        found += [Event(back.after_round or 0, True, back.at_ms, name, "champion", back.to_policy) for name in names]
    return sorted(found, key=lambda event: event[:3])


def _round(key: str) -> int:
    """The round of a stage; -1 for one that prepares the run."""
    head, _, rest = key.partition("/")
    return int(head.removeprefix("round_")) if rest else -1


def aliases_after(events: Iterable[Event]) -> Aliases:
    """The aliases after those events."""
    aliases: Aliases = {}
    for event in events:
        of_model = aliases.setdefault(event.name, {})
        before = of_model.get("champion")
        if event.alias == "champion" and event.model_id != before:
            of_model["previous"] = before
            if not event.by_round:
                of_model["challenger"] = None
        of_model[event.alias] = event.model_id
    return aliases

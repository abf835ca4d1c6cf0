"""What ties stages into rounds: which reward models a round uses, the state that it hands on, and how it is closed."""

from __future__ import annotations

from pathlib import Path

from configs.disk.files import Manifest, read_manifest
from configs.records import Policy, RoundState
from configs.schema.rewards import FrozenRewardModel, RewardModel
from grpo_train.token_ledger import token_metrics
from reward_training.scorer import RewardModelSource
from tasks.running.run import Run
from tasks.runs import facts as mirror
from tasks.runs.facts import AliasFact, RoundFile
from tasks.runs.history import ModelRef, accepted_model, finished_round, last_accepted, reward_model_report
from tasks.runs.workspace import BY_HAND, Champion, reward_model_folder, round_folder, write_champion
from tasks.stages import evaluate, promote, reward_model
from tasks.stages import policy as policy_stage


def usable_reward_models(run: Run, round: int) -> dict[str, RewardModelSource]:
    """The reward models that a round scores with, once its own are trained.

    A refused one is replaced by the last accepted one, or is missing, as `when_refused` says. Round 0 trains none: it has
    the frozen ones, and in a follow-on those of the run before.
    """
    sources = {name: _source(run, round, name, model) for name, model in run.config.reward_models.items()}
    return {name: source for name, source in sources.items() if source is not None}


def _source(run: Run, round: int, name: str, model: RewardModel) -> RewardModelSource | None:
    if isinstance(model, FrozenRewardModel):
        return RewardModelSource(path=model.path, max_length=model.max_length, revision=model.revision)
    found = accepted_model(reward_model_folder(run.folder, round, name))
    if found is None and (round == 0 or model.when_refused == "last_accepted"):
        found = last_accepted(run.folder, name, before=round, inherited=run.file.reward_models)
    return RewardModelSource(path=found.path, max_length=model.max_length) if found else None


def accepted_so_far(run: Run, round: int) -> dict[str, ModelRef]:
    """The last accepted reward model of each name, at the end of a round."""
    names, inherited = run.config.trained_reward_models, run.file.reward_models
    found = {name: last_accepted(run.folder, name, before=round + 1, inherited=inherited) for name in names}
    return {name: model for name, model in found.items() if model is not None}


def round_state(run: Run, round: int, policy: Policy, champion: Policy) -> RoundState:
    """What a round hands to the next one; round 0 has what the run before handed on."""
    inherited = run.file.curriculum
    return RoundState(
        round=round,
        policy=policy,
        champion=champion,
        initial_policy=run.initial_policy,
        reward_models={name: model.id for name, model in accepted_so_far(run, round).items()},
        curriculum=policy_stage.load_curriculum(round_folder(run.folder, round) / "policy") if round else inherited,
    )


def close_round(run: Run, state: RoundState) -> None:
    """Write champion.json and round.json, unless the round was closed before with the same stages."""
    fact = _round_file(run, state)
    before = finished_round(run.folder, state.round)
    if before is not None and (before.ended_ms, before.metrics) == (fact.ended_ms, fact.metrics):
        return
    champion = state.champion
    path = str(Path(champion.path).absolute())
    write_champion(run.workspace, Champion(run=run.name, round=champion.round, policy_id=champion.id, path=path))
    mirror.save(round_folder(run.folder, state.round) / mirror.ROUND_FILE, fact)


def _round_file(run: Run, state: RoundState) -> RoundFile:
    manifests = round_manifests(run.folder, state.round)
    return RoundFile(
        round=state.round,
        state=state,
        ended_ms=max(manifest.ended_ms for manifest in manifests),
        metrics=_metrics(run, state, manifests),
        aliases=_aliases(run, state),
    )


def round_manifests(run: Path, round: int) -> list[Manifest]:
    """Of the round's own stages, in the order they ran; models made by hand come after the round."""
    folder = round_folder(run, round)
    found = [read_manifest(path.parent) for path in folder.rglob("manifest.json") if BY_HAND not in path.parts]
    return sorted((manifest for manifest in found if manifest), key=lambda manifest: manifest.started_ms)


def _metrics(run: Run, state: RoundState, manifests: list[Manifest]) -> dict[str, float]:
    """What a person compares across rounds; docs/metrics.md defines the keys."""
    folder = round_folder(run.folder, state.round)
    values = {f"time/{manifest.stage}": manifest.seconds for manifest in manifests}
    values["time/round"] = sum(manifest.seconds for manifest in manifests)
    values |= evaluate.estimates(evaluate.load(folder / "evaluate"))
    for name in run.config.trained_reward_models:
        if (report := reward_model_report(reward_model_folder(run.folder, state.round, name))) is not None:
            values |= {f"reward_model/{name}/{key}": value for key, value in reward_model.metrics(report).items()}
    if state.round > 0:
        decision = promote.load(folder / "promote")
        values |= {"promotion/promoted": float(decision.promoted), "promotion/gain": decision.gain}
        if decision.people is not None:
            values["promotion/people_win_rate"] = decision.people.estimate
        trained = policy_stage.load_result(folder / "policy")
        values |= {f"objective/{name}/advantage_share": share for name, share in trained.advantage_share.items()}
        values |= token_metrics(trained.tokens)
    return values


def _aliases(run: Run, state: RoundState) -> list[AliasFact]:
    name = policy_model_name(run)
    refused = state.policy.id != state.champion.id
    return [
        AliasFact(name=name, alias="champion", key=_policy_key(state.champion)),
        AliasFact(name=name, alias="challenger", key=_policy_key(state.policy) if refused else None),
    ]


def _policy_key(policy: Policy) -> str:
    """The stage that made a policy's registered version."""
    return f"round_{policy.round:03d}/policy" if policy.round > 0 else "problems"


def policy_model_name(run: Run) -> str:
    return f"{run.name}-policy"


def reward_model_name(run: Run, name: str) -> str:
    return f"{run.name}-reward-{name}"

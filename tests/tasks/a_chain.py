"""A chain of finished runs on disk: small files in the places of models, with manifests, decisions and rounds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from configs.disk.files import Manifest, digest_files, digest_json, weights_id, write_json, write_manifest
from configs.records import Policy, RewardModelReport, RoundState
from tasks.runs import facts
from tasks.runs.follow_on import follow_on
from tasks.runs.run_file import create_run, read_run, write_run
from tasks.runs.workspace import Champion, reward_model_folder, round_folder, run_folder, write_champion
from tests.tasks.stage_kit import tiny

WEIGHTS = 1000
"""bytes of each model's weights"""


def put_model(folder: Path, name: str) -> str:
    """A model folder whose weights are of that name; returns its id."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(name.encode().ljust(WEIGHTS, b"."))
    return weights_id(folder)


def finish_stage(folder: Path, stage: str, round_index: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        stage=stage,
        round=round_index,
        config_digest="",
        inputs={},
        outputs=digest_files(folder),
        seed=0,
        versions={},
        started_ms=1,
        ended_ms=2,
    )
    write_manifest(folder, manifest)


def write_round(root: Path, name: str, round_index: int, *, promoted: bool = True) -> None:
    """A finished round, whose challenger was promoted or refused."""
    folder = run_folder(root, name)
    round_dir, file = round_folder(folder, round_index), read_run(root, name)
    champion = file.given_policy
    assert champion is not None
    policy = champion
    if round_index:
        before = facts.load(round_folder(folder, round_index - 1) / facts.ROUND_FILE, facts.RoundFile)
        assert before is not None
        model = round_dir / "policy" / "model"
        policy_id = put_model(model, f"{name} {round_index}")
        write_json(round_dir / "policy" / "result.json", {})
        finish_stage(round_dir / "policy", "policy", round_index)
        policy = Policy(path=str(model), id=policy_id, round=round_index)
        champion = policy if promoted else before.state.champion
        decision = {"rule": "always", "metric": "m", "gain": 0.0, "low": 0.0, "high": 0.0, "n": 1, "reason": "r"}
        write_json(round_dir / "promote" / "decision.json", decision | {"promoted": promoted})
        finish_stage(round_dir / "promote", "promote", round_index)
        write_reward_model(folder, round_index)
    finish_stage(round_dir / "regenerate", "regenerate", round_index)
    state = RoundState(
        round=round_index,
        policy=policy,
        champion=champion,
        initial_policy=file.given_policy or policy,
        reward_models={},
    )
    closed = facts.RoundFile(round=round_index, state=state, ended_ms=1, metrics={}, aliases=[])
    facts.save(round_dir / facts.ROUND_FILE, closed)
    write_champion(
        root, Champion(run=name, round=champion.round, policy_id=champion.id, path=str(Path(champion.path).absolute()))
    )


def write_reward_model(run_dir: Path, round_index: int) -> None:
    folder = reward_model_folder(run_dir, round_index, "taste")
    report = RewardModelReport(
        id=put_model(folder / "model", f"taste {run_dir.name} {round_index}"),
        path="model",
        accepted=True,
        reasons=[],
        accuracy=None,
        margin=None,
        length_correlation=None,
        num_train_pairs=1,
        num_held_out_pairs=1,
        num_replayed_pairs=0,
    )
    write_json(folder / "report.json", report.model_dump(mode="json"))
    finish_stage(folder, "reward_model/taste", round_index)


def write_run_of(
    root: Path, *promoted: bool, name: str = "tiny", predecessor: str | None = None, done: bool = True
) -> str:
    """A run, or the follow-on of `predecessor`, with a round for each of `promoted`; returns its name."""
    config = tiny(f"rounds={max(1, len(promoted))}", f"run.name={name}")
    if predecessor is not None:
        name = follow_on(root, config, predecessor).name
    else:
        create_run(root, config)
        given = Policy(path=str(root / "models" / "start"), id=put_model(root / "models" / "start", "start"), round=0)
        write_run(root, read_run(root, name).model_copy(update={"given_policy": given, "initial_policy": given}))
    for round_index, was in enumerate([False, *promoted]):
        write_round(root, name, round_index, promoted=was)
    if done:
        rounds = list(range(len(promoted) + 1))
        write_json(run_folder(root, name) / "summary.json", {"run": name, "status": "done", "rounds": rounds})
    return name


def id_of(name: str) -> str:
    """The id of the weights that `put_model` writes."""
    return digest_json([["model.safetensors", hashlib.sha256(name.encode().ljust(WEIGHTS, b".")).hexdigest()]])

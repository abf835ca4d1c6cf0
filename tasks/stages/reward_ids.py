"""Ids of what scores in a stage: reward models, rubrics, and the code of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from configs.disk.files import digest, digest_files, digest_json
from configs.schema.rewards import (
    JudgeRewardConfig,
    OutcomeRewardConfig,
    ProcessRewardConfig,
    PythonRewardConfig,
    RewardConfig,
)
from reward_training.judges.judge import PROMPTS
from reward_training.rewards.source_code import ROOT, code_of
from reward_training.scorer import RewardModelSource
from tasks.running.stage_spec import SCORER
from tasks.runs.cleaned import is_cleaned, saved_id

OF_REWARDS = ("rubric/", SCORER)
"""the beginnings of these names"""
SETTINGS = {".json", ".jinja", ".model", ".txt"}
"""suffixes of the files of a model's settings and tokenizer"""


def reward_ids(rewards: Sequence[RewardConfig]) -> dict[str, str]:
    """{`rubric/<reward>`: digest of the rubric file} of each judge, and {`scorer/<reward>`: digest of the code, prompt or
    checker} of each reward whose scores depend on more than its configuration and on Regroup's version."""
    rubrics = {f"rubric/{r.name}": digest(Path(r.rubric)) for r in rewards if isinstance(r, JudgeRewardConfig)}
    scorers = {f"{SCORER}{r.name}": scorer for r in rewards if (scorer := _scorer_id(r)) is not None}
    return rubrics | scorers


def _scorer_id(reward: RewardConfig) -> str | None:
    match reward:
        case PythonRewardConfig():
            return code_of(reward.function).digest
        case JudgeRewardConfig():
            return digest_json(PROMPTS[reward.mode])
        case OutcomeRewardConfig(checker="reasoning_gym"):
            return digest_json([_answers_digest(), version("reasoning-gym")])
        case OutcomeRewardConfig() | ProcessRewardConfig(checked_by="arithmetic"):
            return _answers_digest()
    return None


@cache
def _answers_digest() -> str:
    """Digest of Regroup's own code that finds and compares answers, which does not change while it runs."""
    files = digest_files(ROOT / "reward_training" / "answers")
    return digest_json({name: value for name, value in files.items() if name.endswith(".py")})


def scoring_packages(rewards: Sequence[RewardConfig]) -> dict[str, str]:
    """{distribution: version} of the installed packages that rewards are computed with."""
    versions: dict[str, str] = {}
    for reward in rewards:
        match reward:
            case PythonRewardConfig():
                versions |= code_of(reward.function).versions
            case OutcomeRewardConfig(checker="reasoning_gym"):
                versions["reasoning-gym"] = version("reasoning-gym")
            case JudgeRewardConfig():
                versions["openai"] = version("openai")
    return versions


def model_ids(models: Mapping[str, RewardModelSource]) -> dict[str, str]:
    """{`reward_model/<name>`: content hash of a local folder, otherwise hub id and revision}.

    One behind a server is `scorer/reward_model/<name>`: nothing here is lost with weights that others change, so what it once
    scored stands, as where the code of a reward changes.
    """
    return {
        f"{SCORER if source.served else ''}reward_model/{name}": _model_id(source)
        for name, source in sorted(models.items())
    }


def _model_id(source: RewardModelSource) -> str:
    if source.served is not None:
        return digest_json([source.served.version, _settings_id(source)])
    folder = Path(source.path)
    if folder.is_dir() or is_cleaned(folder):
        return saved_id(folder)
    return f"{source.path}@{source.revision or 'main'}"


def _settings_id(source: RewardModelSource) -> str | dict[str, str]:
    """What of a served model is here: the digests of its settings and tokenizer, or hub id and revision."""
    folder = Path(source.path)
    if not folder.is_dir():
        return f"{source.path}@{source.revision or 'main'}"
    return {path.name: digest(path) for path in sorted(folder.iterdir()) if path.suffix in SETTINGS}

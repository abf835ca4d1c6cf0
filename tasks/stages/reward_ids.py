"""Ids of the reward models and rubrics that a stage reads: content hashes, or id and revision on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.disk.files import digest, weights_id
from configs.schema.rewards import JudgeRewardConfig, RewardConfig
from reward_training.scorer import RewardModelSource


def rubric_ids(rewards: Sequence[RewardConfig]) -> dict[str, str]:
    """{`rubric/<reward>`: digest of the rubric file} of each judge."""
    return {f"rubric/{r.name}": digest(Path(r.rubric)) for r in rewards if isinstance(r, JudgeRewardConfig)}


def model_ids(models: Mapping[str, RewardModelSource]) -> dict[str, str]:
    """{`reward_model/<name>`: content hash of a local folder, otherwise hub id and revision}."""
    return {f"reward_model/{name}": _model_id(source) for name, source in sorted(models.items())}


def _model_id(source: RewardModelSource) -> str:
    if Path(source.path).is_dir():
        return weights_id(Path(source.path))
    return f"{source.path}@{source.revision or 'main'}"

"""Reward models as inputs of a stage: named by what is in them, not by where they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from configs.files import weights_id
from reward_training.scorer import RewardModelSource


def model_ids(models: Mapping[str, RewardModelSource]) -> dict[str, str]:
    """{`reward_model/<name>`: content hash of a local folder, or hub id and revision}."""
    return {f"reward_model/{name}": _model_id(source) for name, source in sorted(models.items())}


def _model_id(source: RewardModelSource) -> str:
    if Path(source.path).is_dir():
        return weights_id(Path(source.path))
    return f"{source.path}@{source.revision or 'main'}"

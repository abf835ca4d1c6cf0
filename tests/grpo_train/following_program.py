"""One rank, or the only process, of a training on what servers write: `tests/grpo_train/test_following_ranks.py` starts it.

python -m tests.grpo_train.following_program FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.disk.checkpoints import Checkpoints
from configs.errors import StageStopped
from configs.reader import load_config
from configs.records import Policy
from configs.schema.rewards import ModelRewardConfig, ProcessRewardConfig, RewardConfig
from grpo_train.following import Serving
from grpo_train.policies.adapter import Adapter
from grpo_train.policies.model import load_policy, save_policy
from grpo_train.step import StepResult
from grpo_train.trainer import train
from grpo_train.updating.ranks import Ranks
from reward_training.scorer import RewardModelSource, build_rewards
from tasks.job import _meet_ranks
from tests.grpo_train.test_following import PROBLEMS
from tests.grpo_train.test_trainer import Given, fives
from tests.paths import TINY

CASES = "cases.json"


def main(folder: Path) -> None:
    if "RANK" in os.environ:
        _meet_ranks(folder / "ranks.store")
    for case in json.loads((folder / CASES).read_bytes()):
        run(Path(case["folder"]), case)


def run(folder: Path, case: dict[str, Any]) -> None:
    """Train as the case says, from and to the checkpoints in its `stage`, until after its step `stop_after`; the main rank writes
    model/ and rank_0.json."""
    config, ranks = load_config(TINY, case["overrides"]), Ranks()
    grpo, policy = config.grpo_config, Policy.model_validate(case["policy"])
    sharding = ranks.sharding(grpo.precision) if case["shard"] else None
    model, tokenizer = load_policy(policy.path, device=ranks.device, sharding=sharding)
    adapter = Adapter(model, grpo.lora, seed=0) if grpo.lora else None
    steps: list[StepResult] = []
    known: list[dict[str, Any]] = []
    checkpoints = None
    if stage := case.get("stage"):
        checkpoints = Checkpoints(Path(stage), fingerprint="work", every=100, keep=2, warn=print)
    models = {name: RewardModelSource(path, max_length=256) for name, path in case["reward_models"].items()}
    split = ranks.sharding("float32") if case["shard"] else None
    with build_rewards(rewards_of(models), models, sharding=split) as built, suppress(StageStopped):
        known = train(
            model,
            tokenizer,
            PROBLEMS,
            policy=policy,
            initial_policy=policy,
            rewards=[Given("correct", 1.0, fives), *built],
            config=config,
            round_index=1,
            on_step=steps.append,
            should_stop=lambda: bool(steps) and steps[-1].step == case.get("stop_after"),
            checkpoints=checkpoints,
            serving=Serving(folder / "served", policy, warn=print),
        ).known
    if ranks.is_main or sharding is not None:
        save_policy(adapter.merge() if adapter else model, tokenizer, folder / "model", round_index=1)
    told = {
        "steps": [step.metrics for step in steps],
        "texts": [row["text"] for step in steps for row in step.rollouts],
        "parts": [row["parts"] for step in steps for row in step.rollouts],
        "known": known,
        "peak_mib": 0.0,
    }
    (folder / f"rank_{ranks.index}.json").write_text(json.dumps(told), encoding="utf-8")


def rewards_of(models: Collection[str]) -> list[RewardConfig]:
    """A reward for each model, and one by which the first of them checks the steps."""
    of_models: list[RewardConfig] = [ModelRewardConfig(name=name, model=name, weight=0.1) for name in models]
    return of_models + [ProcessRewardConfig(name="steps", checked_by=name, weight=0.1) for name in [*models][:1]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

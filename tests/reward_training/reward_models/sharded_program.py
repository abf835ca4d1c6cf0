"""One rank, or the only process, that scores with reward models: `test_sharded_scores.py` starts it.

python -m tests.reward_training.reward_models.sharded_program FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from grpo_train.updating.ranks import Ranks
from reward_training.reward_models import scores
from reward_training.reward_models.scores import RewardModelScorer
from reward_training.transformer.sharding import Sharding, local
from tasks.job import _meet_ranks

CASES = "cases.json"
TOKENS_PER_BATCH = 64
"""so that ranks have several batches, and not equally many"""


def main(folder: Path) -> None:
    if "RANK" in os.environ:
        _meet_ranks(folder / "ranks.store")
    scores.TOKENS_PER_BATCH["cpu"] = TOKENS_PER_BATCH
    ranks = Ranks()
    told = {name: run(case, ranks) for name, case in json.loads((folder / CASES).read_bytes()).items()}
    (folder / f"rank_{ranks.index}.json").write_text(json.dumps(told), encoding="utf-8")


def run(case: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """The scores of this rank's conversations, twice, and how many numbers of the model it holds."""
    sharding: Sharding | None = ranks.sharding("float32")
    with RewardModelScorer(case["model"], max_length=256, precision=case["precision"], sharding=sharding) as scorer:
        assert scorer.is_sharded == (ranks.count > 1)
        assert scorer._model is not None
        mine = case["shares"][ranks.index]
        found = [scorer.calibrated(scorer.scores(mine)) for _ in range(2)]
        held = sum(local(weight).numel() for weight in scorer._model.parameters())
    return {"scores": found, "held": held}


if __name__ == "__main__":
    main(Path(sys.argv[1]))

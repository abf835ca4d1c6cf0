"""What the round before sampled at its end, for a method that learns from it."""

from __future__ import annotations

from pathlib import Path

from configs.disk.files import digest
from configs.records import Record
from grpo_train.problems.splits import shard_name
from tasks.running.run import Run
from tasks.runs.stage_files import COMPLETIONS, SCORES
from tasks.runs.workspace import round_folder


class Samples(Record):
    """Files of a regeneration: its problems, their responses, and the scores of these, aligned one to one."""

    problems: str
    completions: str
    scores: str

    def digests(self) -> dict[str, str]:
        return {f"samples/{name}": digest(Path(path)) for name, path in self.model_dump().items()}


def samples_before(run: Run, round_index: int) -> Samples:
    """Those of the round before `round_index`."""
    last_round = round_index - 1
    stage_dir = round_folder(run.folder, last_round) / "regenerate"
    return Samples(
        problems=str(run.problems(last_round, shard_name(last_round))),
        completions=str(stage_dir / COMPLETIONS),
        scores=str(stage_dir / SCORES),
    )

"""The problems of a run on disk: a file a split, and the counts of what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from configs.disk.files import JOURNAL, Journal, digest_files, digest_json, read_jsonl, write_json, write_jsonl
from configs.records import Policy, Problem
from configs.schema.problems import DatasetSource, JsonlSource, Source
from grpo_train.policies.model import load_tokenizer
from grpo_train.problems.curriculum import check_difficulty
from grpo_train.problems.splits import load_problems
from tasks.running.stage import ALONE, Context, StageSpec, digest_or_gone


class ProblemsSpec(StageSpec):
    """The tokenizer counts the prompts' tokens, hence the policy."""

    reads: ClassVar[tuple[str, ...]] = ("seed", "problems", "regeneration", "curriculum")

    policy: Policy
    rounds: int
    """shards for so many rounds after round 0"""

    def inputs(self) -> dict[str, str]:
        sources = self.config.problems.sources
        files = {f"source/{i}": value for i, source in enumerate(sources) if (value := _source_digest(source))}
        return {"policy": self.policy.id, "rounds": str(self.rounds)} | files


def _source_digest(source: Source) -> str | None:
    """Digest of a source's local data; None where it is made by a program or fetched by name."""
    if isinstance(source, JsonlSource):
        return digest_or_gone(Path(source.path))
    if isinstance(source, DatasetSource) and Path(source.path).is_dir():
        return digest_json(digest_files(Path(source.path)))
    return None


def run(spec: ProblemsSpec, out_dir: Path, context: Context = ALONE) -> None:
    """Write `<split>.jsonl` for each split, and counts.json."""
    context.progress.say("reading and splitting")
    config = spec.config
    problems = load_problems(
        config.problems,
        config.regeneration,
        rounds=spec.rounds,
        seed=config.seed,
        tokenizer=load_tokenizer(spec.policy.path),
    )
    check_difficulty(problems.by_split["train"], config.curriculum)
    for split, members in problems.by_split.items():
        write_jsonl(out_dir / f"{split}.jsonl", members)
    write_json(out_dir / "counts.json", problems.counts)
    counts = {f"problems/{name}": float(count) for name, count in problems.counts.items()}
    Journal(out_dir / JOURNAL).write(0, counts)


def load_split(folder: Path, split: str) -> list[Problem]:
    """The problems of one split."""
    return read_jsonl(folder / f"{split}.jsonl", Problem)

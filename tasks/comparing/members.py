"""What a finished member of a comparison measured, read from the folder of its run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from configs.disk.files import JOURNAL, digest, read_manifest
from configs.errors import ConfigError
from configs.schema.comparing.compare import Member
from configs.schema.config import Config
from grpo_train.measuring.retention.changes import by_item
from tasks.runs.cleaned import cleaned_files
from tasks.runs.run_records import RoundRecords, RunRecords, read_run_records
from tasks.runs.stage_files import RETENTION_ROWS
from tasks.runs.times import RunTime, run_time
from tasks.runs.workspace import run_folder

TIME = "time/"
OF_WHOLE_STEPS = ("step", "tokens_per_second", "overlapped")
"""keys below `time/` that are no phase of a step"""
SCORED_BY = ("scorer/", "rubric/")
"""beginnings of the inputs of an evaluation that say what it was scored by"""
SOURCE = "source/"
"""beginning of the inputs of problems that say what they were read from"""

Curve = list[tuple[float, float]]
"""(generated tokens so far, what was measured then), by tokens"""


@dataclass(frozen=True)
class MemberRun:
    """A member and what its run wrote."""

    member: Member
    records: RunRecords

    @property
    def trained(self) -> RoundRecords:
        """The last round, whose policy is what the training came to, promoted or not."""
        return self.records.rounds[-1]

    @property
    def given(self) -> RoundRecords:
        """Round 0, which measured the given policy."""
        assert self.records.baseline is not None, "a finished run has round 0"
        return self.records.baseline

    @property
    def champion(self) -> RoundRecords:
        assert self.records.champion is not None, "a finished run has a champion"
        return self.records.champion

    @property
    def num_promoted(self) -> int:
        """Rounds whose policy was promoted."""
        return sum(record.decision is not None and record.decision.promoted for record in self.records.rounds)

    @cached_property
    def tokens_by_round(self) -> list[float]:
        """Tokens that were generated for training up to the end of each round; 0 at round 0."""
        return list(accumulate(record.tokens.get("tokens/generated", 0.0) for record in self.records.rounds))

    @property
    def time(self) -> RunTime:
        return run_time(self.records.folder)

    @property
    def seconds_by_phase(self) -> dict[str, float]:
        """{phase of a training step: seconds} over all rounds, as the journals have them."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for record in self.records.rounds[1:]:
            for line in record.journal:
                phase = line.key.removeprefix(TIME)
                if line.key.startswith(TIME) and phase not in OF_WHOLE_STEPS:
                    seconds[phase] += line.value
        return dict(seconds)

    def highest(self, key: str) -> float | None:
        """The highest value of a step metric in all rounds; None if none has it."""
        return max((value for record in self.records.rounds for _, value in record.steps(key)), default=None)

    @property
    def short_rounds(self) -> list[int]:
        """Rounds whose training ended before its budget was spent; none of a method without one."""
        if self.member.config.budget is None:
            return []
        return [r.index for r in self.records.rounds[1:] if r.training is not None and not r.training.is_budget_spent]

    @property
    def untrained_rounds(self) -> list[int]:
        """Rounds whose training moved nothing, so that the policy is the one that it began with."""
        return [r.index for r in self.records.rounds[1:] if r.training is not None and r.training.untrained is not None]

    def by_round(self, split: str, metric: str) -> Curve:
        """A metric of each round's policy, the given one first."""
        measured = (record.estimate(split, metric) for record in self.records.rounds)
        rows = zip(self.tokens_by_round, measured, strict=True)
        return [(tokens, value.estimate) for tokens, value in rows if value is not None]

    def after_rounds(self, split: str, metric: str) -> Curve:
        """The same of the policies that rounds trained."""
        return self.by_round(split, metric)[1:]

    def by_step(self, key: str) -> Curve:
        """A metric of the training steps, the rounds one after the other."""
        curve: Curve = []
        for before, record in zip(self.tokens_by_round, self.records.rounds[1:], strict=False):
            values, spent = dict(record.steps(key)), before
            for step, tokens in record.steps("tokens/generated"):
                spent += tokens
                if step in values:
                    curve.append((spent, values[step]))
        return curve

    def right(self, record: RoundRecords, split: str, metric: str) -> dict[str, float]:
        """{problem key: value of the metric} of a round's policy."""
        return {row["problem_key"]: row[metric] for row in record.results if row["split"] == split and metric in row}

    def retained(self, suite: str, measure: str) -> dict[str, float]:
        """{item: change of its value} of a suite, from the given policy, before a cold start, to the one that the last round trained."""
        given = self.records.given
        assert given is not None, "a finished run has round 0"
        before, after = (by_item(record.retention_rows, suite, measure) for record in (given, self.trained))
        return {item: after[item] - before[item] for item in before if item in after}


READ_FILES = (JOURNAL, "report.json", "results.jsonl", "result.json", "retention.json", RETENTION_ROWS, "decision.json")
"""files of the stages that a comparison reads"""
READ_STAGES = ("evaluate", "policy", "promote")


def read_member(root: Path, member: Member) -> MemberRun:
    """The member with what its run wrote.

    Raises:
        ConfigError: a file that a comparison reads is not as the run left it.
    """
    folder = run_folder(root, member.name)
    for name in READ_STAGES:
        for stage in sorted(folder.glob(f"round_*/{name}")):
            _refuse_damaged(folder, stage)
    return MemberRun(member, read_run_records(folder))


def _refuse_damaged(folder: Path, stage: Path) -> None:
    manifest = read_manifest(stage)
    wanted = {} if manifest is None else {n: manifest.outputs[n] for n in READ_FILES if n in manifest.outputs}
    for name in wanted.keys() - cleaned_files(stage):
        if not (stage / name).is_file() or digest(stage / name) != wanted[name]:
            raise ConfigError(
                f"{stage / name} was changed or removed since run {folder.name!r} wrote it, so the comparison would be of other numbers; "
                f"restore it, or remove {folder} and call again, which makes the run anew"
            )


def metric_of(config: Config) -> str:
    """What is compared: greedy accuracy, or what promotion looks at where no reward says what is right."""
    return "greedy_accuracy" if config.checkers else config.promotion.metric


def mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def highest_of_known(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def refuse_unequal(runs: Sequence[MemberRun]) -> None:
    """Check that members of one seed had the same problems, and that all had the same data and were scored by the same code.

    Raises:
        ConfigError: a file of data or of problems, or a reward's code, changed between two members.
    """
    problems: dict[int, tuple[str, dict[str, str]]] = {}
    data: tuple[str, dict[str, str]] | None = None
    scorers: tuple[str, dict[str, str]] | None = None
    for run in runs:
        name, seed = run.member.name, run.member.seed
        data = data or (name, data_of_run(run.records.folder))
        _refuse_change("data", name, data_of_run(run.records.folder), *data)
        other, theirs = problems.setdefault(seed, (name, _problem_files(run)))
        _refuse_change("problems", name, _problem_files(run), other, theirs)
        scorers = scorers or (name, _scored_by(run))
        _refuse_change("what scores", name, _scored_by(run), *scorers)


def data_of_run(folder: Path) -> dict[str, str]:
    """{source: digest of its file} of the problems of a run; empty before they are made."""
    manifest = read_manifest(folder / "problems")
    inputs = {} if manifest is None else manifest.inputs
    return {name: value for name, value in inputs.items() if name.startswith(SOURCE)}


def _problem_files(run: MemberRun) -> dict[str, str]:
    folder = run.records.folder
    files = (path for path in sorted(folder.glob("problems*/*.jsonl")) if path.name != JOURNAL)
    return {str(path.relative_to(folder)): digest(path) for path in files}


def _scored_by(run: MemberRun) -> dict[str, str]:
    manifest = read_manifest(run.trained.folder / "evaluate")
    inputs = {} if manifest is None else manifest.inputs
    return {name: value for name, value in inputs.items() if name.startswith(SCORED_BY)}


def _refuse_change(what: str, name: str, mine: dict[str, str], other: str, theirs: dict[str, str]) -> None:
    if changed := sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)):
        raise ConfigError(
            f"runs {other!r} and {name!r} cannot be compared: {what} differs in {changed[0]}, which changed while the comparison "
            "was at work; compare anew under another name by --run NAME"
        )

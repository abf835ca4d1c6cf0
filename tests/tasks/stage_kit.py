"""A run with a real tracking store and a stage that writes two files, for tests of what surrounds a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from configs.disk.files import JOURNAL, Journal, append_jsonl, write_jsonl
from configs.reader import load_config
from configs.records import Completion, Policy, Problem, Score
from configs.schema.config import Config
from tasks.alerting.alerts import Alerts
from tasks.running.run import Run
from tasks.running.stage import Context
from tasks.running.stage_spec import StageSpec
from tasks.runs.facts import Outcome, StageFacts, Status
from tasks.runs.run_file import open_run
from tasks.runs.stage_files import COMPLETIONS, SCORES
from tasks.runs.workspace import run_folder
from tasks.showing.terminal import Terminal
from tasks.stages.samples import Samples
from tasks.tracking.tracker import Tracking
from tests.paths import TINY


def tiny(*overrides: str) -> Config:
    return load_config(TINY, list(overrides))


def write_sums(root: Path) -> Path:
    """A file of eight training problems."""
    path = root / "train.jsonl"
    prompts = [[{"role": "user", "content": f"{i} + {i} ="}] for i in range(8)]
    write_jsonl(
        path, [Problem(key=f"{i}", prompt=prompts[i], answer=f"{2 * i}", source="s", split="train") for i in range(8)]
    )
    return path


def write_samples(root: Path, policy: Policy) -> Samples:
    """What a regeneration wrote: eight responses of the policy with totals from 0 to 7, one of another policy, and
    one that nobody could score."""
    folder = root / "regenerate"
    folder.mkdir(exist_ok=True)
    completions = [
        Completion(
            problem_key=f"{i}", index=0, prompt_ids=[3, 40 + i], token_ids=[5 + i, 4], text=f"{i}", finish_reason="stop",
            logprobs=[-1.0, -1.0], policy_id="another" if i == 8 else policy.id, step=0, seed=0,
        )
        for i in range(10)
    ]  # fmt: skip
    scores = [Score(parts={"digits": float(i) if i < 9 else None}, total=float(i) if i < 9 else 0.0) for i in range(10)]
    write_jsonl(folder / COMPLETIONS, completions)
    write_jsonl(folder / SCORES, scores)
    (folder / "problems.jsonl").touch()
    return Samples(**{name: str(folder / f"{name}.jsonl") for name in ("problems", "completions", "scores")})


def nobody_stops() -> bool:
    return False


class Untold(Tracking):
    """Tracking that tells nobody."""

    def __init__(self) -> None:
        """Nothing to hold."""

    def start_stage(self, folder: Path, facts: StageFacts) -> None:
        """Nobody is told."""

    def sync(self) -> None:
        """Nobody is told."""

    def end_stage(
        self, folder: Path, status: Status, outcome: Outcome | None = None, *, ended_ms: int | None = None
    ) -> None:
        """Nobody is told."""

    def stage_stands(self, folder: Path, facts: StageFacts, outcome: Callable[[], Outcome], ended_ms: int) -> None:
        """Nobody is told."""

    def stage_run_id(self, folder: Path) -> str | None:
        return None


def open_in(
    root: Path, config: Config | None = None, *, uri: str | None = None, warnings: list[str] | None = None
) -> Run:
    """The run as a fresh process would open it; `warnings` collects what it warns of."""
    config = config or tiny()
    file = open_run(root, config)
    folder = run_folder(root, config.run_name)
    said = warnings if warnings is not None else []
    tracking = Tracking(root, folder, name=file.name, uid=file.uid, config=config, warn=said.append, uri=uri)
    console = Terminal(out=Console(quiet=True), err=Console(quiet=True))
    alerts = Alerts(root, config.alerts, run=file.name, uid=file.uid, warn=said.append)
    return Run(config, file.name, folder, root, tracking, console, alerts, nobody_stops)


def open_untold(root: Path, config: Config | None = None) -> Run:
    """The same without MLflow."""
    return replace(open_in(root, config, uri="sqlite://"), tracking=Untold())


class LetterSpec(StageSpec):
    """A stage whose work is writing letters."""

    model_id: str = "model-1"

    def reads(self) -> tuple[str, ...]:
        return ("seed", "grpo_config")

    def inputs(self) -> dict[str, str]:
        return {"policy": self.model_id}


class ResumableSpec(LetterSpec):
    """The same with a checkpoint after every second letter."""

    @property
    def save_steps(self) -> int:
        return 2


def write_resumable_letters(
    spec: ResumableSpec, out_dir: Path, context: Context, *, seconds: float, then: Callable[[int], None]
) -> None:
    """Five steps from the newest checkpoint on, each followed by `then(step)`."""
    checkpoints, journal = spec.checkpoints(out_dir, context.warn), Journal(out_dir / JOURNAL)
    newest = checkpoints.newest()
    for step in range(newest[1].step + 1 if newest else 1, 6):
        journal.write(step, {"reward/mean": step / 10, "time/step": seconds})
        append_jsonl(out_dir / "rollouts.jsonl", [{"step": step, "text": f"written in {seconds} s"}])
        context.written()
        then(step)
        if checkpoints.due(step):
            checkpoints.save(step, lambda folder: None)
    (out_dir / "result.json").write_text("{}")


def write_letters(
    spec: LetterSpec, out_dir: Path, context: Context, *, steps: int = 3, then: Callable[[], None] | None = None
) -> None:
    """`steps` steps of two metrics and one rollout each, then `then`, then a result and a model folder."""
    journal = Journal(out_dir / JOURNAL)
    for step in range(1, steps + 1):
        journal.write(step, {"reward/mean": step / 10, "policy/entropy": 2.0})
        rollout = {"step": step, "text": "a", "parts": {"correct": 1.0, "judge": None}, "advantage": 0.5}
        append_jsonl(out_dir / "rollouts.jsonl", [rollout])
        context.written()
    if then is not None:
        then()
    (out_dir / "model").mkdir()
    (out_dir / "model" / "weights.safetensors").write_bytes(b"w" * 100)
    (out_dir / "result.json").write_text(f'{{"seed": {spec.config.seed}}}')

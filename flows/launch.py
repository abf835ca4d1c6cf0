"""`regroup run`, `reward-model` and `evaluate`: what is cheap to refuse first, then a flow, then what came out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, StageStopped, WorkspaceBusy
from configs.reader import load_config
from configs.schema.config import Config
from flows.prefect_server import connected
from flows.summary import FILE, Summary, finished_summary
from tasks.runs.facts import load
from tasks.runs.run_file import open_run, refuse_without_pairs, run_names
from tasks.runs.workspace import lock_holder, run_folder
from tasks.showing.tables import estimates_table, rounds_table, verdict_on
from tasks.showing.terminal import Terminal
from tasks.tracking.outbox import TRACKING, RunTracking


def run_to_the_end(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Start the run or go on with it; a finished one is shown as it is.

    Raises:
        ConfigError, WorkspaceBusy, StageStopped: exit codes 2, 3 and 130.
    """
    root, terminal = Path.cwd(), Terminal()
    config = configured(path, overrides, name)
    summary = _finished(root, config)
    if summary is not None:
        terminal.say(f"run {summary['run']} is finished already")
    else:
        refuse_when_held(root)
        if config.run_name in run_names(root):
            open_run(root, config)
        summary = in_a_flow(root, "align", config, meanwhile=lambda: _check_data(root, config, terminal))
    _show(root, summary, terminal)


def retrain_by_hand(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Retrain a run's reward models; prints the verdict on each."""
    root, terminal = Path.cwd(), Terminal()
    config = configured(path, overrides, name)
    refuse_without_pairs(root, config)
    if not config.trained_reward_models:
        raise ConfigError(f"{path} trains no reward model; add a block of kind `trained` to reward_models")
    for model, report in in_a_flow(root, "reward-models", config).items():
        terminal.print(verdict_on(model, report))


def evaluate_champion(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Measure a run's champion, or before the first round the given policy; prints the estimates."""
    reports = in_a_flow(Path.cwd(), "evaluate", configured(path, overrides, name))
    Terminal().print(estimates_table(reports))


def configured(path: Path, overrides: tuple[str, ...], name: str | None) -> Config:
    """The configuration, under another run name where one is given."""
    renamed = [] if name is None else [f"run.name={json.dumps(name)}"]
    return load_config(path, [*overrides, *renamed])


def _check_data(root: Path, config: Config, terminal: Terminal) -> None:
    """What can be refused before anything is trained: data, models and settings that do not fit each other."""
    from flows.doctor.report import refuse_faulty  # brings torch

    with terminal.stage("checks"):
        report = refuse_faulty(config, root)
    for check in report.findings:
        if check.status == "warn":
            terminal.warn(f"{check.name}: {check.detail}; {check.remedy}")


def _finished(root: Path, config: Config) -> Summary | None:
    """The summary where the run is finished, MLflow was told so, and the configuration is unchanged. No Prefect needed."""
    name = config.run_name
    summary = finished_summary(root, name, config.rounds)
    if summary is None or not was_told(run_folder(root, name)):
        return None
    open_run(root, config)
    return summary


def was_told(run_dir: Path) -> bool:
    """Whether the tracking server got a finished run; otherwise going on sends what it misses."""
    record = load(run_dir / TRACKING, RunTracking)
    return record is not None and record.status == "FINISHED"


def in_a_flow(root: Path, flow_name: str, config: Config, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """What a flow returns, run on a server that is there while it works; `meanwhile` is done as that one starts.

    Raises:
        WorkspaceBusy: another process works in this folder.
        StageStopped: the flow was cancelled.
    """
    refuse_when_held(root)
    terminal = Terminal()
    terminal.say("starting Prefect")

    def get_ready() -> None:
        meanwhile()
        _flow(flow_name)  # its imports take seconds

    with connected(root, get_ready):
        from prefect.exceptions import CancelledRun

        try:
            return _flow(flow_name)(config)
        except CancelledRun as error:
            raise StageStopped(str(error)) from error


def _flow(name: str) -> Callable[[Config], Any]:
    """Flows import Prefect, which reads its settings once: `connected` has to come first."""
    from flows.align import align
    from flows.evaluate import evaluate
    from flows.reward_models import retrain_reward_models

    flows: dict[str, Callable[[Config], Any]] = {
        "align": align,
        "evaluate": evaluate,
        "reward-models": retrain_reward_models,
    }
    return flows[name]


def refuse_when_held(root: Path) -> None:
    """Say so before anything is started; the lock itself is taken by the flow."""
    holder = lock_holder(root)
    if holder is not None:
        raise WorkspaceBusy(
            f"{root} is held by run {holder.run!r} (process {holder.pid}, started {holder.started}); "
            f"wait for it, stop it with `kill {holder.pid}`, or work in another folder"
        )


def _show(root: Path, summary: Summary, terminal: Terminal) -> None:
    """The table of rounds, where to look, and the path of summary.json as the last line."""
    folder = run_folder(root, summary["run"])
    terminal.print(rounds_table(summary))
    terminal.print("accuracy is greedy, over its 95% interval; dev promotes, test only reports")
    if "seconds" in summary:
        terminal.print(f"took       {_taken(summary['seconds'])}")
    terminal.print(f"pages      regroup ui          (MLflow experiment {summary['mlflow']['experiment_id']})")
    terminal.print(f"report     {_short(folder / 'report.html')}")
    terminal.print(f'try it     regroup sample {summary["run"]} "What is 17 + 25?"')
    terminal.print_path(folder / FILE)


def _taken(seconds: dict[str, float]) -> str:
    """How long the process that ended the run worked, and how much of that went into other things than its stages."""
    minutes, rest = divmod(round(seconds["whole"]), 60)
    share = seconds["bookkeeping"] / seconds["whole"]
    return f"{minutes}:{rest:02}, {share:.0%} of it for Prefect, MLflow and bookkeeping"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

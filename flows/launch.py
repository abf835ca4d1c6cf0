"""The commands that run a Prefect flow: `run`, `reward-model` and `evaluate`.

Each makes the cheap checks first, then runs the flow, then prints its results.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, StageStopped
from configs.reader import load_config
from configs.schema.config import Config
from flows.prefect_server import connected
from flows.summary import FILE, Summary, finished_summary
from tasks.runs.facts import load
from tasks.runs.run_file import open_run, refuse_without_pairs, run_names, stored_config
from tasks.runs.workspace import refuse_when_held, run_folder
from tasks.showing.tables import estimates_table, rounds_table, sources_table, verdict_on
from tasks.showing.terminal import Terminal
from tasks.tracking.outbox import TRACKING, RunTracking


def run_to_the_end(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Start the run, or resume it, and print its summary; a finished run is only printed.

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
            config = stored_config(open_run(root, config))
        summary = in_a_flow(root, "align", config, meanwhile=lambda: _check_data(root, config, terminal))
    _show(root, summary, terminal)


def retrain_by_hand(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Retrain the reward models of a run and print whether each was accepted."""
    root, terminal = Path.cwd(), Terminal()
    config = configured(path, overrides, name)
    refuse_without_pairs(root, config)
    if not config.trained_reward_models:
        raise ConfigError(f"{path} trains no reward model; add a block of kind `trained` to reward_models")
    for model, report in in_a_flow(root, "reward-models", config).items():
        terminal.print(verdict_on(model, report))


def evaluate_champion(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Evaluate the champion of a run, or the given policy before its first finished round, and print the estimates."""
    reports = in_a_flow(Path.cwd(), "evaluate", configured(path, overrides, name))
    Terminal().print(estimates_table(reports))


def configured(path: Path, overrides: tuple[str, ...], name: str | None) -> Config:
    """The configuration in the file, with run name `name` unless that is None."""
    renamed = [] if name is None else [f"run.name={json.dumps(name)}"]
    return load_config(path, [*overrides, *renamed])


def _check_data(root: Path, config: Config, terminal: Terminal) -> None:
    """Run the quick checks of the doctor: raises ConfigError on failures and prints warnings."""
    from flows.doctor.report import refuse_faulty  # brings torch

    with terminal.stage("checks"):
        report = refuse_faulty(config, root)
    for check in report.findings:
        if check.status == "warn":
            terminal.warn(f"{check.name}: {check.detail}; {check.remedy}")


def _finished(root: Path, config: Config) -> Summary | None:
    """The summary if the run is finished and MLflow has all of it, otherwise None; needs no Prefect server.

    Raises:
        ConfigError: the run was started with another configuration.
    """
    name = config.run_name
    summary = finished_summary(root, name, config.rounds)
    if summary is None or not was_told(run_folder(root, name)):
        return None
    open_run(root, config)
    return summary


def was_told(run_dir: Path) -> bool:
    """Whether the tracking server knows that the run is finished; if not, resuming the run sends what is missing."""
    record = load(run_dir / TRACKING, RunTracking)
    return record is not None and record.status == "FINISHED"


def in_a_flow(root: Path, flow_name: str, config: Config, meanwhile: Callable[[], None] = lambda: None) -> Any:
    """The result of a flow, run on a Prefect server that lives as long; `meanwhile` is called while the server starts.

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
    """The flow of that name. Call it inside `connected` only: importing Prefect reads its settings once and for all."""
    from flows.align import align
    from flows.evaluate import evaluate
    from flows.reward_models import retrain_reward_models

    flows: dict[str, Callable[[Config], Any]] = {
        "align": align,
        "evaluate": evaluate,
        "reward-models": retrain_reward_models,
    }
    return flows[name]


def _show(root: Path, summary: Summary, terminal: Terminal) -> None:
    """Print the table of rounds, the time, where report and pages are, and last the path of summary.json."""
    folder = run_folder(root, summary["run"])
    terminal.print(rounds_table(summary))
    if (by_source := sources_table(summary)) is not None:
        terminal.print(by_source)
    terminal.print("accuracy is greedy, over its 95% interval; dev promotes, test only reports")
    if "seconds" in summary:
        terminal.print(f"took       {_time_taken(summary['seconds'])}")
    terminal.print(f"pages      regroup ui          (MLflow experiment {summary['mlflow']['experiment_id']})")
    terminal.print(f"report     {_short(folder / 'report.html')}")
    terminal.print(f'try it     regroup sample {summary["run"]} "What is 17 + 25?"')
    terminal.print_path(folder / FILE)


def _time_taken(seconds: dict[str, float]) -> str:
    """Minutes and seconds of the process that finished the run, and the share of that time spent outside its stages."""
    minutes, rest = divmod(round(seconds["whole"]), 60)
    share = seconds["bookkeeping"] / seconds["whole"]
    return f"{minutes}:{rest:02}, {share:.0%} of it for Prefect, MLflow and bookkeeping"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path

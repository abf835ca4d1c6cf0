"""The commands that run a Prefect flow: `run`, `compare`, `reward-model` and `evaluate`; and `join`, by which another machine takes part in a run.

Each that runs a flow makes the cheap checks first, then runs the flow, then prints its results.
"""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from configs.errors import ConfigError, StageStopped
from configs.paths import RUN_FILE
from configs.reader import load_comparison, load_config
from configs.schema.block import NAME
from configs.schema.comparing.compare import Comparison, Member
from configs.schema.config import Config
from flows.prefect_server import connected
from flows.summary import FILE, Summary, finished_summary, is_finished, old_abilities, was_told
from flows.telling.leftovers import what_prefect_lacks
from tasks.comparing.comparison_file import RESULT, open_comparison
from tasks.runs.run_file import (
    open_run,
    read_run,
    refuse_taken_name,
    refuse_without_pairs,
    run_names,
    stored_config,
)
from tasks.runs.run_records import read_run_records
from tasks.runs.workspace import (
    lock_holder,
    refuse_unwritable,
    refuse_when_held,
    run_folder,
    runs_folder,
    workspace_lock,
)
from tasks.showing.old_abilities import retention_table
from tasks.showing.tables import estimates_table, rounds_table, sources_table, verdict_on
from tasks.showing.terminal import Terminal, clock
from tasks.tracking.outbox import lacking

PATIENCE_S = 20.0
"""how long a server that answers, and has just started, may refuse to take what it lacks of a finished run"""
ASK_EVERY_S = 5.0
"""how often a machine that joined asks whether the run is finished"""


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
        _tell_what_prefect_lacks(root, config.run_name)
    else:
        refuse_when_held(root)
        if config.run_name in run_names(root):
            config = stored_config(open_run(root, config))
        summary = in_a_flow(root, "align", config, meanwhile=lambda: _check_data(root, config, terminal))
    _show(root, summary, terminal)


def compare_methods(path: Path, overrides: tuple[str, ...], name: str | None) -> None:
    """Finish the runs of the comparison that are not finished, and show what came out.

    Raises:
        ConfigError, WorkspaceBusy, StageStopped: exit codes 2, 3 and 130.
    """
    from flows.comparing.conclusion import conclude  # brings matplotlib
    from flows.comparing.planning import planned

    root, terminal = Path.cwd(), Terminal()
    comparison = load_comparison(path, [*overrides, *_renamed(name)])
    refuse_unwritable(root)
    file = open_comparison(root, comparison)
    left = _unfinished(root, planned(root, comparison, file.date))
    if left:
        in_a_flow(root, "compare", comparison, meanwhile=lambda: _check_methods(root, left, terminal))
    else:
        terminal.say(f"all runs of comparison {comparison.name} are finished already")
    page = conclude(root, file, terminal)
    terminal.print(f"report     {_short(page)}")
    terminal.print_path(page.parent / RESULT)


def _unfinished(root: Path, members: list[Member]) -> list[Member]:
    """The members to work on; those that have begun are checked against their configurations.

    Raises:
        ConfigError: a run was started with another configuration; the changed fields are named.
    """
    begun = set(run_names(root))
    for member in members:
        refuse_taken_name(root, member.name)
        if member.name in begun:
            open_run(root, member.config)
    return [member for member in members if not is_finished(root, member.config)]


def _check_methods(root: Path, left: list[Member], terminal: Terminal) -> None:
    """Run the quick checks of the doctor on each method that has something left to do, and see that what all runs keep fits."""
    from flows.doctor.resources import check_disk_of_runs

    folder = None
    for method in dict.fromkeys(member.method for member in left):
        terminal.say(f"method {method}")
        folder = _check_data(root, next(member.config for member in left if member.method == method), terminal)
    assert folder is not None, "a check without a policy raises"
    disk = check_disk_of_runs([member.config for member in left], folder, root)
    if disk.status == "fail":
        raise ConfigError(f"{disk.name}: {disk.detail}; {disk.remedy}")


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
    """Evaluate the champion of a run, or the given policy before its first finished round, and print the estimates and its old
    abilities."""
    root, terminal = Path.cwd(), Terminal()
    config = configured(path, overrides, name)
    reports = in_a_flow(root, "evaluate", config)
    terminal.print(estimates_table(reports))
    name = config.run_name
    measured = old_abilities(root, name, {report.policy_id for report in reports.values()})
    _show_old_abilities(root, name, measured, terminal)


def configured(path: Path, overrides: tuple[str, ...], name: str | None) -> Config:
    """The configuration in the file, with run name `name` unless that is None."""
    config = load_config(path, [*overrides, *_renamed(name)])
    refuse_taken_name(Path.cwd(), config.run_name)
    return config


def _renamed(name: str | None) -> list[str]:
    """The override that gives a run its name; none for None."""
    return [] if name is None else [f"run.name={json.dumps(name)}"]


def _check_data(root: Path, config: Config, terminal: Terminal) -> Path | None:
    """Run the quick checks of the doctor: raises ConfigError on failures and prints warnings; returns the folder of the policy."""
    from flows.doctor.checks import LEFT_OUT
    from flows.doctor.cold_start import LEFT_OUT as DEMONSTRATIONS
    from flows.doctor.report import refuse_faulty  # brings torch

    name = config.run_name
    is_follow_on = name in run_names(root) and read_run(root, name).predecessor is not None
    with terminal.stage("checks"):
        report = refuse_faulty(config, root, is_follow_on=is_follow_on)
    for check in report.findings:
        if check.status == "warn" and check.name not in (LEFT_OUT, DEMONSTRATIONS):  # the stages say it
            terminal.warn_once(f"{check.name}: {check.detail}; {check.remedy}")
    return report.policy_folder


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


def _tell_what_prefect_lacks(root: Path, name: str) -> None:
    """Tell Prefect the end of earlier runs that it lacks; nothing happens while its server is away."""
    if what_prefect_lacks(root) is None or lock_holder(root) is not None:
        return
    with suppress(ConfigError), workspace_lock(root, name), connected(root):
        from flows.telling.settling import settle_within

        settle_within(root, PATIENCE_S)


def in_a_flow(
    root: Path, flow_name: str, config: Config | Comparison, meanwhile: Callable[[], object] = lambda: None
) -> Any:
    """The result of a flow, run on a Prefect server that lives as long; `meanwhile` is called while the server starts.

    Raises:
        WorkspaceBusy: another process works in this folder.
        StageStopped: the flow was cancelled.
    """
    refuse_unwritable(root)
    refuse_when_held(root)
    terminal = Terminal()
    terminal.say("starting Prefect")

    def get_ready() -> None:
        meanwhile()
        _flow(flow_name)  # its imports take seconds

    with connected(root, get_ready):
        from prefect.exceptions import CancelledRun

        from flows.telling import teller

        teller.begin(root, terminal.warn)
        try:
            return _flow(flow_name)(config)
        except CancelledRun as error:
            raise StageStopped(str(error)) from error
        except (
            SystemExit
        ) as error:  # of a library or of a function of the user's; the command must not end as if all were done
            raise RuntimeError(
                f"something that the run called ended the process by sys.exit({error.code!r})"
            ) from error
        finally:
            teller.end()


def _flow(name: str) -> Callable[[Any], Any]:
    """The flow of that name. Call it inside `connected` only: importing Prefect reads its settings once and for all."""
    from flows.align import align
    from flows.comparing.flow import compare
    from flows.evaluate import evaluate
    from flows.reward_models import retrain_reward_models

    flows: dict[str, Callable[[Any], Any]] = {
        "align": align,
        "compare": compare,
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
    _show_old_abilities(root, summary["run"], summary, terminal)
    terminal.print("accuracy is greedy, over its 95% interval; dev promotes, test only reports")
    if "seconds" in summary:
        terminal.print(f"took       {_time_taken(summary['seconds'])}")
    terminal.print(f"pages      regroup ui          (MLflow experiment {summary['mlflow']['experiment_id']})")
    if lack := lacking(folder):
        terminal.print(f"MLflow     lacks {lack}; the next run in this folder sends it, or this command again")
    if (untold := what_prefect_lacks(root)) is not None:
        terminal.print(f"Prefect    {untold}")
    terminal.print(f"report     {_short(folder / 'report.html')}")
    terminal.print(f'try it     regroup sample {summary["run"]} "What is 17 + 25?"')
    terminal.print_path(folder / FILE)


def _show_old_abilities(root: Path, name: str, summary: Summary, terminal: Terminal) -> None:
    """Print the table of the rounds' suites; nothing where there are none."""
    if (table := retention_table(summary)) is not None:
        terminal.print(table)
        records = read_run_records(run_folder(root, name))
        if records.given is records.baseline:
            terminal.print("change is paired, against the given policy; KL is KL(given policy || this one)")
        else:
            terminal.print("change is paired, against the policy before the cold start; KL is from the one after it")


def _time_taken(seconds: dict[str, float]) -> str:
    """The time of all calls that worked on the run, and the shares of it that did not go into its stages."""
    whole = seconds["whole"]
    lost = seconds.get("lost", 0.0)
    done_twice = f", {lost / whole:.0%} for work that was done twice" if round(lost) else ""
    return f"{clock(whole)}, {seconds['bookkeeping'] / whole:.0%} of it for Prefect, MLflow and bookkeeping{done_twice}"


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


# ---- join -----------------------------------------------------------------------------------------------------------


def join_run(root: Path, name: str) -> None:
    """Join each training of the run on this machine, until the run is finished or Ctrl-C; the run may not have begun yet."""
    from tasks.running.joining import join_jobs  # brings torch

    if re.match(NAME, name) is None:
        raise ConfigError(f"{name!r} is no name of a run; {_nearest_runs(root, name)}")
    folder, terminal = run_folder(root, name), Terminal()
    terminal.say(f"waiting for trainings of {folder}; Ctrl-C ends")
    if not (folder / RUN_FILE).exists():
        terminal.warn(f"no run {name!r} has begun there yet; {_nearest_runs(root, name)}")
    elif _num_machines(root, name) == 1:
        terminal.warn(f"run {name!r} has launcher.num_machines=1: there is nothing to join until it goes on with more")
    join_jobs(folder, _Finished(root, name), terminal.say)
    terminal.say(f"run {name} is finished")


def _num_machines(root: Path, name: str) -> int | None:
    """Of the run as it was called last; None if another version wrote it."""
    try:
        return stored_config(read_run(root, name)).launcher.num_machines
    except ConfigError:
        return None


def _nearest_runs(root: Path, name: str) -> str:
    """The runs that there are, those with the most similar names first."""
    names = sorted(path.parent.name for path in runs_folder(root).glob(f"*/{RUN_FILE}"))
    near = get_close_matches(name, names, n=3)
    known = f"runs there: {', '.join([*near, *(each for each in names if each not in near)]) or 'none'}"
    return f"did you mean {near[0]!r}? {known}" if near else known


class _Finished:
    """Whether the run is finished; looked up every few seconds, as it reads several files."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._next_s = 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next_s or not (run_folder(self._root, self._name) / RUN_FILE).exists():
            return False
        self._next_s = time.monotonic() + ASK_EVERY_S
        rounds = read_run(self._root, self._name).config["rounds"]
        return finished_summary(self._root, self._name, rounds) is not None

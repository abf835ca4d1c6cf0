"""The flow of a schedule: it resumes the interrupted run of a chain, or starts a follow-on of the chain's last run.

A chain is a run and its follow-ons, joined by the predecessor in run.json.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from configs.errors import ConfigError, WorkspaceBusy
from configs.schema.config import Config
from configs.schema.operational import flatten
from flows.align import cancelled_when_stopped, name_of_run, work_alone
from flows.serving.scheduled import Scheduled, dated, leave
from flows.serving.workspaces import Workspace, found, workspace_at
from flows.session import telling_of_failures
from flows.summary import Summary, finished_summary
from tasks.running.safe_path import give_up_safe_path
from tasks.runs.follow_on import follow_on, runs_of_chain
from tasks.runs.history import last_finished_round
from tasks.runs.rollbacks import ended_by_rollback
from tasks.runs.run_file import RunFile, in_workspace, open_run, stored_config
from tasks.runs.workspace import run_folder
from tasks.showing.terminal import Terminal


@flow(name="align-next", flow_run_name=name_of_run)
def align_next(config: Config, workspace: Workspace | None = None, pool: str | None = None) -> Summary | State:
    """Finish the interrupted run of the chain, or start a follow-on run from the champion; returns its summary.

    `pool` is the work pool whose worker started this; without one, `regroup serve` did, in the workspace. The state is Skipped if
    another run works in the workspace.
    """
    if workspace is not None and pool is not None:
        os.chdir(found(workspace, Path.cwd()))
    root = Path.cwd()
    give_up_safe_path()
    with _telling(root, told=pool is None) as tell:
        with telling_of_failures(root, config):
            _refuse_of_another(workspace, root)
        try:
            result = cancelled_when_stopped(
                lambda: work_alone(root, config, lambda: tell.started(next_run(root, config)))
            )
        except WorkspaceBusy as error:
            tell.outcome = f"skipped, {error}"
            return Cancelled(name="Skipped", message=str(error))
        tell.outcome = result.message or "stopped" if isinstance(result, State) else what_came_out(result)
        return result


def _refuse_of_another(workspace: Workspace | None, root: Path) -> None:
    if workspace is not None and not workspace.is_same(workspace_at(root)):
        raise ConfigError(
            f"this run is of {workspace.path} on {workspace.host}, not of {root}; end serve there or here, and start it again"
        )


def next_run(root: Path, config: Config) -> RunFile:
    """The run to work on: the first unfinished one of the chain, or a new one. The caller holds the workspace lock.

    An unfinished one goes on with the settings in its own run.json; those that differ from `config` are named.
    """
    chain = runs_of_chain(root, config.run_name)
    unfinished = [file for file in chain if _may_go_on(root, file)]
    if not unfinished:
        return follow_on(root, config, _last_with_a_round(root, chain)) if chain else open_run(root, config)
    if differing := settings_that_differ(unfinished[0], in_workspace(root, config, unfinished[0].spelled)):
        Terminal().warn(
            f"run {unfinished[0].name!r} goes on with the settings that it was started with; the next run takes those that "
            f"differ now: {', '.join(differing)}"
        )
    return unfinished[0]


def _may_go_on(root: Path, file: RunFile) -> bool:
    """Whether the run has work left, and started from a policy that was not taken back."""
    ended = ended_by_rollback(run_folder(root, file.name)) is not None
    return not ended and finished_summary(root, file.name, file.config["rounds"]) is None


def _last_with_a_round(root: Path, chain: list[RunFile]) -> str:
    """The newest run of the chain that has finished a round; the newest one if none has."""
    names = [file.name for file in reversed(chain)]
    return next((name for name in names if last_finished_round(run_folder(root, name)) is not None), names[0])


def settings_that_differ(file: RunFile, config: Config) -> list[str]:
    """`field: own value, not the value in config` of each setting; name, seed and date are a follow-on's own."""
    own, asked = (dict(flatten(block.model_dump(mode="json"))) for block in (stored_config(file), config))
    its_own = {"run.name", "run.date", *(["seed"] if file.predecessor else [])}
    return [
        f"{field}: {own.get(field, 'nothing')!r}, not {asked.get(field, 'nothing')!r}"
        for field in sorted((own.keys() | asked.keys()) - its_own)
        if own.get(field) != asked.get(field)
    ]


def what_came_out(summary: Summary) -> str:
    """One line about a finished run, for instance `done, champion is round 2, accuracy on test 0.412 -> 0.530; see ...`."""
    rounds = {row["round"]: row["evaluation"].get("test/greedy_accuracy") for row in summary["rounds"]}
    champion = summary["champion"]["round"]
    accuracies = [
        "?" if value is None else f"{value['estimate']:.3f}" for value in (rounds.get(0), rounds.get(champion))
    ]
    standing = f"champion is round {champion}" if champion else "no challenger was promoted"
    return f"done, {standing}, accuracy on test {' -> '.join(accuracies)}; see runs/{summary['run']}/report.html"


# ---- what the run tells serve and Prefect ---------------------------------------------------------------------------


class _Telling:
    """Leaves word of this flow run for serve, and gives it the name of the run that it works on."""

    def __init__(self, root: Path, *, told: bool) -> None:
        self._root = root
        self._told = told
        self._run: str | None = None
        self.outcome: str | None = None

    def started(self, file: RunFile) -> RunFile:
        self._run = file.name
        self.write()
        after = f", which follows on {file.predecessor}" if file.predecessor else ""
        Terminal().say(dated(f"{file.name}: started{after}"))
        _name_flow_run(file.name)
        return file

    def failed(self, error: BaseException) -> None:
        where = f"; its log is runs/{self._run}/log.txt" if self._run else ""
        message = f"{error}\n".splitlines()[0]
        self.outcome = f"failed, {type(error).__name__}: {message}{where}"

    def write(self) -> None:
        if self._told and flow_run.id is not None:
            leave(self._root, flow_run.id, Scheduled(run=self._run, outcome=self.outcome))


@contextmanager
def _telling(root: Path, *, told: bool) -> Iterator[_Telling]:
    """`told`: there is a serve to leave word for."""
    tell = _Telling(root, told=told)
    try:
        yield tell
    except BaseException as error:
        tell.failed(error)
        raise
    finally:
        with suppress(OSError):  # on a full disk serve tells from the exit code
            tell.write()


def _name_flow_run(name: str) -> None:
    """Call the flow run by the name of its run. Prefect's server may be away: the run goes on under the chain's name."""
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(flow_run_id=flow_run.id, name=name)
    except httpx.HTTPError as error:
        logging.getLogger("regroup").warning("Prefect was not told the run's name %s: %s", name, error)

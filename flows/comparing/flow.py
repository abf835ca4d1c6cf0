"""The flow that compares methods: its members are runs of the workspace, worked through one after the other.

A member is the flow `align` on the member's configuration, so it resumes as any run does, and one that is finished is
left as it is. What members of a seed measure alike, which is round 0, the first of them measures. What came out is read from the folders of the runs afterwards (`tasks/comparing/`).
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun
from prefect.runtime import flow_run

from configs.errors import StageStopped
from configs.schema.comparing.compare import Comparison, Member
from flows.align import align, cancelled_when_stopped
from flows.comparing.planning import first_members, planned
from flows.session import beside, stop
from flows.summary import is_finished
from tasks.comparing.comparison_file import open_comparison
from tasks.runs.times import run_time
from tasks.runs.workspace import run_folder
from tasks.showing.terminal import Terminal, clock


def name_of_comparison() -> str:
    parameters: dict[str, Any] = flow_run.parameters
    return f"compare {parameters['comparison'].name}"


@flow(name="compare", flow_run_name=name_of_comparison)
def compare(comparison: Comparison) -> State | None:
    """Finish every member; the state Cancelled if a stop was asked for."""
    return cancelled_when_stopped(lambda: all_members(Path.cwd(), comparison))


def all_members(root: Path, comparison: Comparison) -> None:
    """Work through the members that are not finished, and say before and after each how long it takes.

    Raises:
        StageStopped: a stop was asked for.
    """
    terminal, date = Terminal(), open_comparison(root, comparison).date
    num_first = len(first_members(comparison, date))
    for part in (slice(None, num_first), slice(num_first, None)):  # the first decide which the others are
        members = planned(root, comparison, date)
        for member in members[part]:
            if not is_finished(root, member.config):
                terminal.say(progress(root, members))
                _work_on(member, members, terminal)
    terminal.say(progress(root, members))


def _work_on(member: Member, members: Sequence[Member], terminal: Terminal) -> None:
    terminal.say(f"run {member.name}")
    of_its_seed = [other.name for other in members if other.seed == member.seed and other != member]
    with stop.listening(), beside(*of_its_seed):
        if stop():
            raise StageStopped(f"stopped before run {member.name}")
        try:
            align(member.config)
        except CancelledRun as error:
            raise StageStopped(str(error)) from error


def progress(root: Path, members: Sequence[Member]) -> str:
    """How many members there are, how many are finished, and how long the others take by the time of those."""
    done = [member for member in members if is_finished(root, member.config)]
    left = [member for member in members if member not in done]
    told = f"comparison: {len(members)} runs, {len(done)} finished"
    if not left:
        return told
    if not done:
        return f"{told}; how long the others take is told when the first one is"
    return f"{told}; the others take about {clock(_seconds_left(root, done, left))} by the time of these"


def _seconds_left(root: Path, done: Sequence[Member], left: Sequence[Member]) -> float:
    """Each unfinished member takes as long as the finished ones of its method did on average, or as all of them."""
    took = {member.name: run_time(run_folder(root, member.name)).whole for member in done}
    of_all = fmean(took.values())
    total = 0.0
    for member in left:
        of_method = [took[other.name] for other in done if other.method == member.method]
        total += fmean(of_method) if of_method else of_all
    return total

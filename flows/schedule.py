"""The flow of a schedule: it resumes the interrupted run of a chain, or starts a follow-on of the chain's last run.

The chain of `tiny` is `tiny`, `tiny-0002`, `tiny-0003`, ...
"""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from configs.schema.config import Config
from flows.align import cancelled_when_stopped, work_alone
from flows.summary import Summary, finished_summary
from tasks.runs.follow_on import follow_on, runs_of_chain
from tasks.runs.run_file import RunFile, open_run


@flow(name="align-next")
def align_next(config: Config) -> Summary | State:
    """Finish the interrupted run of the chain, or start a follow-on run from the champion; returns its summary."""
    root = Path.cwd()
    return cancelled_when_stopped(lambda: work_alone(root, config.run_name, lambda: next_run(root, config)))


def next_run(root: Path, config: Config) -> RunFile:
    """The run to work on: the first unfinished one of the chain, or a new one. The caller holds the workspace lock."""
    chain = runs_of_chain(root, config.run_name)
    unfinished = [file for file in chain if finished_summary(root, file.name, file.config["rounds"]) is None]
    if unfinished:
        return unfinished[0]
    return follow_on(root, config, chain[-1].name) if chain else open_run(root, config)

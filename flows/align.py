"""The whole loop as Prefect flows: it reads like the picture of a round in the README.

    problems -> train reward models -> train policy -> evaluate -> promote? -> regenerate -> next round

Every task returns at once where its stage is done, so a run that was killed goes through the same lines again.
"""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Cancelled

from configs.errors import StageStopped, WorkspaceBusy
from configs.records import RoundState
from configs.schema import Config
from flows.artifacts import show_rounds
from flows.session import current_run, stop, working_on
from flows.summary import Summary, read_summary
from tasks import stages
from tasks.run import RunFile, follow_on, open_run, run_name
from tasks.workspace import workspace_lock


@flow(name="align", flow_run_name="{run}", validate_parameters=True)
def align(config: Config, run: str | None = None) -> Summary | State:
    """Start the run, or go on with it."""
    config = named(config, run)
    return _alone(Path.cwd(), run_name(config), lambda: open_run(Path.cwd(), config))

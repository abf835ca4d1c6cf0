"""The flow that evaluates the champion of a run on dev and test; before the first finished round, the given policy.

It runs the evaluation stage of that policy's round, so the run itself later finds the stage done.
"""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from configs.records import EvalReport
from configs.schema.config import Config
from flows.align import cancelled_when_stopped, name_of_run
from flows.session import working_on
from tasks import prefect_tasks as stages
from tasks.runs.history import last_finished_round
from tasks.runs.rollbacks import refuse_ended
from tasks.runs.run_file import open_run
from tasks.runs.workspace import workspace_lock
from tasks.stages.cold_start.stage import refuse_before_cold_start
from tasks.stages.reward_model import usable_models


@flow(name="evaluate", flow_run_name=name_of_run)
def evaluate(config: Config) -> dict[str, EvalReport] | State:
    """{split: report} of the champion, or the state Cancelled if a stop was asked for."""
    return cancelled_when_stopped(lambda: _evaluate(Path.cwd(), config))


def _evaluate(root: Path, config: Config) -> dict[str, EvalReport]:
    with workspace_lock(root, config.run_name, command="evaluate"), working_on(root, open_run(root, config)) as run:
        last = last_finished_round(run.folder)
        refuse_before_cold_start(run, last.state.champion if last else run.file.given_policy)
        stages.prepare(run)
        refuse_ended(run.folder)
        policy = last.state.champion if last else run.given_policy
        return stages.evaluate(run, policy.round, policy, usable_models(run, policy.round))

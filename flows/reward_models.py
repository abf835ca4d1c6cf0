"""The flow that retrains the reward models of a run on its pairs so far; the run's next round starts from them.

A reward model that is labelled by a file can be trained before there is a run; the run of that name starts with it.
"""

from pathlib import Path

from prefect import flow
from prefect.client.schemas.objects import State

from configs.records import RewardModelReport
from configs.schema.config import Config
from flows.align import cancelled_when_stopped, name_of_run
from flows.session import working_on
from tasks import prefect_tasks as stages
from tasks.runs.run_file import open_run, refuse_without_pairs
from tasks.runs.workspace import workspace_lock


@flow(name="reward-models", flow_run_name=name_of_run)
def retrain_reward_models(config: Config) -> dict[str, RewardModelReport] | State:
    """{name: report} of the reward models, or the state Cancelled if a stop was asked for."""
    return cancelled_when_stopped(lambda: _retrain(Path.cwd(), config))


def _retrain(root: Path, config: Config) -> dict[str, RewardModelReport]:
    refuse_without_pairs(root, config)
    with workspace_lock(root, config.run_name, command="reward-model"), working_on(root, open_run(root, config)) as run:
        return {name: stages.retrain_reward_model(run, name) for name in config.trained_reward_models}

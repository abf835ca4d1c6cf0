"""The whole loop as Prefect flows: it reads like the picture of a round in the README.

    problems -> train reward models -> train policy -> evaluate -> promote? -> regenerate -> next round

Every task returns at once where its stage is done, so a run that was killed goes through the same lines again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from configs.errors import StageStopped
from configs.records import RoundState
from configs.schema.config import Config
from configs.schema.reward_models import PeopleLabeler
from flows.artifacts import link_to_mlflow, show_rounds
from flows.session import current_run, stop, working_on
from flows.summary import Summary, read_summary
from tasks import prefect_tasks as stages
from tasks.running.run import Run
from tasks.runs import history
from tasks.runs.run_file import RunFile, open_run
from tasks.runs.workspace import workspace_lock
from tasks.stages.prepare import added_round
from tasks.stages.reward_model import usable_models
from tasks.stages.rounds import first_state, round_state

ResultT = TypeVar("ResultT")


def _flow_run_name() -> str:
    parameters: dict[str, Any] = flow_run.parameters
    return str(parameters["run_name"] or parameters["config"].run.name)


@flow(name="align", flow_run_name=_flow_run_name)
def align(config: Config, run_name: str | None = None) -> Summary | State:
    """Start the run, or go on with it."""
    root = Path.cwd()
    config = config if run_name is None else config.model_copy(update={"run": type(config.run)(name=run_name)})
    return cancelled_when_stopped(lambda: work_alone(root, config.run_name, lambda: open_run(root, config)))


def work_alone(root: Path, name: str, find: Callable[[], RunFile]) -> Summary:
    """All rounds of the run that `find` gives, with the workspace held; raises WorkspaceBusy where another holds it."""
    with workspace_lock(root, name):
        file = find()
        with working_on(root, file, sums_up=True) as run:
            all_rounds()
        summary = read_summary(root, file.name)
        assert summary is not None, "the session's end writes it"
        show_rounds(run, summary)
        link_to_mlflow(run)
        return summary


def cancelled_when_stopped(work: Callable[[], ResultT]) -> ResultT | State:
    """Prefect calls a run that was asked to stop cancelled, not failed."""
    try:
        return work()
    except StageStopped as error:
        return Cancelled(message=str(error))


def all_rounds() -> None:
    run = current_run()
    stages.prepare(run)
    state = baseline(round_index=0)
    while state.round < rounds_wanted(run):
        state = one_round(round_index=state.round + 1, state=state)


def rounds_wanted(run: Run) -> int:
    """How many rounds the run has so far; one that a watch rule has just added gets its problems first."""
    if added_round(run) is not None:
        stages.prepare(run)
    return history.rounds_wanted(run.folder, run.config.rounds)


@flow(name="round", flow_run_name="round-{round_index}")
def baseline(round_index: int) -> RoundState:
    """Round 0: what the given policy does, and what the first reward models learn from."""
    with stop.listening():
        run = current_run()
        state = first_state(run)
        models = usable_models(run, round_index)
        stages.evaluate(run, round_index, state.policy, models)
        stages.regenerate(run, round_index, [state.policy], models)
        stages.finish_round(run, state)
        return state


def people_label(config: Config) -> bool:
    return any(isinstance(model.labeler, PeopleLabeler) for model in config.trained_reward_models.values())


@flow(name="round", flow_run_name="round-{round_index}")
def one_round(round_index: int, state: RoundState) -> RoundState:
    """Reward models, policy, evaluation, promotion, and samples that the next round's reward models learn from."""
    with stop.listening():
        run = current_run()
        if people_label(run.config):
            stages.take_labels(run, round_index)
        for name in run.config.trained_reward_models:
            stages.train_reward_model(run, round_index, name, state)
        models = usable_models(run, round_index)
        policy = stages.train_policy(run, round_index, state, models)
        stages.evaluate(run, round_index, policy, models)
        if run.config.promotion.people is not None:
            stages.compare(run, round_index, state.champion, policy)
        decision = stages.promote(run, round_index, state.champion, policy)
        champion = policy if decision.promoted else state.champion
        # a reward model can only unlearn a hack that it has seen: a refused policy is sampled too
        sampled = [champion] if decision.promoted else [champion, policy]
        stages.regenerate(run, round_index, sampled, models)
        state = round_state(run, round_index, policy, champion)
        stages.finish_round(run, state)
        return state

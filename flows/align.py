"""The main loop of a run as Prefect flows.

    prepare -> train reward models -> train policy -> evaluate -> promote? -> regenerate -> next round

A task returns at once if its stage is done, so a resumed run executes the same code from the start.
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
    """Start the run, or resume it, and return its summary; `run_name` replaces the name in `config`."""
    root = Path.cwd()
    config = config if run_name is None else config.model_copy(update={"run": type(config.run)(name=run_name)})
    return cancelled_when_stopped(lambda: work_alone(root, config.run_name, lambda: open_run(root, config)))


def work_alone(root: Path, name: str, find: Callable[[], RunFile]) -> Summary:
    """Work through all rounds of the run that `find` returns while holding the workspace lock; returns the summary.

    Raises:
        WorkspaceBusy: another process holds the lock.
    """
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
    """The result of `work`; the state Cancelled if it was asked to stop, which Prefect would otherwise call failed."""
    try:
        return work()
    except StageStopped as error:
        return Cancelled(message=str(error))


def all_rounds() -> None:
    run = current_run()
    stages.prepare(run)
    state = baseline(round_index=0)
    while state.round < rounds_so_far(run):
        state = one_round(round_index=state.round + 1, state=state)


def rounds_so_far(run: Run) -> int:
    """Number of rounds of the run, with added ones; prepares the problems of a round that a watch rule just added."""
    if added_round(run) is not None:
        stages.prepare(run)
    return history.rounds_wanted(run.folder, run.config.rounds)


@flow(name="round", flow_run_name="round-{round_index}")
def baseline(round_index: int) -> RoundState:
    """Round 0: evaluate the policy that the run starts from, and sample from it for the first reward models."""
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
    """Train reward models and policy, evaluate, decide on promotion, and sample for the next round's reward models."""
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
        # a refused policy is sampled too: a reward model can only unlearn an exploit that it has seen
        sampled = [champion] if decision.promoted else [champion, policy]
        stages.regenerate(run, round_index, sampled, models)
        state = round_state(run, round_index, policy, champion)
        stages.finish_round(run, state)
        return state

"""The main loop of a run as Prefect flows.

    prepare -> train reward models -> train policy -> evaluate -> promote? -> regenerate -> next round

A task returns at once if its stage is done, so a resumed run executes the same code from the start.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from configs.errors import StageStopped
from configs.records import Policy
from configs.schema.config import Config
from flows.artifacts import link_to_mlflow, show_rounds
from flows.session import current_run, stop, telling_of_failures, working_on
from flows.summary import Summary, read_summary
from flows.telling import teller
from tasks import prefect_tasks as stages
from tasks.running.cleaning import clean
from tasks.running.run import Run
from tasks.runs.progress import rounds_wanted
from tasks.runs.run_file import RunFile, open_run
from tasks.runs.workspace import workspace_lock
from tasks.showing.terminal import Terminal
from tasks.stages.cold_start.before import before_stands
from tasks.stages.cold_start.stage import begins_cold
from tasks.stages.evaluate import evaluation_stands
from tasks.stages.prepare import added_round
from tasks.stages.reward_model import usable_models
from tasks.stages.rounds import first_state, handed_on, round_state

ResultT = TypeVar("ResultT")


def name_of_run() -> str:
    """The name of a flow run: that of the run that it works on."""
    parameters: dict[str, Any] = flow_run.parameters
    return str(parameters.get("run_name") or parameters["config"].run_name)


@flow(name="align", flow_run_name=name_of_run)
def align(config: Config, run_name: str | None = None) -> Summary | State:
    """Start the run, or resume it, and return its summary; `run_name` replaces the name in `config`."""
    root = Path.cwd()
    if run_name is not None:
        config = config.model_copy(update={"run": config.run.model_copy(update={"name": run_name})})
    return cancelled_when_stopped(lambda: work_alone(root, config, lambda: open_run(root, config)))


def work_alone(root: Path, config: Config, find: Callable[[], RunFile]) -> Summary:
    """Work through all rounds of the run that `find` returns while holding the workspace lock; returns the summary.

    Raises:
        WorkspaceBusy: another process holds the lock.
    """
    with ExitStack() as held:
        with telling_of_failures(root, config):
            held_for = held.enter_context(workspace_lock(root, config.run_name))
            file = find()
            held_for(file.name)
        with working_on(root, file, sums_up=True) as run:
            all_rounds()
        clean_after(root, run)
        summary = read_summary(root, file.name)
        assert summary is not None, "the session's end writes it"
        show_rounds(run, summary)
        link_to_mlflow(run)
        return summary


def clean_after(root: Path, run: Run) -> None:
    """Clean the workspace as the configuration says. The caller holds its lock."""
    settings = run.config.run
    if settings.keep_rounds is None:
        return
    try:
        freed = clean(root, keep_rounds=settings.keep_rounds, keep_artifacts=settings.keep_artifacts)
    except OSError as error:
        run.console.warn(f"the workspace is not cleaned: {error}; `regroup clean` does it later")
    else:
        run.console.say(f"cleaning the workspace {freed}")


def cancelled_when_stopped(work: Callable[[], ResultT]) -> ResultT | State:
    """The result of `work`; the state Cancelled if it was asked to stop, which Prefect would otherwise call failed.

    From here on Prefect is told only; in a process that `regroup serve` started, this is where that begins.
    """
    if flow_run.id is not None:
        teller.begin(Path.cwd(), Terminal().warn, flow_run=flow_run.id, name=flow_run.name or "")
    try:
        return work()
    except StageStopped as error:
        return Cancelled(message=str(error))


def all_rounds() -> None:
    run = current_run()
    stages.prepare(run)
    baseline(round_index=0)
    round_index = 0
    while round_index < rounds_so_far(run):
        round_index += 1
        one_round(round_index=round_index)


def rounds_so_far(run: Run) -> int:
    """Number of rounds of the run, with added ones; prepares the problems of a round that a watch rule just added."""
    if added_round(run) is not None:
        stages.prepare(run)
    return rounds_wanted(run.folder, run.config.rounds)


@flow(name="round", flow_run_name="round-{round_index}")
def baseline(round_index: int) -> None:
    """Round 0: evaluate the policy that the run starts from, fine-tuned where it has a cold start, and sample from it for the first
    reward models."""
    with stop.listening():
        run = current_run()
        models = usable_models(run, round_index)
        if begins_cold(run):
            stages.measure_before(run)
            stages.cold_start(run, models)
        state = first_state(run)
        stages.evaluate(run, round_index, state.policy, models)
        stages.regenerate(run, round_index, [state.policy], models)
        stages.finish_round(run, state)


def measure_again(run: Run, *policies: Policy) -> None:
    """Evaluate those of the policies whose evaluation no longer stands, as where the code of a reward changed since.

    What a comparison puts side by side is so measured alike. So are the old abilities of the policy before a cold start.
    """
    if not before_stands(run):
        stages.measure_before(run)
    for policy in policies:
        models = usable_models(run, policy.round)
        if not evaluation_stands(run, policy, models):
            stages.evaluate(run, policy.round, policy, models)


@flow(name="round", flow_run_name="round-{round_index}")
def one_round(round_index: int) -> None:
    """Train reward models and policy, evaluate, decide on promotion, and sample for the next round's reward models.

    It goes on from what the round before left on disk: Prefect stores the parameters of a flow, and bounds their size.
    """
    with stop.listening():
        run = current_run()
        state = handed_on(run, round_index - 1)
        if run.config.people_label:
            stages.take_labels(run, round_index)
        for name in run.config.trained_reward_models:
            stages.train_reward_model(run, round_index, name, state)
        models = usable_models(run, round_index)
        policy = stages.train_policy(run, round_index, state, models)
        stages.evaluate(run, round_index, policy, models)
        measure_again(run, run.given_policy, state.champion)
        if run.config.promotion.people is not None:
            stages.compare(run, round_index, state.champion, policy)
        decision = stages.promote(run, round_index, state.champion, policy)
        champion = policy if decision.promoted else state.champion
        # a refused policy is sampled too: a reward model can only unlearn an exploit that it has seen
        sampled = [champion] if decision.promoted or policy.id == champion.id else [champion, policy]
        stages.regenerate(run, round_index, sampled, models)
        stages.finish_round(run, round_state(run, round_index, policy, champion))

"""The stages as Prefect tasks: their names, timeouts and retries. A task whose manifest matches returns at once.

Prefect is told what happens but never asked what is done: no cache, no stored results. Only what a retry can help is
retried: fetching a model, and sending what is on disk already.
"""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from configs.records import RoundState
from tasks.people import compare as comparing
from tasks.people import labels as labelling
from tasks.running.run import Run
from tasks.stages import evaluate as evaluating
from tasks.stages import policy as training
from tasks.stages import prepare as preparing
from tasks.stages import promote as promoting
from tasks.stages import regenerate as regenerating
from tasks.stages import reward_model as rewarding
from tasks.stages.cold_start import before as measuring
from tasks.stages.cold_start import stage as beginning
from tasks.stages.rounds import close_round

HOUR_S = 3600
DAY_S = 24 * HOUR_S
NEVER_STORED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


def _another_try_may_help(_task: Any, _run: Any, state: Any) -> bool:
    """Whether the task failed with an OSError: a network or a disk may recover, a faulty configuration will not."""
    return isinstance(state.result(raise_on_failure=False), OSError)


prepare = task(
    name="prepare",
    timeout_seconds=6 * HOUR_S,
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_another_try_may_help,
    **NEVER_STORED,
)(preparing.prepare)

measure_before = task(
    name="evaluate before the cold start", task_run_name="evaluate-before", timeout_seconds=2 * DAY_S, **NEVER_STORED
)(measuring.measure_before)

cold_start = task(name="cold start", task_run_name="cold-start", timeout_seconds=10 * DAY_S, **NEVER_STORED)(
    beginning.cold_start
)

take_labels = task(
    name="take labels", task_run_name="labels-{round_index}", timeout_seconds=30 * DAY_S, **NEVER_STORED
)(labelling.take_labels)

train_reward_model = task(
    name="train reward model", task_run_name="reward-model-{name}", timeout_seconds=2 * DAY_S, **NEVER_STORED
)(rewarding.train)

retrain_reward_model = task(
    name="retrain reward model", task_run_name="by-hand-{name}", timeout_seconds=2 * DAY_S, **NEVER_STORED
)(rewarding.retrain)

train_policy = task(
    name="train policy", task_run_name="policy-{round_index}", timeout_seconds=10 * DAY_S, **NEVER_STORED
)(training.train_policy)

evaluate = task(name="evaluate", task_run_name="evaluate-{round_index}", timeout_seconds=2 * DAY_S, **NEVER_STORED)(
    evaluating.evaluate_policy
)

compare = task(name="compare", task_run_name="compare-{round_index}", timeout_seconds=30 * DAY_S, **NEVER_STORED)(
    comparing.compare
)

promote = task(name="promote", task_run_name="promote-{round_index}", timeout_seconds=HOUR_S, **NEVER_STORED)(
    promoting.promote
)

regenerate = task(
    name="regenerate", task_run_name="regenerate-{round_index}", timeout_seconds=2 * DAY_S, **NEVER_STORED
)(regenerating.regenerate)


@task(
    name="finish round",
    task_run_name="finish-round",
    timeout_seconds=6 * HOUR_S,
    retries=1,
    retry_condition_fn=_another_try_may_help,
    **NEVER_STORED,
)
def finish_round(run: Run, state: RoundState) -> None:
    """Close the round: champion.json, the parent run's metrics with step = round, the registry's aliases."""
    close_round(run, state)
    run.tracking.send_missing()

"""The GRPO training loop (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 4 to 11), with checkpoints.

`grpo_train.step` is the body of the loop. A watch rule may end it early and roll the weights back to an earlier
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.checkpoints import STEP, Checkpoints
from configs.errors import StageStopped
from configs.records import Policy, Problem
from configs.schema.config import Config
from configs.schema.grpo import GrpoConfig
from grpo_train.observers.watch import Alarm
from grpo_train.problems.curriculum import ProblemPicker
from grpo_train.step import Stepper, StepResult
from grpo_train.train_result import TrainResult
from grpo_train.updating.checkpoint import read_component, read_components, write_components
from grpo_train.updating.learner import Learner
from reward_training.scorer import Reward


def num_steps(config: GrpoConfig, num_problems: int) -> int:
    """Number of batches in a round: `epochs` passes over the problems, capped by `max_updates`."""
    in_epochs = math.ceil(config.epochs * num_problems * config.group_size / config.batch_size)
    if config.max_updates is None:
        return in_epochs
    return min(in_epochs, math.ceil(config.max_updates / config.updates_per_batch))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    policy: Policy,
    initial_policy: Policy,
    rewards: Sequence[Reward],
    config: Config,
    round_index: int,
    curriculum: Mapping[str, Any] | None = None,
    on_step: Callable[[StepResult], None],
    should_stop: Callable[[], bool] = lambda: False,
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Train `model` in place on `problems`; with `checkpoints`, resume from the newest one.

    Args:
        policy: the record of `model` as it comes in.
        initial_policy: the run's first policy, from which KL is measured.
        curriculum: state from which the problem picker starts; `TrainResult.curriculum` of the previous round.
        on_step: called after each step.

    Raises:
        StageStopped: `should_stop()` was true between two steps; a checkpoint was saved there, given `checkpoints`.
        TrainingDiverged: the loss or the gradient was not finite.
    """
    grpo, total = config.grpo_config, num_steps(config.grpo_config, len(problems))
    num_updates = total * grpo.updates_per_batch
    learner = Learner(model, grpo, policy=policy, initial_policy=initial_policy, num_updates=num_updates)
    picker = ProblemPicker(problems, config.curriculum, seed=config.seed, round_index=round_index, handed_on=curriculum)
    stepper = Stepper(learner, tokenizer, rewards, config, round_index, picker)
    num_done = _resume(checkpoints, stepper)
    rolls_back = any(rule.action == "roll_back" for rule in config.watch)
    if rolls_back and num_done == 0 and checkpoints is not None:
        _save(checkpoints, 0, stepper)
    ending_alarm: Alarm | None = None
    for step in range(num_done + 1, total + 1):
        if learner.ranks.from_main(should_stop()):
            if checkpoints is not None and checkpoints.wanted(step - 1):
                _save(checkpoints, step - 1, stepper)
            raise StageStopped(f"stopped before step {step} of {total}")
        result = stepper.step(step, is_last=step == total)
        on_step(result)
        if (ending_alarm := result.ending_alarm) is not None:
            break
        if checkpoints is not None and step < total and checkpoints.due(step):
            _save(checkpoints, step, stepper)
    return TrainResult(
        num_updates=step * grpo.updates_per_batch,
        stopped_by=None if ending_alarm is None else str(ending_alarm),
        advantage_share=stepper.observers.contributions.shares,
        tokens=stepper.observers.ledger.totals,
        curriculum=picker.handed_on(),
        rolled_back_to=_roll_back(checkpoints, stepper, ending_alarm),
        extra_rounds=0 if ending_alarm is None else ending_alarm.rule.extra_rounds,
    )


def _resume(checkpoints: Checkpoints | None, stepper: Stepper) -> int:
    """Restore the newest checkpoint; returns the number of steps that are done."""
    newest = checkpoints.newest() if checkpoints else None
    if newest is None:
        return 0
    folder, seal = newest
    read_components(folder, stepper.components())
    return seal.step


def _roll_back(checkpoints: Checkpoints | None, stepper: Stepper, alarm: Alarm | None) -> int | None:
    """Restore the last weights from before the alarm that ended training, if its rule says so; returns their step."""
    if alarm is None or alarm.rule.action != "roll_back" or checkpoints is None:
        return None
    folder = checkpoints.newest_before(alarm.since)
    if folder is None:
        checkpoints.warn("there is no checkpoint to roll back to; the policy stays as it is")
        return None
    read_component(folder, "weights", stepper.components()["weights"])
    return int(folder.name.removeprefix(STEP))


def _save(checkpoints: Checkpoints, step: int, stepper: Stepper) -> None:
    ranks = stepper.learner.ranks
    if ranks.is_main:
        checkpoints.save(step, lambda folder: write_components(folder, stepper.components()))
    else:
        checkpoints.last_step = step
    ranks.wait()

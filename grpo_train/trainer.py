"""The GRPO training loop (DeepSeekMath, arXiv 2402.03300, Algorithm 1, lines 4 to 11), with checkpoints.

`grpo_train.step` is the body of the loop. The budget may end it early; so may a watch rule, which may also roll the
weights back to an earlier checkpoint.
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
from configs.schema.methods.method import BestOfNMethod, PpoMethod
from grpo_train.following import Serving, following
from grpo_train.observers.token_ledger import OF_THE_UPDATE
from grpo_train.observers.watch import Alarm
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.step import Stepper, StepResult
from grpo_train.train_result import TrainResult
from grpo_train.updating.checkpoint import read_component, read_components, write_components
from grpo_train.updating.critic import Critic, ValueModel
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
    serving: Serving | None = None,
    value_model: ValueModel | None = None,
    memory: Callable[[], dict[str, float]] = dict,
) -> TrainResult:
    """Train `model` in place on `problems`; with `checkpoints`, resume from the newest one.

    Args:
        policy: the record of `model` as it comes in.
        initial_policy: the run's first policy, from which KL is measured.
        curriculum: state from which the problem picker starts; `TrainResult.curriculum` of the previous round.
        on_step: called after each step.
        serving: where vLLM servers write, what giving them weights needs.
        value_model: what the value model of PPO begins from, and is warmed up on.
        memory: measures the process's memory for the metrics of each step; by default it is not measured.

    Raises:
        StageStopped: `should_stop()` was true between two steps; a checkpoint was saved there, given `checkpoints`.
        TrainingDiverged: the loss or the gradient was not finite.
    """
    grpo, total = config.grpo_config, num_steps(config.grpo_config, len(problems))
    num_updates = total * grpo.updates_per_batch
    learner = Learner(model, grpo, policy=policy, initial_policy=initial_policy, num_updates=num_updates)
    picker = ProblemPicker(problems, config.curriculum, seed=config.seed, round_index=round_index, handed_on=curriculum)
    critic = _critic(value_model, config, learner)
    with following(learner, tokenizer, grpo.vllm, serving) as follower:
        stepper = Stepper(learner, tokenizer, rewards, config, round_index, picker, follower, critic, memory)
        return _train(stepper, total, on_step, should_stop, checkpoints)


def _critic(value_model: ValueModel | None, config: Config, learner: Learner) -> Critic | None:
    """The critic of a method that has one."""
    if not isinstance(config.method, PpoMethod):
        return None
    assert value_model is not None, "the caller loads what the method needs"
    return Critic(value_model, config.method, config.grpo_config, learner.ranks.device)


def _train(
    stepper: Stepper,
    total: int,
    on_step: Callable[[StepResult], None],
    should_stop: Callable[[], bool],
    checkpoints: Checkpoints | None,
) -> TrainResult:
    """Run the steps that are left."""
    learner, config, follower = stepper.learner, stepper.config, stepper.rollouts.follower
    num_done = _resume(checkpoints, stepper)
    _warm_up(stepper, should_stop)
    rolls_back = any(rule.action == "roll_back" for rule in config.watch)
    if rolls_back and num_done == 0 and checkpoints is not None:
        write_checkpoint(checkpoints, 0, stepper)
    ending_alarm: Alarm | None = None
    for step in range(num_done + 1, total + 1):
        if learner.ranks.from_main(should_stop()):
            if checkpoints is not None and checkpoints.wanted(step - 1):
                write_checkpoint(checkpoints, step - 1, stepper)
            raise StageStopped(f"stopped before step {step} of {total}")
        result = stepper.step(step, is_last=step == total)
        on_step(result)
        if (ending_alarm := result.ending_alarm) is not None or result.is_budget_spent:
            break
        if checkpoints is not None and step < total and checkpoints.due(step):
            write_checkpoint(checkpoints, step, stepper)
    rolled_back_to = _roll_back(checkpoints, stepper, ending_alarm)
    return TrainResult(
        num_updates=step * config.grpo_config.updates_per_batch,
        stopped_by=None if ending_alarm is None else str(ending_alarm),
        is_budget_spent=stepper.observers.is_budget_spent,
        advantage_share=stepper.observers.contributions.shares,
        tokens=stepper.observers.ledger.totals,
        curriculum=stepper.picker.handed_on(),
        rolled_back_to=rolled_back_to,
        extra_rounds=0 if ending_alarm is None else ending_alarm.rule.extra_rounds,
        untrained=_untrained(stepper.observers.ledger.totals, config, step),
        known=[] if follower is None else [known.model_dump() for known in follower.known()],
    )


def _untrained(tokens: Mapping[str, int], config: Config, num_steps: int) -> str | None:
    """Why no step moved the policy; None where one did, or a KL term may have."""
    if config.grpo_config.kl_coefficient > 0 or any(tokens[name] for name in OF_THE_UPDATE):
        return None
    return (
        f"nothing was trained: in each of {num_steps} steps every group was dead or unscored, so no response moved the policy; "
        "see groups/all_wrong_share and reward/std, and give problems or rewards in which responses differ"
        + (", or lower method.min_score" if isinstance(config.method, BestOfNMethod) else "")
    )


def _resume(checkpoints: Checkpoints | None, stepper: Stepper) -> int:
    """Restore the newest checkpoint; returns the number of steps that are done."""
    newest = checkpoints.newest() if checkpoints else None
    if newest is None:
        return 0
    folder, seal = newest
    read_components(folder, stepper.components())
    return seal.step


def _warm_up(stepper: Stepper, should_stop: Callable[[], bool]) -> None:
    """Take the updates of the critic's warm-up that are left: all, or none if the newest checkpoint was made after them.

    Raises:
        StageStopped: `should_stop()` was true between two updates; they are done again by the next call.
    """
    critic = stepper.critic
    while critic is not None and critic.warm_up(stepper.config.seed, stepper.round_index):
        if stepper.ranks.from_main(should_stop()):
            raise StageStopped(f"stopped in the warm-up of the value model, after update {critic.num_warmed_up}")


def _roll_back(checkpoints: Checkpoints | None, stepper: Stepper, alarm: Alarm | None) -> int | None:
    """Restore the last weights from before those that made the alarm which ended training, if its rule says so; returns their step."""
    if alarm is None or alarm.rule.action != "roll_back" or checkpoints is None:
        return None
    # the first response out of bounds was written by the weights with which that step began, or those of one step before
    vllm = stepper.config.grpo_config.vllm
    writer = alarm.since - 1 - (vllm.max_staleness if vllm is not None else 0)
    folder = checkpoints.newest_before(max(writer, 1))
    if folder is None:
        checkpoints.warn("there is no checkpoint to roll back to; the policy stays as it is")
        return None
    read_component(folder, "weights", stepper.components()["weights"])
    return int(folder.name.removeprefix(STEP))


def write_checkpoint(checkpoints: Checkpoints, step: int, parts: Learner | Stepper) -> None:
    """Save the state of `parts` after `step`. All ranks call it: the main one writes, and of a sharded model each its part."""
    ranks = parts.ranks
    if ranks.is_main:
        checkpoints.open()
    ranks.wait()
    write_components(checkpoints.unfinished, parts.components(), is_main=ranks.is_main)
    ranks.wait()
    if ranks.is_main:
        checkpoints.seal(step)
    checkpoints.last_step = step
    ranks.wait()

"""Refuses what does not go with the method that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from configs.schema.block import Block
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.method import (
    OF_POLICY,
    SETTINGS,
    BestOfNMethod,
    GrpoMethod,
    Method,
    PairMethod,
    PpoMethod,
    ReinforceMethod,
    is_offline,
)
from configs.schema.methods.offline import check_offline, check_pairs
from configs.schema.methods.unread import refuse_unread
from configs.schema.reward_models import RewardModel, TrainedRewardModel
from configs.schema.rewards import CombinationConfig
from configs.schema.run import LauncherConfig

if TYPE_CHECKING:
    from configs.schema.config import Config


def check_method(config: Config) -> None:
    """Refuse what does not go with the configuration's method.

    Raises:
        ValueError: names the field, its value and the remedy.
    """
    _check_settings(config.method, config.grpo_config, config.combination, config.per_step_rewards)
    if isinstance(config.method, PpoMethod):
        _check_ppo(config.method, config.grpo_config, config.launcher, config.reward_models)
    if is_offline(config.method):
        _check_offline(config)
    refuse_unread(config)


def _check_offline(config: Config) -> None:
    method, sampled = config.method, config.regeneration
    told = "method.mode=offline" if isinstance(method, BestOfNMethod) else f"method.kind={method.kind}"
    back = [rule.metric for rule in config.watch if rule.action == "roll_back"]
    kind, ranks = config.curriculum.kind, config.launcher.num_processes
    check_offline(told, config.grpo_config, rolling_back=back, curriculum=kind, ranks=ranks)
    if config.budget is not None:
        raise ValueError(
            f"budget={config.budget} ends a training that samples, and {told} learns from samples that are there; leave it out"
        )
    if isinstance(method, PairMethod):
        check_pairs(method, num_problems=sampled.num_problems, group_size=sampled.group_size)


def _check_settings(method: Method, grpo: GrpoConfig, combination: CombinationConfig, per_step: list[str]) -> None:
    """`per_step` names the rewards that are kept per step."""
    if not isinstance(method, GrpoMethod) and combination.order != "sum_then_normalize":
        raise ValueError(
            f"combination.order={combination.order} normalises in groups, which method.kind={method.kind} does not; leave it out"
        )
    blocks: dict[str, Block] = {"grpo_config": grpo, "combination": combination}
    for (block, field), value in SETTINGS.get(method.kind, {}).items():
        if (given := getattr(blocks[block], field)) != value:
            raise ValueError(
                f"{block}.{field}={given} does not go with method.kind={method.kind}; use {value}, or leave it out"
            )
    if isinstance(method, GrpoMethod):
        return
    if per_step:
        raise ValueError(
            f"reward {per_step[0]!r} is kept per step, which needs method.kind=grpo; reduce it by mean or min"
        )
    if isinstance(method, ReinforceMethod) and grpo.refill:
        raise ValueError(
            f"grpo_config.refill={grpo.refill} replaces groups whose rewards are equal, which do teach under method.kind=reinforce; "
            "use 0"
        )
    if isinstance(method, BestOfNMethod) and grpo.response_cache.share:
        raise ValueError(
            f"grpo_config.response_cache.share={grpo.response_cache.share} does not go with method.kind=best_of_n, which learns from "
            "the step's own responses; use 0"
        )
    if isinstance(method, BestOfNMethod) and method.mode == "online" and method.epochs > 1:
        raise ValueError(
            f"method.epochs={method.epochs} is of method.mode=offline; online the steps go over the problems: set grpo_config.epochs"
        )
    if isinstance(method, BestOfNMethod) and grpo.updates_per_batch > 1:
        raise ValueError(
            f"grpo_config.updates_per_batch={grpo.updates_per_batch} does not go with method.kind=best_of_n, whose gradient has no "
            "ratio to clip; use 1"
        )


def _check_ppo(
    method: PpoMethod, grpo: GrpoConfig, launcher: LauncherConfig, reward_models: dict[str, RewardModel]
) -> None:
    _check_begins(method.value_model, reward_models)
    if grpo.loss == "gspo":
        raise ValueError(
            "grpo_config.loss=gspo has one ratio a response, and method.kind=ppo an advantage for each token; use dapo, or leave it out"
        )
    if grpo.refill:
        raise ValueError(
            f"grpo_config.refill={grpo.refill} replaces groups of equal rewards, from which method.kind=ppo learns as from others; use 0"
        )
    if grpo.response_cache.share:
        raise ValueError(
            f"grpo_config.response_cache.share={grpo.response_cache.share} does not go with method.kind=ppo, whose values are of the "
            "policy that writes; use 0"
        )
    if grpo.vllm is not None and grpo.vllm.max_staleness:
        raise ValueError(
            f"grpo_config.vllm.max_staleness={grpo.vllm.max_staleness} does not go with method.kind=ppo, whose values are of the policy "
            "that writes; use 0"
        )
    if launcher.num_processes > 1:
        raise ValueError(
            f"launcher.num_processes={launcher.num_processes} does not go with method.kind=ppo, whose value model one process trains; use 1"
        )


def _check_begins(value_model: str, reward_models: dict[str, RewardModel]) -> None:
    if value_model == OF_POLICY:
        return
    trained = [name for name, model in reward_models.items() if isinstance(model, TrainedRewardModel)]
    if value_model in trained:
        return
    known = f"trained reward models are {sorted(trained)}"
    if value_model in reward_models:
        kind = reward_models[value_model].kind
        raise ValueError(
            f"method.value_model={value_model!r} is a {kind} reward model; use a trained one, or policy: {known}"
        )
    raise ValueError(f"method.value_model={value_model!r} is no reward model; use a trained one, or policy: {known}")

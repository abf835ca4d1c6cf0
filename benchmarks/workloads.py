"""Defines the workloads for both systems: model, prompts and their order, rewards, lengths and optimizer settings."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from configs.reader import load_config
from configs.records import Completion, Problem
from configs.schema.config import Config
from grpo_train.policies.model import load_policy
from grpo_train.problems.picking.curriculum import ProblemPicker
from grpo_train.problems.splits import load_problems
from reward_training.reward import Reward
from reward_training.scorer import build_rewards
from reward_training.transformer.precision import pick_device

MODEL = Path("models/SmolLM2-135M-Instruct")
NEVER_WRITTEN = "<reponame>"
"""a reserved token of SmolLM2 that it does not sample; as end of sequence it makes every response full length"""
ROUND = 1
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
MODEL_SIZES = {
    "50M": (384, 1024, 16, 6, 2),
    "135M": (576, 1536, 30, 9, 3),
    "360M": (960, 2560, 32, 15, 5),
    "1.7B": (2048, 8192, 24, 32, 32),
}
"""values of SHAPE for each size; the last three are SmolLM2's"""


@dataclass(frozen=True)
class Workload:
    """Sizes and rewards of a benchmark.

    `natural` has the quickstart's problems and rewards, with varying lengths and dead groups. In `fixed` all responses
    have full length and no group is dead, so that both systems do the same amount of work.
    """

    name: str
    is_fixed: bool
    num_prompts: int = 4
    group_size: int = 8
    response_length: int = 64
    model_size: str = "135M"
    """a key of MODEL_SIZES; all sizes but 135M have random weights"""
    seed: int = 0

    @property
    def num_responses(self) -> int:
        return self.num_prompts * self.group_size

    def settings(self, **changes: object) -> Config:
        """The quickstart's configuration with this workload's sizes, without a KL term; what was measured of earlier versions had the
        learning rate, rows and problems that are named here."""
        values = {
            "seed": self.seed,
            "grpo_config.group_size": self.group_size,
            "grpo_config.batch_size": self.num_responses,
            "grpo_config.max_response_length": self.response_length,
            "grpo_config.max_updates": 1000,
            "grpo_config.epochs": 1000,
            "grpo_config.kl_coefficient": 0,  # as in TRL's defaults
            "grpo_config.learning_rate": 1.5e-5,
            "grpo_config.row_sampling.share": 1,
            "regeneration.num_problems": 120,
            "grpo_config.monitor_kl_every": 0,
            "combination.scale": "group",
            "watch": "[]",
        } | changes
        return load_config(Path("configs/quickstart.yaml"), [f"{key}={value}" for key, value in values.items()])


WORKLOADS = {name: Workload(name, name == "fixed") for name in ("natural", "fixed")}


def open_model(workload: Workload) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy in float32, on the GPU if there is one."""
    model, tokenizer = load_policy(MODEL, device=pick_device())
    if workload.model_size != "135M":
        model = _of_another_size(model, workload.model_size)
    if workload.is_fixed:
        tokenizer.eos_token = NEVER_WRITTEN
        model.config.eos_token_id = tokenizer.eos_token_id
        assert model.generation_config is not None
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, tokenizer


def _of_another_size(model: PreTrainedModel, size: str) -> PreTrainedModel:
    """A model of the same architecture in another size, with random weights from a fixed seed."""
    config = copy.deepcopy(model.config)
    config.update(dict(zip(SHAPE, MODEL_SIZES[size], strict=True)))
    torch.manual_seed(0)
    other: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    other.to(model.device)  # type: ignore[arg-type]
    other.eval()  # type: ignore[no-untyped-call]
    return other


def problems(config: Config, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Problem]]:
    """The quickstart's problems, by split."""
    loaded = load_problems(
        config.problems, config.regeneration, rounds=config.rounds, seed=config.seed, tokenizer=tokenizer
    )
    return loaded.by_split


def in_order(train: Sequence[Problem], config: Config, num_steps: int) -> list[Problem]:
    """The problems of the first `num_steps` batches, in the order of our loop."""
    picker = ProblemPicker(train, config.curriculum, seed=config.seed, round_index=ROUND)
    picked: list[Problem] = []
    for _ in range(num_steps):
        picked += picker.pick(config.grpo_config.batch_size // config.grpo_config.group_size)
        picker.end_step({})
    return picked


class Noise:
    """A pseudo-random reward in [0, 1) from a hash of the text, so that different responses get different rewards."""

    name, weight = "noise", 1.0

    def __call__(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[float]:
        return [int(hashlib.sha256(c.text.encode()).hexdigest()[:8], 16) / 2**32 for c in completions]


def open_rewards(workload: Workload, config: Config) -> list[Reward]:
    """The quickstart's rewards without its reward model; for `fixed`, `Noise`."""
    if workload.is_fixed:
        return [Noise()]
    with build_rewards(config.rewards, {}) as rewards:
        return rewards


RewardFunction = Callable[..., list[float | None]]


def as_trl_rewards(rewards: Sequence[Reward], problems: Sequence[Problem]) -> list[RewardFunction]:
    """The rewards as functions with TRL's signature."""
    by_key = {problem.key: problem for problem in problems}
    return [_as_trl_reward(reward, by_key) for reward in rewards]


def _as_trl_reward(reward: Reward, by_key: dict[str, Problem]) -> RewardFunction:
    def call(
        completions: list[Any], completion_ids: list[list[int]], key: list[str], **others: object
    ) -> list[float | None]:
        asked = [by_key[k] for k in key]
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        rows = [_completion(*row) for row in zip(asked, texts, completion_ids, strict=True)]
        return [float(value) for value in reward(asked, rows)]  # type: ignore[arg-type]

    call.__name__ = reward.name
    return call


def _completion(problem: Problem, text: str, token_ids: list[int]) -> Completion:
    return Completion(
        problem_key=problem.key,
        index=0,
        prompt_ids=[],
        token_ids=list(token_ids),
        text=text,
        finish_reason="stop",
        logprobs=[],
        policy_id="",
        step=0,
        seed=0,
    )

"""The verdict of an outcome reward on one response."""

from __future__ import annotations

from typing import Any

from configs.records import Completion, Problem
from configs.schema.rewards import OutcomeRewardConfig
from reward_training.rewards.outcome import OutcomeReward

CHOICES = {"A": "steel", "B": "glass", "C": "clay", "D": "wood"}


def accepts(gold: str, text: str, question: str = "", options: dict[str, str] = CHOICES, **settings: Any) -> bool:
    """Whether the outcome reward calls a response right; `final` with `math` unless the settings say otherwise."""
    config = OutcomeRewardConfig.model_validate({"name": "right", "extract": "final", "checker": "math"} | settings)
    meta = {"choices": options} if config.checker == "choice" else {}
    prompt = [{"role": "user", "content": question}]
    problem = Problem(key="k", prompt=prompt, answer=gold, source="table", meta=meta, split="train")
    completion = Completion(
        problem_key="k", index=0, prompt_ids=[], token_ids=[1], text=text, finish_reason="stop", logprobs=[0.0],
        policy_id="p", step=0, seed=0,
    )  # fmt: skip
    return OutcomeReward(config)([problem], [completion]) == [1.0]

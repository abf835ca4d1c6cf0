"""The best response of each group, and training on them, against the loss in float64 and the online form's gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from configs.disk.checkpoints import Checkpoints
from configs.errors import StageStopped
from configs.records import Completion, Policy, Score
from configs.schema.grpo import GrpoConfig
from configs.schema.methods.method import BestOfNMethod
from grpo_train.methods.given_samples import Training, in_epochs
from grpo_train.methods.offline_best_of_n import best_of_groups, imitate
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.updating.advantages import Advantages
from grpo_train.updating.learner import Learner
from reward_training.weighing import Weighing


def response(key: str, index: int, *token_ids: int) -> Completion:
    return Completion(
        problem_key=key, index=index, prompt_ids=[3, 50 + index, 51], token_ids=list(token_ids), text="", finish_reason="stop",
        logprobs=[0.0] * len(token_ids), policy_id="p", step=0, seed=0,
    )  # fmt: skip


def kept_of(parts: list[dict[str, float | None]], **fields: float) -> list[tuple[str, int]]:
    """(problem, position) of what is kept of groups of two; `a` weighs 2 and `b` 1."""
    rows = [response("xyz"[i // 2], i % 2, 10 + i, 4) for i in range(len(parts))]
    scores = [Score(parts=part, total=0.0) for part in parts]
    method = BestOfNMethod.model_validate({"mode": "offline", **fields})
    weighing = Weighing({"a": 2.0, "b": 1.0, "c": 5.0})
    kept = best_of_groups(rows, scores, method=method, weighing=weighing, objectives=["a", "b", "c"], group_size=2)
    return [(best.problem_key, best.index) for best in kept]


def test_the_response_with_the_highest_weighted_sum_is_kept_and_the_first_of_equal_ones() -> None:
    """x: 2 x 1 + 0 = 2 against 0 + 1.5; y: 1 against 1. `c` has no reward model yet, so no response has a part of it."""
    parts: list[dict[str, float | None]] = [
        {"a": 1.0, "b": 0.0},
        {"a": 0.0, "b": 1.5},
        {"a": 0.5, "b": 0.0},
        {"a": 0.0, "b": 1.0},
    ]
    assert kept_of(parts) == [("x", 0), ("y", 0)]


def test_what_is_kept_is_over_the_least_score_and_scored() -> None:
    parts: list[dict[str, float | None]] = [{"a": 1.0}, {"a": 0.5}, {"a": 1.5}, {"a": 1.0}, {"a": None}, {"a": None}]
    assert kept_of(parts, min_score=2.0) == [("y", 0)]  # x: 2 is not over 2
    assert kept_of(parts) == [("x", 0), ("y", 0)]


KEPT = [response(f"{i}", i % 5, *[10 + i, 20, 21, 4][i % 3 :]) for i in range(10)]


def training(
    grpo: GrpoConfig | None = None,
    *,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Micro-batches of two responses."""
    grpo = grpo or GrpoConfig(precision="float32", micro_batch_tokens=16, learning_rate=1e-3)
    return Training(grpo, 0, 1, on_step, should_stop, lambda: False, checkpoints)


def train(settings: Training, model: LlamaForCausalLM | None = None, *, epochs: int = 1) -> LlamaForCausalLM:
    model = model or build_tiny_model(build_tiny_tokenizer())
    imitate(model, build_tiny_tokenizer(), KEPT, epochs=epochs, batch_size=4, training=settings)
    return model


def nll(model: LlamaForCausalLM, rows: list[Completion]) -> float:
    """The mean of - log p over the responses' tokens, in float64, one sequence at a time."""
    double, sums = copy.deepcopy(model).double(), 0.0
    for row in rows:
        with torch.no_grad():
            logits = double(torch.tensor([row.prompt_ids + row.token_ids])).logits[0, len(row.prompt_ids) - 1 : -1]
        sums -= float(logits.log_softmax(dim=1).gather(1, torch.tensor(row.token_ids)[:, None]).sum())
    return sums / sum(len(row.token_ids) for row in rows)


@pytest.mark.parametrize("takes_counts", [True, False])
def test_the_loss_is_the_mean_over_the_tokens_of_the_responses_alone(takes_counts: bool) -> None:
    """Also of a model whose forward takes no count of tokens: there the loss was a mean of the means of micro-batches."""
    model = build_tiny_model(build_tiny_tokenizer())
    model.accepts_loss_kwargs = takes_counts
    losses: list[float] = []
    settings = training(on_step=lambda step, metrics: losses.append(metrics["policy/loss"]))
    train(settings, model)
    first = [KEPT[i] for i in in_epochs(len(KEPT), 1, settings)[:4]]
    assert losses[0] == pytest.approx(nll(build_tiny_model(build_tiny_tokenizer()), first), rel=1e-5)
    assert len(losses) == 3  # 10 responses by 4


def test_kept_responses_become_likelier() -> None:
    assert nll(train(training(), epochs=4), KEPT) < nll(build_tiny_model(build_tiny_tokenizer()), KEPT) - 0.1


def test_the_first_gradient_is_that_of_the_online_form() -> None:
    """The policy gradient with advantage 1 and the token mean, at the temperature 1 at which it has the same log-probabilities."""
    norms: list[float] = []
    settings = training(on_step=lambda step, metrics: norms.append(metrics["policy/grad_norm"]))
    train(settings)
    first = [KEPT[i] for i in in_epochs(len(KEPT), 1, settings)[:4]]
    grpo = GrpoConfig(precision="float32", loss="dapo", temperature=1.0, micro_batch_tokens=16)
    policy = Policy(path="nowhere", id="p", round=0)
    learner = Learner(
        build_tiny_model(build_tiny_tokenizer()), grpo, policy=policy, initial_policy=policy, num_updates=1
    )
    ones = np.ones(4)
    advantages = Advantages(values=ones, rewards=ones, dead=np.zeros(4, dtype=np.bool_), contributions=ones[:, None])
    assert norms[0] == pytest.approx(learner.update(first, advantages)["policy/grad_norm"], rel=1e-4)


def test_a_stopped_training_that_goes_on_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, seen = train(training(), epochs=2), list[int]()

    def attempt(stop_after: int) -> LlamaForCausalLM:
        checkpoints = Checkpoints(tmp_path, fingerprint="work", every=100, keep=1, warn=pytest.fail)
        settings = training(
            on_step=lambda step, _: seen.append(step),
            should_stop=lambda: bool(seen) and seen[-1] + 1 >= stop_after,
            checkpoints=checkpoints,
        )
        return train(settings, epochs=2)

    with pytest.raises(StageStopped, match="after step 3 of 5"):
        attempt(3)
    resumed = attempt(1000)
    assert seen == [1, 2, 3, 4, 5]
    assert all(torch.equal(weight, resumed.get_parameter(name)) for name, weight in whole.named_parameters())

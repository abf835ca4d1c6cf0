"""What an update does with given responses: denominators, micro-batches, later updates on the same batch."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from configs.errors import ConfigError
from configs.records import Completion, Policy
from configs.schema.grpo import GrpoConfig
from grpo_train.updating.advantages import Advantages, group_advantages
from grpo_train.updating.learner import Learner

POLICY = Policy(path="nowhere", id="p", round=0)
LENGTHS = [5, 1, 3, 7, 2, 2, 6, 4]
REWARDS = np.array([[1.0], [0.0], [0.2], [0.0], [1.0], [1.0], [0.3], [0.1]])


def written_by(model: PreTrainedModel) -> list[Completion]:
    """Eight random responses in groups of 2, with the model's own log-probabilities."""
    generator = torch.Generator().manual_seed(1)
    return [completion(model, i, torch.randint(5, 90, (4 + n,), generator=generator)) for i, n in enumerate(LENGTHS)]


def completion(model: PreTrainedModel, row: int, ids: torch.Tensor) -> Completion:
    # the two of a group share their prompt
    ids[:4] = torch.arange(4) + 10 * (row // 2 + 1)
    return Completion(
        problem_key=str(row // 2),
        index=row % 2,
        prompt_ids=ids[:4].tolist(),
        token_ids=ids[4:].tolist(),
        text="",
        finish_reason="stop",
        logprobs=logprobs_of(model, ids[:4].tolist(), ids[4:].tolist()).tolist(),
        policy_id="p",
        step=1,
        seed=0,
    )


def logprobs_of(model: PreTrainedModel, prompt: list[int], response: list[int]) -> torch.Tensor:
    """(T,) of the response's tokens, by one plain forward."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=1).gather(1, torch.tensor(response)[:, None])[:, 0]


def learner(model: PreTrainedModel, **settings: Any) -> Learner:
    given = {
        "group_size": 2,
        "batch_size": 8,
        "precision": "float32",
        "temperature": 1.0,
        "max_grad_norm": 1e9,
        "learning_rate": 1e-12,
        "max_response_length": 16,
    }
    grpo = GrpoConfig.model_validate(given | settings)
    return Learner(model, grpo, policy=POLICY, initial_policy=POLICY, num_updates=10)


def advantages() -> Advantages:
    return group_advantages(REWARDS, np.ones(1), 2)


def test_each_loss_has_its_denominator_whatever_the_micro_batch_and_counts_the_rows_it_skips(tiny):
    model, _ = tiny
    completions = written_by(model)
    norms = {}
    for loss in ("grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"):
        one, whole = (
            learner(model, loss=loss, micro_batch_tokens=n).update(completions, advantages()) for n in (1, 10_000)
        )
        assert one["policy/loss"] == pytest.approx(whole["policy/loss"], abs=1e-6)
        assert one["policy/grad_norm"] == pytest.approx(whole["policy/grad_norm"], rel=1e-4)
        norms[loss] = one["policy/grad_norm"]
    # on policy gspo has grpo's gradient, and the losses with a mean over tokens have one gradient
    assert norms["gspo"] == pytest.approx(norms["grpo"], rel=1e-5)
    assert norms["bnpo"] == pytest.approx(norms["dapo"], rel=1e-5)
    assert norms["cispo"] == pytest.approx(norms["dapo"], rel=1e-5)
    assert norms["grpo"] != pytest.approx(norms["dapo"], rel=1e-2)
    # 30 tokens, those of the dead third group included, against 8 responses of at most 16
    assert norms["dr_grpo"] == pytest.approx(norms["dapo"] * 30 / (8 * 16), rel=1e-5)


def test_recomputed_layers_give_the_same_gradient(tiny):
    model, _ = tiny
    completions = written_by(model)
    found = {}
    for recompute in (False, True):
        trained = learner(copy.deepcopy(model), activation_checkpointing=recompute, micro_batch_tokens=16)
        kept: list[int] = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            metrics = trained.update(completions, advantages())
        found[recompute] = metrics["policy/grad_norm"], metrics["policy/loss"], sum(kept)
    assert found[True][:2] == found[False][:2]
    assert found[True][2] < 0.5 * found[False][2]


def test_a_model_that_hides_its_layers_cannot_recompute_them(tiny, monkeypatch):
    model, _ = tiny
    monkeypatch.setattr(type(model), "get_decoder", lambda _: torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match="activation_checkpointing does not know the layers of LlamaForCausalLM"):
        learner(model, activation_checkpointing=True)


def test_a_later_update_clips_by_the_ratio_to_the_policy_that_wrote_the_responses(tiny, monkeypatch):
    model, _ = tiny
    completions = written_by(model)
    twice = learner(model, updates_per_batch=2, learning_rate=3e-3, clip_range=0.1, clip_range_high=0.2)
    gradients, weights, step = [], [], twice._apply

    def recorded() -> float:
        gradients.append(gradient_of(model))
        norm = step()
        weights.append(copy.deepcopy(model.state_dict()))
        return norm

    monkeypatch.setattr(twice, "_apply", recorded)
    metrics = twice.update(completions, advantages())
    model.load_state_dict(weights[0])
    expected, low, high = clipped_gradient(model, completions)
    assert low > 0
    assert high > 0
    # tokens of the three groups that are alive
    assert metrics["policy/clip_fraction_low"] == pytest.approx(low / 26)
    assert metrics["policy/clip_fraction_high"] == pytest.approx(high / 26)
    assert metrics["policy/clip_fraction"] == pytest.approx((low + high) / 26)
    assert torch.allclose(gradients[1], expected, atol=1e-5 * expected.abs().max())
    assert not torch.allclose(gradients[1], gradients[0], rtol=0.1)


def test_a_later_update_sees_the_weights_of_the_one_before_in_low_precision_too(tiny):
    """The low-precision copy that is differentiated was kept as it was until the last update on a batch."""
    model, _ = tiny
    completions = written_by(model)
    low = learner(model, precision="bfloat16", updates_per_batch=2, learning_rate=3e-3, clip_range=0.1)
    assert low.update(completions, advantages())["policy/clip_fraction"] > 0.2


def clipped_gradient(model: PreTrainedModel, completions: list[Completion]) -> tuple[torch.Tensor, int, int]:
    """Of the clipped loss, token by token, and how many tokens meet the lower and the upper bound."""
    model.zero_grad()
    num_low = num_high = 0
    for one, a in zip(completions, advantages().values.tolist(), strict=True):
        logprobs = logprobs_of(model, one.prompt_ids, one.token_ids)
        ratio = torch.exp(logprobs.detach() - torch.tensor(one.logprobs))
        low, high = (ratio < 0.9) & (a < 0), (ratio > 1.2) & (a > 0)
        weight = torch.where(low | high, 0.0, ratio * a) / len(one.token_ids) / len(completions)
        (-weight * logprobs).sum().backward()
        num_low, num_high = num_low + int(low.sum()), num_high + int(high.sum())
    return gradient_of(model), num_low, num_high


def gradient_of(model: PreTrainedModel) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

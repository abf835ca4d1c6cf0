"""The forward KL, equal to a plain computation on responses that the given policy wrote."""

import math
from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel

from configs.records import Completion
from grpo_train.measuring.retention.forward_kl import first_responses, forward_kl
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer
from grpo_train.sampling.generation import Sampling, sample
from tests.grpo_train.conftest import make_problem

TEMPERATURE = 0.8


@pytest.fixture(scope="module")
def given() -> PreTrainedModel:
    return build_tiny_model(build_tiny_tokenizer())


@pytest.fixture(scope="module")
def other() -> PreTrainedModel:
    return build_tiny_model(build_tiny_tokenizer(), seed=1)


@pytest.fixture(scope="module")
def written(given: PreTrainedModel) -> list[Completion]:
    problems = [make_problem(f"{i} + 4 =") for i in range(6)]
    sampling = Sampling(2, TEMPERATURE, 12)
    return sample(given, build_tiny_tokenizer(), problems, sampling, seed=3, policy_id="given")


def refused() -> PreTrainedModel:
    raise AssertionError("the given policy was loaded")


def measured(policy: PreTrainedModel, responses: Sequence[Completion]) -> float:
    found = forward_kl(
        responses, policy, refused, whole_vocabulary=True, temperature=TEMPERATURE, max_tokens=256, run_seed=0, draws=50
    )
    assert found is not None
    assert found.n == len(responses)
    return found.estimate


def logprobs(model: PreTrainedModel, one: Completion) -> list[float]:
    ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
    with torch.no_grad():
        values = torch.log_softmax(model(ids).logits.float() / TEMPERATURE, dim=-1)[0]
    start = len(one.prompt_ids) - 1
    return [float(values[start + i, token]) for i, token in enumerate(one.token_ids)]


def test_it_is_the_k3_estimate_on_the_given_policys_responses(
    given: PreTrainedModel, other: PreTrainedModel, written: list[Completion]
) -> None:
    responses = first_responses(written, "given", 6)
    means = []
    for one in responses:
        gaps = [q - p for p, q in zip(logprobs(given, one), logprobs(other, one), strict=True)]
        means.append(sum(math.exp(gap) - gap - 1 for gap in gaps) / len(gaps))
    assert measured(other, responses) == pytest.approx(sum(means) / len(means), rel=1e-3)
    assert measured(other, responses) > 0.001


def test_it_is_zero_from_the_given_policy_to_itself(given: PreTrainedModel, written: list[Completion]) -> None:
    assert measured(given, first_responses(written, "given", 6)) == pytest.approx(0.0, abs=1e-6)


def test_log_probabilities_of_a_part_of_the_vocabulary_are_computed_anew(
    given: PreTrainedModel, other: PreTrainedModel, written: list[Completion]
) -> None:
    responses = first_responses(written, "given", 6)
    told = [one.model_copy(update={"logprobs": [0.0] * len(one.token_ids)}) for one in responses]
    found = forward_kl(
        told,
        other,
        lambda: given,
        whole_vocabulary=False,
        temperature=TEMPERATURE,
        max_tokens=256,
        run_seed=0,
        draws=50,
    )
    assert found is not None
    assert found.estimate == pytest.approx(measured(other, responses), rel=1e-3)


def test_the_first_response_to_each_of_the_first_problems_counts(written: list[Completion]) -> None:
    chosen = first_responses(written, "given", 4)
    assert [one.index for one in chosen] == [0] * 4
    assert [one.problem_key for one in chosen] == list(dict.fromkeys(one.problem_key for one in written))[:4]
    assert first_responses(written, "somebody else", 4) == []

"""Responses of over 1,024 tokens: written across the growth of the cache, trained on in pieces that fit."""

import pytest
import torch

from grpo_train.sampling.generation import Sampling, sample
from tests.grpo_train.conftest import make_problem
from tests.grpo_train.updating.test_learner import advantages, learner, logprobs_of

LENGTH = 1100


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_a_step_on_responses_of_more_than_a_thousand_tokens(tiny, recompute):
    model, tokenizer = tiny
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] -= 1.0  # it never ends by itself
    problems = [make_problem(question) for question in ("1+1", "What is two plus three?", "7 times 6", "say nothing")]
    sampling = Sampling(group_size=2, temperature=1.0, max_response_length=LENGTH, max_rows=4)
    completions = sample(model, tokenizer, problems, sampling, seed=0, policy_id="p")
    assert {len(c.token_ids) for c in completions} == {LENGTH}
    assert {c.finish_reason for c in completions} == {"length"}
    for completion in completions[:2]:
        with torch.no_grad():
            plain = logprobs_of(model, completion.prompt_ids, completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), plain, rtol=0, atol=1e-3)
    found = []
    for most in (LENGTH, 10 * LENGTH):
        settings = {"max_response_length": LENGTH, "micro_batch_tokens": most, "activation_checkpointing": recompute}
        found.append(learner(model, **settings).update(completions, advantages()))
    small, large = found
    assert small["policy/grad_norm"] == pytest.approx(large["policy/grad_norm"], rel=1e-3)
    assert small["policy/loss"] == pytest.approx(large["policy/loss"], abs=1e-5)
    assert small["policy/sampler_mismatch"] < 1e-4

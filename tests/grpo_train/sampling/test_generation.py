import math

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from configs.errors import StageStopped
from grpo_train.policies.tiny_model import build_tiny_tokenizer
from grpo_train.sampling.cached import _branch
from grpo_train.sampling.drawing import BLOCK, filter_logits, inverse_cdf
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.rows import Row
from reward_training.transformer.packing import packed, round_length
from reward_training.transformer.positions import Positions
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.turn_ends import stop_token_ids
from tests.grpo_train.conftest import make_problem

QUESTIONS = ["1+1", "What is two plus three, please?", "x" * 40, "7", "say nothing"]


def draw(tiny, problems, seed=0, **settings):
    model, tokenizer = tiny
    defaults = {"group_size": 3, "temperature": 1.0, "max_response_length": 12}
    return sample(model, tokenizer, problems, Sampling(**(defaults | settings)), seed=seed, policy_id="p")


def test_greedy_equals_transformers_generate(tiny):
    model, tokenizer = tiny
    problems = [make_problem(question) for question in QUESTIONS]
    ours = draw(tiny, problems, group_size=1, temperature=0.0, max_response_length=20)
    for problem, completion in zip(problems, ours, strict=True):
        prompt = torch.tensor([encode_prompt(tokenizer, problem)])
        theirs = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False, pad_token_id=0
        )[0, prompt.shape[1] :]
        assert completion.token_ids == theirs.tolist()


def test_what_a_row_writes_does_not_depend_on_the_rows_beside_it(tiny):
    problems = [make_problem(question) for question in QUESTIONS]
    together = draw(tiny, problems)
    in_small_batches = draw(tiny, problems, max_rows=2)
    alone = draw(tiny, problems[2:3])
    assert [c.token_ids for c in together] == [c.token_ids for c in in_small_batches]
    assert [c.token_ids for c in together[6:9]] == [c.token_ids for c in alone]


def test_groups_come_in_the_order_of_the_problems_and_differ_within(tiny):
    problems = [make_problem(question) for question in QUESTIONS]
    completions = draw(tiny, problems)
    assert [c.problem_key for c in completions] == [p.key for p in problems for _ in range(3)]
    assert [c.index for c in completions] == [0, 1, 2] * 5
    assert len({tuple(c.token_ids) for c in completions}) > 10


def test_a_group_may_be_smaller_and_its_rows_write_the_same(tiny):
    model, tokenizer = tiny
    problems = [make_problem(question) for question in QUESTIONS[:3]]
    settings = Sampling(group_size=3, temperature=1.0, max_response_length=12)
    some = sample(model, tokenizer, problems, settings, seed=0, policy_id="p", group_sizes=[3, 1, 0])
    whole = draw(tiny, problems)
    assert [c.token_ids for c in some] == [c.token_ids for c in whole[:4]]


def test_a_group_is_handed_on_as_soon_as_its_last_row_has_ended(tiny):
    model, tokenizer = tiny
    problems = [make_problem(question) for question in QUESTIONS]
    settings = Sampling(group_size=3, temperature=1.0, max_response_length=12, max_rows=4)  # groups are cut
    seen = {}
    completions = sample(
        model, tokenizer, problems, settings, seed=0, policy_id="p", group_sizes=[3, 3, 1, 0, 2],
        on_group=lambda number, problem, group: seen.__setitem__(number, (problem.key, group)),
    )  # fmt: skip
    assert [c for number in sorted(seen) for c in seen[number][1]] == completions
    assert [(number, key) for number, (key, _) in sorted(seen.items())] == [(i, problems[i].key) for i in (0, 1, 2, 4)]
    lengths = [max(len(c.token_ids) for c in group) for _, group in draw_order(tiny, problems)]
    assert lengths == sorted(lengths)  # together, what is short is there first


def draw_order(tiny, problems):
    model, tokenizer = tiny
    seen = []
    settings = Sampling(group_size=2, temperature=1.0, max_response_length=30)
    sample(
        model, tokenizer, problems, settings, seed=0, policy_id="p",
        on_group=lambda number, problem, group: seen.append((number, group)),
    )  # fmt: skip
    assert len(seen) == len(problems)
    return seen


def test_another_seed_draws_other_responses(tiny):
    problems = [make_problem("1+1")]
    assert draw(tiny, problems, seed=1)[0].token_ids != draw(tiny, problems, seed=2)[0].token_ids


def test_a_response_ends_with_the_stop_token_or_at_the_length_limit(tiny):
    stop = stop_token_ids(*tiny)
    completions = draw(tiny, [make_problem(question) for question in QUESTIONS], group_size=8)
    reasons = {completion.finish_reason for completion in completions}
    assert reasons == {"stop", "length"}
    for completion in completions:
        ended = completion.token_ids[-1] in stop
        assert ended == (completion.finish_reason == "stop")
        assert not stop & set(completion.token_ids[:-1])
        assert len(completion.token_ids) <= 12
        assert len(completion.logprobs) == len(completion.token_ids)


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.7}])
def test_logprobs_are_of_the_scaled_logits_over_the_whole_vocabulary(tiny, settings):
    model, _ = tiny
    problem = make_problem("1+1")
    completion = draw(tiny, [problem], temperature=0.7, **settings)[1]
    ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
    logits = model(ids).logits[0, len(completion.prompt_ids) - 1 : -1].double() / 0.7
    expected = logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.7}])
def test_the_first_responses_may_be_greedy_and_the_others_draw_as_ever(tiny, settings):
    problems = [make_problem(question) for question in QUESTIONS]
    mixed = draw(tiny, problems, temperature=0.7, num_greedy=1, **settings)
    greedy = draw(tiny, problems, temperature=0.0, group_size=1)
    drawn = draw(tiny, problems, temperature=0.7, **settings)
    assert [c.token_ids for c in mixed[::3]] == [c.token_ids for c in greedy]
    for number in (1, 2):
        assert [c.token_ids for c in mixed[number::3]] == [c.token_ids for c in drawn[number::3]]
        assert [c.logprobs for c in mixed[number::3]] == [pytest.approx(c.logprobs, abs=1e-5) for c in drawn[number::3]]
    assert mixed[0].logprobs == pytest.approx(greedy[0].logprobs, abs=1e-5)  # at temperature 1


def test_what_prompts_begin_with_is_prefilled_once_and_each_prompt_once_for_its_group(tiny, monkeypatch):
    model, tokenizer = tiny
    problems = [make_problem("1+1"), make_problem("1+2")]
    decoder = model.get_decoder()
    shapes = []
    forward = decoder.forward

    def spy(*args, **kwargs):
        shapes.append(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    draw(tiny, problems[:1], group_size=1)  # the model has shown by now what it can take
    monkeypatch.setattr(decoder, "forward", spy)
    completions = draw(tiny, problems, group_size=8)
    assert shapes[0] == (1, round_length(num_distinct_beginnings(tokenizer, problems)))
    assert shapes[1] == (len({fed for fed in fed_beginnings(completions) if len(fed[1]) == 1}), 1)


def fed_beginnings(completions) -> set[tuple[str, tuple[int, ...]]]:
    """What of the responses goes through the model, each beginning once; the last token is never fed."""
    return {(c.problem_key, tuple(c.token_ids[:end])) for c in completions for end in range(1, len(c.token_ids))}


SHARP = 0.1


def test_rows_that_have_written_the_same_are_one_row_until_they_part(tiny):
    """Few likely tokens and sixteen rows: whatever is drawn, each distinct beginning goes through the model once."""
    model, tokenizer = tiny
    positions = Positions()
    problems = [make_problem("1+1"), make_problem("1+2")]
    completions = sample(
        model, tokenizer, problems, Sampling(16, SHARP, 40), seed=0, policy_id="p", positions=positions
    )
    fed = sum(len(c.token_ids) - 1 for c in completions)
    real = num_distinct_beginnings(tokenizer, problems) + len(fed_beginnings(completions))
    assert positions.computed - positions.padding == real
    assert len(fed_beginnings(completions)) < 0.9 * fed
    assert len({tuple(c.token_ids) for c in completions}) > 8
    for c in completions:
        ids = torch.tensor([[*c.prompt_ids, *c.token_ids]])
        with torch.no_grad():
            logprobs = (model(ids).logits[0, len(c.prompt_ids) - 1 : -1] / SHARP).log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(c.token_ids)[:, None])[:, 0]
        assert c.logprobs == pytest.approx(expected.tolist(), abs=1e-3)


def test_branches_stay_in_their_slot_or_take_a_free_one_or_a_new_one():
    rows = [Row(0, index, np.zeros(1)) for index in range(6)]
    going = [(0, 7, rows[0]), (0, 8, rows[1]), (0, 7, rows[2]), (2, 5, rows[3]), (2, 6, rows[4]), (2, 4, rows[5])]
    slots, tokens, copies = _branch(3, going)
    assert [[row.index for row in slot] for slot in slots] == [[0, 2], [1], [3], [4], [5]]
    assert tokens == [7, 8, 5, 6, 4]
    assert copies == {1: 0, 3: 2, 4: 2}
    assert _branch(2, [(1, 9, rows[0])]) == ([[], [rows[0]]], [0, 9], {})


def num_distinct_beginnings(tokenizer, problems) -> int:
    prompts = [encode_prompt(tokenizer, problem) for problem in problems]
    return len({tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)})


def test_a_model_with_a_window_writes_as_transformers_does():
    """Its prompts have rows of their own, padded on the left."""
    torch.manual_seed(0)
    tokenizer = build_tiny_tokenizer()
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    problems = [make_problem(question) for question in ("1+1", "What is two plus three?")]
    for completion in sample(model, tokenizer, problems, Sampling(4, 1.0, 8), seed=0, policy_id="p"):
        ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
        logprobs = model(ids).logits[0, len(completion.prompt_ids) - 1 : -1].log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-5)
    for completion in sample(model, tokenizer, problems, Sampling(1, 0.0, 8), seed=0, policy_id="p"):
        ids = torch.tensor([completion.prompt_ids])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert completion.token_ids == written[0, ids.shape[1] :].tolist()


def test_finished_rows_leave_the_batch(tiny, monkeypatch):
    model, _ = tiny
    rows = []
    forward = model.forward

    def spy(*args, **kwargs):
        rows.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", spy)
    draw(tiny, [make_problem(q) for q in QUESTIONS], group_size=16, max_response_length=30)
    assert max(rows) > 40
    assert rows[-1] < 0.5 * max(rows)


def test_positions_are_each_beginning_once_and_the_rest_is_padding(tiny):
    model, tokenizer = tiny
    problems, positions = [make_problem(q) for q in QUESTIONS], Positions()
    completions = sample(model, tokenizer, problems, Sampling(4, 1.0, 12), seed=0, policy_id="p", positions=positions)
    prompts = packed(
        [encode_prompt(tokenizer, problem) for problem in problems], width=64, layout_of=lambda num_tokens: "shared"
    )
    real = prompts.num_tokens + len(fed_beginnings(completions))
    assert positions.computed - positions.padding == real
    assert positions.padding >= prompts.num_computed - prompts.num_tokens


def test_inverse_cdf_draws_with_the_probabilities_whatever_their_sum():
    probabilities = torch.tensor([[1.0, 0.5, 0.5]])
    draws = [inverse_cdf(probabilities, torch.tensor([[u]])).item() for u in (0.0, 0.49, 0.51, 0.74, 0.76, 0.999999)]
    assert draws == [0, 0, 1, 1, 2, 2]


def test_inverse_cdf_over_blocks_is_the_one_over_all_tokens():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(400, 3 * BLOCK + 5, generator=generator, dtype=torch.float64)
    probabilities[probabilities < 0.5] = 0
    uniforms = torch.rand(400, 1, generator=generator, dtype=torch.float64)
    uniforms[0] = 0
    cumulated = probabilities.cumsum(dim=1)
    expected = torch.searchsorted(cumulated, uniforms * cumulated[:, -1:], right=True)
    assert torch.equal(inverse_cdf(probabilities, uniforms), expected)


def test_no_token_of_probability_zero_is_drawn_where_rounding_ends_the_sum_early():
    probabilities = torch.rand(64, 2 * BLOCK)
    probabilities[:, BLOCK + 7 :] = 0
    drawn = inverse_cdf(probabilities, torch.full((64, 1), 1 - 2**-24))
    assert (probabilities.gather(1, drawn) > 0).all()


def test_filters_keep_the_smallest_set_and_never_draw_outside_it():
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.25, 0.15]]))
    assert filter_logits(logits, 1.0, 2).isfinite().tolist() == [[False, True, True, False]]
    assert filter_logits(logits, 0.7, 0).isfinite().tolist() == [[False, True, True, False]]
    assert filter_logits(logits, 0.01, 0).isfinite().tolist() == [[False, True, False, False]]
    assert inverse_cdf(filter_logits(logits, 0.01, 0).exp(), torch.tensor([[0.0]])).item() == 1
    assert math.isfinite(logits.sum())


def test_a_stop_is_obeyed_between_batches(tiny):
    model, tokenizer = tiny
    with pytest.raises(StageStopped):
        sample(
            model, tokenizer, [make_problem("1")], Sampling(1, 1.0, 4), seed=0, policy_id="p", should_stop=lambda: True
        )

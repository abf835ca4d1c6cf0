"""Attention by blocks is attention in whole rows: in value and gradient, for any tree, and in a model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from reward_training.transformer.attention.kernels import BLOCKED, WHOLE_UNTIL, blocked_attention, fit_attention
from reward_training.transformer.attention.key_blocks import NUM_QUERIES, ROUNDED_TO, key_blocks
from reward_training.transformer.packing import Packed, packed, states_of
from reward_training.transformer.token_logprobs import body_of
from reward_training.transformer.trial import is_alike, layout_of, plain_row
from tests.reward_training.transformer.attention.test_kernels import SIZES
from tests.tiny_architectures import build, model_types


def tree(num_prompts: int, num_responses: int, length: int, *, seed: int = 0) -> list[list[int]]:
    """Prompts that share 20 tokens, with responses of `length` that share some of their own."""
    torch.manual_seed(seed)
    draw = lambda n: torch.randint(0, 50, (n,)).tolist()  # noqa: E731
    start, sequences = draw(20), []
    for _ in range(num_prompts):
        prompt = [*start, *draw(9)]
        sequences += [[*prompt, *draw(1 + (length + i) % length), *draw(i % 5)] for i in range(num_responses)]
    return sequences


def in_rows(sequences: list[list[int]], max_tokens: int | None = None) -> Packed:
    return packed(sequences, width=4096, layout_of=lambda _: "shared", max_tokens=max_tokens)


def biased(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


@settings(max_examples=20, deadline=None)
@given(
    num_prompts=st.integers(2, 9),
    num_responses=st.integers(1, 9),
    length=st.integers(1, 40),
    seed=st.integers(0, 99),
    max_tokens=st.sampled_from([None, 200]),
)
def test_blocks_equal_whole_rows_in_value_and_gradient(num_prompts, num_responses, length, seed, max_tokens):
    batch = in_rows(tree(num_prompts, num_responses, length, seed=seed), max_tokens)
    mask = batch.attention_mask
    assert mask is not None
    rows, tokens = batch.input_ids.shape
    blocks = key_blocks(mask, torch.float64)
    module = nn.Module().eval()
    module.num_key_value_groups = 3
    real = batch.nodes[torch.arange(batch.nodes.shape[1]) < batch.lengths[:, None]].unique()
    weights = torch.randn(len(real), 6, 5, dtype=torch.float64)
    found = []
    for more in ({}, {"key_blocks": blocks}):  # whole rows by torch's fused kernel, and by blocks
        torch.manual_seed(1)
        shapes = [(rows, 6, tokens, 8), (rows, 2, tokens, 8), (rows, 2, tokens, 5)]
        inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        attended, _ = blocked_attention(module, *inputs, biased(mask, torch.float64), scaling=0.35, **more)
        assert attended.shape == (rows, tokens, 6, 5)
        (attended.flatten(0, 1)[real] * weights).sum().backward()
        found.append([attended.detach().flatten(0, 1)[real], *(each.grad for each in inputs)])
    for whole, by_blocks in zip(*found, strict=True):
        torch.testing.assert_close(by_blocks, whole, rtol=0, atol=1e-12)


def test_a_block_has_the_ancestors_of_its_tokens_and_no_other_key_counts():
    mask = in_rows(tree(8, 8, 12)).attention_mask
    assert mask is not None
    blocks = key_blocks(mask, torch.float32)
    assert blocks is not None
    rows, _, tokens, width = mask.shape
    assert blocks.num_blocks == -(-tokens // NUM_QUERIES)
    assert blocks.num_keys % ROUNDED_TO == 0
    assert 2 * blocks.num_keys <= width
    attended = torch.zeros(rows, blocks.num_blocks * NUM_QUERIES, width, dtype=torch.bool)
    keys = blocks.index.view(rows, blocks.num_blocks, blocks.num_keys) - torch.arange(rows)[:, None, None] * width
    is_open = (blocks.bias == 0).view(rows, blocks.num_blocks, NUM_QUERIES, blocks.num_keys)
    for row in range(rows):
        for block in range(blocks.num_blocks):
            queries = slice(block * NUM_QUERIES, (block + 1) * NUM_QUERIES)
            attended[row, queries][:, keys[row, block]] = is_open[row, block]
    assert torch.equal(attended[:, :tokens], mask.squeeze(1))


def test_where_most_keys_are_seen_there_are_no_blocks():
    assert key_blocks(torch.ones(1, 1, 300, 300, dtype=torch.bool).tril(), torch.float32) is None


@pytest.mark.parametrize(
    ("kind", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)], ids=["llama", "qwen2"]
)
@pytest.mark.parametrize("is_long", [False, True])  # a long sequence has too many keys for blocks
def test_a_model_takes_them_for_long_rows_of_a_tree_and_computes_what_it_does_for_each_sequence_alone(
    kind, config, is_long
):
    torch.manual_seed(0)
    model = kind(config(**SIZES)).eval()
    sequences = [[i % 50 for i in range(450)], [0, 1, 2, 7]] if is_long else tree(8, 8, 12)
    batch = in_rows(sequences)
    tokens = batch.input_ids.shape[1]
    assert tokens > WHOLE_UNTIL
    fit_attention(model, tokens, batch.attention_mask)
    assert model.config._attn_implementation == BLOCKED
    assert (key_blocks(batch.attention_mask, torch.float32) is None) == is_long
    states = states_of(model.model, batch, torch.float32)
    states.square().sum().backward()
    fit_attention(model, WHOLE_UNTIL + 1)
    assert model.config._attn_implementation == "sdpa"
    for i, ids in enumerate(sequences):
        alone = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        torch.testing.assert_close(states[batch.nodes[i, : len(ids)]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["grouped", "blocked", "sdpa", "eager"])
def test_with_each_kernel_that_is_set_rows_may_share_beginnings(kind):
    """A kernel that the trial does not know would give each sequence a row of its own, in silence."""
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()
    model.set_attn_implementation(kind)
    assert layout_of(model, model.model)(WHOLE_UNTIL + 100) == "shared"


@pytest.mark.slow
def test_every_architecture_that_takes_blocks_computes_what_it_does_for_each_sequence_alone():
    """A model whose modules do not hand keyword arguments on to the kernel attends in whole rows, which is right too."""
    torch.manual_seed(0)
    sequences = [[i % 40 for i in ids] for ids in tree(8, 8, 12)]
    taken, wrong = set(), {}
    for model_type in model_types():
        model = build(model_type)
        body = body_of(model)
        batch = packed(sequences, width=4096, layout_of=layout_of(model, body))
        fit_attention(model, batch.input_ids.shape[1], batch.attention_mask)
        if model.config._attn_implementation != BLOCKED:
            continue
        taken.add(model_type)
        with torch.no_grad():
            states = states_of(body, batch, torch.float32)
            for i in (0, len(sequences) - 1):
                ids = sequences[i]
                alone = states_of(body, plain_row(ids, model.device), torch.float32)[: len(ids)]
                if not is_alike(states[batch.nodes[i, : len(ids)]], alone):
                    wrong[model_type] = i
    assert not wrong
    assert {"llama", "qwen2", "qwen3", "mistral"} & taken
    assert len(taken) > 40

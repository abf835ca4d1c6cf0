"""Packed sequences give the same scores and gradients as separate ones, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from reward_training.reward_models.scores import conversation_layout, conversation_scores
from reward_training.transformer.packing import Layout, LayoutOf, Packed, packed, packed_batches, round_length

PAD = 39
SIZES = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": PAD, "num_labels": 1,
}  # fmt: skip
SEQUENCES = [
    [5, 6, 7, 8, 9, 10, 3], [5, 6, 7, 8, 9, 11, 12, 3], [5, 6, 7, 8, 20, 3], [5, 6, 7, 8, 9, 10, 3],  # one text twice
    [30, 31, 3], [30, 31, 32, 33, 3], [30, 31, 3, 3],  # one conversation begins another
    [21, 22, 23, 24, 25, 26, 27, 3], [7],
]  # fmt: skip
NUM = len(SEQUENCES)
LAYOUTS: tuple[Layout, ...] = ("shared", "own", "plain")


def always(layout: Layout) -> LayoutOf:
    return lambda num_tokens: layout


def make_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for name in ("score", "classifier"):
        if hasattr(model, name):
            torch.nn.init.normal_(model.get_submodule(name).weight)
    return model


def one_by_one(model: PreTrainedModel, sequences: list[list[int]]) -> list[float]:
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([ids])).logits) for ids in sequences]


def scores(model: PreTrainedModel, batch: Packed) -> list[float]:
    with torch.no_grad():
        found = conversation_scores(model, batch)
    assert found.shape == (len(batch.lengths), 1)
    values: list[float] = found.squeeze(-1).tolist()
    return values


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_packed_scores_equal_single_ones(kind: type[PreTrainedConfig], layout: Layout) -> None:
    model = make_model(kind(**SIZES))
    assert conversation_layout(model)(64) == "shared"
    found = scores(model, packed(SEQUENCES, width=16, layout_of=always(layout)))
    assert found == pytest.approx(one_by_one(model, SEQUENCES), abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_in_one_run_goes_through_the_model_once(layout: Layout) -> None:
    """Ranks that hold parts of a model run it equally often; in the plain layout it ran once for each conversation."""
    model = make_model(LlamaConfig(**SIZES))
    runs: list[int] = []
    model.get_submodule("model").register_forward_hook(lambda *_: runs.append(1))
    batches = packed_batches(SEQUENCES, width=16, layout_of=always(layout), max_tokens=32, in_one_run=True)
    found: dict[int, float] = {}
    for number, (indices, batch) in enumerate(batches, start=1):
        found |= zip(indices, scores(model, batch), strict=True)
        assert len(runs) == number
    assert [found[i] for i in range(NUM)] == pytest.approx(one_by_one(model, SEQUENCES), abs=1e-5)


@pytest.mark.parametrize("kind", [BertConfig, GPT2Config])
def test_a_row_has_no_more_tokens_than_the_model_has_positions(kind: type[PreTrainedConfig]) -> None:
    model = make_model(kind(**(SIZES | {"max_position_embeddings": 30})))
    sequences = [[*range(29)], [*range(30)]]
    batch = packed(sequences, width=16, layout_of=conversation_layout(model))
    assert batch.input_ids.shape[1] == 32
    assert scores(model, batch) == pytest.approx(one_by_one(model, sequences), abs=1e-5)


def test_a_conversation_past_the_named_positions_is_scored_whole_where_the_model_can() -> None:
    model = make_model(MistralConfig(**(SIZES | {"max_position_embeddings": 8}), sliding_window=4))
    sequences = [[*range(19)], [*range(5, 25)]]
    batch = packed(sequences, width=16, layout_of=always("own"))
    assert scores(model, batch) == pytest.approx(one_by_one(model, sequences), abs=1e-5)


def test_gradients_equal_those_of_separate_rows() -> None:
    gradients = []
    for layout in LAYOUTS:
        model = make_model(LlamaConfig(**SIZES))
        found = conversation_scores(model, packed(SEQUENCES, width=16, layout_of=always(layout))).squeeze(-1)
        (found * torch.arange(NUM)).sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gradients[0], gradients[2], atol=1e-4, rtol=1e-4)


def test_a_common_beginning_is_computed_once() -> None:
    batch = packed(SEQUENCES, width=1000, layout_of=always("shared"))
    # 5 6 7 8 9 10 3 / 11 12 3 / 20 3; 30 31 3 3 / 32 33 3; 21 to 3: 8; 7
    assert batch.num_tokens == 12 + 7 + 8 + 1
    ids = batch.input_ids.flatten()
    for number, sequence in enumerate(SEQUENCES):
        assert ids[batch.nodes[number, : len(sequence)]].tolist() == sequence
    assert batch.nodes[0].equal(batch.nodes[3])
    assert batch.nodes[0, :5].equal(batch.nodes[1, :5])
    assert batch.nodes[0, 5] != batch.nodes[1, 5]


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=12), st.integers(1, 40), st.integers(1, 60), st.sampled_from(LAYOUTS))
def test_each_token_sees_its_own_beginning_and_nothing_else(
    sequences: list[list[int]], max_tokens: int, width: int, layout: Layout
) -> None:
    seen: list[int] = []
    for numbers, batch in packed_batches(sequences, width=width, layout_of=always(layout), max_tokens=max_tokens):
        seen += numbers
        rows, length = batch.input_ids.shape
        assert rows * length <= max(max_tokens, max(len(ids) for ids in sequences))
        for line, number in enumerate(numbers):
            ids = sequences[number]
            assert int(batch.lengths[line]) == len(ids)
            path = batch.nodes[line, : len(ids)]
            assert int(batch.last[line]) == int(path[-1])
            assert batch.input_ids.flatten()[path].tolist() == ids
            assert batch.position_ids.flatten()[path].tolist() == list(range(len(ids)))
            if batch.attention_mask is not None and batch.attention_mask.dim() == 4:
                for place in range(len(ids)):
                    row, column = divmod(int(path[place]), length)
                    visible = batch.attention_mask[row, 0, column].nonzero().flatten() + row * length
                    assert visible.tolist() == sorted(path[: place + 1].tolist())
    assert sorted(seen) == list(range(len(sequences)))


def test_wide_rows_are_taken_where_much_is_shared_and_attention_is_cheap() -> None:
    questions = [[*range(100), *([number] * 20)] for number in range(100, 130)]
    # 100 + 30 x 20 = 700 tokens in one row, against 30 x 120 = 3600 in rows of their own
    assert packed(questions, width=2000, layout_of=always("shared")).input_ids.shape == (1, round_length(700))
    assert (
        packed(questions, width=20, layout_of=always("shared")).input_ids.shape[0] >= 3
    )  # attention to 700 would cost more
    unlike = [[number] * 200 for number in range(8)]
    assert packed(unlike, width=2000, layout_of=always("shared")).input_ids.shape == (8, 200)


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SIZES, sliding_window=4),
        Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=0),
        BertConfig(**SIZES),  # sees what comes later
        BloomConfig(**SIZES),  # makes positions from the mask
    ],
    ids=["window", "window_by_layer", "both_ways", "alibi"],
)
def test_models_that_cannot_take_the_mask_get_rows_of_their_own(config: PreTrainedConfig) -> None:
    assert conversation_layout(make_model(config))(64) != "shared"


@given(st.integers(1, 100_000))
def test_a_rounded_length_is_hardly_longer_and_one_of_few(length: int) -> None:
    rounded = round_length(length)
    assert length <= rounded < length + max(8, length / 16)
    assert round_length(rounded) == rounded
    octave = 2 ** (length.bit_length() - 1)
    assert len({round_length(other) for other in range(octave, min(2 * octave, octave + 4096))}) <= 17

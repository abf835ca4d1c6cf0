"""Packed conversations score as separate ones do, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from reward_training.packing import pack, packed_logits, shares_prompts

PAD = 0
SIZES = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": PAD, "num_labels": 1,
}  # fmt: skip
TRUNK = [5, 6, 7, 8]
SEQUENCES = [
    [*TRUNK, 9, 10, 3], [*TRUNK, 9, 11, 12, 3], [*TRUNK, 20, 3], [*TRUNK, 9, 10, 3],  # one problem, one text twice
    [30, 31, 3], [30, 31, 32, 33, 3], [30, 31, 3, 3],  # one conversation begins another
    [21, 22, 23, 24, 25, 26, 27, 3],  # alone
]  # fmt: skip
GROUPS = ["a", "a", "a", "a", "b", "b", "b", "c"]


def make_model(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    torch.nn.init.normal_(model.get_submodule("score").weight)
    return model


def one_by_one(model: PreTrainedModel, sequences: list[list[int]]) -> list[float]:
    with torch.no_grad():
        return [float(model(input_ids=torch.tensor([ids])).logits) for ids in sequences]


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("share", [True, False])
def test_packed_scores_equal_single_ones(kind: type[PreTrainedConfig], share: bool) -> None:
    model = make_model(kind(**SIZES))
    assert shares_prompts(model)
    with torch.no_grad():
        packed = packed_logits(model, pack(SEQUENCES, GROUPS, pad_token_id=PAD, share=share))
    assert packed.shape == (8, 1)
    assert packed.squeeze(-1).tolist() == pytest.approx(one_by_one(model, SEQUENCES), abs=1e-5)


def test_gradients_equal_those_of_separate_rows() -> None:
    gradients = []
    for share in (True, False):
        model = make_model(LlamaConfig(**SIZES))
        scores = packed_logits(model, pack(SEQUENCES, GROUPS, pad_token_id=PAD, share=share)).squeeze(-1)
        (scores * torch.arange(8)).sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_shared_prompt_is_computed_once() -> None:
    packed = pack(SEQUENCES, GROUPS, pad_token_id=PAD, share=True)
    # a: 4 + (3 + 4 + 2); b: the trunk 30, 31 and (1 + 3 + 2); c: 8. The longest tree is the width
    assert packed.input_ids.shape == (3, 13)
    assert int((packed.input_ids != PAD).sum()) == 13 + 8 + 8
    assert packed.rows[0] == packed.rows[3]
    assert packed.columns[0] == packed.columns[3]


def test_small_trees_fill_a_row() -> None:
    packed = pack([[1, 2], [3, 4], [5, 6, 7, 8], [9, 10, 11]], range(4), pad_token_id=PAD, share=True)
    assert packed.input_ids.shape == (3, 4)  # 4; 3; 2 + 2


def test_large_group_is_split_into_rows_of_bounded_length() -> None:
    sequences = [[*range(100), *([number] * 150)] for number in range(100, 109)]
    packed = pack(sequences, ["a"] * 9, pad_token_id=PAD, share=True)
    # 100 + 2 x 150 = 400; a third response would make 550, over 512
    assert packed.input_ids.shape == (5, 400)
    assert packed.rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    alone = pack([[*range(1000)], [*range(999), 5]], ["a", "a"], pad_token_id=PAD, share=True)
    assert alone.input_ids.shape == (1, 1001)  # a pair always shares its prompt


def test_model_with_a_sliding_window_gets_rows_of_its_own() -> None:
    assert not shares_prompts(make_model(MistralConfig(**SIZES, sliding_window=4)))
    assert not shares_prompts(
        make_model(Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=0))
    )


def test_rows_may_be_any() -> None:
    """A sequence of one token, and a group of equal ones, are packed too."""
    model = make_model(LlamaConfig(**SIZES))
    sequences = [[7], [8, 9], [8, 9]]
    with torch.no_grad():
        packed = packed_logits(model, pack(sequences, ["a", "b", "b"], pad_token_id=PAD, share=True))
    assert packed.squeeze(-1).tolist() == pytest.approx(one_by_one(model, sequences), abs=1e-5)

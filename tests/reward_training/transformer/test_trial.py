"""How rows may be laid out is found by trial: what a layout gets wrong is seen at the length at which it shows."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BloomConfig,
    FalconConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    MptConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from reward_training.transformer import trial
from reward_training.transformer.attention.kernels import GROUPED
from reward_training.transformer.packing import Layout
from reward_training.transformer.trial import layout_of, made_up, trial_length
from tests.tiny_architectures import build as tiny

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_BY_CONFIGURATION", {})


def build(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return model


def windowed(window_size: int) -> PreTrainedModel:
    """GPT-Neo, whose window stands in no field that other models know, with the weights of a fresh model."""
    return build(
        GPTNeoConfig(
            vocab_size=60, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
            window_size=window_size,
        )
    )  # fmt: skip


def layouts(model: PreTrainedModel, *lengths: int) -> list[Layout]:
    of = layout_of(model, model.get_decoder())  # type: ignore[no-untyped-call]
    return [of(length) for length in lengths]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("window", [100, 300])
def test_a_window_is_seen_as_soon_as_a_row_is_longer(window: int, dtype: torch.dtype) -> None:
    model = windowed(window).to(dtype=dtype)  # type: ignore[call-arg]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # a trial is as long as the next power of two: a window of 100 shows in that of 128, one of 300 in that of 512
    under, over = trial_length(window) // 2, trial_length(window)
    assert layouts(model, 3, under, under + 1, over) == ["shared", "shared", "own", "own"]
    after = model.state_dict()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)


def test_the_outcome_does_not_depend_on_what_was_tried_before(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [40, 100, 200, 300, 70]
    there = layouts(windowed(100), *lengths)
    monkeypatch.setattr(trial, "_BY_CONFIGURATION", {})
    back = layouts(windowed(100), *lengths[::-1])
    assert there == back[::-1]


def test_models_of_one_configuration_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts(windowed(100), 60)
    monkeypatch.setattr(trial, "_tried", lambda *args, **kwargs: pytest.fail("tried again"))
    assert layouts(windowed(100), 50, 64) == ["shared", "shared"]
    assert layouts(build(LlamaConfig(**SIZES)), 5, 5000) == ["shared", "shared"]  # never tried


@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (FalconConfig(**SIZES, alibi=True), "own"),
        (BloomConfig(vocab_size=60, hidden_size=32, n_layer=2, n_head=4), "own"),
        (MptConfig(vocab_size=60, d_model=32, n_layers=2, n_heads=4, max_seq_len=256), "own"),
        (FalconConfig(**SIZES), "shared"),
        (GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=90), "shared"),
        (Qwen2Config(**SIZES, num_key_value_heads=2), "shared"),
    ],
    ids=["falcon_alibi", "bloom", "mpt", "falcon_rotary", "gpt2_with_few_positions", "qwen2"],
)
def test_positions_by_columns_and_slopes_are_seen(config: PreTrainedConfig, layout: Layout) -> None:
    assert layouts(build(config), 10, 100) == [layout, layout]


def test_a_model_in_training_stays_so_and_its_dropout_does_not_decide() -> None:
    model = build(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4))
    model.train()
    assert layouts(model, 20) == ["shared"]
    assert all(module.training for module in model.modules())


def test_another_kernel_than_the_loaded_one_is_used_in_the_trial_only_where_rows_will_use_it() -> None:
    model = build(Qwen2Config(**SIZES, num_key_value_heads=2))
    assert layouts(model, 20) == ["shared"]
    assert model.config._attn_implementation in ("sdpa", GROUPED)


def test_made_up_tokens_are_in_the_vocabulary_and_are_no_padding() -> None:
    model = build(LlamaConfig(**SIZES, pad_token_id=7))
    ids = made_up(model, 500)
    assert set(ids) == set(range(60)) - {7}
    assert ids == made_up(model, 500) != made_up(model, 500, seed=1)


@pytest.mark.parametrize(
    ("kind", "changes", "layout"),
    [
        ("gpt2", {}, "own"),
        ("mamba", {}, "own"),  # its kinds of layers follow from their number
        ("gemma3n_text", {}, "plain"),  # its last layers share keys with layers that a small one does not have
        ("qwen2", {"pad_token_id": 5000, "vocab_size": 6000}, "shared"),  # and no such token
    ],
)
def test_a_sharded_model_is_tried_on_a_small_one_and_plain_where_none_can_be_made(
    kind: str, changes: dict[str, int], layout: Layout
) -> None:
    model = tiny(kind, **changes)
    assert trial._tried_on_stand_in(model, model.base_model, 64, may_share=kind == "qwen2") == layout

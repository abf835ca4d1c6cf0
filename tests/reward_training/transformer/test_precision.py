import copy
from pathlib import Path

import pytest
import torch

from grpo_train.policies.model import load_policy
from grpo_train.policies.tiny_model import save_tiny_model
from reward_training.transformer.precision import autocast_dtype, cast_weights


def test_cast_model_computes_what_the_loaded_one_does_far_from_the_start(tmp_path: Path) -> None:
    """`model.to(torch.bfloat16)` rounded rotary frequencies: training saw other positions than evaluation."""
    save_tiny_model(tmp_path)
    model, _ = load_policy(tmp_path, device="cpu")
    loaded, _ = load_policy(tmp_path, device="cpu", dtype=torch.bfloat16)
    cast, rounded = copy.deepcopy(model), copy.deepcopy(model).to(torch.bfloat16)  # type: ignore[arg-type]
    cast_weights(cast, torch.bfloat16)
    ids = torch.arange(200).unsqueeze(0) % 90
    with torch.no_grad():
        wanted = loaded(input_ids=ids).logits
        assert torch.equal(cast(input_ids=ids).logits, wanted)
        assert not torch.equal(rounded(input_ids=ids).logits, wanted)
    assert {parameter.dtype for parameter in cast.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_saved_buffers_are_cast_and_computed_ones_are_not() -> None:
    module = torch.nn.Linear(2, 2)
    module.register_buffer("saved", torch.ones(2))
    module.register_buffer("computed", torch.ones(2), persistent=False)
    module.register_buffer("whole", torch.ones(2, dtype=torch.long))
    cast_weights(module, torch.bfloat16)
    kinds = {name: buffer.dtype for name, buffer in module.named_buffers()}
    assert kinds == {"saved": torch.bfloat16, "computed": torch.float32, "whole": torch.int64}


@pytest.mark.parametrize(
    ("has", "dtype"),
    [
        ({}, None),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "avx512_fp16": True}, None),  # its fast products are AMX's, and AMX is hidden
        ({"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_a_processor_multiplies_in_bfloat16_where_that_is_faster(
    has: dict[str, bool], dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    cpu = torch.device("cpu")
    assert autocast_dtype("auto", cpu) == dtype
    assert autocast_dtype("bfloat16", cpu) == torch.bfloat16
    assert autocast_dtype("float32", cpu) is None

"""Small models of many architectures, split by one rank; `test_ranks` has several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed

from grpo_train.policies.model import load_policy, save_policy
from reward_training.transformer.sharding import Sharding, is_part, with_weights
from reward_training.transformer.token_logprobs import plain_head
from tests.tiny_architectures import TOKENIZER, build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SPLIT = [
    "apertus", "bloom", "deepseek_v3", "ernie4_5", "exaone4", "falcon", "glm4", "gpt2", "gpt_neox", "lfm2", "llama", "mamba",
    "mistral", "olmo2", "qwen2", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
]  # fmt: skip
GATHERED = ["cohere", "gemma2", "gemma3_text", "granite", "llama4_text", "minicpm3", "phi"]


@pytest.fixture(scope="module")
def one_rank() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@torch.no_grad()
@pytest.mark.parametrize("kind", [*SPLIT, *GATHERED])
def test_a_split_model_computes_what_the_whole_one_does(kind: str, tmp_path: Path, one_rank: None) -> None:
    """Where embedding and head are split, both trials, without weights and with them, say that the head is plain."""
    save_policy(build(kind), TOKENIZER, tmp_path, round_index=0)
    whole, _ = load_policy(tmp_path, device="cpu")
    split, _ = load_policy(tmp_path, device="cpu", sharding=Sharding(torch.device("cpu")))
    ids = torch.arange(3, 9).unsqueeze(0)
    logits = with_weights(split, lambda model: model(input_ids=ids).logits)
    torch.testing.assert_close(logits, whole(input_ids=ids).logits, rtol=0, atol=1e-5)
    assert with_weights(split, lambda model: is_part(model.get_input_embeddings().weight)) == (kind in SPLIT)
    assert plain_head(split) is not None or kind in GATHERED

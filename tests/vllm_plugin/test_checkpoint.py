"""Whether a folder's weights are those of a server's model, without a server."""

from pathlib import Path

import pytest
import torch
from regroup_vllm.checkpoint import Entry, entries_in, refuse_other_head, refuse_unfit, tensors_in

from grpo_train.sampling.vllm.plugin import PROTOCOL
from tests.paths import ROOT
from tests.vllm_servers import save, tiny

MODEL = {"model.embed_tokens.weight": Entry("F32", (8, 4)), "model.norm.weight": Entry("F32", (4,))}
HEAD = {"lm_head.weight": Entry("F32", (8, 4))}


def test_float_types_may_differ() -> None:
    refuse_unfit({name: Entry("BF16", entry.shape) for name, entry in MODEL.items()}, MODEL, tied=False)


@pytest.mark.parametrize(
    ("offered", "told"),
    [
        ({"model.norm.weight": Entry("F32", (4,))}, "lacks model.embed_tokens.weight"),
        (MODEL | {"model.norm.weight": Entry("F32", (5,))}, r"model.norm.weight is \[5\], the model's \[4\]"),
        (MODEL | {"model.norm.weight": Entry("I64", (4,))}, r"is I64 \[4\], the model's F32 \[4\]"),
        (MODEL | {"extra": Entry("F32", (1,))}, "has extra, which the model has not"),
        (MODEL | HEAD, "has lm_head.weight"),
    ],
)
def test_other_weights_are_refused(offered: dict[str, Entry], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        refuse_unfit(offered, MODEL, tied=False)


def test_head_of_a_tied_model_may_be_named_if_it_is_the_embedding() -> None:
    refuse_unfit(MODEL | HEAD, MODEL, tied=True)
    refuse_unfit(MODEL, MODEL | HEAD, tied=True)
    embedding = torch.ones(8, 4)
    refuse_other_head([("model.embed_tokens.weight", embedding), ("lm_head.weight", embedding.clone())], MODEL)
    with pytest.raises(ValueError, match="differs from the embedding"):
        refuse_other_head([("model.embed_tokens.weight", embedding), ("lm_head.weight", 2 * embedding)], MODEL)


def test_sharded_folder_reads_as_whole(tmp_path: Path) -> None:
    model = tiny()
    whole, sharded = save(model, tmp_path / "whole"), save(model, tmp_path / "sharded", max_shard_size="100KB")
    assert entries_in(whole) == entries_in(sharded)
    assert {name: tensor.sum() for name, tensor in tensors_in(whole)} == {
        name: tensor.sum() for name, tensor in tensors_in(sharded)
    }


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = save(tiny(), tmp_path, max_shard_size="100KB")
    first = sorted(folder.glob("*.safetensors"))[0]
    first.unlink()
    with pytest.raises(ValueError, match=f"lacks {first.name}"):
        entries_in(folder)


def test_trainer_and_plugin_speak_one_protocol() -> None:
    """The plugin's number is read from its text: its module imports vLLM."""
    assert f"\nPROTOCOL = {PROTOCOL}\n" in (ROOT / "vllm_plugin" / "regroup_vllm" / "engine.py").read_text()

"""Every architecture, built small: it does what the table in docs/models.md says, and does it right."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from configs.errors import ConfigError
from configs.records import Completion
from grpo_train.sampling.generation import Sampling, sample
from grpo_train.sampling.trial import way_of
from grpo_train.updating.response_logprobs import micro_batches, response_logprobs
from reward_training.transformer.rendering import encode_prompt
from reward_training.transformer.token_logprobs import body_of
from reward_training.transformer.trial import layout_of
from reward_training.transformer.turn_ends import stop_token_ids
from tests.grpo_train.conftest import make_problem
from tests.paths import ROOT
from tests.tiny_architectures import NOT_TRIED, TOKENIZER, build, model_types

PROBLEMS = [make_problem(question) for question in ("1+1", "What is two plus three, please?", "x" * 40)]
NUM_TOKENS = 100
LENGTH = 8
ROUNDING = 1e-4
OF_CHUNKS = 5e-3
SCANNED = {
    "bamba", "falcon_h1", "granitemoehybrid", "kimi_linear", "mamba2", "nemotron_h", "olmo_hybrid", "qwen3_5", "qwen3_5_moe",
    "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "zamba", "zamba2",
}  # fmt: skip
"""step through their states otherwise than their forward scans them, by chunks; how far apart depends on the processor"""


def table() -> dict[str, tuple[str, str]]:
    """{architecture: (layout of rows, way of sampling)} of docs/models.md."""
    text = (ROOT / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| `([\w, `-]+)` \| (\w+) \| (\w+) \|", text, flags=re.MULTILINE)
    return {name: (layout, way) for names, layout, way in rows for name in names.split("`, `")}


def outcome(model: PreTrainedModel) -> tuple[str, str]:
    try:
        way = way_of(model, NUM_TOKENS)
    except ConfigError:
        return "refused", "refused"
    layout = layout_of(model, body_of(model))(NUM_TOKENS)
    return layout, "cache" if way in ("packed", "padded") else way


def plain_logprobs(model: PreTrainedModel, completion: Completion) -> torch.Tensor:
    ids = torch.tensor([completion.prompt_ids + completion.token_ids])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(completion.prompt_ids) - 1 : -1].float() / 0.8
    return logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_the_table_names_every_architecture_once_and_tells_why_some_are_not_tried() -> None:
    text = (ROOT / "docs" / "models.md").read_text()
    assert set(table()) == set(model_types())
    assert set(table()) | set(NOT_TRIED) == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    for name, reason in NOT_TRIED.items():
        assert f"`{name}`" in text
        assert reason in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of some forty modeling files are not ours to mend
@pytest.mark.parametrize("model_type", model_types())
def test_an_architecture_does_what_the_table_says(model_type: str) -> None:
    model = build(model_type)
    assert outcome(model) == table()[model_type]
    if outcome(model)[0] == "refused":
        return
    way = table()[model_type][1]
    sampling = Sampling(3, 0.8, LENGTH, num_greedy=1)
    completions = sample(model, TOKENIZER, PROBLEMS, sampling, seed=0, policy_id="p")
    check_greedy(model, completions[::3], use_cache=way != "recompute")
    rounding = OF_CHUNKS if model_type in SCANNED else ROUNDING
    expected = [plain_logprobs(model, completion) for completion in completions]
    for i, completion in enumerate(completions):
        if i % 3:  # greedy ones are recorded at temperature 1
            assert completion.logprobs == pytest.approx(expected[i].tolist(), abs=rounding)
    check_training(model, completions, expected)


def check_greedy(model: PreTrainedModel, greedy: list[Completion], *, use_cache: bool) -> None:
    """Greedy responses are those of transformers' generate."""
    for problem, completion in zip(PROBLEMS, greedy, strict=True):
        prompt = torch.tensor([encode_prompt(TOKENIZER, problem)])
        theirs = model.generate(  # type: ignore[operator]
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LENGTH, do_sample=False, pad_token_id=0,
            eos_token_id=sorted(stop_token_ids(model, TOKENIZER)), use_cache=use_cache,
        )[0, prompt.shape[1] :]  # fmt: skip
        assert completion.token_ids == theirs.tolist()


def check_training(model: PreTrainedModel, completions: list[Completion], expected: list[torch.Tensor]) -> None:
    """Log-probabilities and gradients are those of a forward pass of each sequence alone."""
    torch.stack([(row + 1) * logprobs.sum() for row, logprobs in enumerate(expected)]).sum().backward()  # type: ignore[no-untyped-call]
    alone = gradients(model)
    for batch in micro_batches(model, completions, range(len(completions)), 512):
        found = response_logprobs(model, batch, 0.8)
        for line, row in enumerate(batch.rows):
            torch.testing.assert_close(found[line][batch.mask[line].bool()], expected[row], atol=ROUNDING, rtol=0)
        (found.sum(dim=1) * (torch.tensor(batch.rows) + 1)).sum().backward()  # type: ignore[no-untyped-call]
    together = gradients(model)
    assert together.keys() == alone.keys()
    largest = max(float(gradient.norm()) for gradient in alone.values())
    for name, gradient in alone.items():
        assert float((together[name] - gradient).norm()) <= ROUNDING * largest

"""Models whose positions do not suffice, or that cannot be sampled, are told before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import GPT2Config, LlamaConfig, PreTrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.config import Config
from flows.cli import main
from flows.doctor.architecture import check_architecture
from flows.doctor.report import check, refuse_faulty
from grpo_train.policies.tiny_model import build_tiny_model
from tests.grpo_train.conftest import make_problem
from tests.tiny_architectures import TOKENIZER, build

SMALL: dict[str, Any] = {
    "vocab_size": len(TOKENIZER), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2,
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 1e4}


def configured(workspace: Path, config: PreTrainedConfig | None, **grpo: int) -> Config:
    """A configuration whose prompts have 50 tokens, with a policy of that configuration."""
    if config is not None:
        AutoModelForCausalLM.from_config(config).save_pretrained("model")
        TOKENIZER.save_pretrained("model")
    # `<|im_start|>user\n` are 6 tokens, the end of the turn and its newline 2, `<|im_start|>assistant\n` 11
    rows = "".join(f'{{"question": "{i:030} ", "answer": "{i}"}}\n' for i in range(90))
    Path("data.jsonl").write_text(rows)
    settings = {
        "rounds": 1,
        "policy": {"path": "builtin:tiny" if config is None else "model"},
        "problems": {"sources": [{"kind": "jsonl", "path": "data.jsonl"}], "dev": 8, "test": 8},
        "rewards": [{"name": "right", "kind": "outcome"}],
        "grpo_config": {"group_size": 4, "batch_size": 16} | grpo,
        "regeneration": {"num_problems": 8},
    }
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    return load_config(workspace / "config.yaml")


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=len(TOKENIZER), n_embd=16, n_layer=1, n_head=2, n_positions=70),
        LlamaConfig(**SMALL, max_position_embeddings=70),
        LlamaConfig(**SMALL, max_position_embeddings=70, rope_parameters=DYNAMIC),
    ],
    ids=["learned", "rotary", "dynamic"],
)
def test_prompt_and_response_beyond_the_positions_are_refused(workspace: Path, config: PreTrainedConfig) -> None:
    assert not check(configured(workspace, config, max_response_length=20), workspace, quick=True).failed
    too_long = configured(workspace, config, max_response_length=21)
    words = (
        "the longest prompt has 50 tokens, and with grpo_config.max_response_length=21 that is 71: more than the "
        r"model's (max|original_max)_position_embeddings=70, .*lower grpo_config.max_response_length to 20, or lower "
        "problems.max_prompt_length to 49, or take a model with more positions"
    )
    with pytest.raises(ConfigError, match=words):
        refuse_faulty(too_long, workspace)


def test_rope_that_is_stretched_has_room(workspace: Path) -> None:
    stretched = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    config = LlamaConfig(**SMALL, max_position_embeddings=70, rope_parameters=stretched)
    assert not check(configured(workspace, config, max_response_length=90), workspace, quick=True).failed
    assert check(configured(workspace, config, max_response_length=91), workspace, quick=True).failed


def test_a_reward_model_beyond_its_positions_is_refused(workspace: Path) -> None:
    config = configured(workspace, None, max_response_length=8)
    trained = {"quality": {"kind": "trained", "labeler": {"kind": "score"}, "min_pairs": 1, "max_length": 2049}}
    reward = {"name": "nice", "kind": "reward_model", "model": "quality"}
    data = yaml.safe_load(Path("config.yaml").read_text())
    data |= {"reward_models": trained, "rewards": [*data["rewards"], reward]}
    Path("config.yaml").write_text(yaml.safe_dump(data))
    config = load_config(workspace / "config.yaml")
    with pytest.raises(
        ConfigError, match=r"reward_models.quality.max_length=2049 is more than.*2048.*max_length to 2048"
    ):
        refuse_faulty(config, workspace)


@pytest.mark.parametrize(
    ("model_type", "status", "words"),
    [
        ("lfm2", "warn", "lfm2: sampled by transformers' generate"),
        ("minimax", "warn", "without a cache: each token costs a pass over all before it"),
        ("qwen3", "ok", "qwen3: sampled by a cache of keys and values; trained on rows that share beginnings"),
        ("gemma3_text", "ok", "trained on a row for each response"),
        ("xlnet", "fail", "a model of type 'xlnet', which cannot be sampled"),
    ],
)
def test_the_doctor_says_how_an_architecture_is_computed(
    workspace: Path, model_type: str, status: str, words: str
) -> None:
    config = configured(workspace, None, max_response_length=8)
    found = check_architecture(config, build(model_type), TOKENIZER, [make_problem("1 + 1 = ?")])
    assert found.status == status
    assert words in found.detail


def test_the_tiny_model_is_tried_in_no_time(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpo_train.sampling.trial._tried", lambda *args: pytest.fail("tried"))
    found = check_architecture(
        configured(workspace, None), build_tiny_model(TOKENIZER), TOKENIZER, [make_problem("1 + 1 = ?")]
    )
    assert found.status == "ok"


def test_the_doctor_ends_2_where_the_policy_cannot_be_sampled(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build("xlnet").save_pretrained("model")
    TOKENIZER.save_pretrained("model")
    configured(workspace, None, max_response_length=8)
    text = Path("config.yaml").read_text().replace("builtin:tiny", "model")
    Path("config.yaml").write_text(text)
    assert main(["doctor", "config.yaml"]) == 2
    assert "a token's logits depend on later tokens" in capsys.readouterr().err


def test_adapter_that_has_nothing_to_adapt_is_told_before_a_run(workspace: Path) -> None:
    """The run ended after the first round's evaluation and samples."""
    configured(workspace, None, max_response_length=8)
    lora = ["grpo_config.lora={rank: 4, target_modules: [nosuch]}"]
    with pytest.raises(ConfigError, match=r"grpo_config\.lora\.target_modules=\['nosuch'\] does not fit the model"):
        refuse_faulty(load_config(workspace / "config.yaml", lora), workspace)
    fits = load_config(workspace / "config.yaml", ["grpo_config.lora={rank: 4}"])
    assert not check(fits, workspace, quick=True).failed

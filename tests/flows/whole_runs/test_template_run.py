"""A run under a chat template that writes the date and reads a variable: all its prompts are those of its first day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.flows.whole_runs.tiny_run import regroup
from tests.paths import TINY
from tests.reward_training.transformer.templates import STRICT, tokenizer_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEMPLATE = STRICT + "({{ strftime_now('%d %b %Y') }}, {{ effort | default('high') }})"
END = "[assistant] (29 Feb 2024, low)"


def write_config(folder: Path) -> Path:
    tokenizer = tokenizer_with(TEMPLATE)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(str(folder / "policy"))
    tokenizer.save_pretrained(str(folder / "policy"))
    settings: dict[str, Any] = yaml.safe_load(TINY.read_text())
    settings |= {
        "rounds": 1,
        "policy": {"path": "policy"},
        "launcher": {"kind": "process"},
        "run": {"name": "dated", "date": "2024-02-29"},
    }
    settings["problems"] |= {
        "system": "Be brief.",
        "join_system": True,
        "template_variables": {"effort": "low"},
    }
    path = folder / "dated.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def prompts(tokenizer: PreTrainedTokenizerFast, file: Path) -> set[bool]:
    """Whether the prompts in a file of completions end and begin as they should."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    texts = [tokenizer.decode(row["prompt_ids"]) for row in rows]
    return {text.startswith("[user] Be brief.\n\n") and text.endswith(END) for text in texts}


def test_every_prompt_has_the_date_and_the_variable(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    tokenizer = tokenizer_with(TEMPLATE)
    run = regroup(tmp_path, "run", str(config))
    assert run.process.returncode == 0, run.err
    config.write_text(config.read_text().replace("  date: '2024-02-29'\n", "").replace("  date: 2024-02-29\n", ""))
    more = regroup(tmp_path, "run", str(config), "--set", "rounds=2")
    assert more.process.returncode == 0, more.err
    root = tmp_path / "runs" / "dated"
    assert json.loads((root / "run.json").read_text())["config"]["run"]["date"] == "2024-02-29"
    for round_index in (0, 1, 2):
        assert prompts(tokenizer, root / f"round_{round_index:03d}" / "regenerate" / "completions.jsonl") == {True}
    saved = AutoTokenizer.from_pretrained(str(root / "round_002" / "policy" / "model"))
    asked = [{"role": "system", "content": "Hm."}, {"role": "user", "content": "2 + 3?"}]
    assert regroup(tmp_path, "export", "dated", "exported").process.returncode == 0
    exported = AutoTokenizer.from_pretrained(str(tmp_path / "exported"))
    for policy in (saved, exported):
        text = policy.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        assert text.startswith("[user] Hm.\n\n2 + 3?<|eot|>\n[assistant] (")
        assert text.endswith(", low)")
        assert "29 Feb 2024" not in text

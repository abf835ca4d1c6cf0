from pathlib import Path

import pytest
from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from configs.errors import ConfigError
from grpo_train.policies.gguf import word_rule


def _vocabulary(folder: Path, rule: str | None, kind: str = "gpt2") -> Path:
    """A GGUF file with a byte-level vocabulary that also has tokens of several digits and of two spaces."""
    path = folder / f"{rule}.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    if rule is not None:
        writer.add_tokenizer_pre(rule)
    pieces = [*sorted(ByteLevel.alphabet()), "12", "123", "ĠĠ", "Ġ1"]
    writer.add_token_list(pieces)
    writer.add_token_types([1] * len(pieces))
    writer.add_token_merges(["1 2", "12 3", "Ġ Ġ", "Ġ 1"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokens(path: Path, text: str) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    if (rule := word_rule(path)) is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = rule
    return list(tokenizer.tokenize(text))


@pytest.mark.parametrize("name", ["smollm", "starcoder"])
def test_digits_of_such_a_vocabulary_stand_alone_and_so_does_the_white_space_before_them(
    tmp_path: Path, name: str
) -> None:
    """transformers gives GPT-2's rule: "123" in one token, and a space joined to the digit after it."""
    assert _tokens(_vocabulary(tmp_path, name), "123  1") == ["1", "2", "3", "ĠĠ", "1"]


def test_rules_that_transformers_knows_are_left_to_it(tmp_path: Path) -> None:
    assert word_rule(_vocabulary(tmp_path, "llama-bpe")) is None
    assert word_rule(_vocabulary(tmp_path, "qwen2")) is None
    assert _tokens(_vocabulary(tmp_path, "gpt-2"), "123  1") == ["123", "Ġ", "Ġ1"]
    assert word_rule(_vocabulary(tmp_path, "default", kind="llama")) is None


@pytest.mark.parametrize("name", ["deepseek-v3", "no-such-rule", None])
def test_unknown_rule_is_refused_by_name(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(ConfigError, match=rf"tokenizer\.ggml\.pre={name!r}.*set policy\.path"):
        word_rule(_vocabulary(tmp_path, name))

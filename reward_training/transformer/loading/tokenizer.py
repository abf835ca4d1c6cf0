"""The one place where tokenizers are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from configs.errors import ConfigError
from reward_training.transformer.quiet import quiet_transformers

SETTINGS = "tokenizer_config.json"


def read_tokenizer(path: Path | str, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or hub id, which decodes text as it was written, here and where it is saved.

    Some (Llama 3's) have `clean_up_tokenization_spaces`, by which `x != y` is decoded as `x!= y`. `options` go to
    `from_pretrained`.

    Raises:
        ConfigError: `path` holds no tokenizer.
    """
    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(path), **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no tokenizer: {error}; save one beside the model") from error
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def cleans_up(folder: Path) -> bool:
    """Whether the tokenizer in the folder is saved so that others decode its text otherwise than it was written."""
    file = folder / SETTINGS
    return file.is_file() and bool(json.loads(file.read_bytes()).get("clean_up_tokenization_spaces"))

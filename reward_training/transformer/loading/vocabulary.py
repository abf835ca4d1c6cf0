"""Whether a model has an embedding for each token of its tokenizer."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import ConfigError
from reward_training.transformer.loading.faults import some

OTHER_INPUTS = ("image", "audio", "video")
"""in the names of special tokens that stand for other inputs than text; Gemma 3's text models have no row for theirs"""


def refuse_larger_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, field: str) -> None:
    """Refuse a tokenizer with ids beyond the rows of the model's embedding, which end in an index error at some batch.

    Raises:
        ConfigError: it has some; the message names the first.
    """
    embedding: Any = model.get_input_embeddings()
    num_rows = int(embedding.weight.shape[0])
    beyond = {token: text for text, token in tokenizer.get_vocab().items() if token >= num_rows}
    wanted = [repr(text) for _, text in sorted(beyond.items()) if not _is_other_input(tokenizer, text)]
    if wanted:
        raise ConfigError(
            f"{field}: the tokenizer of {tokenizer.name_or_path} has ids up to {max(beyond)}, and the embedding of its model "
            f"{num_rows} rows: {some(wanted)} {'has' if len(wanted) == 1 else 'have'} none; save the model after "
            f"`resize_token_embeddings({max(beyond) + 1})`, or the tokenizer without them"
        )


def _is_other_input(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    return text in tokenizer.all_special_tokens and any(name in text for name in OTHER_INPUTS)

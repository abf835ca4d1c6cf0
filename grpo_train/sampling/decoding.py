"""The texts of sampled responses: token ids decoded, with the marks of thoughts kept where they are special tokens."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from configs.records import Prompt
from reward_training.answers.finding.thoughts import begun_by, mark_tokens
from reward_training.transformer.rendering import prompt_text


class Decoder:
    """Decodes responses. Make one for many responses: it looks through the tokenizer's special tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        special = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        marks = mark_tokens(set(special.values())) - {tokenizer.eos_token}
        self._marks = {token for token, text in special.items() if text in marks}
        self._dropped = special.keys() - self._marks

    def __call__(self, token_ids: Sequence[int]) -> str:
        """The text without special tokens, except those that mark thoughts."""
        if self._marks.isdisjoint(token_ids):
            return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))
        kept = [token for token in token_ids if token not in self._dropped]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))


def begun_response(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The end of the rendered prompt that belongs to the response (`Completion.begun`)."""
    return begun_by(prompt_text(tokenizer, prompt))

"""The one place where responses become text, as the policy wrote it.

Special tokens are left out, except those that mark thoughts and those that rewards look for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from configs.records import Prompt
from reward_training.answers.finding.thoughts import begun_by, mark_tokens
from reward_training.transformer.rendering import prompt_text
from reward_training.transformer.turn_ends import end_token_ids


class Decoder:
    """Decodes responses. Make one for many responses: it looks through the tokenizer's special tokens.

    Special tokens that are part of a text in `sought` stay (`reward_training.rewards.sought`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, sought: Collection[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._special = special_texts(tokenizer)
        marks = mark_tokens(set(self._special.values())) - {tokenizer.eos_token}
        wanted = _parts_of(self._special, sought)
        ends = end_token_ids(None, tokenizer) if wanted else []
        self._kept = wanted.difference(ends) | {token for token, text in self._special.items() if text in marks}
        self._dropped = self._special.keys() - self._kept

    def __call__(self, token_ids: Sequence[int]) -> str:
        """The text without special tokens, except those that mark thoughts or are sought."""
        if self._kept.isdisjoint(token_ids):
            return self._text(token_ids, skip_special_tokens=True)
        return self.with_special([token for token in token_ids if token not in self._dropped])

    def with_special(self, token_ids: Sequence[int]) -> str:
        """The text with all special tokens."""
        return self._text(token_ids, skip_special_tokens=False)

    def kept_of(self, texts: Collection[str]) -> list[str]:
        """The special tokens that are part of `texts` and stay."""
        return [self._special[token] for token in sorted(_parts_of(self._special, texts) & self._kept)]

    def dropped_of(self, texts: Collection[str]) -> list[str]:
        """The special tokens that are part of `texts` and are left out."""
        return [self._special[token] for token in sorted(_parts_of(self._special, texts) & self._dropped)]

    def _text(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Whatever the tokenizer's files say, no white space is "cleaned up": `x != y` is not `x!= y`."""
        return str(
            self._tokenizer.decode(
                list(token_ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )


def special_texts(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """{id: text} of the tokens that decoding leaves out."""
    special = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return special | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def _parts_of(special: Mapping[int, str], texts: Collection[str]) -> set[int]:
    """The tokens that are part of one of the texts."""
    return {token for token, part in special.items() if part and any(part in text for text in texts)}


def begun_response(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The end of the rendered prompt that belongs to the response (`Completion.begun`)."""
    return begun_by(prompt_text(tokenizer, prompt))

"""Which tokens end a response: those of model and tokenizer, and the one by which the chat template ends a turn."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from configs.errors import TemplateRefusal
from reward_training.transformer.chat_template import render

ASKED, ANSWERED, NEXT = "regroupasked", "regroupanswered", "regroupnext"
"""words that no template writes"""


@dataclass(frozen=True)
class TurnEnd:
    """What a chat template writes after an assistant's turn."""

    text: str
    """without white space around it, to its first line break"""
    token: int | None
    """the id of `text`, if it is one special token; plain text ends no response"""


def turn_end(tokenizer: PreTrainedTokenizerBase) -> TurnEnd | None:
    """The end of an assistant's last turn or, if the template writes none, the beginning of the turn after it.

    None without a template, or if it writes nothing or takes no such conversation.
    """
    if tokenizer.chat_template is None:
        return None
    answered = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]
    try:
        end = _after_answer(render(tokenizer, answered))
        if not end:
            going_on = render(tokenizer, [*answered, {"role": "user", "content": NEXT}])
            end = _after_answer(going_on).rpartition(NEXT)[0].strip()
    except TemplateRefusal:
        return None
    if not end:
        return None
    beginning = [(text, token) for token, text in special_tokens(tokenizer).items() if text and end.startswith(text)]
    text, token = max(beginning, key=lambda found: len(found[0]), default=(end.splitlines()[0], None))
    return TurnEnd(text, token)


def _after_answer(text: str) -> str:
    _, found, after = text.rpartition(ANSWERED)
    return after.strip() if found else ""


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The texts of the tokens beside the ordinary vocabulary, by id."""
    added = {token: str(text) for token, text in tokenizer.added_tokens_decoder.items()}
    return added | dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))


def end_token_ids(brought: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens that end a response: the ends of sequence of model and tokenizer, and the end of a turn."""
    own: list[int] | int | None = brought.eos_token_id if brought is not None else None
    end = turn_end(tokenizer)
    ends = [*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id, end.token if end is not None else None]
    return list(dict.fromkeys(token for token in ends if token is not None))


def stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that end a response of this model."""
    return set(end_token_ids(model.generation_config, tokenizer))

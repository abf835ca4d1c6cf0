"""Renders prompts and conversations as text and token ids, with the chat template if the tokenizer has one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from configs.errors import TemplateRefusal
from configs.records import Message, Problem, Prompt
from reward_training.transformer.chat_template import SHOWN, joins_system, render, shape

CHARACTERS = 1_000_000
"""most characters of several texts that are encoded together"""
SWITCH = re.compile(r"/(?:no_?)?think\b")
"""what some templates read in a message, and take out"""


THOUGHTS = re.compile(r"^.*</think>|<\|channel\|>analysis.*?<\|end\|>", re.DOTALL)
"""what some templates leave out of an earlier turn of the assistant"""


def prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text that the policy continues: a string unchanged, messages by the chat template with its generation prompt.

    Without a template it is the messages' contents, each followed by a newline.

    Raises:
        TemplateRefusal: the template does not take the messages, or drops the text of a user's.
    """
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        return "".join(message["content"] + "\n" for message in prompt)
    text = render(tokenizer, prompt, add_generation_prompt=True)
    if lost := [message["content"] for message in prompt if message["role"] == "user" and not holds(text, message)]:
        raise TemplateRefusal(
            f"the chat template of {tokenizer.name_or_path} does not write the question {lost[0][:SHOWN]!r} of {shape(prompt)}: the "
            "prompt would not hold it; take a model whose template writes every user message as text, or mend its "
            "chat_template.jinja"
        )
    return text


def holds(text: str, message: Message) -> bool:
    """Whether a rendered text holds the content of a message, apart from white space and switches such as /no_think."""
    return _bare(message["content"]) in _bare(text)


def unwritten(text: str, prompt: Sequence[Message]) -> list[Message]:
    """The messages of a prompt that its rendered text does not hold, each for itself; thoughts of earlier turns do not count."""
    lost, rest = [], _bare(text)
    for i in sorted(
        range(len(prompt)), key=lambda i: -len(prompt[i]["content"])
    ):  # a short one may be part of a long one
        content = prompt[i]["content"]
        content = _bare(THOUGHTS.sub("", content) if prompt[i]["role"] == "assistant" else content)
        if content not in rest:
            lost.append(i)
        elif content:
            rest = rest.replace(content, "\0", 1)
    return [prompt[i] for i in sorted(lost)]


def unwritten_remedy(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """What to do about messages that a chat template does not write."""
    if any(message["role"] == "system" for message in messages) and not joins_system(tokenizer):
        return "set problems.join_system=true if it should be read"
    return "take a model whose template writes it, or mend its chat_template.jinja, if it should be read"


def _bare(text: str) -> str:
    return "".join(SWITCH.sub("", text).split())


def encode_prompt(tokenizer: PreTrainedTokenizerBase, problem: Problem) -> list[int]:
    """Token ids of a problem's prompt. A template writes its own special tokens; plain text gets the tokenizer's."""
    [ids] = encode_prompts(tokenizer, [problem.prompt])
    return ids


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Token ids of each prompt, encoded together, which takes a fast tokenizer a fraction of the time."""
    return encode_texts(tokenizer, prompts, [prompt_text(tokenizer, prompt) for prompt in prompts])


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], texts: Sequence[str]
) -> list[list[int]]:
    """`encode_prompts` of prompts that were rendered already, as `texts`."""
    are_templated = [not isinstance(prompt, str) and tokenizer.chat_template is not None for prompt in prompts]
    encoded: list[list[int]] = [[] for _ in prompts]
    for is_templated in set(are_templated):
        chosen = [i for i, templated in enumerate(are_templated) if templated == is_templated]
        rows = _encoded(tokenizer, [texts[i] for i in chosen], add_special_tokens=not is_templated)
        for i, ids in zip(chosen, rows, strict=True):
            encoded[i] = ids
    return encoded


def _encoded(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add_special_tokens: bool
) -> Iterator[list[int]]:
    """The token ids of each text. Only so many are encoded at a time, since an encoding takes hundreds of bytes a token."""
    start = 0
    while start < len(texts):
        end, size = start + 1, len(texts[start])
        while end < len(texts) and (size := size + len(texts[end])) <= CHARACTERS:
            end += 1
        for ids in tokenizer(list(texts[start:end]), add_special_tokens=add_special_tokens)["input_ids"]:
            yield list(ids)
        start = end


def conversation_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> str:
    """The text that a reward model scores: the templated chat, or prompt + response + end of sequence.

    Raises:
        TemplateRefusal: the template does not take the messages.
    """
    if isinstance(prompt, str) or tokenizer.chat_template is None:
        return prompt_text(tokenizer, prompt) + response + (tokenizer.eos_token or "")
    return render(tokenizer, [*prompt, _assistant(response)])


def try_conversation_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> str | None:
    """`conversation_text`, or None where the template does not take the messages: an empty response, for instance."""
    try:
        return conversation_text(tokenizer, prompt, response)
    except TemplateRefusal:
        return None


CHANNEL_MARKS = re.compile(r"<\|start\|>assistant|<\|channel\|>[^<]*(?:<\|message\|>)?|<\|message\|>|<\|end\|>")


def _assistant(response: str) -> Message:
    """The response as a message. One of gpt-oss is taken apart, since its template refuses channels in the content."""
    if "<|channel|>" not in response:
        return {"role": "assistant", "content": response}
    thoughts, mark, answer = response.rpartition("<|channel|>final<|message|>")
    thinking, content = (CHANNEL_MARKS.sub("", part) for part in ((thoughts, answer) if mark else (response, "")))
    return {"role": "assistant", "thinking": thinking, "content": content}


def conversation_ids(tokenizer: PreTrainedTokenizerBase, conversations: list[str]) -> list[list[int]]:
    """Token ids of rendered conversations. A template writes its special tokens; plain text gets the tokenizer's."""
    return list(_encoded(tokenizer, conversations, add_special_tokens=tokenizer.chat_template is None))

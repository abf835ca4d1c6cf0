"""What the question of a row is: a text, a conversation, or columns put together; and whether it ends with its own answer, as
where the column of a whole conversation or solution is asked. A question that shows an answer may be meant (is this answer right?
what number stands at the end?), so that only the whole source tells."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from configs.disk.rows.columns import column, shortened
from configs.disk.rows.lines import within_limit
from configs.disk.rows.messages import asked_messages
from configs.errors import UnreadableRow
from configs.records import Message
from reward_training.answers.checkers import exact

FIELD = re.compile(r"\{([^{}]+)\}")

USER = re.compile(
    r"(?:^|\n\n)(?:Human|User):|<\|im_start\|>user|<\|start_header_id\|>user|<\|user\|>|<start_of_turn>user|\[INST\]"
    r"|(?:^|\n)### (?:Instruction|Human|User|Input):"
)
"""marks before a turn of a user"""
ASSISTANT = re.compile(
    r"\n\n(?:Assistant|AI):|<\|im_start\|>assistant|<\|start_header_id\|>assistant<\|end_header_id\|>|<\|assistant\|>"
    r"|<start_of_turn>model|\[/INST\]|\n### (?:Response|Assistant|Output):"
)
"""marks before a turn of an assistant"""
END = re.compile(r"<\|[a-z_]+\|>|<end_of_turn>|</s>|<think>")
"""marks at the end of a turn, or the beginning of an answer that is yet to come"""
GIVEN = re.compile(
    r"(?:####|\\boxed(?=\{)|(?:^|\n)[ \t]*(?:A|Ans|Answer|Final answer|Solution|Response)[ \t]*:|\b(?:final )?answer is:?)",
    re.IGNORECASE,
)
"""what stands before an answer"""
AROUND = "*_$`{}\"'. \n\t"
"""what may stand around an answer"""
WITHIN = "-\u2212./,"
"""what before a number makes it the end of another one"""
MAX_SHOWN = 400
"""characters of a shown answer that is compared as a value"""


class Question(NamedTuple):
    """What a row asks."""

    content: str | list[Message]
    is_cut: bool = False
    """whether an answer followed the last user message and was left out"""
    is_unfilled: bool = False
    """whether a column of its template is null"""


def question_of(
    row: dict[str, Any], setting: str, location: str, field_name: str = "columns.question"
) -> Question | None:
    """The question in the column, path or template that the setting of the field names; None where it is empty.

    Of a conversation, what follows the last user message is left out unread: it would be the answer. A number is its text.

    Raises:
        UnreadableRow: it holds no question, or a very long one.
        ConfigError: there is no such column.
    """
    if "{" in setting:
        cells = {name: _cell(row, name.strip(), location, field_name) for name in FIELD.findall(setting)}
        text = FIELD.sub(lambda match: cells[match[1]] or "", setting).strip()
        if not text:
            return None
        return Question(within_limit(text, f"{location}: the question"), is_unfilled=None in cells.values())
    value = column(row, setting, field_name, location)
    if is_empty(value):
        return None
    if (conversation := asked_messages(value, location)) is not None:
        messages, is_cut = conversation
        if messages[-1]["role"] != "user":
            raise UnreadableRow(f"{location}: the conversation in {setting!r} has no user message; mend {field_name}")
        for message in messages:
            within_limit(message["content"], f"{location}: a message of the question")
        return Question(messages, is_cut) if messages[-1]["content"].strip() else None
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(value, str) or is_number:
        return Question(within_limit(str(value), f"{location}: the question"))
    raise UnreadableRow(
        f"{location}: the question is {shortened(value)}; it must be a text or a list of chat messages with role and "
        f"content{inside(value, setting, field_name)}"
    )


def _cell(row: dict[str, Any], name: str, location: str, field_name: str) -> str | None:
    """The text of a column in a template, also of a list of texts or numbers; None where it is null."""
    value = column(row, name, field_name, location)
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UnreadableRow(
            f"{location}: {name!r} is {shortened(value)}; a template takes texts and numbers"
            f"{inside(value, name, field_name)}"
        )
    return str(value)


def inside(value: Any, setting: str, field: str) -> str:
    """The remedy for a column that holds more columns."""
    if not isinstance(value, dict) or not value:
        return ""
    return f"; name what is in it in {field}: {', '.join(f'{setting}.{key}' for key in value)}"


def is_empty(value: Any) -> bool:
    """Whether a column holds nothing: null, NaN, white space, or a list of these."""
    if isinstance(value, list):
        return all(map(is_empty, value))
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    )


# ---- questions with their answer ------------------------------------------------------------------------------------


def shown_answer(question: str | list[Message], golds: Sequence[str]) -> Literal["gold", "other"] | None:
    """Whether the text that is asked ends with an answer, and with which: with one of the row's gold answers, or with another
    one. An answer is the last turn of a transcript if it is an assistant's, or what stands after a word or mark for an answer.

    A text that begins the answer ("Let's think step by step.") is another one than the gold answer. Without gold answers the
    words of an assistant alone are one.

    >>> [shown_answer(text, ["5"]) for text in ("2 + 3 = ?\\n#### 5", "Is 2 + 3 = 6?\\nAnswer: 6", "2 + 3 = ?\\nAnswer:", "Say 5")]
    ['gold', 'other', None, None]
    >>> [shown_answer("\\n\\nHuman: 2 + 3?\\n\\nAssistant:" + said, ["5"]) for said in (" It is 5.", " Let us see.", "")]
    ['gold', 'other', None]
    """
    text = question if isinstance(question, str) else question[-1]["content"]
    reply, given = _reply(text), _given(text)
    if any(_is_end(reply, gold) or _is_same(given, gold) for gold in golds):
        return "gold"
    return "other" if reply or (given and golds) else None


def _reply(text: str) -> str:
    """The words of the assistant with which a transcript ends; empty where it ends otherwise."""
    *_, mark = [None, *ASSISTANT.finditer(text)]
    if mark is None or USER.search(text, 0, mark.start()) is None or USER.search(text, mark.end()) is not None:
        return ""
    return END.sub("", text[mark.end() :]).strip()


def _given(text: str) -> str:
    """What stands after the last word or mark for an answer; empty where there is none."""
    *_, mark = [None, *GIVEN.finditer(text)]
    return "" if mark is None else text[mark.end() :].strip(AROUND)


def _is_end(reply: str, gold: str) -> bool:
    """Whether the gold answer is the reply, or its last words."""
    said, wanted = reply.strip(AROUND).casefold(), gold.strip(AROUND).casefold()
    before = said.removesuffix(wanted)[-1:]
    return bool(wanted) and said.endswith(wanted) and not before.isalnum() and before not in tuple(WITHIN)


def _is_same(given: str, gold: str) -> bool:
    if not given or len(given) > max(MAX_SHOWN, 2 * len(gold)):
        return False
    return given.casefold() == gold.strip(AROUND).casefold() or (len(given) <= MAX_SHOWN and bool(exact(given, gold)))

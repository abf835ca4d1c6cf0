"""Chat templates: what a run gives them, and what they refuse.

A template gets the run's variables as defaults that are written into its own first line, so that a policy which is saved,
exported or served renders as it was trained. A later run takes that line out again and writes its own, or none. Today's
date is no part of that: the loaded tokenizer is given the run's.
"""

from __future__ import annotations

import datetime
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from configs.errors import ConfigError, TemplateRefusal
from configs.records import TemplateSettings

PLAIN = TemplateSettings(as_saved=True)
"""the template as it is, on the day on which it renders"""
ALWAYS_GIVEN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "strftime_now"}
)
"""what transformers gives to each template, beside the names of special tokens and jinja's own functions"""

SHOWN = 80
"""characters of a message that an error shows"""
ASKS_WHETHER_GIVEN = frozenset({"defined", "undefined", "none", "default", "d"})
"""tests and filters by which a template asks whether it was given a variable"""

JOIN_SYSTEM = (
    "{%- if messages|length > 1 and messages[0]['role'] == 'system' and messages[1]['role'] == 'user' %}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}]"
    " + messages[2:] %}{%- endif %}"
)
"""joins a system message to the first user message"""
HEADER = "{#- set by Regroup #}"
"""begins the line that a run writes in front of a template"""

FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OSError,
    AssertionError,
)
"""what a template, which is code that came with the model, may raise while it renders"""

MAX_LINES = 2_000_000
"""most lines that a template runs through for one conversation; about a second"""
COMPILED = "<template>"
"""the file that jinja names for a template's own lines"""

TraceFunction = Callable[[FrameType, str, Any], Any]
Messages = Sequence[Mapping[str, str]]


# ---- what a run gives to a template ---------------------------------------------------------------------------------


def variables_of(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Names of the variables that the chat template reads beside what transformers gives to each."""
    template = tokenizer.chat_template
    known = ALWAYS_GIVEN | tokenizer.special_tokens_map.keys()
    texts = template.values() if isinstance(template, dict) else [template]
    read = {name for text in texts if text is not None for name in _reads(text)}
    return sorted(name for name in read - known if not name.endswith("_token"))


def reads_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes today's date."""
    return tokenizer.chat_template is not None and "strftime_now" in str(tokenizer.chat_template)


def _reads(template: str) -> frozenset[str]:
    """Names that the template reads and does not set itself, or sets only where they are not given."""
    environment = _compile_jinja_template(template).environment
    tree = environment.parse(template)
    made = _set_in(tree) | {macro.name for macro in tree.find_all(nodes.Macro)}
    optional = {name for part in tree.find_all((nodes.If, nodes.Assign)) for name in _asked_in(part) & _set_in(part)}
    return frozenset(find_undeclared_variables(tree) - environment.globals.keys() - (made - optional))


def _set_in(part: nodes.Node) -> set[str]:
    """Names that this part of a template sets, as a variable, parameter or loop's variable."""
    named = [*part.find_all(nodes.Name), *([part.target] if isinstance(part, nodes.Assign) else [])]
    return {name.name for name in named if isinstance(name, nodes.Name) and name.ctx != "load"}


def _asked_in(part: nodes.If | nodes.Assign) -> set[str]:
    """Names of which the condition, or the value that is assigned, asks whether they are given."""
    value = part.test if isinstance(part, nodes.If) else nodes.Tuple([part.node], "load")
    asked = [*value.find_all((nodes.Test, nodes.Filter)), value]
    found = [
        test.node for test in asked if isinstance(test, nodes.Test | nodes.Filter) and test.name in ASKS_WHETHER_GIVEN
    ]
    return {node.name for node in found if isinstance(node, nodes.Name)}


def set_up_template(tokenizer: PreTrainedTokenizerBase, settings: TemplateSettings, *, field: str | None) -> None:
    """Give the tokenizer's chat template the run's variables, and the run's date as today's.

    `field` names the setting that the variables come from, whose every variable the template must read. With None, for
    the tokenizer of a reward model, only those that it reads are set. What an earlier run had given to the template is
    taken out first, unless `settings` ask for the template as it was saved.

    Raises:
        ConfigError: the template does not read a variable, or is broken.
    """
    if not settings.as_saved:
        _change(tokenizer, without_header)
    try:
        read = variables_of(tokenizer)
    except TemplateSyntaxError as error:
        raise ConfigError(
            f"the chat template of {tokenizer.name_or_path} is broken, line {error.lineno}: {error.message}; mend it in the "
            "model's chat_template.jinja or tokenizer_config.json"
        ) from error
    if field is not None:
        _refuse_unread(tokenizer, settings, read, field)
    header = _header({name: value for name, value in settings.variables.items() if name in read}, settings.join_system)
    _change(tokenizer, lambda text: header + text)
    if settings.date is not None and reads_date(tokenizer):
        tokenizer.apply_chat_template = _Dated(tokenizer, settings.date)  # type: ignore[method-assign]


def _refuse_unread(
    tokenizer: PreTrainedTokenizerBase, settings: TemplateSettings, read: Sequence[str], field: str
) -> None:
    for name in settings.variables:
        if tokenizer.chat_template is None:
            raise ConfigError(f"{field}.{name}: {tokenizer.name_or_path} has no chat template to read it; drop it")
        if name not in read:
            reads = f"it reads {', '.join(read)}" if read else "it reads none"
            raise ConfigError(
                f"{field}.{name}: the chat template of {tokenizer.name_or_path} reads no such variable ({reads}); "
                "drop or rename it"
            )


def _header(variables: Mapping[str, Any], join_system: bool) -> str:
    """Statements that write nothing; the newline at the end belongs to them (transformers sets jinja's trim_blocks)."""
    defaults = [
        f"{{%- if {name} is not defined %}}{{%- set {name} = {value!r} %}}{{%- endif %}}"
        for name, value in sorted(variables.items())
    ]
    lines = [*defaults, *([JOIN_SYSTEM] if join_system else [])]
    return "".join([HEADER, *lines]) + "\n" if lines else ""


def without_header(template: str) -> str:
    """The template without the line that a run wrote in front of it; older runs began that line without HEADER."""
    first, _, rest = template.partition("\n")
    return rest if first.startswith(HEADER) or first.endswith(JOIN_SYSTEM) else template


def joins_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the run joins system messages to the first user message in the chat template."""
    template = tokenizer.chat_template
    return any(JOIN_SYSTEM in text for text in (template.values() if isinstance(template, dict) else [template or ""]))


def _change(tokenizer: PreTrainedTokenizerBase, change: Callable[[str], str]) -> None:
    """Change the chat template, or each of them where the tokenizer has several by name."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {name: change(text) for name, text in template.items()}
    elif template is not None:
        tokenizer.chat_template = change(template)


class _Dated:
    """`apply_chat_template` of a tokenizer on one day, at midnight.

    The day is a macro in front of the template, since transformers makes texts of functions that it is passed, and not
    a part of the tokenizer, which would be saved with it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: datetime.date) -> None:
        self._tokenizer, self._apply, self._clock = tokenizer, tokenizer.apply_chat_template, clock(date)

    def __call__(self, *args: Any, chat_template: str | None = None, **options: Any) -> Any:
        template = self._tokenizer.get_chat_template(chat_template, options.get("tools"))
        options["chat_template"] = self._clock + template
        return self._apply(*args, **options)


def clock(date: datetime.date) -> str:
    """A macro `strftime_now` that writes what jinja's function of that name would at midnight of the day."""
    now = datetime.datetime.combine(date, datetime.time())
    directives = [*"aAbBcdDeFHIjlmMnpPrRStTuUVwWxXyYzZ", *(f"-{unpadded}" for unpadded in "dmHIjMSy")]
    written = "".join(f" | replace({'%' + d!r}, {now.strftime('%' + d)!r})" for d in directives)
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{written} | replace('%%', '%') }}}}{{%- endmacro %}}\n"


# ---- rendering ------------------------------------------------------------------------------------------------------


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, add_generation_prompt: bool = False) -> str:
    """The messages in the tokenizer's chat template.

    Raises:
        TemplateRefusal: the template does not take these messages; the message has its own words and the remedy.
    """
    try:
        with _bounded(tokenizer, messages):
            return str(
                tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
    except FAILURES as error:
        raise TemplateRefusal(
            f"the chat template of {tokenizer.name_or_path} does not take {shape(messages)}: {_words(error)} "
            f"(the last is {messages[-1]['content'][:SHOWN]!r}); "
            + _remedy(messages, joins_system=joins_system(tokenizer))
        ) from error


class _TooManyLines(RuntimeError):
    """A template ran for too long."""


_within: dict[tuple[str, tuple[str, ...]], int] = {}
"""{(chat template, roles): characters of the longest messages with which it came to an end}"""


@contextmanager
def _bounded(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Iterator[None]:
    """Stop a template in this thread after MAX_LINES, as where loops in loops multiply.

    Counting makes it several times as slow, so messages are let pass that are not twice as long as others of the same
    roles, with which the template came to an end.
    """
    kind = str(tokenizer.chat_template), tuple(message["role"] for message in messages)
    size = sum(len(message["content"]) for message in messages)
    if size <= 2 * _within.get(kind, -1):
        yield
        return
    num_lines = 0

    def count(frame: FrameType, event: str, argument: Any) -> TraceFunction | None:
        nonlocal num_lines
        is_own = frame.f_code.co_filename == COMPILED
        num_lines += is_own or (frame.f_back is not None and frame.f_back.f_code.co_filename == COMPILED)
        if num_lines > MAX_LINES:
            raise _TooManyLines(f"it does not come to an end within {MAX_LINES:,} lines")
        return count if is_own else None

    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
    _within[kind] = size


def _words(error: Exception) -> str:
    """What the template says itself, or Python's error with its name, since `'name'` alone tells little."""
    return str(error) if isinstance(error, TemplateError | _TooManyLines) else f"{type(error).__name__}: {error}"


def shape(messages: Messages) -> str:
    """The turns of a conversation in words.

    >>> shape([{"role": "system", "content": "Be brief."}, {"role": "user", "content": " "}])
    'the turns system, user (empty)'
    """
    turns = [f"{message['role']}{'' if message['content'].strip() else ' (empty)'}" for message in messages]
    return f"the turns {', '.join(turns)}"


def _remedy(messages: Messages, *, joins_system: bool) -> str:
    roles = [message["role"] for message in messages]
    remedies = []
    if "system" in roles and not joins_system:
        remedies.append(
            "set problems.join_system=true, which puts the system message in front of the first user message"
        )
    if any(first == second for first, second in itertools.pairwise(roles)):
        remedies.append("join turns of one role that follow one another, in the data, or take a model that has them")
    if not all(message["content"].strip() for message in messages):
        remedies.append("fill or leave out empty messages")
    return "; ".join(remedies) or "mend the rows, problems.template_variables, or the model's chat_template.jinja"

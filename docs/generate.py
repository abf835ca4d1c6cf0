"""Writes the generated documents: the configuration reference from the schema, the command reference from the CLI.

python docs/generate.py            write them
python docs/generate.py --check    exit 1 where one is not what the code says
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from configs.schema.block import Block
from configs.schema.config import Config, WatchRule
from flows.cli import app

DOCS = Path(__file__).parent
GENERATED = "<!-- written by docs/generate.py; `make docs` writes it again -->\n\n"

CONFIGURATION = """# Configuration

A run is described by one YAML file. Unknown keys are refused, and every fault is named with its value and the remedy. Any
field can be changed from the command line: `--set grpo_config.learning_rate=1e-5`, `--set rewards.0.weight=0.5` (lists count
from 0). Prefect's page shows the same fields as a form. A secret never stands in the file, only the name of the environment
variable that holds it.

Four presets are in [`configs/`](../configs): `tiny.yaml` (a small random model, for trying out), `quickstart.yaml`
(SmolLM2-135M-Instruct on two CPU cores), `gsm8k.yaml` (Qwen2.5-1.5B-Instruct on one GPU) and `long_chains.yaml` (the same model with
responses of up to 4,096 tokens). The last two are untried so far.

A run that exists goes on only under the configuration that it was started with; `rounds` may be raised, and the blocks `run`,
`tracking` and `launcher` may change.
"""

COMMANDS = """# Commands

Exit codes: 0 done; 2 configuration or data at fault (the message names field, value and remedy); 3 another run holds the
workspace; 130 stopped by Ctrl-C or SIGTERM at a step boundary; 1 the work failed. The workspace is the current folder.

"""


# ---- configuration --------------------------------------------------------------------------------------------------


def configuration() -> str:
    """The whole reference: a table of the top level, then a section for each block, as they are met."""
    sections = [GENERATED + CONFIGURATION, "## The whole\n\n" + _table(Config)]
    for block, title in _titles().items():
        sections.append(f"## {title}\n\n{(block.__doc__ or '').strip()}\n\n{_table(block)}")
    return "\n".join(sections)


@cache
def _titles() -> dict[type[Block], str]:
    """{block: the title of its section}; a block that stands in several places is described at the first."""
    titles: dict[type[Block], str] = {}
    for path, block in _blocks("", Config):
        kind = block.model_fields.get("kind")
        titles.setdefault(block, f"`{path}`" + (f", kind `{kind.default}`" if kind else ""))
    return titles


def _link(block: type[Block]) -> str:
    title = _titles()[block]
    anchor = re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")
    return f"[{title.rpartition(' ')[2] if 'kind' in title else title}](#{anchor})"


def _blocks(prefix: str, block: type[Block]) -> Iterator[tuple[str, type[Block]]]:
    """(path, block) of every block below `block`, parents first."""
    for name, field in block.model_fields.items():
        for suffix, child in _block_types(field.annotation):
            path = f"{prefix}{name}{suffix}"
            yield path, child
            yield from _blocks(f"{path}.", child)


def _block_types(annotation: Any, suffix: str = "") -> Iterator[tuple[str, type[Block]]]:
    """Block types inside an annotation, with `[]` for a list's and `.<name>` for a mapping's."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield suffix, annotation
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _block_types(arguments[0], suffix)
    elif origin is list:
        yield from _block_types(arguments[0], suffix + "[]")
    elif origin is dict:
        yield from _block_types(arguments[1], suffix + ".<name>")
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _block_types(argument, suffix)


def _table(block: type[Block]) -> str:
    rows = [_row(name, field) for name, field in block.model_fields.items() if name != "kind"]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _row(name: str, field: FieldInfo) -> str:
    cells = [f"`{name}`", _type(field.annotation, field.metadata), _default(field), _meaning(field)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning(field: FieldInfo) -> str:
    """The field's description; a block without one says what it is."""
    if field.description is None and field.annotation in _titles():
        return (field.annotation.__doc__ or "").partition("\n")[0]
    return field.description or ""


def _type(annotation: Any, metadata: list[Any]) -> str:
    """What may be written, in words.

    >>> _type(float, [Ge(ge=0), Le(le=1)])
    'number, >= 0, <= 1'
    """
    return ", ".join([_plain_type(annotation), *filter(None, map(_bound, metadata))])


def _plain_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], _constraints(arguments[1:]))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin is list:
        return f"list of {_plain_type(arguments[0])}"
    if origin is dict:
        return f"mapping of name to {_plain_type(arguments[1])}"
    if origin is tuple:
        return "[" + ", ".join(map(_plain_type, arguments)) + "]"
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_plain_type, arguments)))
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return _link(annotation)
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", NoneType: "`null`"}.get(
        annotation, "anything"
    )


def _constraints(metadata: tuple[Any, ...]) -> list[Any]:
    """The bounds inside an Annotated, those that pydantic's Field holds included."""
    return [bound for item in metadata for bound in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _bound(item: Any) -> str:
    match item:
        case Gt():
            return f"> {item.gt}"
        case Ge():
            return f">= {item.ge}"
        case Lt():
            return f"< {item.lt}"
        case Le():
            return f"<= {item.le}"
        case MinLen():
            return "not empty"
    return ""


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if isinstance(value, Block):
        return "its defaults"
    if isinstance(value, list) and value and isinstance(value[0], WatchRule):
        return "; ".join(_watch_rule(rule) for rule in value)
    return f"`{_yaml(value)}`"


def _watch_rule(rule: WatchRule) -> str:
    bound = f"above {rule.above:g}" if rule.above is not None else f"below {rule.below:g}"
    return f"{rule.action} when `{rule.metric}` is {bound}, {rule.patience} times in a row"


def _yaml(value: Any) -> str:
    """
    >>> _yaml(None), _yaml(True), _yaml((0.9, 0.99)), _yaml(1e-6)
    ('null', 'true', '[0.9, 0.99]', '1.0e-6')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return re.sub(r"^(\d+)e-0*(\d+)$", r"\1.0e-\2", repr(value))
    return str(list(value) if isinstance(value, tuple) else value)


# ---- commands -------------------------------------------------------------------------------------------------------


def commands() -> str:
    """What the CLI says of itself."""
    text: str = app.generate_docs()
    summary, _, rest = text.partition("## Table of Contents")
    listed = rest[rest.index("**Commands**") :].replace(" *[default: ()]*", "")
    about = summary.partition("```\n\n")[2].strip()
    return f"{GENERATED}{COMMANDS}{about}\n\n{listed.strip()}\n"


PAGES = {"configuration.md": configuration, "cli.md": commands}


def main() -> int:
    stale = [name for name, page in PAGES.items() if not _is_fresh(DOCS / name, page())]
    if "--check" not in sys.argv[1:]:
        for name in stale:
            (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"written: {', '.join(stale) or 'nothing, all are fresh'}")
        return 0
    for name in stale:
        print(f"docs/{name} is not what the code says; write it again with `make docs`")
    return 1 if stale else 0


def _is_fresh(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())

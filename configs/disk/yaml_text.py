"""Reads YAML as a mapping of plain values, and refuses what a reader of the file would not expect to be taken silently.

A key that stands twice, half a character, and a text that grows without bounds through aliases are refused by line.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError

MAX_DEPTH = 50
"""most mappings and lists around a value"""
MAX_VALUES = 100_000
"""most values of a text, each counted as often as aliases (`*name`) repeat it"""
SHOWN = 60
"""characters of a value that an error shows"""
BROKEN = re.compile("[\0\ud800-\udfff]")
"""half a character, or the character that ends texts elsewhere: no file name, data base or tokenizer takes them"""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with the limits above, which tells where a value is that looks like a date or number and is none."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._num_values = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event, before = self.peek_event(), self._num_values  # type: ignore[no-untyped-call]
        if self._depth > MAX_DEPTH:
            raise _refusal(f"it is nested in more than {MAX_DEPTH} mappings and lists; mend its brackets", event)
        if not isinstance(event, yaml.AliasEvent):
            self._count(1, event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        assert node is not None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._sizes:
                raise _refusal(f"*{event.anchor} stands in what it repeats; write the values out", event)
            self._count(self._sizes[node], event)
        self._sizes.setdefault(node, self._num_values - before)
        return node

    def _count(self, num_values: int, event: Any) -> None:
        self._num_values += num_values
        if self._num_values > MAX_VALUES:
            raise _refusal(f"it has more than {MAX_VALUES:,} values, with those that aliases repeat; write less", event)

    def compose_scalar_node(self, anchor: dict[str, yaml.Node]) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        node.value = _paired(node.value)
        if broken := BROKEN.search(node.value):
            raise _refusal(
                f"{node.value[:SHOWN]!r} holds {broken[0]!r}, which is no character of a text; leave it out", node
            )
        return node

    def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and first.setdefault((key.tag, key.value), key) is not key:
                line = first[key.tag, key.value].start_mark.line + 1
                raise _refusal(f"the key {key.value!r} stands twice, first in line {line}; drop one of the two", key)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError) as error:
            problem = f"{str(node.value)[:SHOWN]!r} is no {node.tag.rpartition(':')[2]}: {error}; mend it, or quote it if it is a text"
            raise ConstructorError(None, None, problem, node.start_mark) from error


def parsed(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is none, has a key twice, is over the limits, or holds an impossible date.
    """
    return yaml.load(text, _Loader)  # a safe loader


def _refusal(problem: str, place: Any) -> ConstructorError:
    """The error at a node or an event."""
    return ConstructorError(None, None, problem, place.start_mark)


def _paired(text: str) -> str:
    """The text with the halves of characters joined that stand side by side, as JSON escapes them: `\\ud83d\\ude00`."""
    return re.sub(
        "[\ud800-\udbff][\udc00-\udfff]", lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text
    )

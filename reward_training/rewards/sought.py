"""Which texts rewards look for in a response: special tokens among them have to stay in its text.

Models may have tags such as <answer> as special tokens, which decoding leaves out otherwise. What a function, a judge or a
reward model looks for is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from configs.schema.rewards import FormatRewardConfig, OutcomeRewardConfig, ProcessRewardConfig, RewardConfig

MOST = 256
"""spellings of a pattern that are looked at"""
MARKS = {"boxed": "\\boxed{", "hash": "####"}
"""what stands before an answer, by `extract`; `final` looks for all of these and for tags"""
OPTIONAL = re.compile(r"(?<!\\)(\\.|[^\\()\[\]|?*+{}])\?")
GROUP = re.compile(r"(?<!\\)\((?:\?(?:[:=>]|<=|P?<\w+>))?((?:\\.|[^\\()])*)\)(\??)")
ALTERNATIVE = re.compile(r"(?<!\\)\|")
ESCAPED = re.compile(r"\\(\W)")


def texts_sought(rewards: Iterable[RewardConfig]) -> frozenset[str]:
    """Texts of which these rewards look for the whole or a part."""
    return frozenset(text for reward in rewards for text in _sought(reward))


def _sought(reward: RewardConfig) -> Iterator[str]:
    match reward:
        case FormatRewardConfig():
            yield from spellings(reward.pattern or "")
            for tag in reward.tags:
                yield from _tags(tag)
        case OutcomeRewardConfig():
            yield from spellings(reward.pattern or "")
            if reward.extract in ("tag", "final"):
                yield from _tags(reward.tag)
            yield from (text for name, text in MARKS.items() if reward.extract in (name, "final"))
        case ProcessRewardConfig() if reward.before is not None:
            yield reward.before


def _tags(name: str) -> tuple[str, str]:
    return f"<{name}>", f"</{name}>"


def spellings(pattern: str) -> set[str]:
    r"""The literal texts of a regular expression, with each of its alternatives and with and without what is optional.

    >>> sorted(spellings(r"</?answer>"))
    ['</answer>', '<answer>']
    >>> sorted(spellings(r"<\|(start|end)\|>.*"))
    ['<|end|>.*', '<|start|>.*']
    """
    found: set[str] = set()
    open_ones = {pattern}
    while open_ones and len(found) + len(open_ones) <= MOST:
        text = open_ones.pop()
        if (match := OPTIONAL.search(text)) is not None:
            open_ones |= {text[: match.start()] + kept + text[match.end() :] for kept in (match.group(1), "")}
        elif (match := GROUP.search(text)) is not None:
            choices = [*ALTERNATIVE.split(match.group(1)), *([""] if match.group(2) else [])]
            open_ones |= {text[: match.start()] + choice + text[match.end() :] for choice in choices}
        else:
            found.add(ESCAPED.sub(r"\1", text))
    return found | {ESCAPED.sub(r"\1", text) for text in open_ones}

"""Reads preference pairs from a file or data set, and draws those of a round."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from configs.disk.rows.columns import MISSING, Row, lookup, shortened
from configs.disk.rows.reading import read_rows
from configs.errors import ConfigError, UnreadableRow
from configs.records import Message, PreferencePair
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import TrainedRewardModel
from reward_training.pairs.building import choose, is_held_out
from reward_training.preferences.cells import LeftOut, cell, filled
from reward_training.preferences.conversations import (
    Transcripts,
    common_beginning,
    prompt_of,
    response_of,
    seen,
    whole_prompt,
)
from reward_training.preferences.verdicts import judged

MAX_UNREADABLE_SHARE = 0.5
"""largest share of rows that may hold something else than prompts, responses and verdicts; with more, the wrong columns are
named"""
FROM_FILE = "file"
"""placeholder for the ids of the policies that wrote the responses, which a file does not contain"""

REASONS = {
    "null": "with a null",
    "empty": "with an empty text",
    "unreadable": "that cannot be read",
    "no_response": "without a conversation that ends with the assistant",
    "diverging": "whose conversations differ before their last response",
    "unlabelled": "without a verdict",
    "tie": "ties",
    "unpaired": "without a better or worse response to the same prompt",
    "equal": "with a response equal to another one",
    "duplicate": "that repeat a pair",
    "contradicting": "that contradict another row",
}
"""{reason for which rows are left out: how it is told}"""


@dataclass(frozen=True)
class Preferences:
    """The pairs of a file, and how many of its rows (of a list: its responses) were left out, by reason."""

    pairs: list[PreferencePair]
    num_rows: int
    left_out: dict[str, int]


def told(left_out: dict[str, int]) -> str:
    """What was left out, in words.

    >>> told({"tie": 3, "contradicting": 1})
    '3 ties, 1 that contradict another row'
    """
    return ", ".join(f"{left_out[reason]} {words}" for reason, words in REASONS.items() if left_out.get(reason))


def read_preferences(labeler: FileLabeler, *, name: str, config: TrainedRewardModel, round_index: int) -> Preferences:
    """All pairs of the labeler's file for the reward model `name`, in order.

    No two texts are in two pairs of a prompt: rows that repeat a pair are left out, and of rows that contradict each
    other those of the minority, or all where they are even. White space around a text makes no difference.

    Raises:
        ConfigError: the file is missing or holds no pair, or a row has another form.
    """
    rows = read_rows(labeler.path, labeler.name, labeler.dataset_split, labeler.revision, "labeler.path")
    return preferences_of_rows(rows, labeler, name=name, config=config, round_index=round_index)


def preferences_of_rows(
    rows: Iterable[Row], labeler: FileLabeler, *, name: str, config: TrainedRewardModel, round_index: int
) -> Preferences:
    """`read_preferences` for rows that were read already."""
    counting = _Counting()
    found = [
        _pair(group.prompt, better, worse, name, config, round_index)
        for group in _groups(rows, labeler, counting)
        for better, worse in _pairs_of(group, labeler, config.pairs_per_problem, counting)
    ]
    _refuse_unreadable(counting, labeler)
    pairs = _without_repeats(found, counting.left_out)
    if not pairs:
        raise ConfigError(
            f"{labeler.path} holds no pair of two responses ({counting.num_rows} rows; left out: "
            f"{told(counting.left_out) or 'none'}); check the columns that the labeler names, or use another file"
        )
    return Preferences(pairs, counting.num_rows, dict(+counting.left_out))


@dataclass
class _Counting:
    num_rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    unreadable: str = ""
    """why the first row that cannot be read cannot"""


def _refuse_unreadable(counting: _Counting, labeler: FileLabeler) -> None:
    if (count := counting.left_out["unreadable"]) > MAX_UNREADABLE_SHARE * counting.num_rows:
        raise ConfigError(
            f"{labeler.path}: {count} of {counting.num_rows} rows cannot be read, for instance {counting.unreadable}"
        )


# ---- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """A response with its value: higher is better."""

    text: str
    value: float


@dataclass
class _Group:
    """Responses that are compared with one another."""

    prompt: list[Message]
    candidates: list[_Candidate]


def _groups(rows: Iterable[Row], labeler: FileLabeler, counting: _Counting) -> Iterator[_Group]:
    """A group for each row, or for each prompt where a row holds one response."""
    transcripts = Transcripts(labeler.turns)
    by_prompt: dict[str, _Group] = {}
    for place, row in rows:
        counting.num_rows += 1
        try:
            group = _read(row, place, labeler, transcripts, counting)
        except LeftOut as reason:
            counting.left_out[reason.reason] += 1
            continue
        except UnreadableRow as error:
            counting.left_out["unreadable"] += 1
            counting.unreadable = counting.unreadable or str(error)
            continue
        if labeler.response is None:
            yield group
        else:
            by_prompt.setdefault(_key(group.prompt), _Group(group.prompt, [])).candidates.extend(group.candidates)
    yield from by_prompt.values()


def _read(
    row: dict[str, Any], place: str, labeler: FileLabeler, transcripts: Transcripts, counting: _Counting
) -> _Group:
    """The prompt and the responses of a row.

    Raises:
        LeftOut: the row makes no pair.
        UnreadableRow: something in it is no prompt, response or score.
        ConfigError: the row has another form than the labeler says.
    """
    asked, is_transcript = _asked(row, labeler, transcripts, place)
    responses = judged(row, labeler, place)
    if len(responses) < 2 and labeler.response is None:
        raise LeftOut("unpaired")
    befores, candidates = [], []
    for column, response, value in responses:
        try:
            before, text = response_of(response, transcripts, column, place)
            candidates.append(_Candidate(text.strip() if is_transcript else text, _known(value)))
            befores.append(before)
        except LeftOut as left_out:
            if len(responses) <= 2:
                raise
            counting.left_out[left_out.reason] += 1
    prompt = whole_prompt(asked, common_beginning(befores), _system(row, labeler, place), place)
    if not prompt and candidates:
        columns = " and ".join(dict.fromkeys(response.column for response in responses))
        raise ConfigError(
            f"{place}: no column {labeler.prompt or 'prompt'!r}, and {columns} are no two conversations that begin alike; "
            "set labeler.prompt, or labeler.turns to the marks before the turns of a text"
        )
    return _Group(prompt, candidates)


def _known(value: float | None) -> float:
    if value is None:
        raise LeftOut("unlabelled")
    return value


def _asked(
    row: dict[str, Any], labeler: FileLabeler, transcripts: Transcripts, place: str
) -> tuple[list[Message], bool]:
    """(the messages of the prompt column, whether they were one text with turn marks); none where there is no column."""
    path = labeler.prompt
    if path is None or (path == FileLabeler.model_fields["prompt"].default and lookup(row, path) is MISSING):
        return [], False
    value = filled(path, row, "labeler.prompt", place)
    messages = prompt_of(value, transcripts, place)
    return messages, isinstance(value, str) and messages != [{"role": "user", "content": value}]


def _system(row: dict[str, Any], labeler: FileLabeler, place: str) -> str:
    text = None if labeler.system is None else cell(row, labeler.system, "labeler.system", place)
    if text is not None and not isinstance(text, str):
        raise UnreadableRow(
            f"{place}: {labeler.system!r} is {shortened(text)}; labeler.system needs a column with text"
        )
    return text or ""


# ---- pairs ----------------------------------------------------------------------------------------------------------


def _pairs_of(
    group: _Group, labeler: FileLabeler, most: int, counting: _Counting
) -> Iterator[tuple[_Candidate, _Candidate]]:
    """At most `most` pairs (better, worse) of a group, each response as rarely as can be, the widest margins first."""
    margin = labeler.min_margin
    candidates = _distinct(group.candidates)
    counting.left_out["equal"] += len(group.candidates) - len(candidates)
    num_distinct, candidates = len(candidates), _extremes(candidates, most)
    values = [candidate.value for candidate in candidates]
    chosen = choose(values, lambda a, b: a > b if margin is None else a - b >= margin, most)
    if not chosen and labeler.response is not None:
        counting.left_out["unpaired"] += num_distinct
    elif not chosen and len(candidates) > 1:
        counting.left_out["tie"] += 1
    for i, j in chosen:
        yield candidates[i], candidates[j]


def _distinct(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """The first of equal texts, with the mean of their values."""
    values: dict[str, list[float]] = {}
    for candidate in candidates:
        values.setdefault(candidate.text.strip(), []).append(candidate.value)
    first = {candidate.text.strip(): candidate.text for candidate in reversed(candidates)}
    return [_Candidate(first[text], fmean(given)) for text, given in values.items()]


def _extremes(candidates: list[_Candidate], most: int) -> list[_Candidate]:
    """The `most` best and the `most` worst in their order: no others can be in `most` pairs of unused ones."""
    if len(candidates) <= 2 * most:
        return candidates
    by_value = sorted(range(len(candidates)), key=lambda i: candidates[i].value)
    best = sorted(range(len(candidates)), key=lambda i: -candidates[i].value)[:most]
    return [candidates[i] for i in sorted({*by_value[:most], *best})]


def _key(prompt: list[Message]) -> str:
    return hashlib.sha256(
        json.dumps([{"role": role, "content": text} for role, text in seen(prompt)]).encode()
    ).hexdigest()


def _pair(
    prompt: list[Message],
    better: _Candidate,
    worse: _Candidate,
    name: str,
    config: TrainedRewardModel,
    round_index: int,
) -> PreferencePair:
    key = _key(prompt)
    return PreferencePair(
        problem_key=key,
        prompt=prompt,
        chosen=better.text,
        rejected=worse.text,
        margin=better.value - worse.value,
        objective=name,
        labeler="file",
        sources=(FROM_FILE, FROM_FILE),
        round=round_index,
        split="held_out" if is_held_out(key, config.held_out_share) else "train",
    )


def _without_repeats(pairs: list[PreferencePair], left_out: Counter[str]) -> list[PreferencePair]:
    """One pair for any two texts of a prompt: the first of the majority; none where as many rows say the opposite."""
    votes = Counter(_texts(pair) for pair in pairs)
    kept: dict[tuple[str, str, str], PreferencePair] = {}
    for pair in pairs:
        key, better, worse = _texts(pair)
        if votes[key, better, worse] <= votes[key, worse, better]:
            left_out["contradicting"] += 1
        elif (key, better, worse) in kept:
            left_out["duplicate"] += 1
        else:
            kept[key, better, worse] = pair
    return list(kept.values())


def _texts(pair: PreferencePair) -> tuple[str, str, str]:
    return pair.problem_key, pair.chosen.strip(), pair.rejected.strip()


# ---- a round's draw -------------------------------------------------------------------------------------------------


def draw_preferences(pairs: list[PreferencePair], *, max_pairs: int, rng: np.random.Generator) -> list[PreferencePair]:
    """At most `max_pairs` random training pairs and the same share of the held-out ones, in their order."""
    train = [pair for pair in pairs if pair.split == "train"]
    held_out = [pair for pair in pairs if pair.split == "held_out"]
    share = min(1.0, max_pairs / max(len(train), 1))
    return [*_sample(train, round(share * len(train)), rng), *_sample(held_out, round(share * len(held_out)), rng)]


def _sample(pairs: list[PreferencePair], count: int, rng: np.random.Generator) -> list[PreferencePair]:
    return [pairs[i] for i in sorted(rng.permutation(len(pairs))[:count])]

"""Proposes labelers of kind `file` for rows that hold preferences, the likeliest first.

Which response is better is never guessed: where the values of a column do not say it by their own meaning, the proposal has a
question mark in their place, and the reader is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from flows.doctor.data.holding import Column, plain

Block = dict[str, Any]

CHOSEN = ("chosen", "preferredoutput", "preferred", "chosenresponse", "responsechosen", "better", "win", "accepted")
REJECTED = ("rejected", "nonpreferredoutput", "dispreferred", "rejectedresponse", "responserejected", "worse", "lose")
"""names of columns with the better and the worse response, in pairs"""
PROMPTS = (
    "prompt", "instruction", "originstruction", "question", "input", "query", "history", "context", "messages", "conversations",
    "trajectory", "fulltext", "post", "article", "problem", "text",
)  # fmt: skip
RESPONSES = (
    "response", "responses", "completion", "completions", "answer", "answers", "generations", "generation", "conversation",
    "humanref", "output", "text", "candidate", "summary", "summaries", "origresponse",
)  # fmt: skip
SIDE = re.compile(r"(.*?)[_-]?([01ab12])", re.IGNORECASE)
SIBLING = re.compile(r"(.*?)[_-]?([0-9a-j])", re.IGNORECASE)
"""columns of one stem; more than two of them are options"""
VERDICTS = (
    "labels", "label", "winner", "betterresponseid", "preference", "overallpreference", "choice", "preferred", "origpreference",
    "preferencestrength", "better",
)  # fmt: skip
LABELS = ("label", "labels")
"""names that do not say what their values prefer"""
SCORES = (
    "score", "overallscore", "rating", "ratings", "pmscore", "helpfulness", "reward", "label", "upvotes", "overall", "feedback",
)  # fmt: skip
RANKS = ("rank", "ranking", "ranks")
TIES = ("tie", "tie (bothbad)", "both", "equal", "same", "none", "neither")
MOST_WORDS = 5
"""different words of a column that can be verdicts"""
UNKNOWN = "?"
"""stands where only a person can say which value prefers which response"""


def labeler_blocks(columns: Sequence[Column]) -> Iterator[Block]:
    """Fields of the labeler without kind and path."""
    prompt = _prompt(columns) | _turns(columns)
    yield from _chosen_and_rejected(columns, prompt)
    yield from _lists(columns, prompt)
    yield from _sides(columns, prompt)
    yield from _one_a_row(columns, prompt)


TURNS: tuple[Block, ...] = (
    {
        "system": "<|im_start|>system",
        "user": "<|im_start|>user",
        "assistant": "<|im_start|>assistant",
        "end": "<|im_end|>",
    },
    {"user": "<extra_id_1>User", "assistant": "<extra_id_1>Assistant"},
    {"user": "<|user|>", "assistant": "<|assistant|>", "system": "<|system|>"},
    {"user": "### Human:", "assistant": "### Assistant:"},
    {"user": "### Instruction:", "assistant": "### Response:"},
    {"user": "[INST]", "assistant": "[/INST]"},
    {"user": "USER:", "assistant": "ASSISTANT:"},
)
"""marks of conversations in one text, as published sets have them"""


def _turns(columns: Sequence[Column]) -> Block:
    """The marks that texts hold; none for those of HH-RLHF, which are read by default."""
    texts = [value for column in columns for value in column.held if isinstance(value, str)]
    for turns in TURNS:
        if any(turns["user"] in text and turns["assistant"] in text for text in texts):
            return {"turns": turns}
    return {}


def _named(columns: Sequence[Column], names: Sequence[str]) -> list[Column]:
    found = [column for column in columns if column.word in names and column.kind != "nothing"]
    return sorted(found, key=lambda column: (column.name.count("."), names.index(column.word)))


def _prompt(columns: Sequence[Column]) -> Block:
    found = [column for column in _named(columns, PROMPTS) if column.kind in ("text", "conversation", "texts")]
    if not found:
        found = [c for c in columns if c.word == "messages" and c.kind == "conversation"]
    named: Block = {} if not found or found[0].name == "prompt" else {"prompt": found[0].name}
    instruction = [column for column in found if column.word == "instruction"]
    extra = [column for column in columns if column.name == "input" and column.kind == "text"]
    if instruction and extra and instruction[0].name == "instruction":
        named = {"prompt": "{instruction}\n\n{input}"}
    system = [
        column for column in columns if plain(column.name) in ("system", "systemprompt") and column.kind == "text"
    ]
    return ({"system": system[0].name} if system else {}) | named


def _chosen_and_rejected(columns: Sequence[Column], prompt: Block) -> Iterator[Block]:
    for better, worse in zip(CHOSEN, REJECTED, strict=False):
        pair = _named(columns, (better,)), _named(columns, (worse,))
        if all(pair):
            names = {"chosen": pair[0][0].name, "rejected": pair[1][0].name}
            fields = {} if names == {"chosen": "chosen", "rejected": "rejected"} else names
            yield prompt | fields
            yield {"prompt": None} | fields
    rejected = [column for column in _named(columns, REJECTED) if column.kind == "text"]
    talk = [column for column in columns if column.word == "messages" and column.kind == "conversation"]
    if rejected and talk:
        yield {"prompt": None, "chosen": talk[0].name, "rejected": rejected[0].name}


# ---- several responses a row ----------------------------------------------------------------------------------------


def _lists(columns: Sequence[Column], prompt: Block) -> Iterator[Block]:
    """One column with a list of responses, and beside or inside of it one with their ranks or scores."""
    lists = [column for column in columns if column.kind in ("list", "texts") and column.word in RESPONSES]
    for texts in lists:
        if not _holds(texts, str):
            continue
        inner = texts.name.rpartition(".")[0]
        for names, field in ((RANKS, "rank"), (SCORES, "score")):
            for numbers in columns:
                beside = numbers.name.rpartition(".")[0] == inner and numbers.word in names
                if beside and numbers is not texts and _holds(numbers, (int, float, str)):
                    yield prompt | {"responses": texts.name, field: numbers.name}
        for verdict in _named(columns, VERDICTS):
            if verdict.kind == "number" and _size(texts) == 2 and set(verdict.held) <= {0, 1}:
                values = [UNKNOWN, UNKNOWN] if verdict.word in LABELS else [0, 1]
                yield prompt | {"responses": texts.name, "better": {"column": verdict.name, "values": values}}


def _size(column: Column) -> int | None:
    """The number of items in each list; None where lists differ."""
    sizes = {len(value) for value in column.held if isinstance(value, list)}
    return sizes.pop() if len(sizes) == 1 else None


def _holds(column: Column, types: Any) -> bool:
    items = [item for value in column.held if isinstance(value, list) for item in value if item is not None]
    return bool(items) and all(isinstance(item, types) for item in items)


def _sides(columns: Sequence[Column], prompt: Block) -> Iterator[Block]:
    """Two columns that differ in 0 and 1, 1 and 2 or a and b, and one that says which is better."""
    pairs = _pairs(columns)
    responses = [pair for stem, pair in pairs.items() if plain(stem) in RESPONSES]
    for first, second in responses:
        both: Block = prompt | {"responses": [first.name, second.name]}
        for verdict in _named(columns, VERDICTS):
            if verdict not in (first, second):
                yield both | {"better": _better(verdict, (first, second))}
        for names, field in ((SCORES, "score"), (RANKS, "rank")):
            for stem, pair in pairs.items():
                if plain(stem) in names and pair[0].kind == "number":
                    yield both | {field: [pair[0].name, pair[1].name]}


def _pairs(columns: Sequence[Column]) -> dict[str, tuple[Column, Column]]:
    """{stem: columns of the first and the second side}"""
    sides: dict[str, dict[str, Column]] = {}
    for column in columns:
        match = SIBLING.fullmatch(column.name)
        if match and match[1]:
            sides.setdefault(match[1], {})[match[2].lower()] = column
    found = {}
    for stem, named in sides.items():
        for first, second in (("0", "1"), ("1", "2"), ("a", "b")):
            if named.keys() == {first, second}:
                found[stem] = (named[first], named[second])
    return found


def _better(verdict: Column, sides: tuple[Column, Column]) -> Block:
    """The verdict's values for each side, where they name the sides; UNKNOWN where they do not."""
    values = sorted(set(verdict.held), key=repr) if all(isinstance(v, str | int | float) for v in verdict.held) else []
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and any(number < 0 for number in numbers):
        return {"column": verdict.name, "negative": UNKNOWN}
    ties = [value for value in values if str(value).strip().lower() in TIES]
    named = [[value for value in values if _names(value, side)] for side in sides]
    tie: Block = {"tie": ties} if ties else {}
    says_it = verdict.word not in LABELS and all(len(found) == 1 for found in named)
    if says_it and len(values) == 2 + len(ties):
        return {"column": verdict.name, "values": [found[0] for found in named]} | tie
    return {"column": verdict.name, "values": [UNKNOWN, UNKNOWN]} | tie


def _names(value: Any, side: Column) -> bool:
    """Whether a verdict names a side: its column, or the letter or number with which the column ends."""
    own = SIDE.fullmatch(side.name)
    assert own is not None, "sides are found by their marks"
    word = str(value).strip().lower()
    ending = SIDE.fullmatch(word)
    return word in (side.name.lower(), own[2].lower()) or bool(ending and ending[1] and ending[2] == own[2].lower())


# ---- one response a row ---------------------------------------------------------------------------------------------


def _one_a_row(columns: Sequence[Column], prompt: Block) -> Iterator[Block]:
    responses = [column for column in _named(columns, RESPONSES) if column.kind in ("text", "conversation")]
    asked = prompt.get("prompt", "prompt")
    labels = [column for column in _named(columns, SCORES) if column.kind == "flag"]
    talks = [c for c in columns if c.word in ("messages", "conversations") and c.kind == "conversation"]
    for talk in talks:
        yield from ({"prompt": None, "response": talk.name, "score": label.name} for label in labels)
    for response in responses:
        if response.name == asked:
            continue
        for score in _named(columns, SCORES):
            if score is not response and score.kind in ("number", "flag"):
                yield prompt | {"response": response.name, "score": score.name}
            elif score is not response and score.kind == "text" and len(words := sorted(set(score.held))) <= MOST_WORDS:
                worth = dict.fromkeys(words, UNKNOWN)
                yield prompt | {"response": response.name, "score": score.name, "score_values": worth}
        for rank in _named(columns, RANKS):
            if rank.kind == "number":
                yield prompt | {"response": response.name, "rank": rank.name}

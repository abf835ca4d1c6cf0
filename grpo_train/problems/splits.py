"""Loads the problems of a run: reads, de-duplicates, splits by hash, and checks the splits for overlap.

Dev and test depend on the data alone. Which of the other problems a round regenerates on, and the order of the training
problems, also depend on the run's seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.records import Message, Problem, Prompt
from configs.schema.config import RegenerationConfig
from configs.schema.problems import OverlapConfig, ProblemsConfig
from grpo_train.problems.left_out import distinct, refuse_most
from grpo_train.problems.overlap import exact_matches, ngram_matches, shared_words, spelled
from grpo_train.problems.raw_problem import RawProblem
from grpo_train.problems.sources import read_sources
from reward_training.answers.gold import type_of
from reward_training.rewards.columns import NO_COLUMNS, ColumnsRead
from reward_training.transformer.rendering import encode_texts, prompt_text, unwritten

BATCH = 1024
"""questions whose wordings are encoded together"""
SHOWN = 80
"""characters of a question that a message shows"""
REPLACED = "\ufffd"
"""what stands in a text for a character that could not be read"""


@dataclass(frozen=True)
class ProblemSet:
    """Problems by split, and counts of what was left out."""

    by_split: dict[str, list[Problem]]
    """train, dev, test, regenerate_000 and so on"""
    counts: dict[str, int]
    """numbers loaded, left out by reason (empty, unreadable, unmatched, duplicates, contradicting, overlong, overlap_exact,
    overlap_ngram), kept and told of (leaking, cut, unfilled, unwritten, damaged), and in each split"""
    examples: dict[str, str] = field(default_factory=dict)
    """{reason: one of them}"""

    @property
    def all(self) -> list[Problem]:
        return [problem for members in self.by_split.values() for problem in members]


def shard_name(round_index: int) -> str:
    """Name of the split that a round regenerates on.

    >>> shard_name(1)
    'regenerate_001'
    """
    return f"regenerate_{round_index:03d}"


def load_problems(
    config: ProblemsConfig,
    regeneration: RegenerationConfig,
    *,
    rounds: int,
    seed: int,
    tokenizer: PreTrainedTokenizerBase,
    read: ColumnsRead = NO_COLUMNS,
) -> ProblemSet:
    """Load all splits of a run. Problems keep the columns that rewards `read`, and those that the sources keep.

    Raises:
        ConfigError: a source is at fault, the splits overlap, or there are too few problems; the message names the
            remedy.
    """
    sources = read_sources(config.sources, read)
    loaded = [problem for rows in sources for problem in rows.problems]
    first = distinct(loaded, lambda problem: (problem.split, spelled(problem.text)))
    refuse_most(first.contradicting, loaded, _contradiction)
    rendered = _rendered(first.problems, config, tokenizer)
    fitting = _fitting(first.problems, rendered, config)
    test, dev, training = _hold_out(fitting, config)
    unique = distinct(training, lambda problem: spelled(problem.text))
    contradicting = [*first.contradicting, *unique.contradicting]
    dev, in_test = _without_matches(dev, test, config.overlap, kinds=("exact",), names=("dev", "test"))
    kept, matches = _without_matches(
        unique.problems, [*test, *dev], config.overlap, kinds=("exact", "ngram"), names=("training", "dev or test")
    )
    splits = {"dev": dev, "test": test, **_cut_shards(kept, regeneration.num_problems, rounds, seed)}
    by_split = {name: _problems(raws, config, tokenizer, name) for name, raws in splits.items()}
    every = [*kept, *dev, *test]
    counts = {
        "loaded": len(loaded),
        "empty": sum(rows.num_empty for rows in sources),
        "unreadable": sum(rows.num_unreadable for rows in sources),
        "unmatched": sum(rows.num_unmatched for rows in sources),
        "leaking": sum(rows.num_leaking for rows in sources),
        "duplicates": len(first.duplicates) + len(unique.duplicates),
        "contradicting": len(contradicting),
        "overlong": len(first.problems) - len(fitting),
        "overlap_exact": in_test["exact"] + matches["exact"],
        "overlap_ngram": matches["ngram"],
        "cut": sum(problem.is_cut for problem in every),
        "unfilled": sum(problem.is_unfilled for problem in every),
        "unwritten": sum(not rendered[problem.key].is_whole for problem in every),
        "damaged": sum(REPLACED in problem.text + (problem.answer or "") for problem in every),
    }
    examples = {reason: where for rows in reversed(sources) for reason, where in rows.examples.items()}
    if contradicting:
        examples["contradicting"] = _shown(contradicting[0])
    return ProblemSet(by_split, counts | {name: len(problems) for name, problems in by_split.items()}, examples)


def _contradiction(lost: Sequence[RawProblem]) -> str:
    return (
        f"their question stands with other answers too, for instance {_shown(lost[0])}; name columns that hold the whole question "
        "in columns.question, or mend the answers"
    )


def _shown(problem: RawProblem) -> str:
    return f"{problem.text[:SHOWN]!r} with {(problem.answer or '')[:SHOWN]!r}"


# ---- prompts --------------------------------------------------------------------------------------------------------


class _Rendered(NamedTuple):
    num_tokens: int
    """of the prompt in its longest wording"""
    is_whole: bool
    """whether the chat template writes each message"""


def _rendered(
    problems: Sequence[RawProblem], config: ProblemsConfig, tokenizer: PreTrainedTokenizerBase
) -> dict[str, _Rendered]:
    """{key: the problem's prompt}"""
    has_chat_template = tokenizer.chat_template is not None
    templates = [None, *config.templates]
    found: dict[str, _Rendered] = {}
    for start in range(0, len(problems), BATCH):
        batch = problems[start : start + BATCH]
        wordings = [
            build_prompt(problem.question, config, has_chat_template=has_chat_template, template=template)
            for problem in batch
            for template in templates
        ]
        texts = [prompt_text(tokenizer, wording) for wording in wordings]
        lengths = list(map(len, encode_texts(tokenizer, wordings, texts)))
        for problem, i in zip(batch, range(0, len(wordings), len(templates)), strict=True):
            plain = wordings[i]
            is_whole = isinstance(plain, str) or not unwritten(texts[i], plain)
            found[problem.key] = _Rendered(max(lengths[i : i + len(templates)]), is_whole)
    return found


def _fitting(
    problems: Sequence[RawProblem], rendered: Mapping[str, _Rendered], config: ProblemsConfig
) -> list[RawProblem]:
    """Problems whose rendered prompt has at most `max_prompt_length` tokens in its longest wording.

    Raises:
        ConfigError: there are none, or most of a source are longer.
    """
    limit = config.max_prompt_length
    sizes = {problem.key: rendered[problem.key].num_tokens for problem in problems}
    fitting = [problem for problem in problems if sizes[problem.key] <= limit]
    if not fitting:
        raise ConfigError(
            f"problems.max_prompt_length={limit} drops all {len(problems)} problems; "
            f"the shortest prompt has {min(sizes.values())} tokens: raise it"
        )
    overlong = [problem for problem in problems if sizes[problem.key] > limit]
    refuse_most(overlong, problems, lambda lost: _too_long([sizes[problem.key] for problem in lost], limit))
    return fitting


def _too_long(sizes: Sequence[int], limit: int) -> str:
    return (
        f"their prompts have more tokens than problems.max_prompt_length={limit}; raise it ({sorted(sizes)[len(sizes) // 2]} takes "
        f"half of them, {max(sizes)} all), or leave such rows out of the data"
    )


def _problems(
    raws: Sequence[RawProblem], config: ProblemsConfig, tokenizer: PreTrainedTokenizerBase, split: str
) -> list[Problem]:
    has_template = tokenizer.chat_template is not None
    templates = config.templates if split == "train" else []
    return [problem_of(raw, config, split=split, has_chat_template=has_template, templates=templates) for raw in raws]


class Wording(Protocol):
    """What stands around a question."""

    @property
    def template(self) -> str: ...
    @property
    def system(self) -> str | None: ...


def problem_of(
    raw: RawProblem, wording: Wording, *, split: str, has_chat_template: bool, templates: Sequence[str] = ()
) -> Problem:
    """The problem with its prompt, and a variant of it for each of `templates`."""
    return Problem(
        key=raw.key,
        prompt=build_prompt(raw.question, wording, has_chat_template=has_chat_template),
        answer=raw.answer,
        other_answers=raw.other_answers,
        answer_type="" if raw.answer is None else type_of(raw.answer),
        source=raw.source,
        meta=raw.meta,
        difficulty=raw.difficulty,
        variants=[
            build_prompt(raw.question, wording, has_chat_template=has_chat_template, template=t) for t in templates
        ],
        split=split,
    )


def build_prompt(
    question: str | list[Message], config: Wording, *, has_chat_template: bool, template: str | None = None
) -> Prompt:
    """The question in the template, as chat messages, or as plain text for a model without a chat template.

    `template` replaces `config.template` where given. In a question of chat messages, the template wraps the last user
    message, and a system message of the question takes precedence over the configured one.
    """
    template = config.template if template is None else template
    if isinstance(question, str):
        text = template.replace("{question}", question)
        if not has_chat_template and config.system is None:
            return text
        return [*_system(config), {"role": "user", "content": text}]
    own_system = any(message["role"] == "system" for message in question)
    last = max((i for i, message in enumerate(question) if message["role"] == "user"), default=len(question) - 1)
    wrapped = template.replace("{question}", question[last]["content"])
    messages = [*question[:last], question[last] | {"content": wrapped}, *question[last + 1 :]]
    return messages if own_system else [*_system(config), *messages]


def _system(config: Wording) -> list[Message]:
    return [] if config.system is None else [{"role": "system", "content": config.system}]


# ---- splits ---------------------------------------------------------------------------------------------------------


def _hold_out(
    problems: Sequence[RawProblem], config: ProblemsConfig
) -> tuple[list[RawProblem], list[RawProblem], list[RawProblem]]:
    """(test, dev, training). A split with sources of its own holds only their problems; others are cut by hash."""
    pool = sorted((problem for problem in problems if problem.split is None), key=lambda problem: problem.key)
    test, pool = _take("test", config.test, problems, pool)
    dev, pool = _take("dev", config.dev, problems, pool)
    return test, dev, [*(problem for problem in problems if problem.split == "train"), *pool]


def _take(
    name: str, size: int, problems: Sequence[RawProblem], pool: list[RawProblem]
) -> tuple[list[RawProblem], list[RawProblem]]:
    """(problems of split `name`, rest of the pool)."""
    if given := [problem for problem in problems if problem.split == name]:
        return given, pool
    if len(pool) < size:
        raise ConfigError(
            f"problems.{name}={size} is more than the {len(pool)} problems left for it; lower it, or add problems"
        )
    return pool[:size], pool[size:]


def _cut_shards(training: Sequence[RawProblem], size: int, rounds: int, seed: int) -> dict[str, list[RawProblem]]:
    """Training problems and a regeneration shard for each round, round 0 included, in an order that the seed draws."""
    needed = size * (rounds + 1)
    if len(training) <= needed:
        raise ConfigError(
            f"{len(training)} problems are left beside dev and test, but {rounds + 1} regeneration shards of "
            f"{size} take {needed} and training needs more; add problems (a source's size), or lower "
            "regeneration.num_problems, problems.dev, problems.test or rounds (and extra_rounds of watch rules)"
        )
    ordered = sorted(training, key=lambda problem: hashlib.sha256(f"{seed}/{problem.key}".encode()).digest())
    shards = {shard_name(i): ordered[i * size : (i + 1) * size] for i in range(rounds + 1)}
    return {"train": ordered[needed:], **shards}


# ---- overlap --------------------------------------------------------------------------------------------------------


def _without_matches(
    problems: list[RawProblem],
    others: list[RawProblem],
    config: OverlapConfig,
    *,
    kinds: tuple[str, ...],
    names: tuple[str, str],
) -> tuple[list[RawProblem], dict[str, int]]:
    """(problems that do not match any of `others`, number of matches by kind: exact, ngram).

    Raises:
        ConfigError: there are matches, and `config.action` is refuse.
    """
    exact = exact_matches(
        [(problem.text, problem.answer) for problem in problems], [(other.text, other.answer) for other in others]
    )
    similar = _similar(problems, others, config) if "ngram" in kinds else {}
    similar = {i: j for i, j in similar.items() if i not in exact}
    matches = exact | similar
    if matches and config.action == "refuse":
        i, j = next(iter(matches.items()))
        shared = shared_words(problems[i].stem, others[j].stem, config.ngram)
        raise ConfigError(
            f"{len(matches)} {names[0]} problems overlap {names[1]} ({len(exact)} equal, {len(similar)} with "
            f"{config.ngram} words in a row), for instance {problems[i].text[:80]!r} and {others[j].text[:80]!r}, which share "
            f"{shared[:200]!r}; set problems.overlap.action=drop to leave them out, or mend the data"
        )
    kept = [problem for i, problem in enumerate(problems) if i not in matches]
    return kept, {"exact": len(exact), "ngram": len(similar)}


def _similar(problems: list[RawProblem], others: list[RawProblem], config: OverlapConfig) -> dict[int, int]:
    """N-gram matches among written questions, without their options: these are often the same few words, and questions of
    procedural families share phrases by design."""
    written = [i for i, problem in enumerate(problems) if problem.is_text]
    other_written = [i for i, other in enumerate(others) if other.is_text]
    matches = ngram_matches(
        [problems[i].stem for i in written],
        [others[i].stem for i in other_written],
        n=config.ngram,
        common_share=config.common_share,
        min_share=config.min_share,
    )
    return {written[i]: other_written[j] for i, j in matches.items()}

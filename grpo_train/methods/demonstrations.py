"""Demonstrations: questions with wanted responses, as supervised fine-tuning goes over them before round 0 (`cold_start`).

A question becomes a prompt as a problem's does (`problems.template`, `problems.system`, the chat template), and a response the
tokens that would stand in its place if the policy had written it: its text, and the token by which the chat template ends a turn,
or else the end of sequence. What the policy could not have written in training is left out and counted: a prompt over
`problems.max_prompt_length`, a response over `grpo_config.max_response_length`, a response that leaves the thought open that the
prompt begins. So are questions of dev and test, found as copies among the problems are (`problems.overlap`).

`offline_best_of_n.imitate` trains on them: the mean of - log p over the tokens of an update's responses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from configs.disk.rows.columns import Row, column
from configs.disk.rows.opening import local_digest
from configs.disk.rows.reading import read_rows
from configs.errors import ConfigError, UnreadableRow
from configs.records import Message, Problem, Prompt
from configs.schema.methods.cold_start import DemonstrationsConfig
from configs.schema.problems import OverlapConfig, ProblemsConfig, ReasoningGymSource
from configs.schema.scopes import source_name
from grpo_train.problems.left_out import MAX_SHARE
from grpo_train.problems.overlap import exact_matches, ngram_matches, shared_words
from grpo_train.problems.questions import question_of
from grpo_train.problems.splits import BATCH, build_prompt
from reward_training.answers.finding.thoughts import answer_of, begun_by
from reward_training.preferences.cells import LeftOut
from reward_training.preferences.conversations import Transcripts, response_of
from reward_training.transformer.rendering import encode_texts, prompt_text
from reward_training.transformer.turn_ends import turn_end

FIELD = "cold_start.demonstrations"
REASONS = {
    "empty": "without a question or a response",
    "unreadable": "that cannot be read",
    "no_response": "whose conversation does not end with the assistant",
    "open_thought": "whose response does not end the thought that the prompt begins",
    "long_prompt": "with a prompt over problems.max_prompt_length",
    "long_response": "with a response over grpo_config.max_response_length",
    "held_out": "with a question of dev or test",
    "duplicate": "that repeat another one",
}
"""{reason for which rows are left out: how it is told}"""
NO_FAULT = ("held_out", "duplicate")
"""reasons for which most rows of a file may be left out"""


@dataclass(frozen=True)
class Demonstration:
    """A question, and the response that is imitated."""

    place: str
    """where it stands, such as `data.jsonl line 3`"""
    prompt_ids: list[int]
    token_ids: list[int]
    """of the response, with the token that ends it"""


@dataclass(frozen=True)
class DemonstrationsRead:
    """What is imitated, in the order of the rows, and what was left out."""

    kept: list[Demonstration]
    num_rows: int
    left_out: dict[str, int]
    """{reason: number of rows}"""
    examples: dict[str, str] = field(default_factory=dict)
    """{reason: the first of them}"""

    @property
    def told(self) -> str:
        """What was left out, in words."""
        return ", ".join(
            f"{self.left_out[reason]:,} {words} ({self.examples[reason]})"
            for reason, words in REASONS.items()
            if reason in self.left_out
        )


class _Asked(NamedTuple):
    """A row whose question and response could be read."""

    place: str
    question: str | list[Message]
    prompt: Prompt
    response: str


class _Counting:
    def __init__(self) -> None:
        self.num_rows = 0
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def leave_out(self, reason: str, told: str) -> None:
        self.left_out[reason] += 1
        self.examples.setdefault(reason, told)


def demonstrations_digest(settings: DemonstrationsConfig) -> str | None:
    """Digest of the local data; None for a data set of a hub, which its name and revision tell."""
    return local_digest(settings.path)


def refuse_moving(settings: DemonstrationsConfig) -> None:
    """Refuse a data set of a hub without a revision: a run that is stopped and goes on reads it anew, and may read another.

    Raises:
        ConfigError: it is one.
    """
    if settings.revision is None and demonstrations_digest(settings) is None:
        raise ConfigError(
            f"{FIELD}.path={settings.path!r} is read again when the run goes on, and its newest state may be another one then; set "
            f"{FIELD}.revision"
        )


def read_demonstrations(
    settings: DemonstrationsConfig,
    problems: ProblemsConfig,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[Problem],
    *,
    max_response_length: int,
) -> DemonstrationsRead:
    """The demonstrations that the policy of this tokenizer can learn from.

    Args:
        held_out: the problems of dev and test.

    Raises:
        ConfigError: the file is missing, a data set of a hub has no revision, columns are others, none or too few of the rows can be
            used, or with `problems.overlap.action: refuse` one has a question of dev or test.
    """
    refuse_moving(settings)
    rows = read_rows(settings.path, settings.name, settings.dataset_split, settings.revision, f"{FIELD}.path")
    return demonstrations_of_rows(
        rows, settings, problems, tokenizer, held_out, max_response_length=max_response_length
    )


def demonstrations_of_rows(
    rows: Iterable[Row],
    settings: DemonstrationsConfig,
    problems: ProblemsConfig,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Sequence[Problem],
    *,
    max_response_length: int,
) -> DemonstrationsRead:
    """`read_demonstrations` for rows that were read already."""
    counting = _Counting()
    asked = list(_asked(rows, settings, problems, tokenizer, counting))
    asked = _without_held_out(asked, held_out, problems, counting)
    kept = _encoded(asked, tokenizer, counting, problems.max_prompt_length, max_response_length)
    read = DemonstrationsRead(kept, counting.num_rows, dict(counting.left_out), counting.examples)
    _refuse_most(read, settings)
    return read


def _refuse_most(read: DemonstrationsRead, settings: DemonstrationsConfig) -> None:
    if not read.num_rows:
        raise ConfigError(f"{FIELD}.path={settings.path} is empty; it needs a row a demonstration")
    for reason, count in read.left_out.items():
        if reason not in NO_FAULT and count > MAX_SHARE * read.num_rows:
            raise ConfigError(
                f"{FIELD}.path={settings.path}: {count:,} of {read.num_rows:,} rows are left out, {REASONS[reason]}, for instance "
                f"{read.examples[reason]}; {_remedy(reason)}"
            )
    if not read.kept:
        raise ConfigError(
            f"{FIELD}.path={settings.path} leaves nothing to imitate of {read.num_rows:,} rows: {read.told}; take other data"
        )


def _remedy(reason: str) -> str:
    match reason:
        case "long_prompt":
            return "raise problems.max_prompt_length, or leave such rows out of the data"
        case "long_response":
            return (
                "raise grpo_config.max_response_length, as training could not write them either, or take shorter ones"
            )
        case "open_thought":
            return "write the thoughts and their closing mark into the responses, or set problems.template_variables so that none is begun"
        case _:
            return f"name the columns in {FIELD}.question and {FIELD}.response, or mend the rows"


# ---- rows -----------------------------------------------------------------------------------------------------------


def _asked(
    rows: Iterable[Row],
    settings: DemonstrationsConfig,
    problems: ProblemsConfig,
    tokenizer: PreTrainedTokenizerBase,
    counting: _Counting,
) -> Iterable[_Asked]:
    has_chat_template = tokenizer.chat_template is not None
    for place, row in rows:
        counting.num_rows += 1
        try:
            question = question_of(row, settings.question, place, f"{FIELD}.question")
            said = column(row, settings.response, f"{FIELD}.response", place)
            _, response = response_of(said, Transcripts(None), settings.response, place)
        except LeftOut as left_out:
            counting.leave_out("no_response" if left_out.reason == "no_response" else "empty", place)
            continue
        except UnreadableRow as error:
            counting.leave_out("unreadable", str(error))
            continue
        if question is None:
            counting.leave_out("empty", place)
            continue
        prompt = build_prompt(question.content, problems, has_chat_template=has_chat_template)
        yield _Asked(place, question.content, prompt, response)


# ---- dev and test ---------------------------------------------------------------------------------------------------


def _without_held_out(
    asked: list[_Asked], held_out: Sequence[Problem], problems: ProblemsConfig, counting: _Counting
) -> list[_Asked]:
    """Those that ask no question of dev or test, and no near copy of one.

    Raises:
        ConfigError: one does, and `problems.overlap.action` is refuse.
    """
    texts = [_words(one.question) for one in asked]
    others = [_words_of_problem(problem, problems.template) for problem in held_out]
    matches = exact_matches([(text, None) for text in texts], [(other, None) for other in others])
    matches = _near_copies(texts, others, held_out, problems) | matches
    if matches and problems.overlap.action == "refuse":
        i, j = min(matches.items())
        raise ConfigError(
            f"{FIELD}: {len(matches):,} rows ask what dev or test asks, for instance {asked[i].place} and a problem of "
            f"{held_out[j].split}, which share {shared_words(texts[i], others[j], problems.overlap.ngram)[:200]!r}; set "
            "problems.overlap.action=drop to leave such rows out, or mend the data"
        )
    for i in sorted(matches):
        counting.leave_out("held_out", asked[i].place)
    return [one for i, one in enumerate(asked) if i not in matches]


def _near_copies(
    texts: Sequence[str], others: Sequence[str], held_out: Sequence[Problem], problems: ProblemsConfig
) -> dict[int, int]:
    """Matches by n-grams, of written questions alone: those of procedural families share phrases by design."""
    families = {source_name(source) for source in problems.sources if isinstance(source, ReasoningGymSource)}
    written = [j for j, problem in enumerate(held_out) if problem.source not in families]
    overlap: OverlapConfig = problems.overlap
    found = ngram_matches(
        texts,
        [others[j] for j in written],
        n=overlap.ngram,
        common_share=overlap.common_share,
        min_share=overlap.min_share,
    )
    return {i: written[j] for i, j in found.items()}


def _words(question: Prompt) -> str:
    """A question as one string, without its system message."""
    if isinstance(question, str):
        return question
    return "\n".join(message["content"] for message in question if message["role"] != "system")


def _words_of_problem(problem: Problem, template: str) -> str:
    """The same of a problem, whose template is taken off."""
    prompt = problem.prompt
    if isinstance(prompt, str):
        return _without_template(prompt, template)
    last = max((i for i, message in enumerate(prompt) if message["role"] == "user"), default=len(prompt) - 1)
    bare = prompt[last] | {"content": _without_template(prompt[last]["content"], template)}
    return _words([*prompt[:last], bare, *prompt[last + 1 :]])


def _without_template(text: str, template: str) -> str:
    r"""The question that stands in a template.

    >>> _without_template("Solve: 2 + 3\nAnswer:", "Solve: {question}\nAnswer:")
    '2 + 3'
    """
    before, _, after = template.partition("{question}")
    bare = text.removeprefix(before).removesuffix(after)
    return bare if template.replace("{question}", bare) == text else text


# ---- tokens ---------------------------------------------------------------------------------------------------------


def _encoded(
    asked: Sequence[_Asked],
    tokenizer: PreTrainedTokenizerBase,
    counting: _Counting,
    max_prompt_length: int,
    max_response_length: int,
) -> list[Demonstration]:
    kept: dict[tuple[tuple[int, ...], tuple[int, ...]], Demonstration] = {}
    for start in range(0, len(asked), BATCH):
        for demonstration in _encode(asked[start : start + BATCH], tokenizer, counting):
            identity = tuple(demonstration.prompt_ids), tuple(demonstration.token_ids)
            sizes = {"long_prompt": max_prompt_length, "long_response": max_response_length}
            lengths = dict(zip(sizes, map(len, identity), strict=True))
            reasons = [reason for reason, most in sizes.items() if lengths[reason] > most]
            reasons += ["duplicate"] if identity in kept else []
            if reasons:
                reason, num_tokens = reasons[0], lengths.get(reasons[0])
                told = f": {num_tokens:,} tokens" if num_tokens is not None else ""
                counting.leave_out(reason, demonstration.place + told)
            else:
                kept[identity] = demonstration
    return list(kept.values())


def _encode(
    asked: Sequence[_Asked], tokenizer: PreTrainedTokenizerBase, counting: _Counting
) -> Iterable[Demonstration]:
    """Tokens of a prompt are those that it has alone; the response's are what follows them in the whole text, or where its beginning
    joins a token of the prompt, those that it has alone."""
    prompts = [one.prompt for one in asked]
    before = [prompt_text(tokenizer, prompt) for prompt in prompts]
    said = [_after(text, one.response) for text, one in zip(before, asked, strict=True)]
    prompt_rows = encode_texts(tokenizer, prompts, before)
    whole_rows = encode_texts(tokenizer, prompts, [text + own for text, own in zip(before, said, strict=True)])
    alone_rows = tokenizer(said, add_special_tokens=False)["input_ids"] if said else []
    end = _end(tokenizer)
    for i, one in enumerate(asked):
        begun = begun_by(before[i])
        if begun and not answer_of(begun + said[i]).strip():
            counting.leave_out("open_thought", one.place)
            continue
        prompt_ids, whole = prompt_rows[i], whole_rows[i]
        is_prefix = whole[: len(prompt_ids)] == prompt_ids
        ids = whole[len(prompt_ids) :] if is_prefix else list(alone_rows[i])
        yield Demonstration(one.place, prompt_ids, ids if ids[-1:] == [end] else [*ids, end])


def _after(before: str, response: str) -> str:
    """The response as it follows its prompt, which may have begun a thought that stands in the response again."""
    begun = begun_by(before)
    mark, said = begun.strip(), response.lstrip()
    return said.removeprefix(mark).lstrip() if mark and said.startswith(mark) else response


def _end(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a response: what the chat template writes after an answer, or the end of sequence."""
    end = turn_end(tokenizer)
    if end is not None and end.token is not None:
        return end.token
    eos = tokenizer.eos_token_id
    assert isinstance(eos, int), "load_tokenizer refuses one without"
    return eos

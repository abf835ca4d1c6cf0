"""Checks the suites of old abilities: that their data are there, are what the configuration says, and fit the model's positions."""

from collections.abc import Iterator
from pathlib import Path

from transformers import AutoConfig, PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.measuring.retention import ChoiceSuite, GenerateSuite, RetentionSuite, TextSuite
from flows.doctor.checks import Finding
from grpo_train.measuring.retention.likelihood import encoded_choices, encoded_texts
from grpo_train.measuring.retention.suites import field_of, read_choices, read_problems, read_texts, refuse_moving
from reward_training.golds import refuse_failing_golds
from reward_training.rewards.outcome import IN_POOL
from reward_training.transformer.limits import position_limit
from reward_training.transformer.rendering import encode_prompt


def check_retention(
    config: Config, folder: Path, tokenizer: PreTrainedTokenizerBase, *, quick: bool = False
) -> Iterator[Finding]:
    """A finding for each suite; `quick` leaves out gold answers for checkers that need worker processes."""
    limit = position_limit(AutoConfig.from_pretrained(str(folder)))
    for name, suite in config.evaluation.retention.items():
        try:
            refuse_moving(suite, name)
            found, longest = _measured(suite, name, tokenizer, quick=quick)
        except ConfigError as error:
            yield Finding(f"retention {name}", "fail", str(error))
            continue
        if limit is not None and longest > limit.num_tokens:
            detail = f"the longest item has {longest} tokens, more than the model's {limit.field}={limit.num_tokens}"
            yield Finding(f"retention {name}", "fail", detail, _remedy(suite, name, longest, limit.num_tokens))
        else:
            yield Finding(f"retention {name}", "ok", f"{suite.kind}: {found}")


def _measured(suite: RetentionSuite, name: str, tokenizer: PreTrainedTokenizerBase, *, quick: bool) -> tuple[str, int]:
    """(what the suite measures in words, tokens of its longest item with a response)."""
    match suite:
        case TextSuite():
            lengths = [len(ids) for ids in encoded_texts(tokenizer, read_texts(suite, name), suite, name)]
            return f"{len(lengths):,} texts, {sum(lengths):,} tokens", max(lengths)
        case ChoiceSuite():
            items = read_choices(suite, name)
            responses = encoded_choices(tokenizer, items, suite, name)
            longest = max(len(one.prompt_ids) + len(one.token_ids) for one in responses)
            return f"{len(items):,} questions, {len(responses):,} choices", longest
        case GenerateSuite():
            problems = read_problems(suite, name, tokenizer)
            if not (quick and suite.checker.checker in IN_POOL):
                refuse_failing_golds([(suite.checker, problems)])
            longest = max(len(encode_prompt(tokenizer, problem)) for problem in problems)
            return f"{len(problems):,} problems", longest + suite.max_response_length


def _remedy(suite: RetentionSuite, name: str, longest: int, limit: int) -> str:
    if not isinstance(suite, GenerateSuite):
        return f"lower {field_of(name)}.max_tokens to {limit}"
    room = suite.max_response_length - (longest - limit)
    return f"lower {field_of(name)}.max_response_length to {room}" if room > 0 else "leave long problems out"

"""Checks what a cold start learns from: that the demonstrations are there, can be read and fit the lengths of training."""

from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.schema.config import Config
from flows.doctor.checks import Finding
from grpo_train.methods.demonstrations import DemonstrationsRead, read_demonstrations
from grpo_train.methods.given_samples import num_updates
from grpo_train.problems.splits import ProblemSet

NAME = "cold start"
LEFT_OUT = "demonstrations left out"
"""name of a finding that the stage tells too"""


def check_cold_start(config: Config, tokenizer: PreTrainedTokenizerBase, problems: ProblemSet) -> Iterator[Finding]:
    """A finding on the demonstrations, or on the problems of own samples; none without a cold start."""
    cold = config.cold_start
    if cold is None:
        return
    if cold.own_samples is not None:
        yield _check_samples(cold.own_samples.num_problems, cold.own_samples.group_size, problems.counts["train"])
    if cold.demonstrations is None:
        return
    try:
        read = read_demonstrations(
            cold.demonstrations,
            config.problems,
            tokenizer,
            [*problems.by_split["dev"], *problems.by_split["test"]],
            max_response_length=config.grpo_config.max_response_length,
        )
    except ConfigError as error:
        yield Finding(NAME, "fail", str(error))
    else:
        yield from _told(read, num_updates(cold.epochs * len(read.kept), cold.batch_size))


def _check_samples(wanted: int, group_size: int, num_train: int) -> Finding:
    if wanted > num_train:
        detail = f"cold_start.own_samples.num_problems={wanted} is more than the {num_train} training problems, all of which are asked"
        return Finding(NAME, "warn", detail, f"lower it to {num_train}, or add problems")
    return Finding(NAME, "ok", f"the best of {group_size} own responses to each of {wanted} problems")


def _told(read: DemonstrationsRead, num_updates: int) -> Iterator[Finding]:
    longest = max(len(one.token_ids) for one in read.kept)
    detail = f"{len(read.kept):,} demonstrations, the longest of {longest:,} tokens, in {num_updates:,} updates"
    yield Finding(NAME, "ok", detail)
    if read.left_out:
        yield Finding(LEFT_OUT, "warn", read.told, "docs/methods.md, Cold start, says when rows are")

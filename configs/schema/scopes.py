"""Which rewards score the problems of which sources: names of sources, and what is refused about them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from configs.errors import ConfigError
from configs.schema.problems import ProblemsConfig, ReasoningGymSource, Source
from configs.schema.rewards import ProcessRewardConfig, RewardConfig

LONGEST = 100
"""characters of a source's name that a metric's name keeps; MLflow takes 250 in all"""


def source_name(source: Source) -> str:
    """The name of a source: its own, or else the family or the path."""
    if source.source is not None:
        return source.source
    if isinstance(source, ReasoningGymSource):
        return source.family
    return source.path if isinstance(source.path, str) else ", ".join(source.path)


def source_names(problems: ProblemsConfig) -> dict[str, bool] | None:
    """{name of a source: whether its problems are trained on}; None where a column names them, so that only the data
    tell."""
    trained: dict[str, bool] = {}
    in_columns = False
    for source in problems.sources:
        split, column = (
            (None, None) if isinstance(source, ReasoningGymSource) else (source.split, source.columns.source)
        )
        if source.source is not None and column is not None:
            raise ConfigError(
                f"source={source.source!r} and columns.source={column!r} both name the source; give one of them"
            )
        in_columns |= column is not None
        trained[source_name(source)] = trained.get(source_name(source), False) or split in (None, "train")
    return None if in_columns else trained


def metric_part(source: str) -> str:
    """The source's name as a part of a metric's name, in which a path would be one of folders.

    >>> metric_part("data/math.jsonl"), metric_part("openai/gsm8k")
    ('data_math.jsonl', 'openai_gsm8k')
    """
    return re.sub(r"[^\w.-]+", "_", source).strip("_")[-LONGEST:]


def check_sources(
    rewards: Sequence[RewardConfig], measured: Sequence[RewardConfig], trained: Mapping[str, bool]
) -> None:
    """Refuse rewards that name no source, and sources that no reward scores.

    Args:
        rewards: those of training.
        measured: those of evaluation alone.
        trained: {name of each source: whether its problems are trained on}.

    Raises:
        ConfigError: such a reward or source, or two sources with the same name in metrics.
    """
    for reward in [*rewards, *measured]:
        for name in reward.sources or []:
            if name not in trained:
                raise ConfigError(f"reward {reward.name!r}: sources has {name!r}, {_no_source(name, list(trained))}")
    for name, is_trained in trained.items():
        scoring = [reward for reward in rewards if reward.weight] if is_trained else [*rewards, *measured]
        if not any(reward.applies_to(name) for reward in scoring):
            weight = " with a weight other than 0" if is_trained else ""
            raise ConfigError(
                f"no reward{weight} scores the problems of source {name!r}; add it to the sources of a reward, or drop the source"
            )
    doubles = Counter(map(metric_part, trained))
    if alike := [name for name in trained if doubles[metric_part(name)] > 1]:
        raise ConfigError(
            f"sources {alike} are all {metric_part(alike[0])!r} in metrics; tell them apart by problems.sources[].source"
        )


def _no_source(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"which is no source; sources are {known}" + (f"; did you mean {near[0]!r}?" if near else "")


def check_steps(rewards: Sequence[RewardConfig], measured: Sequence[RewardConfig]) -> None:
    """Refuse a process reward whose steps would be checked by a reward that does not score its sources."""
    every = {reward.name: reward for reward in [*rewards, *measured]}
    for reward in every.values():
        checker = every.get(reward.checked_by) if isinstance(reward, ProcessRewardConfig) else None
        if checker is not None and checker.sources is not None:
            beyond = set(reward.sources or ["all"]) - set(checker.sources)
            if beyond:
                raise ConfigError(
                    f"reward {reward.name!r} scores the sources {sorted(beyond)}, which {checker.name!r}, which checks its steps, "
                    f"does not; set its sources to some of {checker.sources}"
                )


def scope_of(rewards: Sequence[RewardConfig]) -> set[str] | None:
    """The sources that any of the rewards scores; None: all."""
    if any(reward.sources is None for reward in rewards):
        return None
    return {name for reward in rewards for name in reward.sources or []}

"""The block `compare`: methods that are compared on the same run, and the members that they make.

A file with this block is the configuration of one run, the base, and says what is tried on it. A member is a run of its
own: the base with one method's overrides, one factor on the learning rate and one seed. What the members share is what
no override may touch (`HELD_EQUAL`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import product
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from configs.schema.block import Block, Name, PositiveFloat, PositiveInt
from configs.schema.comparing.budget import BudgetConfig
from configs.schema.config import Config
from configs.schema.methods.method import is_offline
from configs.schema.operational import without_operational

HELD_EQUAL = (
    "run",
    "seed",
    "rounds",
    "policy.path",
    "policy.revision",
    "policy.wheel",
    "cold_start",
    "problems",
    "rewards",
    "grpo_config.max_response_length",
    "budget",
    "evaluation",
    "promotion",
    "regeneration.num_problems",
    "tracking",
    "alerts",
)
"""fields that no method may override; evaluation writes responses of `max_response_length` too, and the shards of
`num_problems` are cut from the training problems"""
LEARNING_RATES = ("method.learning_rate", "grpo_config.learning_rate")
"""where a member's learning rate may stand; the first that it has is multiplied by the factor"""

Values = dict[str, Any]


class CompareConfig(Block):
    """What is compared: each method with each factor and each seed is a run of its own."""

    methods: dict[Name, dict[str, Any]] = Field(
        description="overrides of the configuration by name of the method, nested as the configuration is; a list replaces the "
        "base's, and `{}` is the base itself. Two or more; the first method is what the others are compared with"
    )
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = Field(
        [0, 1, 2], description="values of `seed`; each method runs with each of them"
    )
    budget: BudgetConfig = Field(
        description="the most that each round's training of the policy spends, in every member"
    )
    learning_rate_factors: Annotated[list[PositiveFloat], Field(min_length=1)] = Field(
        [1.0],
        description="factors on each method's learning rate, for instance [0.33, 1, 3]; of several, each method is shown at the one "
        "that is best on dev",
    )
    num_rate_seeds: PositiveInt | None = Field(
        None,
        description="number of seeds, the first ones, with which all factors are tried; each method runs with the others at the factor "
        "that is best on dev with these. Default: all seeds",
    )

    @property
    def rate_seeds(self) -> list[int]:
        """The seeds with which all factors are tried."""
        return self.seeds[: self.num_rate_seeds]

    @model_validator(mode="after")
    def _rates_have_seeds(self) -> CompareConfig:
        if self.num_rate_seeds is not None and self.num_rate_seeds > len(self.seeds):
            raise ValueError(
                f"num_rate_seeds={self.num_rate_seeds} is more than the number of seeds, {len(self.seeds)}; lower it, or drop it to try all factors "
                "with all seeds"
            )
        if self.num_rate_seeds is not None and len(self.learning_rate_factors) == 1:
            raise ValueError("num_rate_seeds chooses between learning_rate_factors, of which there is one; drop it")
        return self

    @field_validator("seeds", "learning_rate_factors")
    @classmethod
    def _differ(cls, values: list[Any]) -> list[Any]:
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{twice[0]} stands more than once; each value makes runs of its own, so name it once")
        return values

    @field_validator("methods", mode="before")
    @classmethod
    def _are_named(cls, methods: Any) -> Any:
        if isinstance(methods, dict) and (odd := [name for name in methods if not isinstance(name, str)]):
            raise ValueError(
                f"a method's name is read as {odd[0]!r}, as YAML reads on, off, yes, no and numbers; quote it"
            )
        return methods

    @field_validator("methods")
    @classmethod
    def _are_several(cls, methods: dict[str, Values]) -> dict[str, Values]:
        if len(methods) < 2:
            raise ValueError(
                f"a comparison needs two methods or more, and this one has {len(methods)}; name others, of which `NAME: {{}}` is the base itself"
            )
        return methods

    @field_validator("learning_rate_factors")
    @classmethod
    def _have_names_of_their_own(cls, factors: list[float]) -> list[float]:
        named: dict[str, float] = {}
        for factor in factors:
            if (other := named.setdefault(f"{factor:g}", factor)) != factor:
                raise ValueError(f"{other} and {factor} would name their runs alike, by six digits; drop one of them")
        return factors

    @field_validator("methods")
    @classmethod
    def _leave_what_is_held_equal(cls, methods: dict[str, Values]) -> dict[str, Values]:
        for name, overrides in methods.items():
            if touched := [path for path in HELD_EQUAL if _has(overrides, path)]:
                raise ValueError(
                    f"method {name!r} overrides {touched[0]}, which all members share, or they could not be compared; "
                    "drop it there, or set it for all of them outside of `compare`"
                )
        return methods


class Member(Block):
    """One run of a comparison."""

    method: str
    factor: float
    """of the learning rate"""
    seed: int
    config: Config

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.run_name


class Comparison(Block):
    """A base configuration and what is compared on it."""

    name: Name
    base: Values
    """the configuration's values without the block `compare`"""
    compare: CompareConfig

    @model_validator(mode="after")
    def _said_once(self) -> Comparison:
        for field, block in (("budget", "budget"), ("seed", "seeds")):
            if self.base.get(field) is not None:
                raise ValueError(f"{field} stands beside compare.{block}, which is that of the members; drop it")
        return self

    def members(self, date: datetime.date | None = None) -> Iterator[Member]:
        """All members that there may be, methods outermost and seeds innermost; `date` is what chat templates get unless the base names
        a day.

        Raises:
            ValidationError: a method's overrides make no configuration.
        """
        for method in self.compare.methods:
            yield from self.members_of(method, date)

    def members_of(self, method: str, date: datetime.date | None = None) -> Iterator[Member]:
        """The members of one method."""
        for factor, seed in product(self.compare.learning_rate_factors, self.compare.seeds):
            yield self.member(method, factor, seed, date)

    def first_members(self, date: datetime.date | None = None) -> Iterator[Member]:
        """Those with which learning rates are chosen: all, unless there is `num_rate_seeds`."""
        for method, factor, seed in product(
            self.compare.methods, self.compare.learning_rate_factors, self.compare.rate_seeds
        ):
            yield self.member(method, factor, seed, date)

    def later_members(self, factors: Mapping[str, float], date: datetime.date | None = None) -> Iterator[Member]:
        """Those with the other seeds, of each method at its factor in `factors`."""
        others = self.compare.seeds[len(self.compare.rate_seeds) :]
        for method, seed in product(self.compare.methods, others):
            yield self.member(method, factors[method], seed, date)

    def as_many(self) -> list[Member]:
        """As many members as there will be; those of later seeds are at the first factor, as long as the best is not known."""
        first_factor = dict.fromkeys(self.compare.methods, self.compare.learning_rate_factors[0])
        return [*self.first_members(), *self.later_members(first_factor)]

    def member(self, method: str, factor: float, seed: int, date: datetime.date | None = None) -> Member:
        """The member of a method with a learning rate `factor` times its own.

        Raises:
            ValidationError: the method's overrides make no configuration.
        """
        values = merged(self.base, self.compare.methods[method])
        run = dict(self.base.get("run") or {})
        run["name"] = f"{self.name}-{method}{'' if factor == 1 else f'-lr{factor:g}'}-s{seed}".replace("+", "")
        run["date"] = run.get("date") or date
        values |= {"run": run, "seed": seed}
        config = Config.model_validate(values)
        if not is_offline(config.method):  # which pays for the samples that it takes, whatever the budget
            values["budget"] = self.compare.budget.model_dump()
            config = Config.model_validate(values)
        if factor != 1:
            config = Config.model_validate(_with_learning_rate(config, values, factor))
        return Member(method=method, factor=factor, seed=seed, config=config)

    def equal_methods(self) -> list[str]:
        """The first two methods that ask for the same; empty if all differ."""
        seed, factor = self.compare.seeds[0], self.compare.learning_rate_factors[0]
        seen: dict[str, Values] = {}
        for method in self.compare.methods:
            asked = without_operational(self.member(method, factor, seed).config)
            if equal := [other for other, values in seen.items() if values == asked]:
                return [equal[0], method]
            seen[method] = asked
        return []


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> Values:
    """`base` with the overrides: mappings are merged at any depth, and every other value replaces the base's.

    >>> merged({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}, "d": None})
    {'a': {'b': 1, 'c': [3]}, 'd': None}
    """
    values = deepcopy(dict(base))
    for key, value in overrides.items():
        below = values.get(key)
        values[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else deepcopy(value)
    return values


def learning_rate_of(config: Config) -> tuple[str, float]:
    """The dotted name and value of the learning rate that the factors of a comparison multiply."""
    dumped = config.model_dump()
    for path in LEARNING_RATES:
        block, _, field = path.partition(".")
        if (rate := (dumped.get(block) or {}).get(field)) is not None:
            return path, float(rate)
    raise AssertionError("grpo_config has a learning rate")


def _with_learning_rate(config: Config, values: Values, factor: float) -> Values:
    """The values with the member's learning rate multiplied."""
    path, rate = learning_rate_of(config)
    block, _, field = path.partition(".")
    return merged(values, {block: {field: rate * factor}})


def _has(values: Mapping[str, Any], path: str) -> bool:
    """Whether nested values have something at a dotted path, or something else than a mapping on the way there."""
    key, _, rest = path.partition(".")
    if key not in values:
        return False
    below = values[key]
    return _has(below, rest) if rest and isinstance(below, dict) else True

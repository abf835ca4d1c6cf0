"""Makes data sets of reasoning-gym's families from options as YAML gives them, for generating and for scoring.

Importing the library takes over a second, so that is done at the first use.
"""

from __future__ import annotations

import random
import sys
import traceback
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from configs.errors import ConfigError

GIVEN_BY_SOURCE = {"size", "seed"}


def family_dataset(family: str, options: Mapping[str, Any], **given: int) -> Any:
    """The family's data set; `given` are its `seed` and its `size`.

    Raises:
        ConfigError: there is no such family, or it refuses the options.
    """
    dataset_type, config_type = _types_of(family)
    converted = _converted_options(family, options)
    try:
        config = config_type(**converted, **given)
        if hasattr(config, "validate"):
            config.validate()
        return dataset_type(config=config)
    except (AssertionError, ValueError, TypeError, LookupError, OSError) as error:
        remedy = COMPOSITE if family == "composite" and not options else ""
        raise ConfigError(f"family {family!r} refuses options {dict(options)}: {reason(error)}{remedy}") from error


COMPOSITE = "; write options: {datasets: [{name: chain_sum, weight: 1, config: {min_terms: 2}}]}"


def seed_generators(seed: int) -> None:
    """Seed what a family may draw from besides the generator that its own seed makes: Python, numpy and sympy."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - it is the global state that a library may draw from
    if (sympy_random := sys.modules.get("sympy.core.random")) is not None:
        sympy_random.seed(seed)


def reason(error: Exception) -> str:
    """What an exception says; where it says nothing, the line that raised it."""
    if isinstance(error, AssertionError) and not str(error):
        return traceback.extract_tb(error.__traceback__)[-1].line or "AssertionError"
    return str(error) if isinstance(error, AssertionError | ValueError) else f"{type(error).__name__}: {error}"


def _types_of(family: str) -> tuple[Any, Any]:
    """The class of the family's data set and that of its options."""
    from reasoning_gym.factory import DATASETS

    if family not in DATASETS:
        near = get_close_matches(family, DATASETS, n=3) or sorted(DATASETS)[:3]
        raise ConfigError(f"reasoning-gym has no family {family!r}; did you mean {', '.join(near)}?")
    dataset_type, config_type = DATASETS[family]
    return dataset_type, config_type


def _converted_options(family: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the types that the family declares: a list becomes a tuple, a name a member of an enumeration.

    Raises:
        ConfigError: the family has no such option, or the value does not fit its type.
    """
    _, config_type = _types_of(family)
    valid = sorted({option.name for option in fields(config_type)} - GIVEN_BY_SOURCE)
    if unknown := sorted(set(options) - set(valid)):
        raise ConfigError(f"family {family!r} has no options {unknown}; its options are {', '.join(valid) or 'none'}")
    hints = _hints(config_type)
    converted = {}
    for name, value in options.items():
        try:
            converted[name] = _converted(hints[name], value)
        except ValidationError as error:
            said = "; ".join(_shown(name, detail) for detail in error.errors(include_url=False))
            raise ConfigError(f"family {family!r} refuses options {dict(options)}: {said}") from error
    return converted


def _hints(config_type: Any) -> dict[str, Any]:
    """The types of the options. Where the default does not fit the type that the library declares, it is the default's."""
    hints = get_type_hints(config_type)
    for option in fields(config_type):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if default is not None and default is not MISSING and not _fits(hints[option.name], default):
            hints[option.name] = type(default)
    return hints


def _fits(hint: Any, value: Any) -> bool:
    try:
        _converted(hint, value)
    except ValidationError:
        return False
    return True


def _shown(name: str, detail: Any) -> str:
    place = ".".join([name, *map(str, detail["loc"])])
    return f"{place}={detail['input']!r}: {detail['msg']}"


def _converted(hint: Any, value: Any) -> Any:
    """The value in the type of the hint; an integer stays one where the family asks for a number.

    Raises:
        ValidationError: it does not fit.
    """
    if hint is float and type(value) is int:
        return value
    return TypeAdapter[Any](_readable(hint)).validate_python(_prepared(hint, value))


def _readable(hint: Any) -> Any:
    """The hint, in which `tuple[str]` stands for a tuple of any length: the library writes so."""
    is_single = get_origin(hint) is tuple and len(get_args(hint)) == 1
    return types.GenericAlias(tuple, (*get_args(hint), ...)) if is_single else hint


def _prepared(hint: Any, value: Any) -> Any:
    """The value with names of an enumeration's members as members, and with the members of a composite read themselves."""
    if get_origin(hint) in (list, tuple) and isinstance(value, list | tuple):
        return [_prepared(get_args(hint)[0], item) for item in value]
    if isinstance(hint, type) and issubclass(hint, Enum) and isinstance(value, str):
        return next((member for member in hint if member.name.casefold() == value.casefold()), value)
    if is_dataclass(hint) and isinstance(value, Mapping) and {"name", "config"} <= {f.name for f in fields(hint)}:
        spec = {"weight": 1.0, "config": {}, **value}
        is_family = isinstance(spec.get("name"), str) and isinstance(spec["config"], Mapping)
        return spec | ({"config": _converted_options(spec["name"], spec["config"])} if is_family else {})
    return value

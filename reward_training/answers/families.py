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
        except ConfigError:
            raise  # of a member of a composite
        except ValueError as error:
            raise ConfigError(f"family {family!r} refuses options {dict(options)}: {_said(name, error)}") from error
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
    except ValueError:
        return False
    return True


def _said(name: str, error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return f"{name} {error}"
    details = error.errors(include_url=False)
    return "; ".join(f"{'.'.join([name, *map(str, d['loc'])])}={d['input']!r}: {d['msg']}" for d in details)


def _converted(hint: Any, value: Any) -> Any:
    """The value in the type of the hint; an integer stays one where the family asks for a number.

    Raises:
        ValueError: it does not fit.
    """
    if hint is float and type(value) is int:
        return value
    return TypeAdapter[Any](_readable(hint)).validate_python(_prepared(hint, value))


def _readable(hint: Any) -> Any:
    """The hint, in which `tuple[str]` stands for a tuple of any length: the library writes so."""
    is_single = get_origin(hint) is tuple and len(get_args(hint)) == 1
    return types.GenericAlias(tuple, (*get_args(hint), ...)) if is_single else hint


def _prepared(hint: Any, value: Any) -> Any:
    """The value with names of an enumeration's members as members, and with the families of a composite read as such.

    Raises:
        ValueError: it names fields that there are not.
    """
    if get_origin(hint) in (list, tuple) and isinstance(value, list | tuple):
        return [_prepared(get_args(hint)[0], item) for item in value]
    if isinstance(hint, type) and issubclass(hint, Enum) and isinstance(value, str):
        return next((member for member in hint if member.name.casefold() == value.casefold()), value)
    if is_dataclass(hint) and isinstance(value, Mapping):
        valid = [option.name for option in fields(hint)]
        if unknown := sorted(set(value) - set(valid)):
            raise ValueError(f"has no {', '.join(unknown)}; it has {', '.join(valid)}")
        return _with_family(value) if valid == ["name", "weight", "config"] else value
    return value


def _with_family(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """A member of a composite, with the options of its family converted; without a weight it has 1."""
    spec = {"weight": 1.0, "config": {}, **spec}
    if not (isinstance(spec.get("name"), str) and isinstance(spec["config"], Mapping)):
        return spec
    return {**spec, "config": _converted_options(spec["name"], spec["config"])}

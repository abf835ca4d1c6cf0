"""The block `compare`: what members it makes, and what it refuses."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

import configs
from configs.errors import ConfigError
from configs.reader import load_comparison, load_config
from configs.schema.comparing.compare import Comparison, learning_rate_of, merged
from tests.paths import TINY

METHODS: dict[str, Any] = {
    "grpo": {},
    "rloo": {"combination": {"baseline": "leave_one_out", "scale": "none"}},
    "slow": {"grpo_config": {"learning_rate": 1e-4}},
}
COMPARE: dict[str, Any] = {"methods": METHODS, "seeds": [4, 5], "budget": {"generated_tokens": 500}}


def load(tmp_path: Path, compare: dict[str, Any] | None = None, *overrides: str, **blocks: Any) -> Comparison:
    """The comparison on configs/tiny.yaml."""
    path = tmp_path / "mine.yaml"
    base = yaml.safe_load(TINY.read_text())
    path.write_text(yaml.safe_dump(base | blocks | {"compare": COMPARE if compare is None else compare}))
    return load_comparison(path, list(overrides))


def test_members_are_every_method_with_every_seed_under_the_budget(tmp_path: Path) -> None:
    members = list(load(tmp_path).members())
    assert [member.name for member in members] == [
        f"mine-{method}-s{seed}" for method in ("grpo", "rloo", "slow") for seed in (4, 5)
    ]
    assert [member.config.seed for member in members] == [4, 5] * 3
    assert {member.config.budget.generated_tokens for member in members if member.config.budget} == {500}
    assert members[2].config.combination.baseline == "leave_one_out"
    assert members[0].config.combination.baseline == "mean"


def test_a_method_without_overrides_is_the_base(tmp_path: Path) -> None:
    member = next(load(tmp_path).members())
    run, budget = {"name": "mine-grpo-s4"}, {"generated_tokens": 500}
    base = yaml.safe_load(TINY.read_text()) | {"seed": 4, "run": run, "budget": budget}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    assert member.config == load_config(tmp_path / "base.yaml")


def test_factors_multiply_each_methods_own_learning_rate(tmp_path: Path) -> None:
    """tiny.yaml has 1e-3 and the method `slow` 1e-4."""
    comparison = load(tmp_path, COMPARE | {"learning_rate_factors": [0.5, 1, 3], "seeds": [0]})
    rates = {member.name: learning_rate_of(member.config) for member in comparison.members()}
    assert rates["mine-grpo-lr0.5-s0"] == ("grpo_config.learning_rate", 5e-4)
    assert rates["mine-grpo-s0"] == ("grpo_config.learning_rate", 1e-3)
    assert rates["mine-slow-lr3-s0"] == ("grpo_config.learning_rate", pytest.approx(3e-4))


def test_a_large_factor_names_a_run(tmp_path: Path) -> None:
    names = [member.name for member in load(tmp_path, COMPARE | {"learning_rate_factors": [1e6]}).members()]
    assert names[0].endswith("-lr1e06-s4")


def test_all_members_have_the_day_on_which_the_comparison_began(tmp_path: Path) -> None:
    day = datetime.date(2026, 3, 1)
    assert {member.config.run.date for member in load(tmp_path).members(day)} == {day}
    dated = load(tmp_path, None, "run.date=2026-02-02")
    assert {member.config.run.date for member in dated.members(day)} == {datetime.date(2026, 2, 2)}


def test_overrides_are_merged_and_lists_replaced() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2], "f": {"g": 1}}
    assert merged(base, {"a": {"c": {"h": 3}}, "e": [9], "f": None}) == {
        "a": {"b": 1, "c": {"d": 2, "h": 3}},
        "e": [9],
        "f": None,
    }
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2], "f": {"g": 1}}


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"problems": {"dev": 9}}, "problems"),
        ({"rewards": []}, "rewards"),
        ({"evaluation": {"num_samples": 1}}, "evaluation"),
        ({"promotion": {"rule": "better"}}, "promotion"),
        ({"regeneration": {"num_problems": 9}}, r"regeneration\.num_problems"),
        ({"regeneration": None}, r"regeneration\.num_problems"),
        ({"rounds": 3}, "rounds"),
        ({"budget": {"generated_tokens": 9}}, "budget"),
        ({"policy": {"path": "other"}}, "policy.path"),
        ({"policy": "other"}, "policy.path"),
        ({"cold_start": {"own_samples": {}}}, "cold_start"),
        ({"seed": 3}, "seed"),
        ({"run": {"name": "x"}}, "run"),
        ({"grpo_config": {"max_response_length": 8}}, "grpo_config.max_response_length"),
        ({"grpo_config": None}, "grpo_config.max_response_length"),
    ],
)
def test_what_members_share_is_not_overridden(tmp_path: Path, overrides: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"method 'other' overrides {field}, which all members share.*drop it there"):
        load(tmp_path, COMPARE | {"methods": {"grpo": {}, "other": overrides}})


DPO = {"method": {"kind": "dpo"}, "regeneration": {"group_size": 12}, "grpo_config": {"refill": 0}}
ALONE: dict[str, Any] = {"rewards": [{"name": "digits", "kind": "format", "pattern": "[0-9]"}], "reward_models": {}}


def test_a_method_that_pays_for_its_samples_may_take_more_of_them(tmp_path: Path) -> None:
    """To the same problems: 12 responses where the base has 4."""
    blocks = ALONE | {"evaluation": {"checker": "digits"}}
    members = list(load(tmp_path, COMPARE | {"methods": {"grpo": {}, "dpo": DPO}}, **blocks).members())
    sampled = {member.method: member.config.regeneration for member in members}
    assert (sampled["grpo"].group_size, sampled["dpo"].group_size) == (4, 12)
    assert sampled["grpo"].num_problems == sampled["dpo"].num_problems == 40


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (DPO, "on whose samples reward model 'taste' is trained.*drop it there"),
        (
            {"regeneration": {"group_size": 12}},
            "from whose samples the policy does not learn with method.kind=grpo.*drop it there",
        ),
    ],
)
def test_samples_that_are_not_paid_for_or_that_reward_models_learn_from_are_the_same_for_all(
    tmp_path: Path, method: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"method 'other' overrides regeneration, {message}"):
        load(tmp_path, COMPARE | {"methods": {"grpo": {}, "other": method}})


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"methods": {"grpo": {}}}, "needs two methods or more, and this one has 1"),
        ({"methods": {"a": {}, "b": {"grpo_config": {"learning_rate": 1e-3}}}}, "methods 'a' and 'b' ask for the same"),
        ({"methods": {"a": {}, "b": {"grpo_config": {"save_steps": 9}}}}, "methods 'a' and 'b' ask for the same"),
        (
            {"methods": {"a": {}, "b": {"grpo_config": {"loss": "none"}}}},
            r"method 'b' does not fit:\n  grpo_config\.loss",
        ),
        ({"methods": {"a": {}, "b": {"grpo": {}}}}, r"method 'b' does not fit:\n  grpo: unknown key"),
        ({"methods": {"a": {}, "b" * 64: {"combination": {"scale": "none"}}}}, r"run\.name"),
        ({"seeds": [1, 1]}, "1 stands more than once"),
        ({"seeds": []}, "seeds"),
        ({"learning_rate_factors": [1, 1.0]}, "stands more than once"),
        ({"learning_rate_factors": [0]}, "greater than 0"),
        ({"learning_rate_factors": [0.3333333, 0.3333334]}, "0.3333333 and 0.3333334 would name their runs alike"),
        ({"learning_rate_factors": [1, 1.0000001]}, "would name their runs alike, by six digits; drop one"),
        ({"methods": {"grpo": {}, False: {}}}, "a method's name is read as False, as YAML reads on, off, .*; quote it"),
        ({"methods": {}}, "needs two methods or more, and this one has 0; name others"),
        ({"budget": {"generated_tokens": 15}}, "less than one step"),
        ({"budget": {}}, "exactly one of them"),
        (
            {"methods": {"grpo": None, "rloo": {}}},
            r"methods\.grpo: is a block: write its fields below it.*or \{\} for none",
        ),
        ({"methods": ["grpo", "rloo"]}, r"methods: is a block"),
        (
            {"num_rate_seeds": 9, "learning_rate_factors": [1, 3]},
            "num_rate_seeds=9 is more than the number of seeds, .; lower it",
        ),
        ({"num_rate_seeds": 1}, "num_rate_seeds chooses between learning_rate_factors, of which there is one; drop it"),
    ],
)
def test_comparisons_that_tell_nothing_are_refused(tmp_path: Path, compare: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, COMPARE | compare)


def test_a_comparison_needs_a_budget(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compare\.budget: missing"):
        load(tmp_path, {"methods": METHODS})


@pytest.mark.parametrize("blocks", [{"seed": 3}, {"budget": {"generated_tokens": 900}}])
def test_seed_and_budget_are_said_once(tmp_path: Path, blocks: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(blocks))} stands beside compare\."):
        load(tmp_path, None, **blocks)


def test_set_changes_base_and_comparison(tmp_path: Path) -> None:
    comparison = load(tmp_path, None, "compare.seeds=[7]", "grpo_config.group_size=8", "run.name=other")
    members = list(comparison.members())
    assert [member.name for member in members] == ["other-grpo-s7", "other-rloo-s7", "other-slow-s7"]
    assert {member.config.grpo_config.group_size for member in members} == {8}


def test_a_run_of_a_comparison_says_which_command_it_is_for(tmp_path: Path) -> None:
    load(tmp_path)
    with pytest.raises(ConfigError, match=r"has a block `compare`.*regroup compare .*mine\.yaml"):
        load_config(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"has no block `compare`.*configs/compare\.yaml is an example"):
        load_comparison(TINY)


def test_credentials_in_overrides_are_refused(tmp_path: Path) -> None:
    vllm = {"grpo_config": {"vllm": {"urls": ["http://me:secret@host:8000"]}}}
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, COMPARE | {"methods": {"grpo": {}, "served": vllm}})
    assert "secret" not in str(raised.value)


def test_the_preset_compares_five_methods_with_two_seeds() -> None:
    comparison = load_comparison(Path(configs.__file__).parent / "compare.yaml")
    assert len(list(comparison.members())) == 10

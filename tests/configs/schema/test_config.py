import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import ConfigError
from configs.reader import PATTERNS, load_config, parse_stored_config
from configs.schema.comparing.compare import Comparison
from configs.schema.config import Config
from configs.schema.rewards import OutcomeRewardConfig
from tests.paths import TINY

MINIMAL: dict[str, Any] = {
    "policy": {"path": "builtin:tiny"},
    "problems": {"sources": [{"kind": "reasoning_gym", "family": "chain_sum", "size": 9}]},
    "rewards": [{"name": "right", "kind": "outcome"}],
}


def _load(tmp_path: Path, data: dict[str, Any] | None = None, *overrides: str) -> Config:
    path = tmp_path / "my-run.yaml"
    path.write_text(yaml.safe_dump(MINIMAL if data is None else data))
    return load_config(path, list(overrides))


def test_run_is_named_after_the_file_unless_it_has_a_name(tmp_path: Path) -> None:
    assert _load(tmp_path).run.name == "my-run"
    assert _load(tmp_path, MINIMAL | {"run": {"name": "other"}}).run.name == "other"


@pytest.mark.parametrize(
    "name", ["champion.json", "Champion.JSON", "a.lock", "x.tmp", "notes.txt", "run.yaml", "p.jsonl"]
)
def test_a_run_is_not_named_as_a_file(tmp_path: Path, name: str) -> None:
    """`--run champion.json` made a folder where the champion's file has to be, and nothing could be done there again."""
    stem = name.rpartition(".")[0]
    with pytest.raises(ConfigError, match=rf"run\.name: '{name}' could be a file .* for instance '{stem}'"):
        _load(tmp_path, None, f"run.name={name}")


@pytest.mark.parametrize("name", ["qwen2.5", "v1.2.3", "json", "run.final", "a.json.b", "3"])
def test_a_run_may_have_a_dot_in_its_name(tmp_path: Path, name: str) -> None:
    assert _load(tmp_path, None, f"run.name={json.dumps(name)}").run_name == name


def test_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    grpo = _load(tmp_path).grpo_config
    assert (grpo.group_size, grpo.clip_range, grpo.learning_rate, grpo.batch_size) == (8, 0.2, 1e-6, 512)
    assert (grpo.kl_coefficient, grpo.max_response_length, grpo.temperature, grpo.epochs) == (0.0, 1024, 0.8, 1.0)
    assert grpo.max_grad_norm == 1.0


def test_configuration_survives_json(tmp_path: Path) -> None:
    config = _load(tmp_path)
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert Config.model_validate(config.model_dump(mode="json")) == config


def test_configuration_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        _load(tmp_path).seed = 1


# ---- --set ----------------------------------------------------------------------------------------------------------


def test_set_reaches_nested_fields_lists_and_absent_blocks(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        None,
        "grpo_config.group_size=4",
        "rewards.0.name=exact",
        "problems.sources.0.options={min_terms: 2}",
        "seed=3",
        "run.name=ab",
    )
    assert config.grpo_config.group_size == 4
    assert config.rewards[0].name == "exact"
    assert config.problems.sources[0].model_dump()["options"] == {"min_terms": 2}
    assert (config.seed, config.run.name) == (3, "ab")


def test_value_of_set_may_hold_an_equals_sign(tmp_path: Path) -> None:
    assert _load(tmp_path, None, "problems.template='{question} ='").problems.template == "{question} ="


def test_set_replaces_an_element_of_a_list(tmp_path: Path) -> None:
    config = _load(tmp_path, None, "rewards.0={name: whole, kind: outcome, extract: whole}")
    assert config.rewards == [OutcomeRewardConfig(name="whole", extract="whole")]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "is not key=value, for instance --set grpo_config.group_size=4"),
        ("=3", "is not key=value"),
        ("seed=[", "the value is no YAML"),
        (
            "run.date=2026-13-01",
            "--set 'run.date=2026-13-01': the value is no YAML: '2026-13-01' is no timestamp: month",
        ),
        ("run.date=2026-01-01 25:00:00", "'2026-01-01 25:00:00' is no timestamp: hour must be in 0..23"),
        ("seed=0x_", "'0x_' is no int"),
        ("seed=!!float x", "'x' is no float"),
        ("run.keep=!!bool x", "'x' is no bool"),
        ("seed=" + "[" * 5000, "nested in more than 50"),
        ("rewards.1.name=x", "'1' is no position in a list of 1; count from 0"),
        ("rewards.first.name=x", "'first' is no position in a list of 1"),
        ("rewards.9=x", "'9' is no position"),
        ("policy.path.x=1", "policy.path is 'builtin:tiny', which has no field 'x'"),
        ("policy.path.x.y=1", "'builtin:tiny' has no field 'x'"),
        ("grpo_config.group=4", "grpo_config.group: unknown key; check its spelling in docs/configuration.md"),
    ],
)
def test_faulty_set_names_the_remedy(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, None, override)
    assert message in str(caught.value)


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rounds: [1\n", "is no YAML"),
        (b"\x00\xff\xfe", "is not text (byte 1 is no UTF-8); name a YAML file"),
        (b"rounds: \x00\n", "is no YAML"),
        (
            b"run:\n  date: 2026-02-30\n",
            "'2026-02-30' is no timestamp: day is out of range for month; mend it, or quote it",
        ),
        (b"run:\n  date: 2026-02-30\n", "line 2, column 9"),
        (b"- a\n", "holds list, not a mapping; see configs/tiny.yaml"),
        (b"", "holds NoneType, not a mapping"),
        (b"run: 3\n", "run: "),
    ],
)
def test_file_that_is_no_configuration_names_the_remedy(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; presets are in configs/"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder; name a YAML file"):
        load_config(tmp_path)


# ---- fields ---------------------------------------------------------------------------------------------------------


def _with(**blocks: Any) -> dict[str, Any]:
    return MINIMAL | blocks


MODEL_REWARD = {"name": "q", "kind": "reward_model", "model": "quality"}
STEPS = {"name": "steps", "kind": "process", "reduce": "per_step"}
PEOPLE = {"kind": "trained", "labeler": {"kind": "people", "otherwise": {"kind": "outcome", "reward": "rigth"}}}
TRAINED = {"kind": "trained", "labeler": {"kind": "outcome", "reward": "right"}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "policy: missing; it has no default"),
        (_with(rounds=0), "rounds: Input should be greater than or equal to 1 (got 0)"),
        (_with(sed=1), "sed: unknown key"),
        (_with(seed="one"), "seed: Input should be a valid integer"),
        (_with(rewards=[]), "rewards: is empty, and needs 1 or more"),
        (_with(policy={"path": "x", "wheel": {"package": "p", "version": "1", "sha256": "ab"}}), "policy.wheel.sha256"),
        (_with(problems=MINIMAL["problems"] | {"template": "Q:"}), "drops the question; write {question}"),
        (_with(problems=MINIMAL["problems"] | {"templates": ["{question}", "Q:"]}), "'Q:' drops the question"),
        (_with(curriculum={"kind": "hard"}), "curriculum: kind='hard' is none of 'none', 'threshold', 'band'"),
        (_with(curriculum={"kind": "band", "low": 0.5, "high": 0.5}), "low=0.5 is not under high=0.5"),
        (
            _with(
                curriculum={"kind": "threshold", "difficulty": "policy"},
                evaluation={"checker": "judge", "rewards": [{"name": "judge", "kind": "outcome"}]},
            ),
            "the checker 'judge' is none of `rewards`; add it there",
        ),
        (_with(grpo_config={"refill": -1}), "grpo_config.refill: Input should be greater than or equal to 0 (got -1)"),
        (_with(problems={"sources": [{"kind": "csv", "path": "x"}]}), "problems.sources.0: "),
        (_with(rewards=[{"name": "f", "kind": "format", "pattern": "(("}]), "is no regular expression"),
        (
            _with(rewards=[{"name": "l", "kind": "length", "target": 8, "limit": 8}]),
            "limit=8 is not over target=8; raise limit",
        ),
        (_with(rewards=[{"name": "p", "kind": "python", "function": "mine"}]), "rewards.0.python.function"),
        (
            _with(rewards=[{"name": "x", "kind": "nice"}]),
            "is none of 'outcome', 'format'",
        ),
        (_with(rewards=[{"name": "a b", "kind": "outcome"}]), "rewards.0.outcome.name"),
        (_with(rewards=[{"name": "r", "kind": "outcome", "weight": float("nan")}]), "Input should be a finite number"),
        (_with(rewards=MINIMAL["rewards"] * 2), "reward names ['right'] stand more than once; names are unique"),
        (
            _with(rewards=[*MINIMAL["rewards"], MODEL_REWARD]),
            "rewards name reward models ['quality'], but reward_models has []",
        ),
        (_with(reward_models={"quality": TRAINED}), "reward_models ['quality'] are used by no reward; add a reward"),
        (
            _with(
                rewards=[*MINIMAL["rewards"], MODEL_REWARD],
                reward_models={"quality": {"kind": "trained", "labeler": {"kind": "outcome", "reward": "rigth"}}},
            ),
            "labeler.reward='rigth' is no outcome reward; outcome rewards are ['right']",
        ),
        (
            _with(rewards=[*MINIMAL["rewards"], STEPS, STEPS | {"name": "more"}]),
            "rewards ['steps', 'more'] are all kept per step; one can be, so reduce the others by mean or min",
        ),
        (
            _with(rewards=[*MINIMAL["rewards"], STEPS], grpo_config={"loss": "gspo"}),
            "'steps' gives each token an advantage of its own, but grpo_config.loss=gspo has one ratio a response",
        ),
        (
            _with(rewards=[*MINIMAL["rewards"], STEPS | {"floor": {"below": 0.5, "cap": 0.1}}]),
            "reward 'steps' is kept per step and part of no sum that its floor could cap",
        ),
        (_with(promotion={"people": {"wait_minutes": float("inf")}}), "wait_minutes: Input should be"),
        (
            _with(promotion={"people": {"num_problems": 9}}),
            "promotion.people.num_problems=9 is more than the evaluation.num_examples=8 problems whose texts are kept",
        ),
        (
            _with(rewards=[*MINIMAL["rewards"], MODEL_REWARD], reward_models={"quality": PEOPLE}),
            "labeler.otherwise.reward='rigth' is no outcome reward; outcome rewards are ['right']",
        ),
        (_with(rewards=[{"name": "f", "kind": "format", "pattern": "x"}]), "evaluation.checker is needed"),
        (_with(evaluation={"checker": "none"}), "evaluation.checker='none' is no reward; rewards are ['right']"),
        (
            _with(grpo_config={"group_size": 1}),
            "group_size=1 gives every completion zero advantage; use group_size >= 2",
        ),
        (
            _with(grpo_config={"group_size": 6, "batch_size": 20}),
            "batch_size=20 is no multiple of group_size=6; use 18",
        ),
        (_with(grpo_config={"temperature": 0}), "grpo_config.temperature: Input should be greater than 0 (got 0)"),
        (_with(watch=[{"metric": "policy/entropy"}]), "needs exactly one of `above` and `below`"),
        (_with(watch=[{"metric": "m", "above": 1, "below": 0}]), "needs exactly one of `above` and `below`"),
        (_with(run={"name": "../x"}), "run.name: a name has up to 64 letters, digits, dots, dashes and underscores"),
    ],
)
def test_faulty_field_is_named_with_the_remedy(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, data)
    assert message in str(caught.value)


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        schema = list(schema.values())
    if isinstance(schema, list):
        for child in schema:
            yield from _patterns(child)


def test_every_pattern_of_a_field_has_words() -> None:
    schemas = [Config.model_json_schema(), Comparison.model_json_schema()]
    assert set(_patterns(schemas)) == set(PATTERNS)


def test_every_faulty_field_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, _with(rounds=0, sed=1, grpo_config={"group_size": 1}))
    assert len(str(caught.value).splitlines()) == 4  # the file, then a line a field


def test_checker_is_the_named_reward_or_the_first_outcome_reward(tmp_path: Path) -> None:
    other = {"name": "tagged", "kind": "outcome", "extract": "tag"}
    assert _load(tmp_path, _with(evaluation={"rewards": [other]})).checkers == ["right"]
    assert _load(tmp_path, _with(evaluation={"rewards": [other], "checker": "tagged"})).checkers == ["tagged"]


def test_a_run_of_another_version_is_refused_with_the_field_and_a_remedy():
    """A field that a later version dropped ended `regroup sample` with a traceback."""
    data = load_config(TINY).model_dump(mode="json") | {"dropped_field": 1}
    with pytest.raises(ConfigError, match=r"(?s)'old'.*dropped_field: unknown key.*--run NEWNAME"):
        parse_stored_config(data, "old")


# ---- template variables ---------------------------------------------------------------------------------------------


def test_template_variables_keep_their_types_and_dates_are_texts(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        None,
        "problems.template_variables={enable_thinking: false, effort: low, budget: 3, share: 0.5, tools: [a], day: 2024-02-29}",
        "run.date=2024-07-26",
    )
    assert config.problems.template_variables == {
        "enable_thinking": False,
        "effort": "low",
        "budget": 3,
        "share": 0.5,
        "tools": ["a"],
        "day": "2024-02-29",
    }
    assert Config.model_validate_json(config.model_dump_json()) == config
    assert str(config.template_settings.date) == "2024-07-26"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            '{thinking: "false"}',
            "thinking='false' is a text, which templates take for true; write false without quotes",
        ),
        ('{thinking: "None"}', "thinking='None' is a text"),
        ("{enable-thinking: false}", "'enable-thinking' is no name of a variable"),
    ],
)
def test_template_variables_of_a_wrong_kind_are_refused(tmp_path: Path, variables: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"problems.template_variables: {message}"):
        _load(tmp_path, None, f"problems.template_variables={variables}")


def test_ranks_split_a_policy_only_where_a_server_samples_and_each_has_a_prompt(tmp_path: Path) -> None:
    ranks = {"kind": "torchrun", "num_processes": 2, "shard": True}
    grpo = {"group_size": 2, "batch_size": 4}
    sharded = MINIMAL | {"launcher": ranks, "grpo_config": grpo}
    assert _load(tmp_path, sharded, "grpo_config.vllm={}").launcher.shard
    with pytest.raises(
        ConfigError, match=r"launcher\.shard=true leaves no rank .* \(grpo_config\.vllm\), or use shard=false"
    ):
        _load(tmp_path, sharded)
    with pytest.raises(ConfigError, match="shard=true needs kind torchrun or accelerate, not process"):
        _load(tmp_path, sharded, "grpo_config.vllm={}", "launcher.kind=process", "launcher.num_processes=1")
    with pytest.raises(ConfigError, match=r"num_processes=3 ranks share the 2 prompts of a step .* 1 would have none"):
        _load(tmp_path, sharded, "grpo_config.vllm={}", "launcher.num_processes=3")


def test_the_address_of_a_server_is_that_of_no_endpoint(tmp_path: Path) -> None:
    assert _load(tmp_path, None, "grpo_config.vllm={urls: ['http://gate/one/']}").grpo_config.vllm is not None
    with pytest.raises(
        ConfigError, match=r"http://gate/one/v1/ ends with the path of an endpoint; write http://gate/one\b(?!/v1)"
    ):
        _load(tmp_path, None, "grpo_config.vllm={urls: ['http://gate/one/v1/']}")
    served = "reward_models.far={kind: served, url: 'http://a:8798/classify', model: m, path: rm}"
    with pytest.raises(ConfigError, match=r"write http://a:8798\b"):
        _load(tmp_path, None, served)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("refill=2", "refill=2: .* use refill=0 or max_staleness=0"),
        ("response_cache.share=0.5", r"response_cache\.share=0\.5: .* use share=0 or max_staleness=0"),
        ("top_p=0.9", r"top_p=0\.9 and top_k=0: .* use top_p=1 and top_k=0, or max_staleness=0"),
        ("top_k=5", r"top_p=1\.0 and top_k=5: .* use top_p=1 and top_k=0, or max_staleness=0"),
    ],
)
def test_what_is_written_ahead_does_not_go_with_what_the_step_before_decides(
    tmp_path: Path, setting: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=rf"vllm\.max_staleness=1 does not go with {remedy}"):
        _load(tmp_path, None, "grpo_config.vllm.max_staleness=1", f"grpo_config.{setting}")
    assert _load(tmp_path, None, "grpo_config.vllm.max_staleness=0", f"grpo_config.{setting}").grpo_config.vllm


def test_responses_are_at_most_one_step_old(tmp_path: Path) -> None:
    assert _load(tmp_path, None, "grpo_config.vllm.max_staleness=1").grpo_config.vllm.max_staleness == 1
    with pytest.raises(ConfigError, match="max_staleness"):
        _load(tmp_path, None, "grpo_config.vllm.max_staleness=2")


def test_an_adapter_is_not_carried_into_a_round_that_starts_anew(tmp_path: Path) -> None:
    anew, lora = "policy.start_from=given", "grpo_config.lora.between_rounds"
    with pytest.raises(
        ConfigError, match=r"start_from=given .*between_rounds=carry_on has no adapter .* use between_rounds=merge"
    ):
        _load(tmp_path, None, anew, f"{lora}=carry_on")
    assert _load(tmp_path, None, anew, f"{lora}=merge").policy.start_from == "given"
    assert _load(tmp_path, None, f"{lora}=carry_on").policy.start_from == "champion"


def test_only_the_policy_says_what_rounds_start_from(tmp_path: Path) -> None:
    """A reward model has a `start_from` of its own, beside its backbone."""
    model = "reward_models={taste: {kind: trained, labeler: {kind: outcome, reward: right}, backbone: {path: m, start_from: given}}}"
    with pytest.raises(ConfigError, match=r"reward_models\.taste.*backbone\.start_from"):
        _load(tmp_path, None, model, "rewards.0.weight=1")

"""Addresses of a configuration hold no credentials."""

import json
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.reader import load_config, parse_stored_config
from tests.paths import TINY

SECRETS = ("hunter2", "s3cr3t")


def judge(base_url: str) -> str:
    block = {"name": "kind", "kind": "judge", "base_url": base_url, "model": "m", "rubric": "r.md"}
    return f"evaluation.rewards={json.dumps([block])}"


@pytest.mark.parametrize(
    "address",
    [
        "http://anna:hunter2@127.0.0.1:8000/v1",
        "https://hunter2@judge.example/v1",
        "https://:hunter2@judge.example/v1",
        "https://judge.example/v1?api_key=hunter2",
        "https://judge.example/v1?model=m&X-Access-Token=hunter2",
        "https://judge.example/v1?x=hunter2",
        "https://judge.example/v1#hunter2",
        "ftp://anna:hunter2@judge.example/v1",
        "http://anna:hunter2@[judge/v1",
    ],
)
def test_a_judges_address_with_a_credential_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation\.rewards\.0\.base_url: the address has .* api_key_env"
    ) as refused:
        load_config(TINY, [judge(address)])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["http://anna:hunter2@127.0.0.1:8000", "https://rm.example?x=hunter2"])
def test_so_is_that_of_a_served_reward_model(address: str) -> None:
    block = {"kind": "served", "url": address, "model": "m", "path": "rm"}
    with pytest.raises(
        ConfigError,
        match=r"reward_models\.taste\.url: the address has .*variable: api_key_env: REWARD_MODEL_KEY",
    ) as refused:
        load_config(TINY, [f"reward_models.taste={json.dumps(block)}"])
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        "grpo_config.vllm={urls: ['http://anna:s3cr3t@localhost:8000']}",
        "policy={path: 'https://models.example/m.gguf?token=s3cr3t'}",
        "problems.sources=[{path: 's3://anna:s3cr3t@bucket/rows.jsonl'}]",
        "problems.sources=[{path: 'https://bucket.example/rows.jsonl?X-Amz-Signature=s3cr3t&X-Amz-Expires=60'}]",
        "problems.sources=[{path: 'https://store.example/rows.jsonl?sv=1&sig=s3cr3t'}]",
        "unknown={address: 'postgresql://anna:s3cr3t@localhost/db'}",
    ],
)
def test_so_is_any_other(override: str) -> None:
    with pytest.raises(ConfigError, match=r"the address has (a user name or password|the query parameter)") as refused:
        load_config(TINY, [override])
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8000/v1", "https://judge.example/v1/", "http://[::1]:8000/v1", "https://h/a@b/v1"]
)
def test_an_address_without_a_credential_is_taken(address: str) -> None:
    assert load_config(TINY, [judge(address)]).evaluation.rewards[0].name == "kind"


def test_a_text_that_speaks_of_an_address_is_no_address() -> None:
    text = "Write to https://anna:pass@host.example and wait."
    assert load_config(TINY, [f"problems.system={json.dumps(text)}"]).problems.system == text


def test_a_run_that_was_begun_with_one_can_still_be_read() -> None:
    stored: dict[str, Any] = load_config(TINY, [judge("http://h/v1")]).model_dump(mode="json")
    stored["evaluation"]["rewards"][0]["base_url"] = "http://anna:hunter2@h/v1"
    assert parse_stored_config(stored, "tiny").run_name == "tiny"

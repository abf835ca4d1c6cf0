"""Checks of model, launcher, vLLM server, batches, splits and preference pairs, one function each.

Each returns `Finding`s: what it found and, for a warning or failure, the remedy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import PeopleLabeler, TrainedRewardModel
from grpo_train.sampling.vllm_engine import VllmEngine
from grpo_train.trainer import num_steps
from reward_training.preferences.reading import read_preferences, told
from reward_training.transformer.precision import pick_device

VLLM_TIMEOUT_S = 5.0
MANY_COPIES = 0.05
"""share of the training problems that are copies of held-out ones, over which it is warned of"""
SMALL_SPLIT = 64
"""with fewer problems the 95% interval of an accuracy near one half is wider than 0.12 to each side"""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


# ---- model ----------------------------------------------------------------------------------------------------------


def check_model(folder: Path) -> Finding:
    """Whether the model configuration can be read, with the type and size of the model."""
    try:
        settings = AutoConfig.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        return Finding("model", "fail", str(error), "save the model with save_pretrained")
    millions = num_parameters(folder) / 1e6
    return Finding("model", "ok", f"{folder.name}: {settings.model_type}, {millions:,.1f} M parameters")


def num_parameters(folder: Path) -> int:
    """Number of parameters in the folder's safetensors files, read from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as weights:
            total += sum(torch.Size(weights.get_slice(key).get_shape()).numel() for key in weights.keys())  # noqa: SIM118
    return total


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    yield Finding("tokenizer", "ok", f"{len(tokenizer):,} tokens, ends with {tokenizer.eos_token!r}")
    if tokenizer.chat_template is None:
        remedy = "use an instruction-tuned model, or put the turns into problems.template"
        yield Finding("chat template", "warn", "none: prompts are plain text", remedy)
    else:
        yield Finding("chat template", "ok", "there")


# ---- training and data ----------------------------------------------------------------------------------------------


def check_launcher(config: Config) -> Iterator[Finding]:
    """A failure if `launcher.config_file` names a file that does not exist."""
    file = config.launcher.config_file
    if file is not None and not Path(file).is_file():
        yield Finding(
            "launcher", "fail", f"no file {file}", "write it with `accelerate config`, or drop launcher.config_file"
        )


def check_vllm(config: Config) -> Iterator[Finding]:
    """Whether the vLLM server answers and can be sent weights; nothing without `grpo_config.vllm`."""
    if config.grpo_config.vllm is None:
        return
    if pick_device().type != "cuda":
        yield Finding(
            "vllm", "fail", "its weights are sent over NCCL, and the trainer has no GPU", "drop grpo_config.vllm"
        )
        return
    settings = config.grpo_config.vllm.model_copy(update={"connection_timeout_s": VLLM_TIMEOUT_S})
    try:
        VllmEngine(settings, set())
    except ConfigError as error:
        yield Finding("vllm", "fail", str(error), "start the server before the run: docs/choosing.md says how")
    else:
        yield Finding("vllm", "ok", f"{settings.base_url} answers")


def check_batches(config: Config, num_train: int) -> Finding:
    """Whether there are enough problems for one batch, and how many updates a round makes."""
    grpo = config.grpo_config
    per_batch = grpo.batch_size // grpo.group_size
    if num_train < per_batch:
        detail = f"a batch asks {per_batch} problems (batch_size / group_size) and {num_train} are left to train on"
        return Finding("batches", "fail", detail, "lower grpo_config.batch_size, or add problems")
    updates = num_steps(grpo, num_train) * grpo.updates_per_batch
    passes = num_steps(grpo, num_train) * per_batch / num_train
    detail = (
        f"{updates} updates a round on {per_batch} problems x {grpo.group_size}; {passes:.2f} of {num_train} problems"
    )
    return Finding("batches", "ok", detail)


def check_splits(config: Config, counts: dict[str, int]) -> Iterator[Finding]:
    sizes = ", ".join(f"{name} {counts[name]}" for name in ("train", "dev", "test"))
    shards = f"{config.rounds + 1} shards of {config.regeneration.num_problems}"
    names = ("duplicates", "overlong", "empty", "unmatched", "overlap_exact", "overlap_ngram")
    dropped = ", ".join(f"{name} {counts[name]}" for name in names if counts[name]) or "nothing"
    yield Finding("problems", "ok", f"{sizes}, {shards}; left out: {dropped}")
    copies = counts["overlap_exact"] + counts["overlap_ngram"]
    if copies > MANY_COPIES * (copies + counts["train"]):
        detail = f"{copies} training problems equal one of dev or test, or are near copies, and are left out"
        remedy = (
            "if the sources are not meant to overlap, mend their split; problems.overlap.action=refuse shows an example"
        )
        yield Finding("overlap", "warn", detail, remedy)
    if counts["damaged"]:
        detail = f"{counts['damaged']} questions have U+FFFD in the place of a character that could not be read"
        yield Finding(
            "damaged problems", "warn", detail, "mend the file: half of an escaped pair (\\ud83d), or an encoding"
        )
    for name in ("dev", "test"):
        if counts[name] < SMALL_SPLIT:
            detail = f"{counts[name]} problems tell an accuracy to within {0.98 / counts[name] ** 0.5:.2f} only"
            yield Finding(f"split {name}", "warn", detail, f"raise problems.{name} for figures that mean something")


def check_pairs(config: Config) -> Iterator[Finding]:
    """Whether regeneration, or the labeler's file, can give `min_pairs` training pairs to each reward model."""
    for name, model in config.trained_reward_models.items():
        if isinstance(model.labeler, FileLabeler):
            yield _check_preferences(name, model, model.labeler)
            continue
        num_available = config.regeneration.num_problems * model.pairs_per_problem
        source = "regeneration.num_problems"
        if isinstance(model.labeler, PeopleLabeler) and model.labeler.otherwise is None:
            num_available, source = (
                min(num_available, model.labeler.num_items),
                f"reward_models.{name}.labeler.num_items, or set its otherwise",
            )
        num_available = int(num_available * (1 - model.held_out_share))
        title = f"reward model {name}"
        num_pairs = min(num_available, model.max_pairs)
        if num_pairs < model.min_pairs:
            detail = f"min_pairs={model.min_pairs}, but a round gives at most {num_pairs} training pairs"
            yield Finding(title, "fail", detail, f"lower reward_models.{name}.min_pairs or raise {source}")
        else:
            yield Finding(title, "ok", f"at most {num_pairs} training pairs a round")


def _check_preferences(name: str, model: TrainedRewardModel, labeler: FileLabeler) -> Finding:
    title = f"reward model {name}"
    try:
        read = read_preferences(labeler, name=name, config=model, round_index=0)
    except ConfigError as error:
        return Finding(title, "fail", str(error))
    num_train = sum(pair.split == "train" for pair in read.pairs)
    too_few = f", under min_pairs={model.min_pairs}" if num_train < model.min_pairs else ""
    detail = (
        f"{labeler.path}: {num_train} training and {len(read.pairs) - num_train} held-out pairs{too_few}, "
        f"from {read.num_rows} rows; left out: {told(read.left_out) or 'nothing'}"
    )
    if too_few:
        return Finding(title, "fail", detail, "add pairs, or lower min_pairs")
    if "contradicting" in read.left_out:
        remedy = "the majority of such labels is used, or none; check how the file was labelled"
        return Finding(title, "warn", detail, remedy)
    return Finding(title, "ok", detail)

"""Checks of model, launcher, batches, splits and preference pairs, one function each.

Each returns `Finding`s: what it found and, for a warning or failure, the remedy.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerBase

from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.methods.method import BestOfNMethod, PairMethod
from configs.schema.methods.unread import sizes_not_read
from configs.schema.preferences import FileLabeler
from configs.schema.reward_models import PeopleLabeler, TrainedRewardModel
from grpo_train.policies.model import check_policy
from grpo_train.policies.model_source import policy_folder
from grpo_train.problems.left_out import REASONS, missing
from grpo_train.problems.splits import ProblemSet
from grpo_train.trainer import num_steps
from reward_training.preferences.reading import read_preferences, told
from tasks.alerting.receivers import fault_of, receiver_of
from tasks.running.accelerate_file import not_done
from tasks.running.machines import interface_towards, is_of_this_machine
from tasks.runs.workspace import models_folder

LEFT_OUT = "problems left out"
"""name of a finding that the stage which makes the problems tells too"""
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
    """Whether the model's files are whole and fit its tokenizer, with its type and size."""
    try:
        settings = check_policy(folder)
    except ConfigError as error:
        return Finding("model", "fail", str(error))
    millions = num_parameters(folder) / 1e6
    return Finding("model", "ok", f"{folder.name}: {settings.model_type}, {millions:,.1f} M parameters")


def num_parameters(folder: Path) -> int:
    """Number of parameters in the folder's safetensors files, read from their headers."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), framework="pt") as weights:
            total += sum(torch.Size(weights.get_slice(key).get_shape()).numel() for key in weights.keys())  # noqa: SIM118
    return total


def reward_model_folder(config: Config, name: str, policy: Path) -> Path:
    """Where a reward model lies that is not trained here, or what a trained one begins from; it may not be there yet."""
    model = config.reward_models[name]
    if not isinstance(model, TrainedRewardModel):
        return Path(model.path)
    return policy if model.backbone is None else policy_folder(model.backbone, models_folder(Path.cwd()))


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Iterator[Finding]:
    yield Finding("tokenizer", "ok", f"{len(tokenizer):,} tokens, ends with {tokenizer.eos_token!r}")
    if tokenizer.chat_template is None:
        remedy = "use an instruction-tuned model, or put the turns into problems.template"
        yield Finding("chat template", "warn", "none: prompts are plain text", remedy)
    else:
        yield Finding("chat template", "ok", "there")


# ---- training and data ----------------------------------------------------------------------------------------------


def check_launcher(config: Config) -> Iterator[Finding]:
    """A failure if `launcher.config_file` names a file that does not exist, or the rendezvous an address that others do not
    reach; a warning if that is another machine's."""
    launcher = config.launcher
    if launcher.rendezvous is not None:
        try:
            interface_towards(launcher.rendezvous)
        except ConfigError as error:
            what, _, remedy = str(error).partition("; ")
            yield Finding("launcher", "fail", what, remedy or "name the machine as the others reach it")
        else:
            if not is_of_this_machine(launcher.rendezvous):
                what = f"launcher.rendezvous={launcher.rendezvous!r} is none of this machine's addresses"
                yield Finding("launcher", "warn", what, "name the machine on which `regroup run` works")
    file = launcher.config_file
    if file is not None and not Path(file).is_file():
        yield Finding(
            "launcher", "fail", f"no file {file}", "write it with `accelerate config`, or drop launcher.config_file"
        )
    elif file is not None and (fault := not_done(Path(file), launcher.num_processes)) is not None:
        what, _, remedy = fault.partition("; ")
        yield Finding("launcher", "fail", f"launcher.config_file={file} {what}", remedy)


def check_alerts(config: Config) -> Iterator[Finding]:
    """A failure for each receiver of alerts that can never be told."""
    for receiver in dict.fromkeys(map(receiver_of, config.alerts)):
        if (fault := fault_of(receiver)) is not None:
            what, _, remedy = fault.partition("; ")
            yield Finding("alerts", "fail", what, remedy)
        else:
            yield Finding("alerts", "ok", f"{receiver}; `regroup alerts CONFIG --test` tries it")


def check_batches(config: Config, num_train: int) -> Finding:
    """Whether there are enough problems for one batch, and how many updates a round makes."""
    if isinstance(config.method, PairMethod):
        return _check_pairs(config.method, config.regeneration.num_problems)
    grpo = config.grpo_config
    per_batch = grpo.batch_size // grpo.group_size
    if num_train < per_batch:
        detail = f"a batch asks {per_batch} problems (batch_size / group_size) and {num_train} are left to train on"
        return Finding("batches", "fail", detail, "lower grpo_config.batch_size, or add problems")
    if isinstance(config.method, BestOfNMethod) and config.method.mode == "offline":
        return _check_kept(
            config.method, num_asked=min(num_steps(grpo, num_train) * per_batch, num_train), per_batch=per_batch
        )
    updates = num_steps(grpo, num_train) * grpo.updates_per_batch
    passes = num_steps(grpo, num_train) * per_batch / num_train
    detail = (
        f"{updates} updates a round on {per_batch} problems x {grpo.group_size}; {passes:.2f} of {num_train} problems"
    )
    return Finding("batches", "ok", detail)


def _check_kept(method: BestOfNMethod, *, num_asked: int, per_batch: int) -> Finding:
    """One response to a problem is kept at most."""
    updates = math.ceil(method.epochs * num_asked / per_batch)
    detail = f"at most {num_asked} responses are kept, one of each problem, for {updates} updates a round"
    return Finding("batches", "ok", detail)


def _check_pairs(method: PairMethod, num_problems: int) -> Finding:
    """Dead groups make no pair, so there are as many updates at most."""
    most = method.pairs_per_problem * num_problems
    updates = math.ceil(method.epochs * most / method.batch_size)
    detail = (
        f"at most {most} pairs of {num_problems} problems and {updates} updates a round; under {method.min_pairs} pairs the "
        "champion stays"
    )
    return Finding("batches", "ok", detail)


def check_sizes(config: Config) -> Iterator[Finding]:
    """What the method does not read of the sizes that other methods are given."""
    if unread := sizes_not_read(config):
        told = ", ".join(f"{name}={value}" for name, value in unread.items())
        yield Finding(
            "method", "ok", f"{config.method.kind} does not read grpo_config's {told}: it has settings of its own"
        )


def check_splits(config: Config, problems: ProblemSet) -> Iterator[Finding]:
    """The sizes of the splits, and what is not in them."""
    counts = problems.counts
    sizes = ", ".join(f"{name} {counts[name]}" for name in ("train", "dev", "test"))
    shards = f"{config.rounds + 1} shards of {config.regeneration.num_problems}"
    names = ("duplicates", *REASONS, "overlap_exact", "overlap_ngram")
    dropped = ", ".join(f"{name} {counts[name]}" for name in names if counts[name]) or "nothing"
    yield Finding("problems", "ok", f"{sizes}, {shards}; left out: {dropped}")
    if said := missing(counts, problems.examples):
        yield Finding(LEFT_OUT, "warn", said, "docs/data.md, What is left out, says when rows are")
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

"""Checks whether memory and disk suffice for a run."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, PretrainedConfig

from configs.errors import ConfigError
from configs.schema.config import Config
from configs.schema.methods.method import OF_POLICY, PpoMethod, is_offline
from configs.schema.reward_models import ServedRewardModel
from configs.schema.rewards import ModelRewardConfig
from flows.doctor.checks import Finding, num_parameters, reward_model_folder
from grpo_train.policies.model_source import is_model_folder
from reward_training.reward_models.heads import causal_class
from reward_training.transformer.loading.weights import read_config
from reward_training.transformer.lora import try_lora
from reward_training.transformer.precision import autocast_dtype, pick_device
from reward_training.transformer.token_logprobs import CHUNK
from reward_training.transformer.vocabulary_parallel.splitting import is_by_vocabulary

GB = 1e9
TRAINING_BYTES = 16
"""per parameter: weight, gradient and two moments of AdamW, float32 each"""
WEIGHT_BYTES = 4
"""per parameter that has no gradient, as those beside an adapter: float32 weight"""
SAVED_BYTES = 4
"""per parameter of a saved model: float32 weight"""
MOMENTS_BYTES = 8
"""per parameter of a checkpoint that has a gradient: two moments of AdamW, float32 each"""
SCORING_BYTES = 4
"""per parameter of a reward model: float32 weight"""
GATHERED_COPIES = 2
"""of a weight that is gathered: itself and its gradient, in the precision of the arithmetic"""
LOGIT_COPIES = 3
"""float32 arrays of the size of a chunk of logits that a backward pass holds: product, float32 copy, gradient"""
ACTIVATION_BYTES = 34
"""per token, layer and unit of hidden width, at two bytes per number (arXiv 2205.05198, section 4.1, without the
attention scores)"""


def check_memory(config: Config, folder: Path) -> Finding:
    """A failure if training needs more than the device's memory, a warning if it needs more than is free now."""
    device = pick_device()
    settings = AutoConfig.from_pretrained(str(folder))
    low_precision = autocast_dtype(config.grpo_config.precision, device) is not None
    reward_models, elsewhere = _reward_models(config, folder)
    by_purpose = memory_needed(
        config,
        num_parameters(folder),
        settings,
        reward_models,
        low_precision=low_precision,
        num_trained=_num_trained(config, folder),
        num_of_value_model=_num_of_value_model(config, folder),
    )
    needed = sum(by_purpose.values())
    available, total = _memory(device)
    detail = f"about {needed / GB:.1f} GB to train on {device.type}"
    detail += f" without the reward models {elsewhere}, which are not here" if elsewhere else ""
    detail += f"; {available / GB:.1f} of {total / GB:.1f} GB are free"
    remedy = "lower grpo_config.micro_batch_tokens, generation_rows or max_response_length, or take a smaller model"
    if needed > total:
        return Finding("memory", "fail", detail, remedy)
    return Finding("memory", "warn" if needed > available else "ok", detail, remedy if needed > available else "")


def _reward_models(config: Config, policy: Path) -> tuple[list[tuple[int, PretrainedConfig]], list[str]]:
    """Parameters and configuration of each reward model that a rank holds while the policy is trained, and the names of those
    that cannot be read."""
    known, unknown = [], []
    for name in sorted({reward.model for reward in config.rewards if isinstance(reward, ModelRewardConfig)}):
        if isinstance(config.reward_models[name], ServedRewardModel):
            continue
        try:
            here = reward_model_folder(config, name, policy)
            if is_model_folder(here):
                known.append((num_parameters(here), AutoConfig.from_pretrained(str(here))))
                continue
        except (OSError, ValueError, SafetensorError):
            pass  # check_rewards tells it
        unknown.append(name)
    return known, unknown


def _num_trained(config: Config, policy: Path) -> int:
    """Number of parameters that have a gradient: those of the adapter, or all."""
    lora = config.grpo_config.lora
    if lora is None:
        return num_parameters(policy)
    try:
        settings = read_config(policy, field="grpo_config.lora", noun="model")
        return try_lora(causal_class(settings), settings, lora, "CAUSAL_LM", "grpo_config.lora")
    except ConfigError:
        return num_parameters(policy)  # check_adapters tells it


def _num_of_value_model(config: Config, policy: Path) -> int:
    """Number of parameters of the value model; 0 for a method without one. Of a reward model that cannot be read it is the
    policy's."""
    if not isinstance(config.method, PpoMethod):
        return 0
    if config.method.value_model == OF_POLICY:
        return num_parameters(policy)
    try:
        return num_parameters(reward_model_folder(config, config.method.value_model, policy)) or num_parameters(policy)
    except (OSError, ValueError, SafetensorError):
        return num_parameters(policy)  # check_rewards tells it


def memory_needed(
    config: Config,
    num_parameters: int,
    settings: PretrainedConfig,
    reward_models: Sequence[tuple[int, PretrainedConfig]] = (),
    *,
    low_precision: bool,
    num_trained: int | None = None,
    num_of_value_model: int = 0,
) -> dict[str, float]:
    """Bytes that training needs, of each rank, by purpose: training state, that of a value model, copies for sampling and KL, reward
    models, weights that a sharded model gathers at once, KV cache, activations, logits.

    Args:
        reward_models: (number of parameters, configuration) of each reward model that scores.
        num_trained: number of parameters that have a gradient; default: all. An adapter's are beside the model's own.
        num_of_value_model: number of parameters of the value model; 0 without one.
    """
    grpo = config.grpo_config
    text: Any = settings.get_text_config()
    width = 2 if low_precision else 4
    num_frozen = 0 if is_offline(config.method) else int(grpo.kl_coefficient > 0) + int(grpo.monitor_kl_every > 0)
    ranks = config.launcher.num_processes if config.launcher.shard else 1
    split = ranks > 1
    num_copies = num_frozen + int(low_precision and not split)
    tokens = config.problems.max_prompt_length + grpo.max_response_length
    layers, hidden = text.num_hidden_layers, text.hidden_size
    rows = min(grpo.generation_rows, grpo.batch_size)
    pass_tokens = max(grpo.micro_batch_tokens, tokens)
    gathered = {"gathered": _gathered(settings, num_parameters, width, ranks, reward_models)} if split else {}
    value_model = {"value_model": float(TRAINING_BYTES * num_of_value_model)} if num_of_value_model else {}
    return (
        gathered
        | value_model
        | {
            "training": _training(num_parameters, num_trained, ranks),
            "copies": float(width * num_parameters * num_copies / ranks),
            "reward_models": float(SCORING_BYTES * sum(num_weights for num_weights, _ in reward_models) / ranks),
            "cache": float(2 * layers * _key_width(text) * rows * tokens * width),
            "activations": float(ACTIVATION_BYTES * pass_tokens * hidden * layers * width / 2),
            "logits": float(LOGIT_COPIES * CHUNK * text.vocab_size * 4),
        }
    )


def _training(num_parameters: int, num_trained: int | None, ranks: int) -> float:
    """Bytes of weights, gradients and moments of a rank."""
    if num_trained is None or num_trained == num_parameters:
        return float(TRAINING_BYTES * num_parameters / ranks)
    return WEIGHT_BYTES * num_parameters / ranks + TRAINING_BYTES * num_trained


def _gathered(
    settings: PretrainedConfig,
    num_parameters: int,
    width: int,
    ranks: int,
    reward_models: Sequence[tuple[int, PretrainedConfig]],
) -> float:
    """Bytes of what a rank gathers of policy or reward models, which do not compute at the same time."""
    text: Any = settings.get_text_config()
    tables, layers = _num_gathered(text, num_parameters, num_tables=1 if text.tie_word_embeddings else 2)
    if is_by_vocabulary(settings):  # never whole: the part's low-precision copy, and a gradient beside its sum
        of_tables = (4 + (width if width < 4 else 0)) * tables / ranks
    else:
        of_tables = GATHERED_COPIES * width * tables
    of_scoring = [sum(_num_gathered(model.get_text_config(), number, num_tables=1)) for number, model in reward_models]
    return max([of_tables + GATHERED_COPIES * width * layers, *(SCORING_BYTES * number for number in of_scoring)])


def _num_gathered(text: Any, num_parameters: int, num_tables: int) -> tuple[float, float]:
    """Numbers of weights that a rank of a sharded model holds whole at once: in `num_tables` of embedding and head, and in two
    layers, of which the second is on its way."""
    tables = text.vocab_size * text.hidden_size * num_tables
    return float(tables), 2 * max(num_parameters - tables, 0) / text.num_hidden_layers


def _key_width(text: Any) -> int:
    """Numbers in a layer's key of one token; 0 for a model without attention, whose state does not grow."""
    heads: int | None = getattr(text, "num_attention_heads", None)
    if not isinstance(heads, int):
        return 0
    num_keys = getattr(text, "num_key_value_heads", None)
    head_width: int = getattr(text, "head_dim", None) or text.hidden_size // heads
    return (num_keys if isinstance(num_keys, int) and num_keys > 0 else heads) * head_width


def _memory(device: torch.device) -> tuple[float, float]:
    """(free, total) bytes of the device; on a CPU within the memory limit of the control group, if it has one."""
    if device.type == "cuda":
        on_device: tuple[int, int] = torch.cuda.mem_get_info(device)
        return float(on_device[0]), float(on_device[1])
    memory = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    total = float(memory.total) if text == "max" else min(float(text), float(memory.total))
    return min(float(memory.available), total), total


def check_disk(config: Config, folder: Path, workspace: Path) -> Finding:
    """A failure if the models and checkpoints of the run need more than the free disk space."""
    num_models = config.max_rounds * (1 + len(config.trained_reward_models)) + 1 + (config.cold_start is not None)
    save_steps = [config.grpo_config.save_steps, *(model.save_steps for model in config.trained_reward_models.values())]
    # while a new checkpoint is written there is one more than is kept
    num_checkpoints = config.keep_checkpoints + 1 if any(save_steps) else 0
    checkpoint = _checkpoint_bytes(config, folder)
    needed = num_models * SAVED_BYTES * num_parameters(folder) + num_checkpoints * checkpoint
    free = shutil.disk_usage(workspace).free
    what = f"{num_models} models and {num_checkpoints} checkpoints"
    detail = f"about {needed / GB:.2f} GB for {what}; {free / GB:.1f} GB are free"
    if needed > free:
        return Finding("disk", "fail", detail, "free space, lower rounds, or work in a folder on another disk")
    return Finding("disk", "ok", detail)


def check_disk_of_runs(configs: Sequence[Config], folder: Path, workspace: Path) -> Finding:
    """A failure if the models that the runs of a comparison keep need more than the free disk space."""
    num_models = sum(_models_kept(config) for config in configs)
    needed, free = num_models * SAVED_BYTES * num_parameters(folder), shutil.disk_usage(workspace).free
    detail = f"about {needed / GB:.2f} GB for the {num_models} models that {len(configs)} runs keep; {free / GB:.1f} GB are free"
    if needed > free:
        remedy = "free space, name fewer methods, seeds or factors, or work in a folder on another disk"
        if any(config.run.keep_rounds is None and config.max_rounds > 1 for config in configs):
            remedy += "; run.keep_rounds: 1 keeps the last round of each run alone"
        return Finding("disk of the runs", "fail", detail, remedy)
    return Finding("disk of the runs", "ok", detail)


def _models_kept(config: Config) -> int:
    num_rounds = min(config.max_rounds, config.run.keep_rounds or config.max_rounds)
    return num_rounds * (1 + len(config.trained_reward_models)) + (config.cold_start is not None)


def _checkpoint_bytes(config: Config, folder: Path) -> int:
    """Bytes of the largest checkpoint of any stage. The loop saves an adapter alone; TRL's trainers save the whole model beside an
    adapter's optimizer."""
    num_trained = _num_trained(config, folder)
    by_trl = is_offline(config.method) or config.cold_start is not None
    num_saved = num_parameters(folder) if by_trl else num_trained
    num_of_value_model = _num_of_value_model(config, folder)
    of_policy = SAVED_BYTES * (num_saved + num_of_value_model) + MOMENTS_BYTES * (num_trained + num_of_value_model)
    whole = [model for model in config.trained_reward_models.values() if model.lora is None]
    of_reward_model = SAVED_BYTES * num_parameters(folder) + MOMENTS_BYTES * (num_parameters(folder) if whole else 0)
    return max(of_policy, of_reward_model if config.trained_reward_models else 0)

"""Checks whether memory and disk suffice for a run."""

import shutil
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoConfig, PretrainedConfig

from configs.schema.config import Config
from flows.doctor.checks import Finding, num_parameters
from reward_training.transformer.precision import autocast_dtype, pick_device
from reward_training.transformer.token_logprobs import CHUNK

GB = 1e9
TRAINING_BYTES = 16
"""per parameter: weight, gradient and two moments of AdamW, float32 each"""
SAVED_BYTES = 4
"""per parameter of a saved model: float32 weight"""
CHECKPOINT_BYTES = 12
"""per parameter of a checkpoint: weight and two moments of AdamW, float32 each"""
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
    needed = sum(memory_needed(config, num_parameters(folder), settings, low_precision=low_precision).values())
    available, total = _memory(device)
    detail = (
        f"about {needed / GB:.1f} GB to train on {device.type}; {available / GB:.1f} of {total / GB:.1f} GB are free"
    )
    remedy = "lower grpo_config.micro_batch_tokens, generation_rows or max_response_length, or take a smaller model"
    if needed > total:
        return Finding("memory", "fail", detail, remedy)
    return Finding("memory", "warn" if needed > available else "ok", detail, remedy if needed > available else "")


def memory_needed(
    config: Config, num_parameters: int, settings: PretrainedConfig, *, low_precision: bool
) -> dict[str, float]:
    """Bytes that training needs, by purpose: training state, copies for sampling and KL, KV cache, activations,
    logits."""
    grpo = config.grpo_config
    text: Any = settings.get_text_config()
    width = 2 if low_precision else 4
    num_copies = int(low_precision) + int(grpo.kl_coefficient > 0) + int(grpo.monitor_kl_every > 0)
    tokens = config.problems.max_prompt_length + grpo.max_response_length
    layers, hidden = text.num_hidden_layers, text.hidden_size
    rows = min(grpo.generation_rows, grpo.batch_size)
    pass_tokens = max(grpo.micro_batch_tokens, tokens)
    return {
        "training": float(TRAINING_BYTES * num_parameters),
        "copies": float(width * num_parameters * num_copies),
        "cache": float(2 * layers * _key_width(text) * rows * tokens * width),
        "activations": float(ACTIVATION_BYTES * pass_tokens * hidden * layers * width / 2),
        "logits": float(LOGIT_COPIES * CHUNK * text.vocab_size * 4),
    }


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
    num_models = config.max_rounds * (1 + len(config.trained_reward_models)) + 1
    save_steps = [config.grpo_config.save_steps, *(model.save_steps for model in config.trained_reward_models.values())]
    # while a new checkpoint is written there is one more than is kept
    num_checkpoints = config.keep_checkpoints + 1 if any(save_steps) else 0
    needed = (num_models * SAVED_BYTES + num_checkpoints * CHECKPOINT_BYTES) * num_parameters(folder)
    free = shutil.disk_usage(workspace).free
    what = f"{num_models} models and {num_checkpoints} checkpoints"
    detail = f"about {needed / GB:.2f} GB for {what}; {free / GB:.1f} GB are free"
    if needed > free:
        return Finding("disk", "fail", detail, "free space, lower rounds, or work in a folder on another disk")
    return Finding("disk", "ok", detail)

"""What the methods share that train a policy by one of TRL's trainers, on samples that are there before training begins.

Rows are tokens as the policy wrote them, in an order that is drawn beforehand. Optimizer, schedule and precision are those of
the loop that samples; metrics, stops and checkpoints those of the reward models' training. Weights stay float32.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel, PrinterCallback, TrainerControl, TrainerState, TrainingArguments

from configs.disk.checkpoints import Checkpoints
from configs.errors import ConfigError, StageStopped
from configs.schema.grpo import GrpoConfig
from configs.seeds import rng_for, seed_for
from grpo_train.updating.schedule import learning_rates
from reward_training.reward_models.trainer import AsGiven, Hooks
from reward_training.transformer.precision import autocast_dtype, deterministic_kernels
from reward_training.transformer.quiet import quiet_transformers


@dataclass(frozen=True)
class Training:
    """Settings of one round's training, and what it reports to."""

    grpo: GrpoConfig
    seed: int
    round_index: int
    on_step: Callable[[int, dict[str, float]], None]
    """called with the step, from 1, and its metrics after each update"""
    should_stop: Callable[[], bool]
    should_end: Callable[[], bool] = lambda: False
    """asked after each update: whether training is over, with the policy as it is now"""
    checkpoints: Checkpoints | None = None

    def dtype(self, model: PreTrainedModel) -> torch.dtype | None:
        """The precision of products; None for float32."""
        return autocast_dtype(self.grpo.precision, model.device)


def in_epochs(num_samples: int, epochs: int, training: Training) -> list[int]:
    """The samples' indices in the order of training: each epoch has all of them in a new order."""
    rngs = [
        rng_for(training.seed, "order of samples", round_index=training.round_index, index=epoch)
        for epoch in range(epochs)
    ]
    return [int(i) for rng in rngs for i in rng.permutation(num_samples)]


def settings(
    training: Training, model: PreTrainedModel, *, learning_rate: float, batch_size: int, micro: int
) -> dict[str, Any]:
    """TRL's settings that all its trainers have; `micro` rows go through the model together."""
    return {
        "num_train_epochs": 1,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch_size // micro,
        "train_sampling_strategy": "sequential",
        "learning_rate": learning_rate,
        "max_grad_norm": training.grpo.max_grad_norm,
        "remove_unused_columns": False,
        "activation_checkpointing": training.grpo.activation_checkpointing,
        "gradient_checkpointing": training.grpo.activation_checkpointing,  # its old name, which TRL sets
        "bf16": False,  # the trainers apply autocast, also where TRL refuses bf16
        "use_cpu": model.device.type == "cpu",
        "dataloader_pin_memory": model.device.type == "cuda",
        "seed": seed_for(training.seed, "trainer", round_index=training.round_index) % 2**32,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # the hooks decide when
        "report_to": "none",
        "disable_tqdm": True,
    }


def fit(
    make: Callable[..., AsGiven],
    model: PreTrainedModel,
    training: Training,
    names: Mapping[str, str],
    *,
    learning_rate: float,
    num_updates: int,
) -> int:
    """Train `model` in place, from the newest checkpoint on; returns the number of updates.

    Args:
        make: makes the trainer, given model, optimizers, callbacks and `output_dir`.
        names: {TRL's name of a metric: ours}.
        num_updates: updates of the whole training.

    Raises:
        ConfigError: an adapter is on the output layer, which TRL's losses would read without it.
        StageStopped: `should_stop` was true at a step boundary; a checkpoint was saved there, given `checkpoints`.
        TrainingDiverged: loss or gradient became NaN or infinite.
    """
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):  # type: ignore[no-untyped-call]
        raise ConfigError(
            "grpo_config.lora.target_modules adapts the output layer, which this method cannot train; leave it out"
        )
    hooks = _Hooks(training, names)
    forward = model.forward
    with quiet_transformers(), tempfile.TemporaryDirectory() as scratch:
        optimizers = _optimizers(model, training.grpo, learning_rate, num_updates)
        trainer = make(model=model, optimizers=optimizers, callbacks=[hooks], output_dir=scratch)
        trainer.pop_callback(PrinterCallback)
        trainer.checkpoints = training.checkpoints
        try:
            with deterministic_kernels(training.grpo.deterministic):
                trainer.train(resume_from_checkpoint=trainer.newest_checkpoint())
        finally:
            model.forward = forward
            model.eval()  # type: ignore[no-untyped-call]
    if hooks.stopped_at is not None:
        raise StageStopped(f"stopped after step {hooks.stopped_at} of {num_updates}")
    return int(trainer.state.global_step)


class _Hooks(Hooks):
    """Ends training also where a step's metrics ask for it."""

    def __init__(self, training: Training, names: Mapping[str, str]) -> None:
        super().__init__(training.on_step, training.should_stop, training.checkpoints, names)
        self._should_end = training.should_end

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().on_log(args, state, control, logs, **kwargs)
        if self._should_end():
            control.should_training_stop = True
            control.should_save = False  # training would go on from it


def _optimizers(
    model: PreTrainedModel, grpo: GrpoConfig, learning_rate: float, num_updates: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad],
        lr=learning_rate,
        betas=grpo.adam_betas,
        weight_decay=grpo.weight_decay,
        fused=True,
    )
    return optimizer, learning_rates(optimizer, grpo.schedule, num_warmup=grpo.warmup_updates, num_updates=num_updates)


def num_updates(num_rows: int, batch_size: int) -> int:
    """The last update may have fewer rows."""
    return math.ceil(num_rows / batch_size)

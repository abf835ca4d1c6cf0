"""TRL's trainers for rows that are tokenized already, with our metrics, stops and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.reward_trainer import RewardTrainer

from configs.disk.checkpoints import Checkpoints
from configs.errors import TrainingDiverged

METRICS = {
    "loss": "reward_model/loss",
    "accuracy": "reward_model/accuracy",
    "margin": "reward_model/margin",
    "grad_norm": "reward_model/grad_norm",
    "learning_rate": "reward_model/learning_rate",
}
"""TRL's name of each metric, and ours"""


class Hooks(TrainerCallback):
    """Passes on the metrics of each step, and decides after each step whether to save a checkpoint or to stop."""

    def __init__(
        self,
        on_step: Callable[[int, dict[str, float]], None],
        should_stop: Callable[[], bool],
        checkpoints: Checkpoints | None,
        names: Mapping[str, str] = METRICS,
    ) -> None:
        """`names` are those of the metrics that are passed on: {TRL's: ours}."""
        self._names = names
        self._on_step = on_step
        self._should_stop = should_stop
        self.checkpoints = checkpoints
        self.stopped_at: int | None = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        metrics = {ours: float(logs[theirs]) for theirs, ours in self._names.items()}
        for key, value in metrics.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"{key} is {value} at step {state.global_step}; lower learning_rate={args.learning_rate}"
                )
        self._on_step(state.global_step, metrics)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        step = state.global_step
        if step == state.max_steps:
            return control
        if self._should_stop():
            self.stopped_at = step
            control.should_training_stop = True
        if self.checkpoints is not None:
            control.should_save = self.checkpoints.wanted(step) if self.stopped_at else self.checkpoints.due(step)
        return control


class AsGiven(Trainer):
    """A trainer that takes the rows as they are and in their order, and saves checkpoints with `Checkpoints`.

    It stands before one of TRL's trainers among the bases of a class.
    """

    checkpoints: Checkpoints | None = None

    def __init__(self, *, args: TrainingArguments, **given: Any) -> None:
        if args.n_gpu > 1:
            args._n_gpu = 1  # the model is on the first GPU, and TRL refuses several in one process
        super().__init__(args=args, **given)

    def newest_checkpoint(self) -> str | None:
        newest = self.checkpoints.newest() if self.checkpoints else None
        return str(newest[0] / f"checkpoint-{newest[1].step}") if newest else None

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        def write(folder: Path) -> None:
            self.args.output_dir = str(folder)
            super(AsGiven, self)._save_checkpoint(*args, **kwargs)

        assert self.checkpoints is not None, "the hooks ask for none without"
        self.checkpoints.save(self.state.global_step, write)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        """Send nothing."""


class MeanOverPairs(AsGiven):
    """A trainer of pairs whose loss and metrics are means over an update's pairs.

    TRL's are means over its micro-batches, so that each pair of a smaller one, as the last of a training may be, would count for
    more than the others.
    """

    COUNTED: ClassVar[str]
    """what of a micro-batch has an entry for each response"""
    MEANS: ClassVar[tuple[str, ...]]
    """TRL's names of the metrics that are means"""
    _metrics: Any
    """TRL's, of each micro-batch since it last reported"""

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        batches, num_items = super().get_batch_samples(*args, **kwargs)
        self.num_responses = sum(len(batch[self.COUNTED]) for batch in batches)
        return batches, num_items

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """TRL's, which is the mean over a micro-batch, times its share of the update's pairs in units of an equal share."""
        share = len(inputs[self.COUNTED]) * self.current_gradient_accumulation_steps / self.num_responses
        loss: Any = super().compute_loss(model, inputs, *args, **kwargs)
        for name in self.MEANS:
            self._metrics["train"][name][-1] *= share
        return share * loss


class PackedRewardTrainer(MeanOverPairs, RewardTrainer):
    """The trainer of reward models."""

    COUNTED = "lengths"
    MEANS = ("accuracy", "margin")

"""TRL's RewardTrainer for rows that are tokenized already, with our metrics, stops and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
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
    ) -> None:
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
        metrics = {ours: float(logs[theirs]) for theirs, ours in METRICS.items()}
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


class PackedRewardTrainer(RewardTrainer):
    """TRL's trainer that takes the rows as they are and in their order, and saves checkpoints with `Checkpoints`."""

    checkpoints: Checkpoints | None = None

    def newest_checkpoint(self) -> str | None:
        newest = self.checkpoints.newest() if self.checkpoints else None
        return str(newest[0] / f"checkpoint-{newest[1].step}") if newest else None

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        def write(folder: Path) -> None:
            self.args.output_dir = str(folder)
            super(PackedRewardTrainer, self)._save_checkpoint(*args, **kwargs)  # type: ignore[no-untyped-call]

        assert self.checkpoints is not None, "the hooks ask for none without"
        self.checkpoints.save(self.state.global_step, write)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _send_telemetry(self) -> None:
        """Send nothing."""

"""Best-of-N once a round (rejection sampling fine-tuning, arXiv 2304.06767 with one iteration): `best_of_n.py`, `mode: offline`.

Before training begins the round's policy writes `grpo_config.group_size` responses to as many problems as the loop that
samples would ask (`epochs`, `max_updates`, `batch_size`), each problem once. The best of each group that is over `min_score`
is kept, and TRL's SFTTrainer goes over what is kept `method.epochs` times: the mean of - log p over the tokens of an update's
responses, at temperature 1, with the learning rate of `grpo_config`. An update has as many responses as a step of the loop has
problems. Against the online form, all responses are those of the policy as it came in.

    method: {kind: best_of_n, mode: offline, min_score: 0.5}

`cold_start` trains by `imitate` too, on own samples or on demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from configs.records import Completion, Score
from configs.schema.methods.method import BestOfNMethod
from grpo_train.groups import alike, applies_matrix, parts_matrix
from grpo_train.methods.best_of_n import BestOfN
from grpo_train.methods.given_samples import Training, fit, in_epochs, num_updates, settings
from grpo_train.updating.advantages import Scored
from reward_training.reward_models.train import micro_batch_size
from reward_training.reward_models.trainer import AsGiven
from reward_training.weighing import Weighing

METRICS = {"loss": "policy/loss", "grad_norm": "policy/grad_norm", "learning_rate": "policy/learning_rate"}
"""TRL's name of each metric, and ours"""
IGNORED = -100
"""label of tokens that are not learned"""


class Imitated(Protocol):
    """A response that is learned: a `Completion` of a policy, or a demonstration."""

    @property
    def prompt_ids(self) -> list[int]: ...
    @property
    def token_ids(self) -> list[int]: ...


def best_of_groups(
    completions: Sequence[Completion],
    scores: Sequence[Score],
    *,
    method: BestOfNMethod,
    weighing: Weighing,
    objectives: Sequence[str],
    group_size: int,
) -> list[Completion]:
    """The best response of each group that has one over `min_score`, in the order of the groups."""
    names = [name for name in objectives if any(name in row.parts for row in scores)]
    parts, applies = parts_matrix(scores, names), applies_matrix(scores, names)
    weights, floors = weighing.columns(names)
    scored = Scored(parts, weights, floors, group_size, alike(applies, weights, group_size))
    kept = BestOfN(method).advantages(scored).values > 0
    return [completions[i] for i in np.flatnonzero(kept).tolist()]


def imitate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    kept: Sequence[Imitated],
    *,
    epochs: int,
    batch_size: int,
    training: Training,
) -> int:
    """Train `model` in place on the responses, `batch_size` of them an update; returns the number of updates.

    Raises:
        StageStopped: it was asked to stop at a step boundary; a checkpoint was saved there, given `training.checkpoints`.
        TrainingDiverged: loss or gradient became NaN or infinite.
    """
    rows = [_row(kept[i]) for i in in_epochs(len(kept), epochs, training)]
    longest = max(len(row["input_ids"]) for row in rows)
    micro = micro_batch_size(batch_size, longest, 2 * training.grpo.micro_batch_tokens)  # it counts two sequences a row
    rate = training.grpo.learning_rate
    common = settings(training, model, learning_rate=rate, batch_size=batch_size, micro=micro)

    def make(output_dir: str, **given: Any) -> ImitationTrainer:
        args = SFTConfig(
            output_dir=output_dir,
            **common,
            max_length=None,
            packing=False,
            router_aux_loss_coef=0.0,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        return ImitationTrainer(
            dtype=training.dtype(model),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            **given,
        )

    return fit(make, model, training, METRICS, learning_rate=rate, num_updates=num_updates(len(rows), batch_size))


def _row(completion: Imitated) -> dict[str, list[int]]:
    prompt, response = completion.prompt_ids, completion.token_ids
    return {"input_ids": prompt + response, "labels": [IGNORED] * len(prompt) + response}


class ImitationTrainer(AsGiven, SFTTrainer):
    """TRL's trainer of supervised fine-tuning, in our precision."""

    def __init__(self, *, dtype: torch.dtype | None, **given: Any) -> None:
        self.dtype = dtype
        super().__init__(**given)
        # the number of an update's tokens is for TRL's loss, whether or not the model could take it (Gemma 3n's does not)
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.args.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[no-untyped-call]
